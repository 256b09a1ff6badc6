"""Hosts, answers of vendors, runs and sinks for tests: values, not mocks."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from labwright import catalog, plan, spec
from labwright.bundle import Entry, FileFact, Manifest
from labwright.events import Event
from labwright.lock import Stocked
from labwright.machines import NEEDED
from labwright.model import (
    Card,
    ChartPin,
    DebPin,
    HostFacts,
    HostNetwork,
    ImagePin,
    MachineFacts,
    Pins,
    Plan,
    Survey,
    Tool,
    Wanted,
)
from labwright.phases.base import Run, Tools
from labwright.software import Inputs
from labwright.tools.docker import Docker
from labwright.tools.shell import Shell
from labwright.tools.store import Store
from labwright.tools.workdir import Workdir

ALL_CAPS = frozenset({"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_MKNOD", "CAP_SYS_RESOURCE"})
ROLES = "0123456789abcdef"

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
    upstream={"pkgs.k8s.io": "does not answer", "registry.k8s.io": "does not answer"},
    queues=frozenset({"nft", "xt"}),
)

VIRTUALBOX = replace(
    DEBIAN, vboxdrv=True, tools={**DEBIAN.tools, "VBoxManage": Tool("/usr/bin/VBoxManage")}
)

LIBVIRT = replace(
    DEBIAN,
    kvm=True,
    libvirt="answers",
    tools={**DEBIAN.tools, "virsh": Tool("/usr/bin/virsh")},
)

# A host on which each provider works.
HOSTS = {"docker": DEBIAN, "virtualbox": VIRTUALBOX, "libvirt": LIBVIRT, "hosts": DEBIAN}

STOCK = Stocked(
    packages={"kubeadm": "1.36.3-1", "containerd.io": "2.3.7-1"},
    images={
        "pause": {
            "ref": "labwright.local/pause:3.10.2",
            "archive": "pause.tar",
            "digest": "sha256:" + "5e" * 32,
            "size": 700_000,
        },
        "coredns": {
            "ref": "labwright.local/coredns:v1.14.7",
            "archive": "coredns.tar",
            "digest": "sha256:" + "c0" * 32,
            "size": 50_000_000,
        },
    },
)


BESIDE = replace(
    STOCK,
    role_packages={
        "tools": {"docker.io": "20.10.24+dfsg1-1", "podman": "4.3.1+ds1-8", "tini": "0.19.0-1"},
        "nas": {"nfs-ganesha": "4.3-2", "libnfs-utils": "4.0.0-1"},
    },
)

# Mirrors that keys of their own sign: what `answers` makes up is believed there.
KEYED = {
    "apt": {
        name: {"url": f"http://mirror.lan/{name}", "key": "mirror.asc"}
        for name in ("kubernetes", "docker")
    }
}


def online(host: HostFacts) -> HostFacts:
    """The same host where the vendors answer."""
    return replace(host, upstream=dict.fromkeys(host.upstream, "answers"))


def machine(number: int = 1, **more: Any) -> MachineFacts:
    """What a Debian 12 of 4 GiB is measured to be like; ``number`` tells it from others."""
    card = Card("eth0", f"52:54:00:00:00:{number:02x}", 1500, IPv4Interface(f"10.0.0.{number}/24"))
    facts = MachineFacts(
        hostname=f"machine-{number}",
        machine_id=f"{number:032x}",
        product_id=f"{number:08x}-0000",
        os="debian",
        os_version="12",
        arch="x86_64",
        container=False,
        cpus=4,
        memory=3921,
        disk_total=40_000,
        disk_free=30_000,
        disk_kind="ext4",
        cards=(card,),
        routes=(HostNetwork(IPv4Network("10.0.0.0/24"), "route on eth0"),),
        nameservers=(IPv4Address("10.0.0.2"),),
        ssh_address=card.address.ip,
        cgroup=2,
        caps=ALL_CAPS,
        conntrack_tunable=True,
        nfs=True,
        overlay=True,
        swaps=(),
        listening={22: "sshd"},
        leftovers=(),
        runtimes=(),
        installed=frozenset(NEEDED),
        marker=None,
        clock=0.0,
        reaches_us=True,
    )
    return replace(facts, **more)


OWNER = "0f" * 16


def on_machines(raw: dict[str, Any]) -> tuple[dict[str, Any], Survey]:
    """Give each node of a lab a machine at 10.0.0.11 and up, and what these are like."""
    if "machines" not in raw:
        nodes = spec.build({**raw, "provider": "docker"}).nodes
        named = {node.name: f"10.0.0.{number}" for number, node in enumerate(nodes, start=11)}
        raw = {**raw, "machines": named, "ssh": {"user": "admin", "key": "/home/u/.ssh/id"}}
    here = {name: machine(number) for number, name in enumerate(raw["machines"], start=11)}
    return raw, Survey(here, here=frozenset({IPv4Address("10.0.0.9")}), us=IPv4Address("10.0.0.9"))


def given(raw: dict[str, Any] | None = None, host: HostFacts = DEBIAN, **more: Any) -> Inputs:
    """All that decides a plan, from YAML-like data on a host."""
    if (raw or {}).get("provider") == "hosts":
        raw, survey = on_machines(raw or {})
        more = {"survey": survey, "owner": OWNER, **more}
    return Inputs(
        spec=spec.build(raw or {}), host=host, catalog=catalog.load(), roles_digest=ROLES, **more
    )


def planned(raw: dict[str, Any] | None = None, host: HostFacts = DEBIAN, **more: Any) -> Plan:
    """Plan a lab from YAML-like data on a host."""
    return plan.build(given(raw, host, **more))


def upstream(raw: dict[str, Any] | None = None, host: HostFacts = DEBIAN, **more: Any) -> Plan:
    """Plan an upstream lab whose vendors have answered."""
    made = planned({"supply": "upstream", **(raw or {})}, online(host), **more)
    return plan.pinned(made, answers(made.wanted), ROLES)


def answers(wanted: Wanted) -> Pins:
    """What vendors that have all that is wanted could answer, the same each time."""
    found: dict[str, DebPin] = {}
    for wish in wanted.debs:
        version = f"{wish.version.rstrip('-') or '1.0'}-1.1"
        found[wish.name] = DebPin(version, sha256(wish.name + version), wish.sources[0])
    return Pins(
        keys={source.name: armour(source.name) for source in wanted.apt if source.key},
        packages=found,
        images={
            name: ImagePin(ref, f"sha256:{sha256(ref)}", 1000 + len(ref))
            for name, ref in wanted.images.items()
        },
        charts={
            name: ChartPin(version, f"{url.rstrip('/')}/{name}-{version}.tgz", sha256(name))
            for name, (url, version) in wanted.charts.items()
        },
    )


def armour(name: str) -> str:
    """A text in the form of an armoured key; nothing verifies with it."""
    mark = "PGP PUBLIC KEY BLOCK-----"
    return f"-----BEGIN {mark}\n\n{sha256(name)}\n-----END {mark}\n"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def manifest(
    made: Plan, ids: tuple[str, ...] = ("base", "apt", "images", "host", "helm")
) -> Manifest:
    """The manifest of a bundle of a lab, with one file an entry."""
    return Manifest(
        lab=made.name,
        made_by="0.1.0",
        versions=made.versions,
        facts={
            "provider": made.provider,
            "guest": made.guest,
            "arch": "x86_64",
            "supply": made.origin,
            "addons": ",".join(made.addons),
        },
        lock=sha256("lab.lock"),
        entries={id_: Entry(id_, f"{id_}-0", {"x": FileFact(sha256(id_), 1)}) for id_ in ids},
    )


class Recorder:
    """A sink that keeps what it was told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def said(self) -> list[str]:
        return [event.text for event in self.events if event.kind == "say"]


def run_of(root: Path, made: Plan | None = None, **more: Any) -> Run:
    """A run below a folder, with its plan settled where one is given."""
    shell = Shell()
    tools = more.pop("tools", None) or Tools(shell, Store(root / "store"), Docker(shell))
    run = Run(
        Workdir(root, made.name if made else "lab"),
        tools,
        more.pop("sink", Recorder()),
        more.pop("consent", lambda _question: False),
        **more,
    )
    if made:
        run.settle(made)
    return run
