"""catalog.toml as typed values: which versions exist and which go together."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CATALOG = Path(__file__).with_name("catalog.toml")


@dataclass(frozen=True, slots=True)
class Release:
    """One Kubernetes version: who supplies it, and the components it runs with."""

    version: str
    supplies: tuple[str, ...]
    source: str
    components: Mapping[str, str]

    @property
    def minor(self) -> tuple[int, int]:
        """``(1, 20)`` for 1.20.2."""
        return minor(self.version)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every release, oldest first, and the add-ons by name with what they are for."""

    releases: tuple[Release, ...]
    addons: Mapping[str, str]

    def offered_by(self, supply: str) -> tuple[Release, ...]:
        """Give the releases that a supply has, oldest first."""
        return tuple(r for r in self.releases if supply in r.supplies)


def minor(version: str) -> tuple[int, int]:
    """Give ``(major, minor)`` of a version such as ``1.20.2`` or ``1.20``."""
    major, rest, *_ = version.split(".")
    return int(major), int(rest)


def kubeadm_api(version: str) -> str:
    """Give the newest kubeadm API version that a Kubernetes version reads.

    v1beta2 came with 1.15, v1beta3 with 1.22, v1beta4 with 1.31
    (https://kubernetes.io/docs/reference/config-api/).
    """
    if minor(version) >= (1, 31):
        return "v1beta4"
    return "v1beta3" if minor(version) >= (1, 22) else "v1beta2"


@cache
def load(path: Path = CATALOG) -> Catalog:
    """Read a catalog file; the packaged one unless told otherwise."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    releases = [
        Release(r["version"], tuple(r["supplies"]), r["source"], r["components"])
        for r in raw["kubernetes"]
    ]
    key = lambda r: tuple(int(part) for part in r.version.split("."))  # noqa: E731
    return Catalog(tuple(sorted(releases, key=key)), raw["addons"])
