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
    Role,
    SupplyName,
    Wanted,
)

# What nodes beside the cluster need more than `base`; the roles of the same names install these.
ROLE_PACKAGES: Mapping[Role, tuple[str, ...]] = {
    "tools": (
        "busybox-static",
        "crun",
        "fuse-overlayfs",
        # Names between Podman's containers.
        "aardvark-dns",
        "lxc",
        "netavark",
        "podman",
        "uidmap",
    ),
    # nfs-ganesha-vfs exports folders; libnfs-utils speaks NFS where the kernel does not.
    "nas": ("libnfs-utils", "nfs-ganesha", "nfs-ganesha-vfs"),
}
# Docker with Compose, by the package source that containerd comes from: Docker's own containerd.io
# and the distribution's docker.io exclude each other.
DOCKER: Mapping[str, tuple[str, ...]] = {
    "guest": ("docker.io", "docker-compose"),
    "docker": ("docker-ce", "docker-ce-cli", "docker-compose-plugin"),
}
# Part of docker.io in older releases.
DOCKER_CLI = "docker-cli"
ROLE_ARTIFACTS: Mapping[Role, str] = {role: f"apt-{role}" for role in ROLE_PACKAGES}
# The boxes that are built here, and what there is of a node's root.
OWN_BOXES: Mapping[ProviderName, str] = {
    "libvirt": "box-libvirt",
    "virtualbox": "box-virtualbox",
}
ROOTS = ("base", "machine-root")
# Add-ons that are installed from a chart: no supply builds a program or an image for them.
BY_CHART = frozenset({"rancher"})


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the planner has settled when it asks a supply: ``versions`` by component.

    ``charts`` are the components whose charts the lab needs, ``roles`` those of its nodes;
    ``helm`` says whether nodes need it, and ``own_box`` whether machines start from a box that is
    built here.
    """

    catalog: Catalog
    provider: ProviderName
    guest: Guest
    versions: Mapping[str, str]
    addons: tuple[str, ...]
    charts: tuple[str, ...]
    mirrors: Mirrors
    helm: bool = False
    own_box: bool = False
    roles: frozenset[Role] = frozenset()

    @property
    def beside(self) -> tuple[Role, ...]:
        """The roles of nodes beside the cluster that the lab has."""
        return tuple(role for role in ROLE_PACKAGES if role in self.roles)


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
        needs = tuple(root for root in ROOTS if root in plan.keys)
        version = plan.versions["kubernetes"]
        beside = dict.fromkeys(wish.role for wish in plan.wanted.debs if wish.role)
        more: tuple[Artifact, ...] = (
            Artifact("apt", "collect", version, needs, _debs(plan), "the nodes' packages"),
            *(
                Artifact(
                    ROLE_ARTIFACTS[role],
                    "collect",
                    version,
                    (*needs, "apt"),
                    _debs(plan, role),
                    f"packages of a {role} node",
                )
                for role in beside
            ),
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
    holders = {"apt", "images", *OWN_BOXES.values()}
    inside: set[str] = set()
    for a in reversed(plan.artifacts):
        if a.id in holders | inside:
            inside |= {*a.needs}
    bundled = [a for a in plan.artifacts if a.id not in inside - {"base"}]
    return (*bundled, *more, *host)


def role_packages(role: Role, root: str = "base") -> Artifact:
    """Give the packages of a node beside the cluster, built from Debian's archive."""
    more = DOCKER["guest"] if role == "tools" else ()
    return Artifact(
        ROLE_ARTIFACTS[role],
        "apt-role",
        "bookworm",
        (root, "apt"),
        {"packages": " ".join(sorted([*ROLE_PACKAGES[role], *more]))},
        f"apt repository of a {role} node",
    )


def named(role: Role) -> tuple[str, ...]:
    """Give every package that a node of a role may be asked to install by name."""
    more = [*DOCKER["guest"], DOCKER_CLI, *DOCKER["docker"]] if role == "tools" else []
    return (*ROLE_PACKAGES[role], *more)


def _debs(plan: Plan, role: Role | None = None) -> dict[str, str]:
    """Give the pinned packages of a role, or of the cluster: name → ``version sha256``."""
    pins = plan.pins.packages if plan.pins else {}
    names = [wish.name for wish in plan.wanted.debs if wish.role == role]
    return {n: f"{pins[n].version} {pins[n].sha256}" for n in names if n in pins}


def base_root() -> Artifact:
    """Give the root that every container node starts from."""
    return Artifact("base", "base", "bookworm", title="Debian bookworm root of a node")


def machine_root(guest: Guest) -> Artifact:
    """Give the root with a kernel that a box of ours is made from."""
    title = f"{guest.distribution.title()} {guest.codename} root of a machine"
    return Artifact("machine-root", "machine-root", guest.codename, title=title)


def own_image(guest: Guest) -> tuple[Artifact, ...]:
    """Give the root of containers as an image to load, after that root."""
    root = base_root()
    title = f"Docker image of {guest.name}"
    params = {"provider": "docker", "tag": f"labwright/base:{guest.name}"}
    return root, Artifact("box-docker", "box", guest.codename, ("base",), params, title)


def own_box(guest: Guest, provider: ProviderName) -> tuple[Artifact, ...]:
    """Give the box that machines of a provider start from, after the root it is made from."""
    return (
        machine_root(guest),
        Artifact(
            OWN_BOXES[provider],
            "box",
            guest.codename,
            ("machine-root",),
            {"provider": provider},
            f"{provider} box of {guest.name}",
        ),
    )


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
