"""A small search over finite domains: which value may each variable take, given clauses.

A domain is a bit mask over a variable's values. A term ``(variable, mask)`` holds where the
variable's value is in the mask; a clause holds where one of its terms does. Domains here are
tens of values and clauses hundreds, most of them over two variables, so that unit propagation
decides nearly everything and the search seldom steps back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

Term = tuple[str, int]
Clause = tuple[Term, ...]
Domains = dict[str, int]
Order = Sequence[tuple[str, Sequence[int]]]
T = TypeVar("T")


class Clauses:
    """A set of clauses, by the variables they speak of."""

    def __init__(self, clauses: Iterable[Clause]) -> None:
        """Take the clauses; one without terms never holds."""
        self._all = tuple(clauses)
        self._of: dict[str, list[Clause]] = defaultdict(list)
        for clause in self._all:
            for variable, _ in clause:
                self._of[variable].append(clause)

    def first(self, domains: Domains, order: Order) -> Domains | None:
        """Give the first solution, one bit a variable, or ``None`` where there is none.

        ``order`` names every variable with the bits to try, best first: no other solution gives a
        variable a better bit while those before it keep theirs. A clause that speaks of a variable
        without a domain is void.
        """
        if not all(domains.values()):
            return None
        start = self._narrowed(domains, self._all)
        return self._search(start, order) if start is not None else None

    def _search(self, domains: Domains, order: Order) -> Domains | None:
        if not order:
            return domains
        (variable, bits), rest = order[0], order[1:]
        for bit in bits:
            if not domains[variable] & bit:
                continue
            if domains[variable] == bit:
                return self._search(domains, rest)
            tried = self._narrowed({**domains, variable: bit}, self._of[variable])
            found = self._search(tried, rest) if tried is not None else None
            if found is not None:
                return found
        return None

    def _narrowed(self, domains: Domains, changed: Iterable[Clause]) -> Domains | None:
        """Take out what the clauses rule out until nothing changes; ``None`` on a dead end."""
        domains, waiting = dict(domains), list(changed)
        while waiting:
            variable, mask = _forced(waiting.pop(), domains)
            if not mask:
                return None
            if variable and domains[variable] & ~mask:
                domains[variable] &= mask
                waiting += self._of[variable]
        return domains


NOTHING: Term = ("", -1)
NEVER: Term = ("", 0)


def _forced(clause: Clause, domains: Mapping[str, int]) -> Term:
    """Give the one term that can still hold; NOTHING where there is a choice, or NEVER."""
    last = NEVER
    for term in clause:
        domain = domains.get(term[0])
        if domain is None or not domain & ~term[1]:
            return NOTHING
        if domain & term[1]:
            if last is not NEVER:
                return NOTHING
            last = term
    return last


def smallest(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """Give a minimal part of ``items`` that fails; the items that come last are kept by preference.

    ``fails(items)`` must be true, and whatever contains a failing part must fail too. The search
    halves (QuickXplain: U. Junker, AAAI 2004), as a conflict is a few items of many.
    """
    return [] if fails([]) else _needed([], False, [*reversed(items)], fails)


def _needed(
    base: list[T], grown: bool, items: list[T], fails: Callable[[Sequence[T]], bool]
) -> list[T]:
    """Give what of ``items`` is needed beside ``base`` to fail."""
    if grown and fails(base):
        return []
    if len(items) <= 1:
        return items
    half = len(items) // 2
    first, second = items[:half], items[half:]
    late = _needed(base + first, True, second, fails)
    return _needed(base + late, bool(late), first, fails) + late
