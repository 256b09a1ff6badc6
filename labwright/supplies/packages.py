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

# Programs that come through the Go module proxy, and those of Debian's packages, which the images
# are made from without a step between; the rest are Python wheels.
FROM_GO = frozenset({"cert-manager", "coredns", "local-path", "metallb", "metrics-server"})
FROM_DEBIAN = frozenset({"registry"})


class Packages:
    """Kubernetes from Debian's source package, the rest from Debian and Go modules."""

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
        programs = [built(name, parts[name]) for name in components if name not in FROM_DEBIAN]
        debian = [name for name in components if name in FROM_DEBIAN]
        own = chosen.own_box
        root = own_box(chosen.guest, chosen.provider) if own else (base_root(),)
        # Only what the lab asks for: an image more is another artifact, with a key of its own.
        params = {f"{name}_version": parts[name] for name in ("etcd", "pause", "busybox", *debian)}
        return (
            Artifact(
                "kubernetes",
                "kubernetes",
                version,
                title=f"Kubernetes {version} from Debian's source package",
            ),
            *programs,
            *root,
            Artifact(
                "apt",
                "apt",
                version,
                # A machine has more than a container: what is missing is less, and another set.
                needs=("kubernetes", root[0].id),
                title="apt repository of the nodes",
            ),
            Artifact(
                "images",
                "images",
                version,
                needs=("kubernetes", *(program.id for program in programs)),
                params=params,
                title="container images",
            ),
            *(role_packages(role, root[0].id) for role in chosen.beside),
            *([helm()] if chosen.helm else []),
        )

    def wanted(self, chosen: Chosen) -> Wanted:
        """Nothing is asked of a vendor; what users pull goes through their mirrors."""
        return Wanted(registries=chosen.mirrors.registries)


def built(component: str, version: str) -> Artifact:
    """Give the program of an add-on, as its recipe makes it."""
    title = f"{component} {version} from {'Go modules' if component in FROM_GO else 'PyPI'}"
    return Artifact(component, component, version, title=title)
