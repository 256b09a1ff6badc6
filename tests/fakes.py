"""Hosts and sinks for tests: values, not mocks."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from labwright import catalog, plan, spec
from labwright.events import Event
from labwright.model import HostFacts, HostNetwork, Plan, Tool
from labwright.render import Stocked

ALL_CAPS = frozenset({"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_MKNOD", "CAP_SYS_RESOURCE"})

DEBIAN = HostFacts(
    os_kind="linux",
    os="debian",
    os_version="12",
    kernel="6.1.0-30-amd64",
    arch="x86_64",
    cpus=4,
    memory=16384,
    disk_free=100_000,
    root=True,
    tools={"vagrant": Tool("/usr/bin/vagrant"), "dockerd": Tool("/usr/sbin/dockerd")},
    docker_api="1.41",
    docker_why="",
    cgroup=2,
    caps=ALL_CAPS,
    networks=(HostNetwork(IPv4Network("10.0.0.0/24"), "route on eth0"),),
    nameservers=(IPv4Address("10.0.0.2"),),
    vboxdrv=False,
    kvm=False,
    apt_installed=frozenset({"docker.io", "vagrant"}),
    go_modules=True,
    upstream={"pkgs.k8s.io": "does not answer"},
)

VIRTUALBOX = replace(
    DEBIAN, vboxdrv=True, tools={**DEBIAN.tools, "VBoxManage": Tool("/usr/bin/VBoxManage")}
)

LIBVIRT = replace(DEBIAN, kvm=True, tools={**DEBIAN.tools, "virsh": Tool("/usr/bin/virsh")})

# A host on which each provider works.
HOSTS = {"docker": DEBIAN, "virtualbox": VIRTUALBOX, "libvirt": LIBVIRT}

STOCK = Stocked(
    packages={"kubeadm": "1.20.2-00", "containerd": "1.6.20~ds1-1"},
    images={
        "pause": {
            "ref": "labwright.local/pause:3.2",
            "archive": "pause.tar",
            "digest": "sha256:" + "5e" * 32,
            "size": 700_000,
        },
        "coredns": {
            "ref": "labwright.local/coredns:1.10.1",
            "archive": "coredns.tar",
            "digest": "sha256:" + "c0" * 32,
            "size": 50_000_000,
        },
    },
)


def planned(raw: dict[str, Any] | None = None, host: HostFacts = DEBIAN, **more: Any) -> Plan:
    """Plan a lab from YAML-like data on a host."""
    return plan.build(
        plan.Inputs(
            spec=spec.build(raw or {}),
            host=host,
            catalog=catalog.load(),
            roles_digest="0123456789abcdef",
            **more,
        )
    )


class Recorder:
    """A sink that keeps what it was told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
