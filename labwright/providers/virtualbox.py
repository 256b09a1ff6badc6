"""Virtual machines on VirtualBox."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any

from labwright.errors import Finding
from labwright.model import HostFacts, Node, NodeFacts, ProviderName
from labwright.providers.base import FIRST_SUBNETS, MACHINE_FACTS, Caps, missing


class VirtualBox:
    """Each node is a linked clone with a NAT card and a host-only card on the lab's network."""

    name: ProviderName = "virtualbox"
    caps = Caps(
        parallel_boot=False,
        snapshots=True,
        own_kernel=True,
        own_network=False,
        only_subnets=True,
        subnets=FIRST_SUBNETS,
        forwards=True,
        # Of the NAT card (https://www.virtualbox.org/manual/ch09.html#changenat).
        inside=(IPv4Network("10.0.2.0/24"),),
        boots_apart=True,
    )
    packages = ("vagrant",)

    def probe(self, host: HostFacts) -> list[Finding]:
        """VirtualBox needs its program, and on Linux its kernel driver."""
        if "VBoxManage" not in host.tools:
            fix = "install VirtualBox 7.0 or later, or set provider: docker"
            return [missing("VBoxManage", "virtualbox", fix)]
        if host.os_kind == "linux" and not host.vboxdrv:
            return [
                Finding(
                    "host.virtualbox.no-driver",
                    "error",
                    "VirtualBox's kernel driver is not loaded",
                    "/dev/vboxdrv does not exist, so no virtual machine can start",
                    "sudo modprobe vboxdrv, or sudo /sbin/vboxconfig if that fails",
                )
            ]
        return []

    def node_facts(self, host: HostFacts) -> NodeFacts:
        """A virtual machine has a kernel and a systemd of its own."""
        return MACHINE_FACTS

    def node_args(self, host: HostFacts) -> tuple[str, ...]:
        """Nothing depends on the host."""
        return ()

    def vagrant(self, node: Node) -> Mapping[str, Any]:
        """VirtualBox writes a MAC address without colons."""
        return {"mac": node.mac.replace(":", "").upper()}
