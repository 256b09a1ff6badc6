"""What every provider says of itself. Facts in, facts and findings out: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any, Protocol

from labwright.errors import Finding
from labwright.model import HostFacts, Node, NodeFacts, ProviderName


@dataclass(frozen=True, slots=True)
class Caps:
    """What a provider can do.

    ``subnets`` are the ranges that lab networks may lie in, the first choice first;
    ``only_subnets`` says that it refuses any other;
    ``own_network`` says that Labwright makes the lab's network itself before Vagrant runs;
    ``forwards`` that a port of the host leads to each node's sshd; ``inside`` are networks that
    its machines are in besides, without the host's knowledge;
    ``parallel_boot`` says that one Vagrant boots several machines at once, ``boots_apart`` that
    several Vagrants may, each a machine of its own; ``boots`` that it makes machines at
    all, and does not take those that are there;
    ``management`` are the ranges, the first choice first, for a second network that Vagrant
    reaches the nodes on, where it is ours to choose. ``without_systemd`` are further packages
    for a host where no systemd runs.
    """

    parallel_boot: bool
    snapshots: bool
    own_kernel: bool
    own_network: bool
    only_subnets: bool
    subnets: tuple[IPv4Network, ...]
    forwards: bool = False
    inside: tuple[IPv4Network, ...] = ()
    boots_apart: bool = False
    boots: bool = True
    management: tuple[IPv4Network, ...] = ()
    without_systemd: tuple[str, ...] = ()


class Provider(Protocol):
    """A substrate for nodes; Vagrant owns their life cycle."""

    @property
    def name(self) -> ProviderName:
        """The name lab.yaml gives it."""

    @property
    def caps(self) -> Caps:
        """What it can do."""

    @property
    def packages(self) -> tuple[str, ...]:
        """The Debian packages it needs on the host."""

    def probe(self, host: HostFacts) -> list[Finding]:
        """Say what keeps this host from running nodes here.

        Errors are final. With a warning or a note it works, and is taken only when it is asked
        for.
        """

    def node_facts(self, host: HostFacts) -> NodeFacts:
        """Say what the nodes' insides are like, for the roles and the checks."""

    def node_args(self, host: HostFacts) -> tuple[str, ...]:
        """Give what a node must be started with on this host, beyond its plan."""

    def vagrant(self, node: Node) -> Mapping[str, Any]:
        """Give the data for this provider's part of the Vagrantfile."""


# VirtualBox 6.1.28 and later permits no other range unless /etc/vbox/networks.conf does
# (https://www.virtualbox.org/manual/ch06.html#network_hostonly); the others take the same first,
# so that a lab has the same addresses wherever it runs.
FIRST_SUBNETS = (IPv4Network("192.168.56.0/21"),)
MORE_SUBNETS = (*FIRST_SUBNETS, IPv4Network("10.56.0.0/16"))


# What a virtual machine is like inside: a kernel and a systemd of its own.
MACHINE_FACTS = NodeFacts(
    own_kernel=True,
    cgroup=2,
    cgroup_driver="systemd",
    restrict_oom_score_adj=False,
    conntrack_tunable=True,
)


def missing(tool: str, provider: str, fix: str) -> Finding:
    """Say that a provider's own program is not on this host."""
    slug = f"host.{provider}.no-{tool.lower()}"
    return Finding(slug, "error", f"{tool} is not installed", fix=fix)
