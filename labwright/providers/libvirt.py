"""Virtual machines through vagrant-libvirt: on KVM, or on qemu's emulation where asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

from labwright.errors import Finding
from labwright.model import HostFacts, Node, NodeFacts, ProviderName
from labwright.providers.base import MACHINE_FACTS, MORE_SUBNETS, Caps, missing

X86 = frozenset({"x86_64", "AMD64", "amd64"})
# What such a node measured against a container on the same two processors (docs/libvirt.md).
SLOWER = "five to eight times"


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
        # vagrant-libvirt's own default is the first /24.
        management=(IPv4Network("192.168.121.0/24"), IPv4Network("10.121.0.0/16")),
        # apt would else install, or upgrade, a systemd that runs nothing here.
        without_systemd=("libvirt-daemon-system-sysv",),
    )
    packages = (
        "vagrant",
        "vagrant-libvirt",
        "libvirt-daemon-system",
        "libvirt-clients",
        "qemu-system-x86",
        # vagrant-libvirt asks qemu-img about a box.
        "qemu-utils",
        # Vagrant finds a machine by its lease.
        "dnsmasq-base",
    )

    def probe(self, host: HostFacts) -> list[Finding]:
        """Libvirt needs Linux on x86; without a KVM that boots guests they are emulated."""
        if host.os_kind != "linux" or host.arch not in X86:
            what = "machines of libvirt need Linux on an x86-64 processor"
            fix = "set provider: virtualbox or docker"
            return [Finding("host.libvirt.not-here", "error", what, fix=fix)]
        found = []
        if "virsh" not in host.tools:
            fix = "install libvirt and vagrant-libvirt, or set provider: docker"
            absent = missing("virsh", "libvirt", fix)
            if "apt-get" not in host.tools:
                return [absent]
            why = "lab.up installs it, with your consent, where lab.yaml says provider: libvirt"
            found.append(Finding(absent.id, "note", absent.what, why, fix))
        if self._emulates(host):
            found.append(
                Finding(
                    "host.libvirt.emulated",
                    "warning",
                    f"machines of libvirt are emulated here: {SLOWER} slower",
                    "guests do not come up under KVM" if host.kvm else "/dev/kvm does not open",
                    "turn virtualization on in the firmware, load kvm_intel or kvm_amd, "
                    "or set provider: docker",
                    docs="https://www.qemu.org/docs/master/devel/index-tcg.html",
                )
            )
        return found

    def node_facts(self, host: HostFacts) -> NodeFacts:
        """A kernel and a systemd of its own, as on VirtualBox."""
        return replace(MACHINE_FACTS, emulated=self._emulates(host))

    def _emulates(self, host: HostFacts) -> bool:
        """Whether KVM cannot be used; one that nobody has tried yet is believed."""
        return not host.kvm or host.kvm_boots is False

    def node_args(self, host: HostFacts) -> tuple[str, ...]:
        """Nothing depends on the host."""
        return ()

    def vagrant(self, node: Node) -> Mapping[str, Any]:
        """Libvirt writes a MAC address with colons."""
        return {"mac": node.mac}
