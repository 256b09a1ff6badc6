"""Everything built from package registries alone: no vendor's download site is needed."""

from __future__ import annotations

from labwright.catalog import Release
from labwright.errors import Finding
from labwright.model import Artifact, HostFacts, SupplyName


class Packages:
    """Kubernetes from Debian's source package, the rest from Debian and Go modules."""

    name: SupplyName = "packages"
    # Not a host that exists: the images are built here and never pulled.
    image_repository = "labwright.local"

    def probe(self, host: HostFacts) -> list[Finding]:
        """The recipes drive Debian's own tools, on the architecture they were tried on."""
        found = []
        if (host.os, host.os_version) != ("debian", "12"):
            what = f"the packages supply is built on Debian 12, and this is {host.os}"
            fix = "run Labwright on Debian 12, or in a container or machine that is"
            why = f"{host.os} {host.os_version} has other package versions"
            found.append(Finding("host.packages.not-debian", "error", what, why, fix))
        if host.arch != "x86_64":
            what = f"the packages supply is built for x86_64, and this is {host.arch}"
            found.append(Finding("host.packages.arch", "error", what))
        return found

    def artifacts(self, release: Release) -> tuple[Artifact, ...]:
        """Give the node's root, the debs and the images, in building order."""
        parts = release.components
        params = {f"{name}_version": parts[name] for name in ("etcd", "pause", "busybox")}
        return (
            Artifact(
                "kubernetes",
                "kubernetes",
                release.version,
                title=f"Kubernetes {release.version} from Debian's source package",
            ),
            Artifact(
                "coredns",
                "coredns",
                parts["coredns"],
                title=f"CoreDNS {parts['coredns']} from the Go module proxy",
            ),
            Artifact("base", "base", "bookworm", title="Debian bookworm root of a node"),
            Artifact(
                "apt",
                "apt",
                release.version,
                needs=("kubernetes", "base"),
                title="apt repository of the nodes",
            ),
            Artifact(
                "images",
                "images",
                release.version,
                needs=("kubernetes", "coredns"),
                params=params,
                title="container images",
            ),
        )
