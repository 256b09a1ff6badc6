"""A lab on machines that were there before: bare Debian in containers, reached by ssh alone.

With LABWRIGHT_TEST_MACHINES=12 there are twelve of them instead of three.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import Folder, make
from tests.machines import Machines, machines

pytestmark = pytest.mark.e2e

COUNT = int(os.environ.get("LABWRIGHT_TEST_MACHINES", "3"))
NODES = ["cp1", *(f"w{number}" for number in range(1, COUNT))]
LAST = NODES[-1]


@dataclass
class Park:
    """The machines, a folder with a lab.yaml that names them, and how they were before."""

    machines: Machines
    folder: Folder
    before: dict[str, dict[str, str]]

    def write(self, **raw: Any) -> None:
        path = self.folder.path / "lab.yaml"
        there = yaml.safe_load(path.read_text("utf-8"))
        path.write_text(yaml.safe_dump({**there, **raw}))

    def name(self, nodes: list[str]) -> None:
        self.write(machines={node: self.machines.addresses[node] for node in nodes})

    def untouched(self, nodes: list[str]) -> None:
        for node in nodes:
            now, before = self.machines.look(node), self.before[node]
            differs = [
                f"{node}, {what}: {line}"
                for what, text in before.items()
                for line in difflib.ndiff(text.splitlines(), now[what].splitlines())
                if line[:1] in {"+", "-"}
            ]
            assert not differs
            assert now == before


@pytest.fixture(scope="module")
def park(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Park]:
    folder = tmp_path_factory.mktemp("hosts")
    with machines(folder, NODES) as there:
        raw = {"provider": "hosts", "supply": "packages", "ssh": {"user": "vagrant", "key": "key"}}
        park = Park(there, make(folder, raw), {node: there.look(node) for node in NODES})
        park.name(NODES)
        yield park


def test_strange_machines_are_not_trusted(park: Park) -> None:
    refused = park.folder.invoke("lab.up", check=False)
    assert refused.code == 3
    for node in NODES:
        assert f"{node} {park.machines.addresses[node]} ssh-ed25519 SHA256:" in refused.out


def test_another_key_than_the_named_one_is_an_error(park: Park) -> None:
    wrong = {"address": park.machines.addresses["cp1"], "host_key": "SHA256:" + "A" * 43}
    park.write(machines={**park.machines.addresses, "cp1": wrong})
    refused = park.folder.invoke("lab.up", "--yes", check=False)
    assert refused.code == 3
    assert "machines.cp1: it shows the host key" in refused.out
    # Given as the line of a .pub file, it needs no question.
    named = {
        node: {"address": address, "host_key": park.machines.public_key(node)}
        for node, address in park.machines.addresses.items()
    }
    park.write(machines=named)
    assert "nobody has said" not in park.folder.invoke("lab.plan").out
    park.name(NODES)


def test_one_machine_with_leftovers_stops_all_of_it(park: Park) -> None:
    park.machines.shell(LAST, "mkdir /etc/kubernetes && touch /etc/kubernetes/kubelet.conf")
    park.machines.shell("cp1", "systemd-run --unit squatter python3 -m http.server 6443")
    refused = park.folder.invoke("lab.up", "--yes", check=False)
    park.machines.shell("cp1", "systemctl stop squatter")
    park.machines.shell(LAST, "rm -r /etc/kubernetes")
    assert refused.code == 3
    assert f"{LAST}: another cluster has left its traces" in refused.out
    assert "cp1: ports are taken: 6443 (python3)" in refused.out
    park.untouched(NODES)


def test_machines_become_a_cluster(park: Park) -> None:
    park.folder.invoke("lab.up", "--yes")
    names = park.folder.kubectl("get", "nodes", "-o", "name").split()
    assert sorted(names) == sorted(f"node/{node}" for node in NODES)
    assert not (park.folder.lab / "Vagrantfile").exists()
    state = json.loads(park.folder.invoke("lab.status", "--json").out)
    assert {node["machine"] for node in state["nodes"].values()} == {"running"}
    assert {node["kubernetes"] for node in state["nodes"].values()} == {"Ready"}
    assert park.folder.invoke("lab.ssh", LAST, "--command", "hostname").out.strip() == LAST


def test_a_second_up_changes_nothing(park: Park) -> None:
    park.folder.invoke("lab.up")
    done = [e for e in park.folder.events() if e["kind"] == "done" and e["phase"] == "converge"]
    assert done[-1]["text"] == "nothing to change"


def test_another_folder_s_lab_gets_none_of_them(park: Park, tmp_path: Path) -> None:
    raw = yaml.safe_load((park.folder.path / "lab.yaml").read_text("utf-8"))
    raw["ssh"]["key"] = str(park.machines.key)
    other = make(tmp_path, raw)
    refused = other.invoke("lab.up", "--yes", check=False)
    assert refused.code == 3
    assert f"it is cp1 of lab {park.folder.name}" in refused.out


def test_a_machine_that_shows_another_key_is_not_spoken_to(park: Park) -> None:
    known = park.folder.lab / "known_hosts"
    text = known.read_text("utf-8")
    own = next(line for line in text.splitlines() if line.startswith("cp1 "))
    strange = next(line for line in text.splitlines() if line.startswith(f"{LAST} "))
    known.write_text(text.replace(own, "cp1" + strange.removeprefix(LAST)))
    refused = park.folder.invoke("lab.up", "--yes", check=False)
    known.write_text(text)
    assert refused.code == 3
    assert "machines.cp1: it shows another host key than it had" in refused.out


def test_machines_are_not_halted(park: Park) -> None:
    refused = park.folder.invoke("lab.down", check=False)
    assert refused.code == 5
    assert "not Labwright's to halt" in refused.out


def test_a_worker_less_is_as_it_was_and_can_come_back(park: Park) -> None:
    park.name(NODES[:-1])
    refused = park.folder.invoke("lab.up", check=False)
    assert refused.code == 3
    assert f"{LAST} ({park.machines.addresses[LAST]}) would be reset" in refused.out
    park.folder.invoke("lab.up", "--yes")
    assert f"node/{LAST}" not in park.folder.kubectl("get", "nodes", "-o", "name").split()
    park.untouched([LAST])
    park.name(NODES)
    park.folder.invoke("lab.up", "--yes")
    assert f"node/{LAST}" in park.folder.kubectl("get", "nodes", "-o", "name").split()


def test_support_and_doctor_know_such_a_lab(park: Park, tmp_path: Path) -> None:
    said = park.folder.invoke("lab.support", "--to", str(tmp_path))
    assert f"nodes/{LAST}/kubelet.log" in said.out
    assert "Traceback" not in park.folder.invoke("lab.doctor", check=False).out


def test_destroy_asks_by_name_and_gives_machines_back(park: Park) -> None:
    refused = park.folder.invoke("lab.destroy", check=False)
    assert refused.code == 3
    for node in NODES:
        assert f"{node} ({park.machines.addresses[node]})" in refused.out
    park.folder.invoke("lab.destroy", "--yes")
    assert not park.folder.lab.exists()
    park.untouched(NODES)


def test_a_lab_behind_a_bastion(tmp_path: Path) -> None:
    with machines(tmp_path, ["cp1", "w1"], "192.168.61.0/24", jump=True) as there:
        hop = f"vagrant@{there.addresses.pop('jump')}"
        raw = {
            "provider": "hosts",
            "supply": "packages",
            "ssh": {"user": "vagrant", "key": "key", "bastion": hop},
            "machines": dict(there.addresses),
        }
        folder = make(tmp_path, raw)
        before = {node: there.look(node) for node in raw["machines"]}
        folder.invoke("lab.up", "--yes")
        assert folder.invoke("lab.ssh", "w1", "--command", "hostname").out.strip() == "w1"
        folder.invoke("lab.destroy", "--yes")
        assert {node: there.look(node) for node in before} == before
