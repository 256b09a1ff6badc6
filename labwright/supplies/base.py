"""What every supply says of itself. No I/O: recipes make what a supply only describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from labwright.catalog import Catalog, Guest
from labwright.errors import Finding
from labwright.model import (
    Artifact,
    HostFacts,
    Mirrors,
    Pins,
    Plan,
    ProviderName,
    SupplyName,
    Wanted,
)

# Add-ons that are installed from a chart: no supply builds a program or an image for them.
BY_CHART = frozenset({"rancher"})


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the planner has settled when it asks a supply: ``versions`` by component.

    ``charts`` are the components whose charts the lab needs; ``helm`` says whether nodes need it.
    """

    catalog: Catalog
    provider: ProviderName
    guest: Guest
    versions: Mapping[str, str]
    addons: tuple[str, ...]
    charts: tuple[str, ...]
    mirrors: Mirrors
    helm: bool = False


class Supply(Protocol):
    """A source of debs and images for one set of versions."""

    @property
    def name(self) -> SupplyName:
        """The name lab.yaml gives it."""

    @property
    def image_repository(self) -> str:
        """The registry name in its images' references."""

    def probe(self, host: HostFacts, provider: ProviderName) -> list[Finding]:
        """Say what keeps this host from using the supply; an error is final."""

    def artifacts(self, chosen: Chosen) -> tuple[Artifact, ...]:
        """Give what is built or fetched into the store, each after all it needs."""

    def wanted(self, chosen: Chosen) -> Wanted:
        """Give what has to be asked of repositories and registries."""


def charts(pins: Pins) -> Artifact:
    """Give the charts of a lab, once their repositories have said what they are."""
    params = {name: f"{pin.url}#{pin.sha256}" for name, pin in pins.charts.items()}
    return Artifact("charts", "charts", "1", params=params, title="charts")


def helm() -> Artifact:
    """Give Helm, the same of every supply; ``data/helm.txt`` says which."""
    return Artifact("helm", "helm", "4.2.3", title="Helm 4.2.3")


def collected(plan: Plan) -> tuple[Artifact, ...]:
    """Give what a bundle of a lab holds, each after all it needs.

    What the nodes of an ``upstream`` lab fetch themselves is collected here: debs and images.
    """
    pins = plan.pins
    if plan.supply == "upstream" and pins:
        debs = {name: f"{pin.version} {pin.sha256}" for name, pin in pins.packages.items()}
        needs = ("base",) if plan.provider == "docker" else ()
        version = plan.versions["kubernetes"]
        more: tuple[Artifact, ...] = (
            Artifact("apt", "collect", version, needs, debs, "the nodes' packages"),
            Artifact(
                "images",
                "pull",
                version,
                params={name: f"{pin.ref}@{pin.digest}" for name, pin in pins.images.items()},
                title="container images",
            ),
        )
    else:
        more = ()
    have = {a.id for a in plan.artifacts}
    tools = (Artifact("host", "host", "1", ("apt",), title="kubectl"), helm())
    host = tuple(tool for tool in tools if tool.id not in have)
    # The programs that images and packages are made of are in those already.
    inside = {need for a in plan.artifacts if a.id in {"apt", "images"} for need in a.needs}
    bundled = [a for a in plan.artifacts if a.id not in inside - {"base"}]
    return (*bundled, *more, *host)


def base_root() -> Artifact:
    """Give the root that every container node starts from."""
    return Artifact("base", "base", "bookworm", title="Debian bookworm root of a node")


def not_buildable(host: HostFacts, what: str) -> list[Finding]:
    """Say what keeps a host from running Debian 12's own tools, which the recipes drive."""
    found = []
    if (host.os, host.os_version) != ("debian", "12"):
        fix = "run Labwright on Debian 12, or in a container or machine that is, or use a bundle"
        why = f"{host.os} {host.os_version} has other package versions"
        said = f"{what} on Debian 12, and this is {host.os}"
        found.append(Finding("host.packages.not-debian", "error", said, why, fix))
    if host.arch != "x86_64":
        said = f"{what} on x86_64, and this is {host.arch}"
        found.append(Finding("host.packages.arch", "error", said))
    return found
