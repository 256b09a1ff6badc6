"""The frozen values of the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from labwright.model import Box

Kind = Literal["cluster", "addon", "tool", "word"]


@dataclass(frozen=True, slots=True)
class Release:
    """One version of one component.

    ``supplies`` and ``guests`` name where it can be had; empty means anywhere. ``apt`` is the apt
    source that has its debs and ``packages`` are their names; ``chart`` is the version of its Helm
    chart. ``source`` says where the version was read.
    """

    version: str
    supplies: tuple[str, ...]
    source: str
    guests: tuple[str, ...] = ()
    apt: str = ""
    packages: tuple[str, ...] = ()
    chart: str = ""


@dataclass(frozen=True, slots=True)
class Component:
    """Something with versions, oldest first, or a word to choose, the best last.

    ``kind``: a part of every cluster, an add-on, a tool of the host, or a word such as the guest.
    """

    name: str
    title: str
    kind: Kind
    releases: tuple[Release, ...]

    def release(self, version: str) -> Release | None:
        """Give the release of exactly this version."""
        return next((r for r in self.releases if r.version == version), None)


@dataclass(frozen=True, slots=True)
class Constraint:
    """If every expression of ``when`` matches, every one of ``needs`` must.

    Both map a component to an expression (see ``matches``). Void where a lab lacks a component of
    ``when``; a need of a component that the lab lacks is void by itself. ``checked`` is false
    where the number stands on less than the named project's own file.
    """

    id: str
    when: Mapping[str, str]
    needs: Mapping[str, str]
    why: str
    source: str
    checked: bool = True


@dataclass(frozen=True, slots=True)
class AptSource:
    """An apt repository. ``base`` is what a mirror replaces as a whole.

    ``path`` and ``suites`` may hold ``{kubernetes_minor}``, ``{distribution}`` and ``{codename}``.
    ``key`` is the signing key's path below ``base``, empty where the guest has the key already in
    ``keyring``; ``fingerprint`` is the key's, 40 hexadecimal digits.
    """

    name: str
    base: str
    path: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    key: str
    fingerprint: str
    keyring: str


@dataclass(frozen=True, slots=True)
class Guest:
    """A distribution that nodes run. ``apt`` are its own archive's sources; boxes by provider."""

    name: str
    distribution: str
    codename: str
    keyring: str
    apt: tuple[str, ...]
    boxes: Mapping[str, Box]


@dataclass(frozen=True, slots=True)
class Addon:
    """A word of lab.yaml's ``addons``: what it is for, and the component that it installs.

    ``images`` are the names of its images; without any its only one has the component's name.
    ``host`` is its name in the lab's domain, where it has one, and ``at`` which node answers there.
    """

    name: str
    title: str
    component: str
    images: tuple[str, ...] = ()
    host: str = ""
    at: Literal["control plane", "ingress"] = "control plane"


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """Everything known. Two catalogs are equal only where they are the same object.

    ``images`` maps an image's name to its reference with ``{component}`` for versions, ``charts``
    a component to its chart repository's URL, ``addons`` a word of lab.yaml to what it installs.
    """

    components: Mapping[str, Component]
    constraints: tuple[Constraint, ...]
    apt: Mapping[str, AptSource]
    images: Mapping[str, str]
    charts: Mapping[str, str]
    guests: Mapping[str, Guest]
    addons: Mapping[str, Addon]

    def offers(self, supply: str) -> tuple[str, ...]:
        """Give the components, words aside, of which a supply has at least one version."""
        return tuple(
            name
            for name, component in self.components.items()
            if component.kind != "word"
            and any(supply in r.supplies or not r.supplies for r in component.releases)
        )


def minor(version: str) -> tuple[int, int]:
    """Give ``(major, minor)`` of a version such as ``1.20.2`` or ``1.20``."""
    major, rest, *_ = version.split(".")
    return int(major), int(rest)
