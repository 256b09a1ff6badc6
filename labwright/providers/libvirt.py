"""Virtual machines on KVM, through vagrant-libvirt."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Any

from labwright.errors import Finding
from labwright.model import HostFacts, Node, NodeFacts, ProviderName
from labwright.providers.base import MORE_SUBNETS, Caps, missing
from labwright.providers.virtualbox import VirtualBox


class Libvirt:
    """Each node is a libvirt domain with a management card and a card on the lab's network."""

    name: ProviderName = "libvirt"
    caps = Caps(
        parallel_boot=True,
        snapshots=True,
        own_kernel=True,
        own_network=False,
        only_subnets=False,
        subnets=MORE_SUBNETS,
        # Of the card that vagrant-libvirt manages a machine by.
        inside=(IPv4Network("192.168.121.0/24"),),
    )
    packages = ("vagrant", "vagrant-libvirt", "libvirt-daemon-system", "qemu-system-x86")

    def probe(self, host: HostFacts) -> list[Finding]:
        """Libvirt needs its client and a KVM device that opens."""
        if "virsh" not in host.tools:
            fix = "install libvirt and vagrant-libvirt, or set provider: docker"
            return [missing("virsh", "libvirt", fix)]
        if not host.kvm:
            return [
                Finding(
                    "host.libvirt.no-kvm",
                    "error",
                    "KVM is not usable",
                    "/dev/kvm does not open",
                    "turn virtualization on in the firmware, load kvm_intel or kvm_amd, "
                    "or set provider: docker",
                )
            ]
        return []

    def node_facts(self, host: HostFacts) -> NodeFacts:
        """The same as on VirtualBox: a kernel and a systemd of its own."""
        return VirtualBox().node_facts(host)

    def node_args(self, host: HostFacts) -> tuple[str, ...]:
        """Nothing depends on the host."""
        return ()

    def vagrant(self, node: Node, host_cpus: int) -> Mapping[str, Any]:
        """Libvirt writes a MAC address with colons."""
        return {"mac": node.mac}
