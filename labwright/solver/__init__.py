"""What a user wishes + what a host is + the catalog → one legal set, or why there is none.

Pure. Of all legal sets it is the first: for each component, in the order of ``Problem.wanted``,
the version that lab.lock has, else the newest, as long as the ones before keep theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labwright.catalog import Catalog, Constraint, asked
from labwright.errors import Finding, SpecError
from labwright.solver.explain import conflict, reason, unknown
from labwright.solver.nearest import nearest
from labwright.solver.space import Problem, Space

__all__ = ["Problem", "Solution", "Unsolvable", "fits", "solve"]

fits = asked


@dataclass(frozen=True, slots=True)
class Solution:
    """A legal set: the version of each wanted or wished component, and in a clause why."""

    versions: Mapping[str, str]
    reasons: Mapping[str, str]


class Unsolvable(SpecError):  # noqa: N818 - a LabError is named for what it says
    """No legal set has all that was asked for.

    ``conflicts`` are the constraints in the way, ``nearest`` the legal sets that give up least.
    """

    def __init__(
        self,
        findings: Iterable[Finding],
        conflicts: Sequence[Constraint] = (),
        nearest: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """Take what to tell the user, and the same as values."""
        super().__init__(findings)
        self.conflicts = tuple(conflicts)
        self.nearest = tuple(nearest)


def solve(catalog: Catalog, problem: Problem) -> Solution:
    """Find the legal set. Raises Unsolvable, with the nearest legal sets."""
    space = Space(catalog, problem)
    chosen = space.first(space.everything)
    if chosen is None:
        raise _refusal(space)
    return Solution(chosen, {name: reason(space, chosen, name) for name in chosen})


def _refusal(space: Space) -> Unsolvable:
    """Say first what no catalog has, then what of the rest does not go together."""
    sets = nearest(space)
    odd = dict(unknown(space, sets))
    findings: list[Finding] = [*odd.values()]
    rules: tuple[Constraint, ...] = ()
    rest = space.everything.without((), odd)
    if space.first(rest) is None:
        core = space.core(rest)
        rules = tuple(rule.constraint for rule in core.rules)
        findings.append(conflict(space, core, sets))
    return Unsolvable(findings, rules, [s.versions for s in sets])
