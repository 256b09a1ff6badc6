"""The register of a user's labs, and what labs planned at one moment take."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labwright import spec
from labwright.errors import HostError
from labwright.model import Place
from labwright.phases import preflight
from labwright.tools import labs
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
