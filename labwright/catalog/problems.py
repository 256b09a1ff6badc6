"""Where a catalog contradicts itself."""

from __future__ import annotations

import re
import string
from collections.abc import Container, Iterable, Iterator
from typing import get_args

from packaging.specifiers import InvalidSpecifier

from labwright.catalog.expressions import OPERATORS, specifiers
from labwright.catalog.types import Catalog, Component, Constraint, Kind


def problems(read: Catalog) -> Iterator[str]:
    """Say every contradiction, each with the entry that it is in."""
    for component in read.components.values():
        yield from _component_problems(read, component)
    for constraint in read.constraints:
        yield from _constraint_problems(read, constraint)
    for guest in read.guests.values():
        yield from _unknown(f"guest {guest.name}", guest.apt, read.apt, "apt source")
        yield from _unknown("guests", [guest.name], _words(read, "guest"), "guest")
        yield from _unknown(f"guest {guest.name}", guest.boxes, _words(read, "provider"), "box of")
    yield from _unknown("charts", read.charts, read.components, "component")
    for name, template in read.images.items():
        fields = {f for _, f, _, _ in string.Formatter().parse(template) if f}
        yield from _unknown(f"image {name}", fields, read.components, "component")
    for addon in read.addons.values():
        yield from _unknown(f"addon {addon.name}", addon.images, read.images, "image")
    for source in read.apt.values():
        if source.fingerprint and not re.fullmatch("[0-9A-F]{40}", source.fingerprint):
            yield f"apt source {source.name}: a fingerprint is 40 capital hexadecimal digits"


def _component_problems(read: Catalog, component: Component) -> Iterator[str]:
    where = component.name
    if component.kind not in get_args(Kind):
        yield f"{where}: there is no kind {component.kind!r}"
    if not component.releases:
        yield f"{where}: no releases"
    seen = set()
    for release in component.releases:
        if release.version in seen:
            yield f"{where}: {release.version} is listed twice"
        seen.add(release.version)
        if not release.source:
            yield f"{where} {release.version}: no source"
        yield from _unknown(where, release.supplies, _words(read, "supply"), "supply")
        yield from _unknown(where, release.guests, _words(read, "guest"), "guest")
        yield from _unknown(where, filter(None, [release.apt]), read.apt, "apt source")


def _constraint_problems(read: Catalog, constraint: Constraint) -> Iterator[str]:
    where = f"constraint {constraint.id}"
    if not constraint.when or not constraint.needs:
        yield f"{where}: it needs both `when` and `needs`"
    if not constraint.why or not constraint.source:
        yield f"{where}: it needs both `why` and `source`"
    for name, expression in [*constraint.when.items(), *constraint.needs.items()]:
        if name not in read.components:
            yield f"{where}: there is no component {name!r}"
            continue
        yield from _expression_problems(where, read.components[name], expression)


def _expression_problems(where: str, component: Component, expression: str) -> Iterator[str]:
    for part in map(str.strip, expression.split("|")):
        if part[:1] in OPERATORS:
            try:
                specifiers(part)
            except InvalidSpecifier:
                yield f"{where}: {part!r} is no specifier"
        elif not part.endswith(".*") and component.release(part) is None:
            yield f"{where}: {component.name} has no {part!r}"


def _words(read: Catalog, name: str) -> list[str]:
    component = read.components.get(name)
    return [r.version for r in component.releases] if component else []


def _unknown(where: str, names: Iterable[str], known: Container[str], what: str) -> Iterator[str]:
    yield from (f"{where}: there is no {what} {name!r}" for name in names if name not in known)
