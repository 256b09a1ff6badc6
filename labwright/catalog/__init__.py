"""catalog.toml as typed values: which versions exist, where they come from, which go together.

``load`` refuses a file that contradicts itself. What the words of an expression mean is said at
``matches``; docs/versions.md says how to add a version.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from labwright.catalog.expressions import asked, matches
from labwright.catalog.problems import problems
from labwright.catalog.types import (
    Addon,
    AptSource,
    Catalog,
    Component,
    Constraint,
    Guest,
    Kind,
    Release,
    minor,
)
from labwright.model import Box

__all__ = [
    "CATALOG",
    "Addon",
    "AptSource",
    "Catalog",
    "Component",
    "Constraint",
    "Guest",
    "Kind",
    "Release",
    "asked",
    "load",
    "matches",
    "minor",
]

CATALOG = Path(__file__).parent.with_name("catalog.toml")


@cache
def load(path: Path = CATALOG) -> Catalog:
    """Read a catalog file; the packaged one unless told otherwise.

    Raises ValueError where the file contradicts itself, naming the entry.
    """
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        read = _read(raw)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is not a catalog: {error}") from error
    if found := [*problems(read)]:
        raise ValueError(f"{path.name}: " + "; ".join(found))
    return read


def _read(raw: Mapping[str, Any]) -> Catalog:
    return Catalog(
        components={name: _component(name, t) for name, t in _table(raw, "components")},
        constraints=tuple(Constraint(id=name, **t) for name, t in _table(raw, "constraints")),
        apt={name: AptSource(name=name, **_tuples(t)) for name, t in _table(raw, "apt")},
        images=raw.get("images", {}),
        charts=raw.get("charts", {}),
        guests={name: _guest(name, dict(t)) for name, t in _table(raw, "guests")},
        addons={name: Addon(name, **_tuples(t)) for name, t in _table(raw, "addons")},
    )


def _table(raw: Mapping[str, Any], name: str) -> list[tuple[str, dict[str, Any]]]:
    return list(raw.get(name, {}).items())


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in table.items()}


def _component(name: str, table: Mapping[str, Any]) -> Component:
    """Each entry of ``releases`` gives one version or several and inherits the component's keys."""
    shared = {key: table[key] for key in ("supplies", "source", "apt", "packages") if key in table}
    releases = [
        Release(
            version=version, **_tuples({"supplies": [], "source": "", **shared, **_without(entry)})
        )
        for entry in table["releases"]
        for version in entry.get("versions", [entry.get("version")])
    ]
    if table["kind"] != "word":
        releases.sort(key=lambda r: _ordered(name, r.version))
    return Component(name, table["title"], table["kind"], tuple(releases))


def _without(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in {"version", "versions"}}


def _ordered(name: str, version: object) -> Version:
    try:
        return Version(str(version))
    except InvalidVersion as error:
        raise ValueError(f"{name}: {version!r} is not a version") from error


def _guest(name: str, table: dict[str, Any]) -> Guest:
    boxes = {provider: Box(**box) for provider, box in table.pop("boxes", {}).items()}
    return Guest(name=name, boxes=boxes, **_tuples(table))
