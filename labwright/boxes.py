"""Which box the machines of a lab start from: lab.yaml's, the catalog's, or our own. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from labwright import keys
from labwright.catalog import Guest
from labwright.errors import Finding, SpecError
from labwright.model import Artifact, Box, Choice, HostFacts, ProviderName, Spec, SupplyName
from labwright.supplies.base import OWN_BOXES, not_buildable, own_box

FOUND, NO_FILE = "answers", "no such file"
OWNER = "labwright"
# Of a key's digest so much goes into a version, which Vagrant reads as numbers.
DIGITS = 12


@dataclass(frozen=True, slots=True)
class Picked:
    """A box, if the provider boots from one; ``own`` is one that is built here, named later."""

    box: Box | None = None
    own: bool = False
    choices: tuple[Choice, ...] = ()
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What decides on a box.

    ``had`` says that our own is in the store or the bundle, ``before`` what lab.lock names.
    """

    spec: Spec
    host: HostFacts
    guest: Guest
    provider: ProviderName
    supply: SupplyName
    had: bool
    before: str = ""


def pick(wish: Wish) -> Picked:
    """Choose. Raises SpecError: lab.yaml names a file that is not there."""
    asked, known = wish.spec.box, wish.guest.boxes.get(wish.provider)
    if known is None:
        return Picked()
    own = Choice("box", own_name(wish.guest), "")
    if asked is None and (wish.supply == "packages" or (wish.supply == "bundle" and wish.had)):
        why = "in the bundle" if wish.supply == "bundle" else "built here, as all of this supply"
        return _own(own, why)
    if asked is None and wish.before == own.chosen and _possible(wish):
        return _own(own, "as lab.lock has it")
    box = asked or known
    there = _to_be_had(wish, box)
    if there is None:
        why = "lab.yaml asks for it" if asked else "the catalog's box of this guest and provider"
        return Picked(box, choices=(Choice("box", _told(box), why),))
    return _instead(wish, box, there)


def _instead(wish: Wish, box: Box, why: str) -> Picked:
    """Take our own box for one that cannot be had: built here, or built elsewhere and added."""
    own = Choice("box", own_name(wish.guest), "")
    warnings = (_other(box, own.chosen, why),) if wish.spec.box else ()
    why = f"{_told(box)}: {why}"
    if _possible(wish):
        return _own(own, why, warnings)
    if had := _listed(wish):
        told = Choice("box", _told(had), f"{why}; and Vagrant has this one")
        return Picked(had, choices=(told,), warnings=warnings)
    finding = Finding(
        "host.no-box",
        "warning",
        f"the box {_told(box)} is out of reach",
        f"{why}; and none can be built here: that takes Debian 12",
        "./invokew box.add --source=… one that was built elsewhere, or box.url in lab.yaml",
        "box",
    )
    return Picked(box, choices=(Choice("box", _told(box), why),), warnings=(finding,))


def own_name(guest: Guest) -> str:
    """Name our own box of a guest, as Vagrant lists it."""
    return f"{OWNER}/{guest.name}"


def own_version(key: str) -> str:
    """Give the version of a box that is in the store under a key."""
    return f"0.0.{int(re.sub('.*-', '', key)[:DIGITS], 16)}"


def own(guest: Guest, provider: ProviderName, places: Mapping[str, str]) -> Box:
    """Give our own box as Vagrant knows it once it is added."""
    return Box(own_name(guest), own_version(places[OWN_BOXES[provider]]))


def own_keys(guest: Guest, provider: ProviderName) -> dict[str, str]:
    """Give where the store has our own box and what it is made from, or would have it."""
    artifacts: tuple[Artifact, ...] = own_box(guest, provider)
    return keys.keys(artifacts)


def _own(choice: Choice, why: str, warnings: tuple[Finding, ...] = ()) -> Picked:
    return Picked(None, True, (Choice(choice.what, choice.chosen, why),), warnings)


def _possible(wish: Wish) -> bool:
    return wish.had or (wish.supply != "bundle" and not not_buildable(wish.host, "a box"))


def _listed(wish: Wish) -> Box | None:
    """Give a box of ours that was built elsewhere and added to Vagrant's list, the newest."""
    name = own_name(wish.guest)
    found = [b.version for b in wish.host.boxes if (b.name, b.provider) == (name, wish.provider)]
    if wish.host.arch not in {"x86_64", "AMD64"}:
        return None
    return Box(name, max(found, key=_ordered)) if found else None


def _ordered(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", version))


def _to_be_had(wish: Wish, box: Box) -> str | None:
    """Give why a box cannot be had; ``None``: Vagrant has it, or its place answers."""
    for one in wish.host.boxes:
        version = not box.version or one.version == box.version
        if one.name == box.name and one.provider == wish.provider and version:
            return None
    said = wish.host.box_sources.get(box.url, FOUND)
    if said == NO_FILE:
        what = f"there is no file {box.url}"
        fix = "name a .box file or a catalogue (.json); a path is relative to lab.yaml"
        raise SpecError(Finding("spec.no-box", "error", what, "", fix, "box.url"))
    where = "its address" if box.url else "Vagrant's catalogue"
    return None if said == FOUND else f"Vagrant does not have it, and {where} {said}"


def _other(box: Box, own: str, why: str) -> Finding:
    return Finding(
        "host.box-replaced",
        "warning",
        f"machines start from {own}, not from {_told(box)}",
        why,
        "go online, or name its .box file or catalogue in lab.yaml: box.url",
        "box",
    )


def _told(box: Box) -> str:
    return f"{box.name} {box.version}".rstrip()
