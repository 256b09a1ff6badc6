"""Starts side by side, with one part for one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from labwright.errors import BootError, Finding
from labwright.tools import sidebyside
from labwright.tools.vagrant import SPEAKER, Vagrant

GATE = "Booting VM..."


class Starts:
    """Machines whose later part ends only when it is told to, so that overlap can be seen."""

    def __init__(self, *, bad: Sequence[str] = (), quiet: Sequence[str] = ()) -> None:
        self.bad, self.quiet = bad, quiet
        self.lock = threading.Lock()
        self.alone: set[str] = set()
        self.booting: set[str] = set()
        self.most_alone = self.most_booting = 0
        self.go = threading.Event()
        self.heard: list[tuple[str, str]] = []

    def start(self, name: str) -> Iterator[str]:
        with self.lock:
            self.alone.add(name)
            self.most_alone = max(self.most_alone, len(self.alone))
        yield "Cloning VM..."
        if name in self.bad:
            self.alone.discard(name)
            raise ValueError(name)
        self.alone.discard(name)
        if name not in self.quiet:
            yield GATE
        with self.lock:
            self.booting.add(name)
            self.most_booting = max(self.most_booting, len(self.booting))
        assert self.go.wait(10)
        self.booting.discard(name)
        yield "Machine booted and ready!"

    def hear(self, name: str, line: str) -> None:
        self.heard.append((name, line))

    def run(self, names: str, at_once: int) -> sidebyside.Outcome:
        return sidebyside.run(
            list(names), self.start, self.hear, at_once=at_once, past=lambda line: GATE in line
        )


def after(starts: Starts, booting: int) -> None:
    """Let them end once as many boot."""

    def watch() -> None:
        while starts.most_booting < booting:
            threading.Event().wait(0.01)
        starts.go.set()

    threading.Thread(target=watch, daemon=True).start()


def test_one_is_made_at_a_time_and_all_boot_at_once() -> None:
    starts = Starts()
    after(starts, 3)
    outcome = starts.run("abc", 3)
    assert (outcome.failed, outcome.unstarted) == ({}, [])
    assert (starts.most_alone, starts.most_booting) == (1, 3)
    assert [name for name, line in starts.heard if line == GATE] == ["a", "b", "c"]


def test_no_more_boot_than_may() -> None:
    starts = Starts()
    after(starts, 2)
    starts.run("abcde", 2)
    assert starts.most_booting == 2
    assert len(starts.heard) == 15


def test_one_that_says_nothing_of_booting_is_waited_for() -> None:
    """As one that was suspended, or a Vagrant with other words."""
    starts = Starts(quiet="abc")
    starts.go.set()
    starts.run("abc", 3)
    assert starts.most_booting == 1


def test_after_a_failure_none_is_begun_and_those_that_run_go_on() -> None:
    starts = Starts(bad="b")
    starts.go.set()
    outcome = starts.run("abcd", 4)
    assert {name: str(error) for name, error in outcome.failed.items()} == {"b": "b"}
    assert outcome.unstarted == ["c", "d"]
    assert ("a", "Machine booted and ready!") in starts.heard


def test_lines_are_told_by_the_callers_thread() -> None:
    starts = Starts()
    starts.go.set()
    threads = set[int]()
    sidebyside.run(
        ["a", "b"],
        starts.start,
        lambda _name, _line: threads.add(threading.get_ident()),
        at_once=2,
        past=lambda _line: True,
    )
    assert threads == {threading.get_ident()}


def test_an_interrupt_waits_for_those_that_run_and_begins_no_other() -> None:
    starts = Starts()
    starts.go.set()

    def interrupted(name: str, line: str) -> None:
        starts.hear(name, line)
        if line == GATE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sidebyside.run(
            ["a", "b"], starts.start, interrupted, at_once=1, past=lambda line: GATE in line
        )
    assert {name for name, _ in starts.heard} == {"a"}
    assert starts.heard[-1] == ("a", "Machine booted and ready!")


class Broken(Vagrant):
    """A Vagrant that starts every machine but one, and takes back what it is told to."""

    def __init__(self, folder: Path, *, stuck: bool = False) -> None:
        super().__init__(folder, "virtualbox")
        self.taken: list[str] = []
        self.stuck = stuck

    def _up_one(self, name: str) -> Iterator[str]:
        yield f"==> {name}: Booting VM..."
        if name == "w1":
            raise BootError(Finding("boot.vagrant", "error", "vagrant up failed"), ["Stderr: no"])
        yield f"    {name}: SSH address: 127.0.0.1:2300"

    def destroy(self, on_line: object, names: Sequence[str] = ()) -> None:
        if self.stuck:
            raise BootError(Finding("boot.vagrant", "error", "vagrant destroy failed"))
        self.taken += names


def broken(tmp_path: Path, fresh: Sequence[str], *, stuck: bool = False) -> tuple[Broken, Finding]:
    box = Broken(tmp_path, stuck=stuck)
    with pytest.raises(BootError) as caught:
        box.up_apart(["cp1", "w1", "w2"], lambda _line: None, at_once=1, fresh=fresh)
    machine, rest = caught.value.findings
    assert (machine.id, machine.where) == ("boot.machine", "w1")
    assert "vagrant-w1.log" in machine.fix
    assert (rest.id, rest.what) == ("boot.not-begun", "not begun after that: w2")
    assert caught.value.details == ("w1:", "Stderr: no")
    return box, machine


def test_only_the_new_machine_that_failed_is_removed(tmp_path: Path) -> None:
    box, finding = broken(tmp_path, ["cp1", "w1", "w2"])
    assert box.taken == ["w1"]
    assert "removed again" in finding.why


def test_a_machine_that_was_there_before_is_kept(tmp_path: Path) -> None:
    box, finding = broken(tmp_path, ["cp1"])
    assert box.taken == []
    assert finding.why == "it is kept"


def test_one_that_cannot_be_removed_is_said_to_be_there(tmp_path: Path) -> None:
    _box, finding = broken(tmp_path, ["w1"], stuck=True)
    assert finding.why == "it is kept"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("==> w1: Booting VM...", "Booting VM..."),
        ("    w1: SSH auth method: private key", "SSH auth method: private key"),
        ("\x1b[KProgress: 90%\x1b[K==> w1: Cloning VM...", "Cloning VM..."),
        ("Stderr: VBoxManage: error: no", "Stderr: VBoxManage: error: no"),
        ("", ""),
    ],
)
def test_vagrants_own_mark_gives_way_to_the_nodes_name(said: str, told: str) -> None:
    assert SPEAKER.sub("", said) == told
