"""A lab of two real machines through the same commands as any: up, again, halt, up, gone.

Where guests do not boot under KVM they are emulated: half an hour on two cores.
"""

from __future__ import annotations

import json
import platform
import secrets
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from labwright.tools import host
from labwright.tools.shell import Shell
from tests.e2e.conftest import Folder

pytestmark = pytest.mark.libvirt

# Two nodes of 2 and 1.5 GiB, with what qemu takes to emulate them.
MEMORY = 7000
MARK = "kept over a halt"


def virsh(*words: str) -> list[str]:
    """Give the lines of an answer; none where libvirt is not installed or does not run."""
    argv = ["virsh", "--quiet", "--connect", "qemu:///system", *words]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def domains() -> set[str]:
    return set(virsh("list", "--all", "--name"))


def networks() -> set[str]:
    return set(virsh("net-list", "--all", "--name"))


def volumes() -> set[str]:
    pools = virsh("pool-list", "--name")
    return {line.split()[0] for pool in pools for line in virsh("vol-list", pool)}


@pytest.fixture(scope="module")
def before() -> dict[str, set[str]]:
    """What there was of anybody's before the lab came."""
    return {"domains": domains(), "networks": networks(), "volumes": volumes()}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, before: dict[str, set[str]]) -> Iterator[Folder]:
    facts = host.facts(Shell())
    if platform.system() != "Linux" or facts.arch != "x86_64":
        pytest.skip("machines of libvirt need Linux on x86-64")
    if facts.memory < MEMORY:
        pytest.skip(f"two machines need {MEMORY} MiB here, and there are {facts.memory}")
    folder = Folder(tmp_path_factory.mktemp("two"), f"lv-{secrets.token_hex(3)}")
    raw = {"name": folder.name, "provider": "libvirt", "supply": "packages", "workers": 1}
    (folder.path / "lab.yaml").write_text(yaml.safe_dump({**raw, "addons": ["dns"]}))
    try:
        folder.invoke("lab.up", "--yes")
        yield folder
    finally:
        folder.invoke("lab.destroy", "--yes", check=False)


def plan(folder: Folder) -> Any:
    return json.loads((folder.lab / "plan.json").read_text("utf-8"))


def on(folder: Folder, node: str, command: str) -> str:
    words = ["lab.ssh", f"--node={node}", f"--command={command}"]
    return folder.invoke(*words).out.strip()


def boots(folder: Folder) -> dict[str, str]:
    """Give each node's boot as its kubelet told it to the API."""
    items = json.loads(folder.kubectl("get", "nodes", "-o", "json"))["items"]
    return {item["metadata"]["name"]: item["status"]["nodeInfo"]["bootID"] for item in items}


def verified(folder: Folder) -> set[str]:
    """Give the names of the checks that passed; a lab.up with one that failed has ended badly."""
    report = ET.parse(folder.lab / "report" / "verify.xml")  # noqa: S314 - our own checks wrote it
    cases = report.getroot().iter("testcase")
    return {case.get("name", "") for case in cases if not len(case)}


def test_each_node_is_a_machine_of_its_own(two: Folder) -> None:
    facts = plan(two)["facts"]
    for node in ("cp1", "w1"):
        name = f"labwright-{two.name}-{node}"
        assert name in domains()
        text = "\n".join(virsh("dumpxml", name))
        tree = ET.fromstring(text)  # noqa: S314 - the words of libvirt
        assert tree.get("type") == ("qemu" if facts["emulated"] else "kvm")
        macs = {mac.get("address") for mac in tree.iterfind("devices/interface/mac")}
        assert {n["mac"] for n in plan(two)["nodes"] if n["name"] == node} < macs
        kernel, groups = on(two, node, "uname -r; stat -fc %T /sys/fs/cgroup").splitlines()[-2:]
        assert kernel != platform.release()
        assert groups == "cgroup2fs"
        assert "cgroupDriver: systemd" in on(two, node, "sudo cat /var/lib/kubelet/config.yaml")


def test_every_check_of_a_machine_passed(two: Folder) -> None:
    passed = verified(two)
    # Those that containers leave out, and those that only a network of machines can answer.
    for check in ("test_swap_is_off", "test_pod_reaches_the_pods_of_all_nodes"):
        assert {f"{check}[{node}]" for node in ("cp1", "w1")} <= passed


def test_a_second_up_changes_nothing(two: Folder) -> None:
    out = two.invoke("lab.up", "--yes").out
    assert "all were running" in out
    assert "nothing to change" in out


def test_a_halted_lab_comes_back_whole(two: Folder) -> None:
    two.kubectl("create", "configmap", "mark", f"--from-literal=word={MARK}")
    seen = boots(two)
    two.invoke("lab.down")
    name = f"labwright-{two.name}-cp1"
    assert virsh("domstate", name) == ["shut off"]
    # Its verify judges by new leases and by traffic, not by what the API remembers.
    two.invoke("lab.up", "--yes")
    told = json.loads(two.kubectl("get", "configmap", "mark", "-o", "json"))
    assert told["data"]["word"] == MARK
    now = boots(two)
    assert set(now) == {"cp1", "w1"}
    assert all(now[node] != seen[node] for node in now)


def test_destroy_leaves_nothing(two: Folder, before: dict[str, set[str]]) -> None:
    assert any(two.name in name for name in volumes())
    two.invoke("lab.destroy", "--yes")
    # libvirt's package brings a network of its own, and Vagrant makes the pool: both stay.
    assert domains() == before["domains"]
    assert networks() - before["networks"] <= {"default"}
    assert volumes() == before["volumes"]
    assert not two.lab.exists()
