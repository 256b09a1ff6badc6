"""Version ranges as Helm charts write them: ``kubeVersion`` in a Chart.yaml. Pure.

The rules are those of Masterminds/semver, which Helm uses
(https://github.com/Masterminds/semver#checking-version-constraints).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Major, minor, patch, and 0 for a pre-release, which comes before the version itself.
Key = tuple[int, int, int, int]
LOWEST: Key = (-1, 0, 0, 0)
HIGHEST: Key = (10**9, 0, 0, 0)
_NUMBER = r"v?(?:\d+|[xX*])(?:\.(?:\d+|[xX*])){0,2}(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?"
_PART = re.compile(rf"(=|==|!=|>=|=>|<=|=<|>|<|~>|~|\^)?\s*({_NUMBER})")
_SAME = {"=>": ">=", "=<": "<=", "~>": "~"}
_HYPHEN = re.compile(rf"({_NUMBER})\s+-\s+({_NUMBER})")


def within(text: str, version: str) -> bool:
    """Whether a released version is in a range; an empty range takes every version.

    Raises ValueError where the text is no range or the version none.
    """
    key = _Bound.read(version).low
    return not text.strip() or any(
        all(low <= key < high for low, high in _intervals(part))
        and not any(low <= key < high for low, high in _holes(part))
        for part in text.split("||")
    )


@dataclass(frozen=True, slots=True)
class _Bound:
    """A version in a range: its numbers as far as they are given."""

    numbers: tuple[int, ...]
    pre: bool

    @classmethod
    def read(cls, text: str) -> _Bound:
        """Read ``1.37.0-0``, ``v1.36`` or ``1.x``. Raises ValueError."""
        if not re.fullmatch(_NUMBER, text):
            raise ValueError(f"{text!r} is not a version")
        words, _, pre = text.removeprefix("v").partition("+")[0].partition("-")
        numbers: list[int] = []
        for word in words.split("."):
            if not word.isdigit():
                break
            numbers.append(int(word))
        return cls(tuple(numbers), bool(pre) and len(numbers) == 3)

    @property
    def low(self) -> Key:
        """The first version that it can mean."""
        major, minor, patch = (*self.numbers, 0, 0, 0)[:3]
        return (major, minor, patch, 0 if self.pre else 1) if self.numbers else LOWEST

    @property
    def high(self) -> Key:
        """The first version above all that it can mean."""
        major, minor, patch, released = self.low
        if len(self.numbers) == 3:
            return (major, minor, patch, released + 1)
        return self.above(len(self.numbers))

    def above(self, count: int) -> Key:
        """The first version in which one of the first ``count`` numbers is higher."""
        if not count:
            return HIGHEST
        major, minor, patch = (*self.numbers, 0, 0, 0)[:3]
        return {
            1: (major + 1, 0, 0, 0),
            2: (major, minor + 1, 0, 0),
            3: (major, minor, patch + 1, 0),
        }[count]


def _intervals(text: str) -> Iterator[tuple[Key, Key]]:
    rest = _HYPHEN.sub(r">=\1 <=\2", text)
    if _PART.sub("", rest).strip(", \t"):
        raise ValueError(f"{text.strip()!r} is not a range of versions")
    for operator, number in _PART.findall(rest):
        if operator != "!=":
            yield _interval(operator, _Bound.read(number))


def _holes(text: str) -> Iterator[tuple[Key, Key]]:
    for operator, number in _PART.findall(_HYPHEN.sub("", text)):
        if operator == "!=":
            bound = _Bound.read(number)
            yield bound.low, bound.high


def _interval(operator: str, bound: _Bound) -> tuple[Key, Key]:
    given, low, high = len(bound.numbers), bound.low, bound.high
    return {
        ">": (high, HIGHEST),
        ">=": (low, HIGHEST),
        "<": (LOWEST, low),
        "<=": (LOWEST, high),
        "~": (low, bound.above(min(given, 2))),
        "^": (low, bound.above(_first_that_counts(bound))),
    }.get(_SAME.get(operator, operator), (low, high))


def _first_that_counts(bound: _Bound) -> int:
    """Give the place of the number that ``^`` keeps: the first that is not 0."""
    for place, number in enumerate(bound.numbers, start=1):
        if number:
            return place
    return len(bound.numbers)
