"""A command is a list of phases; ``run_all`` alone numbers, times, journals and catches."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from labwright import known
from labwright.errors import Finding, LabError
from labwright.events import Event, Sink
from labwright.lock import Locked
from labwright.model import Plan, Spec, Survey
from labwright.tools.docker import Docker
from labwright.tools.libvirt import Libvirt
from labwright.tools.shell import Shell
from labwright.tools.store import Store
from labwright.tools.vagrant import Vagrant
from labwright.tools.workdir import Workdir


@dataclass(frozen=True)
class Tools:
    """What phases work with; the tests give their own."""

    shell: Shell
    store: Store
    docker: Docker

    @property
    def libvirt(self) -> Libvirt:
        """The libvirt daemon, where there is one."""
        return Libvirt(self.shell)


@dataclass
class Run:
    """One run of a command on one lab.

    The plan is settled once, by preflight, and altered by no phase. ``consent`` asks the user
    a question and gives whether to go on. ``lock_file`` is where lab.lock is or will be, and
    ``locked`` what it says; a ``strict`` run refuses to differ from it. ``survey`` is what the
    machines are like that are there already, once they were measured.
    """

    workdir: Workdir
    tools: Tools
    sink: Sink
    consent: Callable[[str], bool]
    wanted: Spec | None = None
    lock_file: Path | None = None
    locked: Locked = field(default_factory=Locked)
    strict: bool = False
    survey: Survey | None = None
    _plan: Plan | None = None
    _here: Event = field(default_factory=lambda: Event("run"))
    summary: dict[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        """What lab.yaml asks for; commands on a lab that was made have no use for it."""
        if self.wanted is None:
            raise RuntimeError("this command acts on a made lab, not on a spec")
        return self.wanted

    @property
    def plan(self) -> Plan:
        """The settled plan; asking before preflight is a mistake of ours."""
        if self._plan is None:
            raise RuntimeError("no phase before preflight may ask for the plan")
        return self._plan

    def settle(self, plan: Plan) -> None:
        """Set the plan, once."""
        if self._plan is not None:
            raise RuntimeError("the plan is settled already")
        self._plan = plan

    @property
    def arch(self) -> str:
        """This host's architecture, as the kernel names it: ``x86_64``."""
        return platform.machine()

    @property
    def vagrant(self) -> Vagrant:
        """Vagrant on this lab's folder."""
        return Vagrant(self.workdir.path, self.plan.provider)

    def tell(self, event: Event) -> None:
        """Send an event to the console and the journal."""
        self.sink(event)

    def say(self, text: str) -> None:
        """Tell what the running phase does now."""
        here = self._here
        self.sink(Event("say", text, here.phase, here.step, here.steps))

    def step(self, text: str) -> None:
        """Tell one of many small steps: shown on a live line only."""
        here = self._here
        self.sink(Event("step", text, here.phase, here.step, here.steps))

    def tool(self, line: str) -> None:
        """Pass on a line of another tool's output: shown with -v, journalled always.

        Of a line that was written over, as a progress in percent, the last state is what counts.
        """
        here = self._here
        last = line.rstrip("\r").rpartition("\r")[2]
        self.sink(Event("tool", last, here.phase, here.step, here.steps))

    def finding(self, finding: Finding) -> None:
        """Tell a warning or a note that stops nothing."""
        self.sink(Event("finding", phase=self._here.phase, finding=finding))

    def conclude(self, text: str) -> None:
        """Say in a few words what the running phase came to."""
        self.summary[self._here.phase] = text


class Phase(Protocol):
    """One step of a command."""

    @property
    def name(self) -> str:
        """A stable slug, for the journal."""

    def title(self, run: Run) -> str:
        """Say what it does, in a few words."""

    def skip(self, run: Run) -> str | None:
        """Give the reason why there is nothing to do, or ``None``."""

    def outline(self, run: Run) -> list[str]:
        """Say what would change, without changing it."""

    def execute(self, run: Run) -> None:
        """Do it; doing it twice is the same as once. Raises LabError."""


def run_all(phases: Sequence[Phase], run: Run) -> None:
    """Run phases in order; the first LabError ends the run and is raised again."""
    for step, phase in enumerate(phases, start=1):
        _run_one(phase, run, step, len(phases))


def _run_one(phase: Phase, run: Run, step: int, steps: int) -> None:
    start = time.monotonic()

    def event(kind: Any, text: str, **more: Any) -> Event:
        return Event(kind, text, phase.name, step, steps, **more)

    title = phase.title(run)
    run._here = event("start", title)
    run.tell(run._here)
    try:
        if (reason := phase.skip(run)) is not None:
            run.tell(event("skip", reason, seconds=time.monotonic() - start))
            return
        phase.execute(run)
    except LabError as error:
        known.explain(error)
        seconds = time.monotonic() - start
        run.tell(event("failed", title, seconds=seconds, data={"details": list(error.details)}))
        raise
    except KeyboardInterrupt:
        run.tell(event("failed", "interrupted", seconds=time.monotonic() - start))
        raise
    text = run.summary.get(phase.name, "")
    run.tell(event("done", text, seconds=time.monotonic() - start))


def wait_for(
    what: str,
    probe: Callable[[], tuple[bool, str]],
    deadline: float,
    fail: Callable[[Finding], LabError],
    interval: float = 0.5,
) -> None:
    """Ask ``probe`` until it says yes; it gives (whether, what it saw).

    Raises what ``fail`` makes of a finding that names the last thing seen.
    """
    end = time.monotonic() + deadline
    while True:
        good, seen = probe()
        if good:
            return
        if time.monotonic() > end:
            what_failed = f"{what} did not come about within {deadline:.0f} s"
            raise fail(Finding("wait.deadline", "error", what_failed, f"last seen: {seen}"))
        time.sleep(interval)
