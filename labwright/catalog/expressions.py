"""What the expressions of the catalog and the wishes of lab.yaml mean. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version


def matches(expression: str, value: str) -> bool:
    """Whether a version or word fits an expression.

    An expression is one or more alternatives between ``|``: a PEP 440 specifier set
    (``>=1.36,<1.37``), a prefix (``2.15.*``), or a value meant exactly (``debian-12``). Specifiers
    read the number that a value starts with, as VirtualBox says ``7.2.22_Debianr1``; a value that
    starts with none fits no specifier.
    """
    return any(_fits(part.strip(), value) for part in expression.split("|"))


def asked(wish: str, value: str) -> bool:
    """Whether a value is what a user means by a wish: ``1.36`` asks for any 1.36.x."""
    wish = re.sub(r"^v(?=\d)", "", wish)
    return value == wish or value.startswith((f"{wish}.", f"{wish}-"))


def _fits(alternative: str, value: str) -> bool:
    if alternative.endswith(".*") and alternative[0].isdigit():
        return asked(alternative[:-2], value)
    if alternative[:1] in OPERATORS:
        version = _version(value)
        return version is not None and specifiers(alternative).contains(version, prereleases=True)
    return alternative == value


OPERATORS = ("<", ">", "=", "!", "~")


@lru_cache(4096)
def specifiers(text: str) -> SpecifierSet:
    """Read a PEP 440 specifier set, once; raises InvalidSpecifier."""
    return SpecifierSet(text)


@lru_cache(4096)
def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        number = re.match(r"\d+(\.\d+)*", text)
        return Version(number[0]) if number else None
