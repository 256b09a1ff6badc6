"""Machines that exist already, reached by ssh: no Vagrant, and nothing is booted or halted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labwright.errors import Finding
from labwright.model import HostFacts, MachineFacts, Node, NodeFacts, ProviderName
from labwright.providers.base import MACHINE_FACTS, Caps


class Hosts:
    """Each node is a machine that lab.yaml names; what it is like is measured on it."""

    name: ProviderName = "hosts"
    caps = Caps(
        parallel_boot=False,
        snapshots=False,
        own_kernel=True,
        own_network=False,
        only_subnets=False,
        subnets=(),
        boots=False,
    )
    packages = ()

    def probe(self, host: HostFacts) -> list[Finding]:
        """Nothing of this computer matters but ssh, which is asked when machines are measured."""
        return []

    def node_facts(self, host: HostFacts) -> NodeFacts:
        """Say what a machine is like as long as none was measured: one with its own kernel."""
        return MACHINE_FACTS

    def node_args(self, host: HostFacts) -> tuple[str, ...]:
        """Nothing is started."""
        return ()

    def vagrant(self, node: Node) -> Mapping[str, Any]:
        """No Vagrantfile has a part of it."""
        return {}


def node_facts(machines: Mapping[str, MachineFacts]) -> NodeFacts:
    """Say what all machines have in common; where they differ, what does no harm on any of them.

    That they are of one kind (containers or not, cgroup version) is judged elsewhere.
    """
    each = list(machines.values())
    contained = any(m.container for m in each)
    cgroup = min(m.cgroup for m in each)
    return NodeFacts(
        own_kernel=not contained,
        cgroup=cgroup,
        # On cgroup v1 systemd in a container cannot own the hierarchies kubelet needs.
        cgroup_driver="cgroupfs" if contained and cgroup == 1 else "systemd",
        restrict_oom_score_adj=any("CAP_SYS_RESOURCE" not in m.caps for m in each),
        conntrack_tunable=all(m.conntrack_tunable for m in each),
        nfs=all(m.nfs for m in each),
    )
