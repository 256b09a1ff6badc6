"""The shape of a rule: measured facts in, one hit or none out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labwright.doctor.facts import Checkup
from labwright.errors import Finding, Level
from labwright.model import ProviderName

ALL: tuple[ProviderName, ...] = ("virtualbox", "libvirt", "docker")
VMS: tuple[ProviderName, ...] = ("virtualbox", "libvirt")


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule that applies: what is so, by which evidence, and what to do about it."""

    what: str
    evidence: str
    fix: str = ""


Check = Callable[[Checkup], Hit | None]


def lab_up_starts(c: Checkup, daemon: str) -> str:
    """Advise what starts a daemon: Labwright, and systemd where the host has it."""
    by_hand = f"; or sudo systemctl start {daemon}" if c.host.systemd else ""
    return f"./invokew lab.up starts it, after asking{by_hand}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that can be wrong with a host.

    An ``error`` keeps the ``providers`` from working; warnings and notes do not. ``source`` says
    where it is known from; ``pains`` numbers the troubles of other projects' users that it covers.
    """

    id: str
    title: str
    level: Level
    providers: tuple[ProviderName, ...]
    source: str
    check: Check
    systems: tuple[str, ...] = ("linux",)
    pains: tuple[int, ...] = ()

    def finding(self, checkup: Checkup) -> Finding | None:
        """Apply the rule."""
        if checkup.host.os_kind not in self.systems:
            return None
        hit = self.check(checkup)
        if hit is None:
            return None
        return Finding(
            f"doctor.{self.id}", self.level, hit.what, hit.evidence, hit.fix, docs=self.source
        )


def rule(
    id: str,  # noqa: A002 - the field's name
    title: str,
    level: Level,
    providers: tuple[ProviderName, ...],
    source: str,
    systems: tuple[str, ...] = ("linux",),
    pains: tuple[int, ...] = (),
) -> Callable[[Check], Rule]:
    """Make a rule of the function that checks it."""
    return lambda check: Rule(id, title, level, providers, source, check, systems, pains)
