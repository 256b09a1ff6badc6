"""Containers as nodes, through Vagrant's Docker provider: the embedded default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labwright.errors import Finding
from labwright.model import HostFacts, Node, NodeFacts, ProviderName
from labwright.providers.base import MORE_SUBNETS, Caps

# Without these no container can be a Kubernetes node; anything less is worked around.
REQUIRED_CAPS = frozenset({"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_MKNOD"})

# Docker 20.10, Debian 12's, refuses these by name; CAP_SYS_ADMIN includes what they split off.
UNKNOWN_CAPS = frozenset({"CAP_BPF", "CAP_CHECKPOINT_RESTORE", "CAP_PERFMON"})

SHARES = 1024
"""What Docker gives a container that asks for nothing, and Kubernetes one that asks for a CPU."""


class Docker:
    """Each node is a systemd container with a NAT-like eth0 and the lab's network on eth1."""

    name: ProviderName = "docker"
    caps = Caps(
        parallel_boot=False,
        snapshots=False,
        own_kernel=False,
        own_network=True,
        only_subnets=False,
        subnets=MORE_SUBNETS,
        forwards=True,
    )
    packages = ("vagrant", "docker.io")

    def probe(self, host: HostFacts) -> list[Finding]:
        """Docker needs Linux and the capabilities that containers as nodes are given."""
        if host.os_kind != "linux":
            what = "containers as nodes need a Linux kernel of this host's own"
            return [Finding("host.docker.not-linux", "error", what, fix="provider: virtualbox")]
        lacking = sorted(REQUIRED_CAPS - host.caps) if host.root else []
        if lacking:
            return [
                Finding(
                    "host.docker.caps",
                    "error",
                    f"this host withholds {', '.join(lacking)}",
                    "a container cannot mount, route or make devices without them",
                    "run Labwright on a machine (or in a container) that has them",
                )
            ]
        return []

    def node_facts(self, host: HostFacts) -> NodeFacts:
        """Containers share the host's kernel, its cgroups and its missing capabilities."""
        return NodeFacts(
            own_kernel=False,
            cgroup=host.cgroup,
            # On cgroup v1 systemd in a container cannot own the hierarchies kubelet needs.
            cgroup_driver="systemd" if host.cgroup == 2 else "cgroupfs",
            # Nobody lowers an oom score without it, and containerd otherwise tries for each pod.
            restrict_oom_score_adj="CAP_SYS_RESOURCE" not in host.caps,
            conntrack_tunable=False,
            nfs=host.nfs,
        )

    def node_args(self, host: HostFacts) -> tuple[str, ...]:
        """Give the ``docker run`` arguments that make a container a node.

        ``--privileged`` asks for every capability there is, and fails where the host itself
        lacks one: the host's own set is named one by one instead.
        """
        caps = sorted(cap.removeprefix("CAP_") for cap in host.caps - UNKNOWN_CAPS)
        return (
            *(f"--cap-add={cap}" for cap in caps),
            "--cgroupns=private",
            "--tmpfs=/run:exec",
            "--tmpfs=/tmp:exec",
            # overlayfs cannot stack on overlayfs: containerd's snapshots need a real file system.
            "--volume=/var",
            "--device=/dev/kmsg",
            "--device-cgroup-rule=a *:* rwm",
            "--security-opt=seccomp=unconfined",
            "--security-opt=apparmor=unconfined",
            "--security-opt=systempaths=unconfined",
            "--stop-signal=SIGRTMIN+3",
        )

    def vagrant(self, node: Node) -> Mapping[str, Any]:
        """Limit a node's memory, and weigh its CPUs against the other nodes'.

        They are no bound: below one, cgroup v1 refuses each container whose own limit is above
        it, which a node that is a machine starts. Kubernetes' conformance tests have such pods.
        (https://docs.kernel.org/scheduler/sched-bwc.html, "hierarchical considerations")
        """
        weight = node.size.cpus * SHARES
        return {"limits": [f"--memory={node.size.memory}m", f"--cpu-shares={weight}"]}
