"""The register of a user's labs, and what labs planned at one moment take."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labwright import render, spec
from labwright.errors import BootError, Finding, HostError
from labwright.model import Machine, Place
from labwright.phases import boot, preflight
from labwright.phases.bake import Bake, old_images
from labwright.phases.base import Run, Tools
from labwright.phases.boot import Boot
from labwright.tools import labs
from labwright.tools.docker import Docker
from labwright.tools.shell import Shell
from labwright.tools.store import Store
from tests.fakes import DEBIAN, planned, run_of


def place(folder: Path, name: str = "lab") -> Place:
    folder.mkdir(parents=True, exist_ok=True)
    return planned({"name": name, "tools": 1}).place(str(folder))


def test_a_lab_reads_back(tmp_path: Path) -> None:
    mine = place(tmp_path / "a")
    assert labs.known() == []
    labs.record(mine)
    assert labs.known() == [mine]
    assert mine.ports == {"cp1": 2222, "w1": 2223, "w2": 2224, "tools1": 2225}
    labs.record(replace(mine, node_image="x"))
    assert [p.node_image for p in labs.known()] == ["x"]
    labs.forget(tmp_path / "a")
    labs.forget(tmp_path / "a")
    assert labs.known() == []


def test_a_lab_whose_folder_is_gone_is_nobody(tmp_path: Path) -> None:
    gone, here = place(tmp_path / "gone", "gone"), place(tmp_path / "here", "here")
    labs.record(gone)
    (tmp_path / "gone").rmdir()
    before = sorted(labs.folder().glob("*.json"))
    assert labs.known() == []
    assert sorted(labs.folder().glob("*.json")) == before, "reading changed the register"
    labs.record(here)
    assert [p.name for p in labs.known()] == ["here"]
    assert len(list(labs.folder().glob("*.json"))) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "x"}', '{"subnet": 7}', "\udcff"])
def test_an_entry_that_cannot_be_read_is_nobody_s(tmp_path: Path, text: str) -> None:
    mine = place(tmp_path / "a")
    labs.record(mine)
    odd = labs.folder() / "0123456789abcdef.json"
    odd.write_text(text, "utf-8", errors="surrogateescape")
    assert labs.known() == [mine]


def test_an_entry_of_a_newer_version_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    mine = place(tmp_path / "a")
    labs.record(mine)
    (entry,) = labs.folder().glob("*.json")
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "more": 1}))
    assert labs.known() == [mine]


def test_a_register_that_refuses_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_text("a file")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert labs.known() == []
    with pytest.raises(HostError, match="cannot be written"), labs.held():
        raise AssertionError


def claimed(root: Path, name: str, ready: Any, answers: Any) -> None:
    """Plan a lab in a process of its own, once all are ready."""
    raw = {"name": name, "workers": 3, "provider": "docker", "supply": "packages"}
    run = run_of(root)
    run.wanted = spec.build(raw, str(root / "lab.yaml"))
    run.workdir.path.mkdir(parents=True)
    made = preflight.make(run, DEBIAN)
    # Every one has now planned the same.
    ready.wait(60)
    made = preflight.claim(run, made, DEBIAN, None)
    answers.put((os.getpid(), str(made.subnet), [n.ssh_port for n in made.nodes]))


def test_labs_planned_at_one_moment_take_nothing_of_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    count = 4
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(count), context.Queue()
    processes = [
        context.Process(target=claimed, args=(tmp_path / str(n), "lab", ready, answers))
        for n in range(count)
    ]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len({pid for pid, *_ in found}) == count
    assert len({subnet for _, subnet, _ in found}) == count
    ports = [port for *_, taken in found for port in taken]
    assert len(set(ports)) == len(ports) == count * 4
    macs = [mac for p in labs.known() for mac in p.macs.values()]
    assert len(set(macs)) == len(macs) == count * 4


def test_a_plan_alone_writes_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    run.wanted = spec.build({"provider": "docker", "supply": "packages"})
    first = preflight.make(run, DEBIAN)
    assert labs.known() == []
    labs.record(replace(first.place(str(tmp_path)), name="other"))
    second = preflight.make(run, DEBIAN)
    assert first.subnet != second.subnet
    assert "taken by lab other" in " ".join(c.why for c in second.choices)


def test_a_lab_is_not_in_its_own_way(tmp_path: Path) -> None:
    """Planned and never made, as after a failed lab.up: the next one takes the same."""
    run = run_of(tmp_path)
    run.wanted = spec.build({"provider": "docker", "supply": "packages"})
    run.workdir.path.mkdir(parents=True)
    first = preflight.make(run, DEBIAN)
    labs.record(replace(first.place(str(run.workdir.path)), ports={"cp1": 2240}))
    second = preflight.make(run, DEBIAN)
    assert (second.subnet, second.nodes[0].ssh_port) == (first.subnet, 2240)


class Cupboard(Docker):
    """A Docker with images and containers, and no daemon."""

    def __init__(self, images: list[str], machines: set[str]) -> None:
        super().__init__(Shell())
        self.names, self.there = images, machines

    def has_image(self, name: str) -> bool:
        return name in self.names

    def images_of(self, _repository: str) -> list[str]:
        return self.names

    def machines(self, _folder: Path) -> set[str]:
        return self.there


def cupboard(root: Path, *images: str, machines: tuple[str, ...] = ()) -> Run:
    tools = Tools(Shell(), Store(root / "store"), Cupboard(list(images), set(machines)))
    return run_of(root, planned({"provider": "docker"}), tools=tools)


def test_images_that_a_lab_has_or_that_are_new_stay(tmp_path: Path) -> None:
    run = cupboard(tmp_path, "new", "newer", "mine", "old", "theirs", "older")
    run._plan = replace(run.plan, node_image="mine")
    labs.record(replace(place(tmp_path / "a"), node_image="theirs"))
    assert old_images(run) == ["old", "older"]
    assert old_images(cupboard(tmp_path)) == []


def test_no_image_is_baked_for_machines_that_are_there(tmp_path: Path) -> None:
    names = ("labwright-lab-cp1", "labwright-lab-w1", "labwright-lab-w2")
    there = cupboard(tmp_path, machines=names)
    assert Bake().skip(there) == "every machine is there already"
    assert Bake().skip(cupboard(tmp_path, machines=names[:2])) is None
    baked = cupboard(tmp_path, there.plan.node_image)
    assert Bake().skip(baked) == "baked before"


def test_an_outline_says_which_machines_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cupboard(tmp_path)
    assert [line.split()[:2] for line in Boot().outline(run)] == [
        ["boot", "cp1"],
        ["boot", "w1"],
        ["boot", "w2"],
    ]
    reached = {n: Machine(n, "127.0.0.1", i, "u", "k") for i, n in enumerate(("cp1", "w1"), 1)}
    run.workdir.write({"known_hosts": ""})
    run.workdir.write({"ssh_config": render.ssh_config(reached, run.workdir.known_hosts)})

    def keys(_shell: Shell, machines: list[Machine], deadline: float) -> str:
        if [m.name for m in machines] == ["cp1"]:
            return "key"
        raise BootError(Finding("boot.ssh", "error", f"nothing within {deadline} s"))

    monkeypatch.setattr(boot, "host_keys", keys)
    lines = Boot().outline(run)
    assert lines[0].startswith("leave as it runs: cp1 (control plane) at 192.168.56.11")
    assert lines[1].startswith("start w1 (worker)")
    assert lines[2].startswith("boot w2 (worker)")
