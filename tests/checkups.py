"""Measured hosts for the doctor's rules: one with nothing wrong, and what differs from it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from labwright.doctor.facts import (
    Checkup,
    Cpu,
    DockerFacts,
    Kernel,
    Kvm,
    Libvirt,
    Network,
    System,
    VirtualBox,
    Wish,
)
from labwright.model import Tool
from labwright.phases.diagnosis import FACTS
from labwright.tools.host import CAPS
from tests.fakes import DEBIAN

RECORDED = Path(__file__).parent / "fixtures" / "hosts"
LAB = IPv4Network("192.168.56.0/24")

TOOLS = {
    name: Tool(f"/usr/bin/{name}", version)
    for name, version in (
        ("vagrant", "2.4.9"),
        ("VBoxManage", "7.2.22"),
        ("virsh", ""),
        ("docker", ""),
        ("dockerd", ""),
        ("apt-get", ""),
    )
}

HEALTHY = Checkup(
    host=replace(
        DEBIAN,
        tools=TOOLS,
        vboxdrv=True,
        kvm=True,
        caps=frozenset(f"CAP_{name}" for name in CAPS),
        upstream=dict.fromkeys(DEBIAN.upstream, "answers"),
        nameservers=(IPv4Address("10.0.0.2"),),
    ),
    cpu=Cpu("GenuineIntel", "Core i7", "vmx"),
    kvm=Kvm(("kvm", "kvm_intel"), None, 0, True),
    virtualbox=VirtualBox("7.2.22 r169920", None, secure_boot=False, kernel_headers=True),
    libvirt=Libvirt("answers"),
    docker=DockerFacts("28.2.2", "overlay2", "/var/lib/docker", 50_000),
    kernel=Kernel(1024, 524_288, None, 0, frozenset({"cpu", "memory", "pids"})),
    network=Network(resolvers=("10.0.0.2",), forward_policy="DROP", docker_chain=True),
    system=System(12_000, 1.2, 400.0, clock=True, locale="C.UTF-8", boxes=("debian/bookworm64",)),
    wish=Wish(5120, LAB, (8750,)),
)


def with_(part: str, **values: Any) -> Checkup:
    """The healthy host with some values of one part changed."""
    return replace(HEALTHY, **{part: replace(getattr(HEALTHY, part), **values)})


def without(*names: str) -> Checkup:
    """The healthy host without some programs."""
    return with_("host", tools={name: tool for name, tool in TOOLS.items() if name not in names})


def with_version(tool: str, version: str, checkup: Checkup = HEALTHY) -> Checkup:
    """A host with another version of one program, VirtualBox's driver with it."""
    tools = {**checkup.host.tools, tool: Tool(f"/usr/bin/{tool}", version)}
    changed = replace(checkup, host=replace(checkup.host, tools=tools))
    if tool != "VBoxManage":
        return changed
    return replace(changed, virtualbox=replace(changed.virtualbox, driver=f"{version} r1"))


def kvm(virtualbox: str, kernel: str, at_load: bool | None, module: str = "kvm_intel") -> Checkup:
    """A host by what decides the advice about KVM; no vendor module with an empty ``module``."""
    modules = ("kvm", module) if module else ()
    checkup = replace(HEALTHY, kvm=Kvm(modules, at_load, 0, True))
    checkup = replace(checkup, host=replace(checkup.host, kernel=kernel))
    return with_version("VBoxManage", virtualbox, checkup)


def recorded(name: str) -> Checkup:
    """A host as `lab.doctor` measured it once."""
    return FACTS.validate_json((RECORDED / f"{name}.json").read_bytes())
