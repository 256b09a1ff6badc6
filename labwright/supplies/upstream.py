"""The projects' own repositories and registries, or the mirrors that lab.yaml names for them."""

from __future__ import annotations

from collections.abc import Iterator

from labwright.catalog import AptSource as CatalogSource
from labwright.catalog import Release, minor
from labwright.errors import Finding
from labwright.model import (
    AptSource,
    Artifact,
    DebWish,
    HostFacts,
    ProviderName,
    SupplyName,
    Wanted,
)
from labwright.supplies.base import (
    DOCKER,
    DOCKER_CLI,
    ROLE_PACKAGES,
    Chosen,
    base_root,
    helm,
    not_buildable,
    own_box,
)

# What a node needs beside Kubernetes and its runtime; the role kube_packages installs these.
TOOLS = (
    "conntrack",
    "curl",
    "ethtool",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "nfs-common",
    "socat",
)


class Upstream:
    """Nodes install from the vendors' apt repositories and pull from their registries."""

    name: SupplyName = "upstream"
    image_repository = "registry.k8s.io"

    def probe(self, host: HostFacts, provider: ProviderName) -> list[Finding]:
        """Only a container needs something built here: the root that it starts from."""
        return not_buildable(host, "a container's root is built") if provider == "docker" else []

    def artifacts(self, chosen: Chosen) -> tuple[Artifact, ...]:
        """Give what nodes start from, where that is built here: a container's root, our box."""
        root: tuple[Artifact, ...] = (base_root(),) if chosen.provider == "docker" else ()
        if chosen.own_box:
            root = own_box(chosen.guest, chosen.provider)
        return (*root, *([helm()] if chosen.helm else []))

    def wanted(self, chosen: Chosen) -> Wanted:
        """Give the nodes' package sources, packages and images, and the lab's charts."""
        parts, mirrors = chosen.versions, chosen.mirrors
        known = chosen.catalog.addons
        off = (a for a in known.values() if a.name not in chosen.addons)
        unwanted = {name for addon in off for name in addon.images or (addon.component,)}
        images = {
            name: template.format_map(parts)
            for name, template in chosen.catalog.images.items()
            if name not in unwanted
        }
        return Wanted(
            apt=tuple(_sources(chosen)),
            debs=tuple(_debs(chosen)),
            images=images,
            registries=mirrors.registries,
            charts={name: _chart(chosen, name) for name in chosen.charts},
        )


def _chart(chosen: Chosen, name: str) -> tuple[str, str]:
    version = chosen.versions[name]
    known = chosen.catalog.components[name].release(version)
    repository = chosen.mirrors.charts.get(name, chosen.catalog.charts[name])
    return repository, (known.chart if known else "") or version


def _runtime(chosen: Chosen) -> Release:
    found = chosen.catalog.components["containerd"].release(chosen.versions["containerd"])
    if found is None:
        raise ValueError("the solver chooses among the catalog's releases only")
    return found


def _sources(chosen: Chosen) -> Iterator[AptSource]:
    names = dict.fromkeys(("kubernetes", *chosen.guest.apt, _runtime(chosen).apt))
    for name in names:
        yield _source(chosen, chosen.catalog.apt[name])


def _source(chosen: Chosen, known: CatalogSource) -> AptSource:
    words = {
        "kubernetes_minor": ".".join(map(str, minor(chosen.versions["kubernetes"]))),
        "distribution": chosen.guest.distribution,
        "codename": chosen.guest.codename,
    }
    mirror = chosen.mirrors.apt.get(known.name)
    base = (mirror.url if mirror else known.base).rstrip("/")
    own_key = mirror.key if mirror else ""
    vendors_key = f"{base}/{known.key.format_map(words)}" if known.key else ""
    return AptSource(
        name=known.name,
        uri=f"{base}/{known.path.format_map(words)}",
        suites=tuple(suite.format_map(words) for suite in known.suites),
        components=known.components,
        key=own_key or vendors_key,
        # A key that lab.yaml names is trusted for being named there.
        fingerprint="" if own_key else known.fingerprint,
        keyring="" if own_key else known.keyring.format_map(words),
    )


def _debs(chosen: Chosen) -> Iterator[DebWish]:
    parts, guest = chosen.versions, chosen.guest.apt
    for name in ("kubeadm", "kubelet", "kubectl"):
        yield DebWish(name, ("kubernetes",), f"{parts['kubernetes']}-")
    for name in ("cri-tools", "kubernetes-cni"):
        yield DebWish(name, ("kubernetes",))
    runtime = _runtime(chosen)
    sources = guest if runtime.apt in guest else (runtime.apt,)
    own, *others = runtime.packages
    yield DebWish(own, sources, parts["containerd"])
    for name in others:
        yield DebWish(name, sources)
    for name in TOOLS:
        yield DebWish(name, guest)
    for role in chosen.beside:
        for name in ROLE_PACKAGES[role]:
            yield DebWish(name, guest, role=role)
    if "tools" in chosen.beside:
        yield from _docker(guest, own=runtime.apt not in guest)


def _docker(guest: tuple[str, ...], *, own: bool) -> Iterator[DebWish]:
    """Give Docker from its own repository where containerd is from there, else the guest's."""
    for name in DOCKER["docker" if own else "guest"]:
        yield DebWish(name, ("docker",) if own else guest, role="tools")
    if not own:
        yield DebWish(DOCKER_CLI, guest, required=False, role="tools")
