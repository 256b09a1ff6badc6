"""What the doctor does: measure, judge, and what this lab would meet on this host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from labwright.doctor import Checkup, Report, examine
from labwright.doctor.facts import Wish
from labwright.doctor.mend import Command, Remedy
from labwright.errors import Finding, LabError
from labwright.model import SUPPLY_PORT, HostFacts, Plan
from labwright.phases import preflight
from labwright.phases.base import Run, Tools
from labwright.tools import checkup, host, workdir

FACTS: TypeAdapter[Checkup] = TypeAdapter(Checkup)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was measured, what it means for each provider, and for the ``lab`` at hand."""

    checkup: Checkup
    report: Report
    lab: tuple[Finding, ...]


def facts(checkup: Checkup) -> dict[str, Any]:
    """Give measured facts as JSON-like data, the same each time."""
    data: dict[str, Any] = FACTS.dump_python(checkup, mode="json")
    # Hundreds of names that no rule asks for.
    del data["host"]["apt_installed"]
    data["host"]["caps"].sort()
    data["kernel"]["controllers"].sort()
    return data


def diagnose(run: Run) -> Diagnosis:
    """Measure the host, judge each provider, and plan the lab on it."""
    facts = preflight.measure(run.tools, run.spec)
    made, own = _prospects(run, facts)
    measured = checkup.measure(run.tools.shell, facts, wish_of(made))
    return Diagnosis(measured, examine(measured), own)


def of_host(tools: Tools, lab: tuple[Finding, ...] = ()) -> Diagnosis:
    """Measure and judge the host without a lab; ``lab`` is what there is to say of one."""
    measured = checkup.measure(tools.shell, host.facts(tools.shell), wish_of(None))
    return Diagnosis(measured, examine(measured), lab)


def wish_of(made: Plan | None) -> Wish:
    """Say what a lab wants of the host; without a plan, what any wants."""
    if made is None or made.machines:
        # Machines that are there already take neither memory nor a network of this host.
        return Wish(ports=(SUPPLY_PORT,))
    memory = sum(node.size.memory for node in made.nodes)
    return Wish(memory, made.subnet, (SUPPLY_PORT,))


def _prospects(run: Run, facts: HostFacts) -> tuple[Plan | None, tuple[Finding, ...]]:
    """Plan the lab on the measured host; give the plan and what there is to say of it."""
    try:
        made = preflight.make(run, facts, preflight.peek_bundle(run))
        sentences = preflight.lacking(made, facts, run.tools).sentences()
    except LabError as error:
        return None, error.findings
    todo = (Finding("host.lacking", "note", f"lab.up will {words}") for words in sentences)
    return made, (*made.warnings, *todo)


def apply(tools: Tools, remedy: Remedy) -> None:
    """Run a remedy's commands as root. Raises HostError with the tool's words."""
    for command in remedy.commands:
        _run(tools, command)


def _run(tools: Tools, command: Command) -> None:
    if command.daemon:
        tools.docker.start(workdir.cache() / "dockerd.log")
        return
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    words = [*sudo, *command.argv]
    tools.shell.run(words, input=command.text or None, timeout=120, terminal=True)
