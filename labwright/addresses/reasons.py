"""Writes down why something was passed over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# How many that are in the way a reason names.
NAMED = 4


def because(passed: Iterable[tuple[str, str]]) -> str:
    """Name who has what would have come first; a few of them, as a lab may have to pass many."""
    found = list(dict.fromkeys(passed))
    words = [f"{what} is taken by {owner}" for what, owner in found[:NAMED]]
    more = [f"{len(found) - NAMED} more are taken"] if len(found) > NAMED else []
    return f": {', '.join([*words, *more])}" if found else ""


def runs_of(numbers: Sequence[int]) -> str:
    """Write ascending numbers as ``2222 to 2224, 2230``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{r[0]} to {r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)
