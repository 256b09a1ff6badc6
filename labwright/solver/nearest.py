"""The legal sets that give up least of what a user asked for. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from labwright.solver.space import Given, Space

MOST = 3
# After the first set is found, so many more steps look for others.
STEPS = 40

# What a user can give up: ("wish", component) or, with it, the add-on itself, ("addon", component).
Units = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Nearest:
    """A legal set, and what it gives up: components left out, and wishes not met."""

    versions: Mapping[str, str]
    dropped: tuple[str, ...]
    changed: tuple[str, ...]


def nearest(space: Space) -> list[Nearest]:
    """Give up to three legal sets, none of which gives up all that another one does.

    The first gives up the fewest wishes; of equally few, the ones listed last. Every set must give
    up something of every conflict, so the search goes from conflict to conflict and looks at
    nothing else (R. Reiter, A Theory of Diagnosis from First Principles, 1987).
    """
    found: dict[Units, Nearest] = {}
    waiting: list[tuple[int, tuple[int, ...], Units]] = [(0, (), frozenset())]
    seen: set[Units] = {frozenset()}
    conflicts: list[list[Units]] = []
    steps = STEPS
    while waiting and len(found) < MOST and steps:
        _, _, gone = heapq.heappop(waiting)
        if any(gone >= other for other in found):
            continue
        steps -= bool(found)
        ways = next((c for c in conflicts if not any(way <= gone for way in c)), None)
        if ways is None:
            given = _left(space, gone)
            versions = space.first(given)
            if versions is not None:
                found[gone] = _nearest(space, versions, gone)
                continue
            ways = [*_ways_out(space, space.conflict(given))]
            conflicts.append(ways)
        for wider in {gone | way for way in ways} - seen:
            seen.add(wider)
            heapq.heappush(waiting, (len(wider), _rank(space, wider), wider))
    return list(found.values())


def _left(space: Space, gone: Units) -> Given:
    addons = [name for kind, name in gone if kind == "addon"]
    return space.everything.without(addons, [name for kind, name in gone if kind == "wish"])


def _ways_out(space: Space, conflict: Given) -> Iterator[Units]:
    """Give what of a conflict can be given up. An add-on takes the wish for its version along."""
    for name in conflict.wishes:
        yield frozenset({("wish", name)})
    for name in conflict.present:
        component = space.catalog.components.get(name)
        if component and component.kind == "addon" and name not in space.problem.facts:
            units = {("addon", name)}
            yield frozenset(units | {("wish", name)} if name in space.problem.wishes else units)


def _rank(space: Space, gone: Units) -> tuple[int, ...]:
    """Sort by the most important component given up, the less important the sooner."""
    names = space.asked_for
    return tuple(-at for at in sorted(names.index(name) for _, name in gone))


def _nearest(space: Space, versions: Mapping[str, str], gone: Units) -> Nearest:
    names = space.asked_for
    dropped = tuple(name for name in names if ("addon", name) in gone)
    changed = tuple(n for n in names if ("wish", n) in gone and n not in dropped)
    return Nearest(versions, dropped, changed)
