"""Everything built from package registries alone: no vendor's download site is needed."""

from __future__ import annotations

from labwright.errors import Finding
from labwright.model import Artifact, HostFacts, ProviderName, SupplyName, Wanted
from labwright.supplies.base import (
    BY_CHART,
    Chosen,
    base_root,
    helm,
    not_buildable,
    own_box,
    role_packages,
)

GO = "1.27.3"
"""The toolchain that compiles all Go modules, as ``recipes/data/go.txt`` pins it."""
PARTS = ("kubernetes", "containerd", "runc", "cni-plugins", "cri-tools", "etcd")
"""What every lab has of Go modules, one artifact each."""
# Of PARTS, those whose programs nodes get as packages, and those whose programs run in images.
AS_DEBS = ("kubernetes", "containerd", "runc", "cni-plugins", "cri-tools")
IN_IMAGES = ("kubernetes", "etcd")
# Programs of add-ons that come through the Go module proxy; the others are Python wheels.
FROM_GO = frozenset(
    {
        "cert-manager",
        "coredns",
        "kube-network-policies",
        "local-path",
        "metallb",
        "metrics-server",
        "registry",
    }
)


class Packages:
    """Kubernetes and what it runs on from Go modules, the rest from Debian and PyPI."""

    name: SupplyName = "packages"
    # Not a host that exists: the images are built here and never pulled.
    image_repository = "labwright.local"

    def probe(self, host: HostFacts, provider: ProviderName) -> list[Finding]:
        """The recipes drive Debian's own tools, on the architecture they were tried on."""
        return not_buildable(host, "the packages supply is built")

    def artifacts(self, chosen: Chosen) -> tuple[Artifact, ...]:
        """Give the node's root, the debs and the images, in building order."""
        parts = chosen.versions
        version = parts["kubernetes"]
        known = chosen.catalog.addons
        components = [known[name].component for name in chosen.addons if name not in BY_CHART]
        programs = [built(name, parts[name]) for name in components]
        own = chosen.own_box
        root = own_box(chosen.guest, chosen.provider) if own else (base_root(),)
        params = {f"{name}_version": parts[name] for name in ("pause", "busybox")}
        # The packages' own versions: a runc that moves on makes another containerd.io.
        debs = {f"{name}_version": parts[name] for name in AS_DEBS}
        return (
            toolchain(),
            *(built(name, parts[name]) for name in PARTS),
            *programs,
            *root,
            Artifact(
                "apt",
                "apt",
                version,
                # A machine has more than a container: what is missing is less, and another set.
                (*AS_DEBS, root[0].id),
                debs,
                "apt repository of the nodes",
            ),
            Artifact(
                "images",
                "images",
                version,
                (*IN_IMAGES, *(program.id for program in programs)),
                params,
                "container images",
            ),
            *(role_packages(role, root[0].id) for role in chosen.beside),
            *([helm()] if chosen.helm else []),
        )

    def wanted(self, chosen: Chosen) -> Wanted:
        """Nothing is asked of a vendor; what users pull goes through their mirrors."""
        return Wanted(registries=chosen.mirrors.registries)


def conformance(version: str) -> tuple[Artifact, Artifact]:
    """Return the programs and the images of a Kubernetes' conformance tests; no lab has them."""
    return (
        Artifact(
            "conformance",
            "conformance",
            version,
            ("go",),
            title=f"conformance tests of Kubernetes {version} from Go modules",
        ),
        Artifact(
            "conformance-images",
            "conformance-images",
            version,
            ("conformance", "kubernetes", "etcd", "coredns"),
            title="images of the conformance tests",
        ),
    )


def toolchain() -> Artifact:
    """Return the Go toolchain, which is in no lab itself."""
    return Artifact("go", "go", GO, title=f"Go {GO} from PyPI")


def built(component: str, version: str) -> Artifact:
    """Return the programs of a component, as its recipe makes them."""
    from_go = component in FROM_GO or component in PARTS
    title = f"{component} {version} from {'Go modules' if from_go else 'PyPI'}"
    return Artifact(component, component, version, ("go",) if from_go else (), title=title)
