"""The doctor: rules over measured facts, and what they come to for each provider. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labwright.doctor import computer, containers, kvm, network, virtualbox
from labwright.doctor.facts import Checkup
from labwright.doctor.rule import ALL, Rule
from labwright.errors import Finding, errors
from labwright.model import ProviderName
from labwright.providers import PROVIDERS

__all__ = ["RULES", "SCHEMA", "Checkup", "Report", "Rule", "Verdict", "as_json", "examine"]

RULES: tuple[Rule, ...] = (
    *computer.RULES,
    *network.RULES,
    *kvm.RULES,
    *virtualbox.RULES,
    *containers.RULES,
)
# The version of the JSON form; it changes when a key goes or means something else.
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a provider can work here; what its findings say, errors first."""

    provider: ProviderName
    findings: tuple[Finding, ...]

    @property
    def works(self) -> bool:
        """Whether nothing final speaks against it."""
        return not errors(self.findings)


@dataclass(frozen=True, slots=True)
class Report:
    """What the doctor found: about the host as such, and for each provider."""

    host: tuple[Finding, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def works(self) -> bool:
        """Whether a lab can run here on something."""
        return any(verdict.works for verdict in self.verdicts)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Give every finding once."""
        each = [finding for verdict in self.verdicts for finding in verdict.findings]
        return tuple(dict.fromkeys((*self.host, *each)))


def examine(checkup: Checkup) -> Report:
    """Apply every rule, and each provider's own probe."""
    found = [(rule, rule.finding(checkup)) for rule in RULES]
    hits = [(rule, finding) for rule, finding in found if finding]
    common = tuple(f for rule, f in hits if rule.providers == ALL)
    return Report(
        _sorted(common),
        tuple(
            Verdict(name, _sorted((*_about(name, checkup, hits, common),)))
            for name, provider in PROVIDERS.items()
            # Where machines are there already, nothing of this host decides.
            if provider.caps.boots
        ),
    )


def _about(
    name: ProviderName,
    checkup: Checkup,
    hits: list[tuple[Rule, Finding]],
    common: tuple[Finding, ...],
) -> Iterator[Finding]:
    """Give a provider's findings: its probe's, its rules', and what ends every provider."""
    yield from PROVIDERS[name].probe(checkup.host)
    yield from errors(common)
    yield from (f for rule, f in hits if name in rule.providers and rule.providers != ALL)


def _sorted(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    order = ("error", "warning", "note")
    return tuple(sorted(findings, key=lambda finding: order.index(finding.level)))


def as_json(report: Report, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Give the stable form that docs/doctor.schema.json describes."""
    return {
        "schema": SCHEMA,
        "works": report.works,
        "providers": {
            verdict.provider: {
                "works": verdict.works,
                "findings": [_finding(f) for f in verdict.findings],
            }
            for verdict in report.verdicts
        },
        "host": [_finding(f) for f in report.host],
        "facts": dict(facts),
    }


def _finding(finding: Finding) -> dict[str, str]:
    names = ("id", "level", "what", "why", "fix", "docs")
    return {name: getattr(finding, name) for name in names}
