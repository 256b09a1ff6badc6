"""How a list of phases is run, told and stopped; and how a wait ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from labwright.errors import BootError, ConvergeError, Finding, LabError
from labwright.events import Event
from labwright.phases.base import Run, Tools, run_all, wait_for
from labwright.tools.docker import Docker
from labwright.tools.shell import Shell
from labwright.tools.store import Store
from labwright.tools.workdir import Workdir
from tests.fakes import Recorder, planned


def nothing(_run: Run) -> None:
    """Do nothing."""


@dataclass
class Step:
    """A phase that does what it is given."""

    name: str
    do: Callable[[Run], None] = nothing
    reason: str | None = None
    ran: list[str] = field(default_factory=list)

    def title(self, run: Run) -> str:
        return f"Do {self.name}"

    def skip(self, run: Run) -> str | None:
        return self.reason

    def outline(self, run: Run) -> list[str]:
        return []

    def execute(self, run: Run) -> None:
        self.ran.append(self.name)
        self.do(run)


@pytest.fixture
def sink() -> Recorder:
    return Recorder()


@pytest.fixture
def run(tmp_path: Path, sink: Recorder) -> Run:
    shell = Shell()
    tools = Tools(shell, Store(tmp_path / "store"), Docker(shell))
    return Run(Workdir(tmp_path, "lab"), tools, sink, consent=lambda _question: False)


def told(sink: Recorder) -> list[tuple[str, str, str, int, int]]:
    return [(e.kind, e.text, e.phase, e.step, e.steps) for e in sink.events]


def raising(error: BaseException) -> Callable[[Run], None]:
    def do(_run: Run) -> None:
        raise error

    return do


def test_phases_are_numbered_and_told(run: Run, sink: Recorder) -> None:
    def work(run: Run) -> None:
        run.say("half")
        run.step("small")
        run.tool("line")
        run.conclude("3 things")

    run_all([Step("one", work), Step("two", reason="all there"), Step("three")], run)
    assert told(sink) == [
        ("start", "Do one", "one", 1, 3),
        ("say", "half", "one", 1, 3),
        ("step", "small", "one", 1, 3),
        ("tool", "line", "one", 1, 3),
        ("done", "3 things", "one", 1, 3),
        ("start", "Do two", "two", 2, 3),
        ("skip", "all there", "two", 2, 3),
        ("start", "Do three", "three", 3, 3),
        ("done", "", "three", 3, 3),
    ]
    assert run.summary == {"one": "3 things"}


def test_only_an_end_has_a_time(run: Run, sink: Recorder) -> None:
    run_all([Step("one"), Step("two", reason="x")], run)
    timed = {e.kind for e in sink.events if e.seconds is not None}
    assert timed == {"done", "skip"}
    assert all(e.seconds >= 0 for e in sink.events if e.seconds is not None)


def test_a_skipped_phase_does_not_run(run: Run) -> None:
    step = Step("one", reason="")
    run_all([step], run)
    assert step.ran == []


def test_the_first_error_ends_the_run_and_is_raised_again(run: Run, sink: Recorder) -> None:
    error = BootError(Finding("boot.x", "error", "no"), ["last", "words"])
    last = Step("three")
    with pytest.raises(BootError) as caught:
        run_all([Step("one"), Step("two", raising(error)), last], run)
    assert caught.value is error
    assert last.ran == []
    assert told(sink)[-1] == ("failed", "Do two", "two", 2, 3)
    assert sink.events[-1].data == {"details": ["last", "words"]}
    assert sink.events[-1].seconds is not None


def test_an_error_of_skip_is_a_failure_too(run: Run, sink: Recorder) -> None:
    @dataclass
    class Unsure(Step):
        def skip(self, run: Run) -> str | None:
            raise ConvergeError(Finding("x", "error", "no"))

    with pytest.raises(ConvergeError):
        run_all([Unsure("one")], run)
    assert [e.kind for e in sink.events] == ["start", "failed"]


def test_ctrl_c_is_told_and_raised_again(run: Run, sink: Recorder) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_all([Step("one", raising(KeyboardInterrupt())), Step("two")], run)
    assert told(sink)[-1] == ("failed", "interrupted", "one", 1, 2)
    assert sink.events[-1].seconds is not None


def test_a_mistake_of_ours_is_not_dressed_up(run: Run) -> None:
    with pytest.raises(ZeroDivisionError):
        run_all([Step("one", raising(ZeroDivisionError()))], run)


def test_a_warning_stops_nothing(run: Run, sink: Recorder) -> None:
    finding = Finding("x", "warning", "careful")
    run_all([Step("one", lambda run: run.finding(finding))], run)
    assert sink.events[1] == Event("finding", phase="one", finding=finding)
    assert sink.events[-1].kind == "done"


def test_the_plan_is_settled_once(run: Run) -> None:
    with pytest.raises(RuntimeError, match="before preflight"):
        _ = run.plan
    plan = planned()
    run.settle(plan)
    assert run.plan is plan
    with pytest.raises(RuntimeError, match="settled already"):
        run.settle(plan)


def test_a_made_lab_has_no_spec(run: Run) -> None:
    with pytest.raises(RuntimeError, match="not on a spec"):
        _ = run.spec


def wait(probe: Callable[[], tuple[bool, str]], deadline: float) -> None:
    wait_for("the node", probe, deadline, BootError, interval=0.001)


def test_a_wait_ends_with_the_first_yes() -> None:
    answers = iter([(False, "a"), (False, "b"), (True, "c"), (False, "never asked")])
    wait(lambda: next(answers), 60)
    assert next(answers) == (False, "never asked")


def test_a_wait_that_ends_badly_names_the_last_thing_seen() -> None:
    seen = iter(range(10**9))
    with pytest.raises(BootError) as caught:
        wait(lambda: (False, f"state {next(seen)}"), 0.02)
    (finding,) = caught.value.findings
    assert finding.id == "wait.deadline"
    assert "the node did not come about" in finding.what
    assert finding.why == f"last seen: state {next(seen) - 1}"


def test_a_wait_without_time_still_asks_once() -> None:
    wait(lambda: (True, ""), 0)
    with pytest.raises(LabError, match="last seen: nothing"):
        wait(lambda: (False, "nothing"), -1)
