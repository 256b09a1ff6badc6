"""The one shape of everything that can be wrong: a bad spec, a host problem, a failed check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to tell the user.

    ``id`` is stable and dotted (``spec.unknown-key``); ``fix`` is a command or a key to change;
    ``where`` is a path in lab.yaml (``nodes.w2.memory``), a node or a file; ``docs`` is a source.
    """

    id: str
    level: Level
    what: str
    why: str = ""
    fix: str = ""
    where: str = ""
    docs: str = ""

    def lines(self) -> list[str]:
        """Give the finding as plain lines: what, then why and fix, indented."""
        head = f"{self.level}: {self.where + ': ' if self.where else ''}{self.what}"
        rest = [("why", self.why), ("fix", self.fix), ("see", self.docs)]
        return [head, *(f"  {word}: {text}" for word, text in rest if text)]


class LabError(Exception):
    """Something the user can mend: never shown as a traceback.

    ``details`` holds the last lines of another tool's own words, shown below the findings.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, findings: Finding | Iterable[Finding], details: Iterable[str] = ()) -> None:
        """Take one finding or several, and the other tool's last lines."""
        self.findings: tuple[Finding, ...] = (
            (findings,) if isinstance(findings, Finding) else tuple(findings)
        )
        self.details: tuple[str, ...] = tuple(details)
        super().__init__("\n".join(line for f in self.findings for line in f.lines()))


class SpecError(LabError):
    """lab.yaml asks for something that cannot be."""

    exit_code = 2


class HostError(LabError):
    """This computer lacks something that the lab needs."""

    exit_code = 3


class SupplyError(LabError):
    """Software could not be fetched, built or trusted."""

    exit_code = 4


class BootError(LabError):
    """A machine did not come up, go down or go away."""

    exit_code = 5


class ConvergeError(LabError):
    """Ansible could not bring a node to the state it should have."""

    exit_code = 6


class VerifyError(LabError):
    """The lab runs, and a check says that it is not what the plan promised."""

    exit_code = 7


INTERRUPTED = 130


def errors(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Pick the findings that stop a run."""
    return tuple(f for f in findings if f.level == "error")
