"""Judges machines that are there already, before anything is changed on them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from statistics import median

from labwright.catalog import Catalog
from labwright.errors import Finding
from labwright.model import (
    CLUSTER_ROLES,
    Card,
    Choice,
    Existing,
    HostFacts,
    HostNetwork,
    MachineFacts,
    NodeSpec,
    Role,
    Size,
    Spec,
    Survey,
    out_of_place,
)
from labwright.providers.docker import REQUIRED_CAPS

DOCS = "docs/hosts.md"
# What kubeadm's processes and, on a NAS, ganesha listen on.
_NODE_PORTS = (10248, 10249, 10250, 10256)
PORTS: Mapping[Role, tuple[int, ...]] = {
    "control_plane": (2379, 2380, 2381, 6443, *_NODE_PORTS, 10257, 10259),
    "worker": _NODE_PORTS,
    "tools": (),
    "nas": (2049,),
}
# What the roles take for granted and a lab's own repository does not hold.
NEEDED = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "iputils-ping",
    "kmod",
    "procps",
    "python3-apt",
    "sudo",
    "systemd",
)
# Images, packages and a little to run, in MiB.
DISK_FREE = 5 * 1024
# Seconds: settle.py takes a lease that is 20 s old for a silent kubelet.
CLOCKS_APART = 5.0
RESET = "sudo labwright-reset"


@dataclass(frozen=True, slots=True)
class Asked:
    """The lab that the machines are to be nodes of; ``pods`` is what its pods had before."""

    spec: Spec
    survey: Survey
    host: HostFacts
    owner: str
    pods: IPv4Network | None = None

    def ours(self, name: str) -> bool:
        """Whether a machine is a node of this very lab already."""
        marker = self.survey.machines[name].marker
        return marker is not None and (marker.lab, marker.owner, marker.node) == (
            self.spec.name,
            self.owner,
            name,
        )


def judge(asked: Asked) -> list[Finding]:
    """Say what is wrong with the machines: of each what was measured, and of all together."""
    found: list[Finding] = list(asked.survey.problems)
    here = asked.survey.machines
    for node in asked.spec.nodes:
        if node.name in here:
            for rule in _OF_EACH:
                found += [replace(f, where=node.name) for f in rule(asked, node, here[node.name])]
    for whole in _OF_ALL:
        found += whole(asked)
    return _grouped(found)


def wrong_guests(survey: Survey, guest: str, catalog: Catalog) -> list[Finding]:
    """Say which machines do not have the distribution that the lab's software is for."""
    title = catalog.guests[guest].name
    return _grouped(
        [
            Finding(
                "hosts.distribution",
                "error",
                f"this is {facts.os} {facts.os_version}, and the lab's software is for {title}",
                "packages of one distribution do not fit another",
                f"install {title} there, or take it out of lab.yaml",
                name,
                DOCS,
            )
            for name, facts in survey.machines.items()
            if f"{facts.os}-{facts.os_version}" != guest
        ]
    )


def card_of(existing: Existing, facts: MachineFacts) -> Card | None:
    """Give the card on the machines' common network: that of ``node_address``, or ssh's."""
    wanted = existing.node_address or facts.ssh_address
    return next((card for card in facts.cards if card.address.ip == wanted), None)


def cards(spec: Spec, survey: Survey) -> dict[str, Card]:
    """Give each measured machine's card on the common network."""
    found = {
        existing.machine.name: card_of(existing, survey.machines[existing.machine.name])
        for existing in spec.machines
        if existing.machine.name in survey.machines
    }
    return {name: card for name, card in found.items() if card}


def network(spec: Spec, survey: Survey) -> tuple[IPv4Network, Choice]:
    """Give the machines' common network; :func:`judge` has found that there is one."""
    first = cards(spec, survey)[spec.nodes[0].name]
    choice = Choice("subnet", str(first.address.network), f"{spec.nodes[0].name} is in it")
    return first.address.network, choice


def networks(asked: Asked) -> tuple[HostNetwork, ...]:
    """Give what the machines' routes reach but their common network and the lab's own pods."""
    common, _ = network(asked.spec, asked.survey)
    return tuple(
        HostNetwork(route.network, f"{name}: {route.owner}")
        for name, facts in asked.survey.machines.items()
        for route in facts.routes
        if not route.network.overlaps(common) and not _own_pods(asked, name, route.network)
    )


def mtu(asked: Asked) -> int:
    """Give the largest packet that every machine's card on the common network takes."""
    return min(card.mtu for card in cards(asked.spec, asked.survey).values())


def _own_pods(asked: Asked, name: str, network: IPv4Network) -> bool:
    """Whether a route on a node of this lab is the lab's own, to the pods of another node."""
    had = asked.spec.pods or asked.pods
    return had is not None and asked.ours(name) and network.subnet_of(had)


def measured(spec: Spec, survey: Survey) -> Spec:
    """Give the spec with the sizes that the machines have, so that what is warned of is so."""
    return replace(
        spec,
        nodes=tuple(replace(n, size=_size(survey.machines[n.name])) for n in spec.nodes),
    )


def _size(facts: MachineFacts) -> Size:
    # Another kernel leaves a little more or less: that is no other machine.
    return Size(facts.cpus, facts.memory // 256 * 256, facts.disk_total // 1024 * 1024)


def _grouped(found: list[Finding]) -> list[Finding]:
    """Make one finding of what is the same on several machines."""
    names: dict[Finding, list[str]] = {}
    for finding in found:
        names.setdefault(replace(finding, where=""), []).append(finding.where)
    return [replace(f, where=", ".join(filter(None, each))) for f, each in names.items()]


def _finding(slug: str, what: str, why: str = "", fix: str = "", where: str = "") -> Finding:
    return Finding(f"hosts.{slug}", "error", what, why, fix, where, DOCS)


def _no_stranger(asked: Asked, node: NodeSpec, facts: MachineFacts) -> Iterator[Finding]:
    """Refuse this computer itself, and a machine that is a node of something already."""
    cards_here = [card for card in facts.cards if card.address.ip in asked.survey.here]
    if cards_here or (facts.machine_id and facts.machine_id == asked.survey.here_id):
        yield _finding(
            "this-computer",
            "this machine is the computer that Labwright runs on",
            "a node's firewall, routes and package sources are the lab's",
            "take another machine, or another provider for a lab on this computer",
        )
    if asked.ours(node.name):
        return
    marker = facts.marker
    if marker:
        mine = (marker.lab, marker.owner) == (asked.spec.name, asked.owner)
        yield _finding(
            "other-node" if mine else "other-lab",
            f"it is {marker.node} of lab {marker.lab}",
            "a machine keeps its place" if mine else "another folder's lab made it a node",
            f"put it back as {marker.node} in lab.yaml"
            if mine
            else f"./invokew lab.destroy where that lab was made, or on the machine: {RESET}",
        )
        return
    if facts.leftovers:
        yield _finding(
            "leftovers",
            "another cluster has left its traces",
            ", ".join(facts.leftovers),
            "if nobody needs them: sudo kubeadm reset, and remove what is named",
        )
    if facts.runtimes:
        yield _finding(
            "runtime",
            f"{', '.join(facts.runtimes)}: somebody has installed that here",
            "Labwright sets up containerd and Kubernetes itself, and would change this one",
            f"if nobody needs it: sudo apt-get purge {' '.join(facts.runtimes)}",
        )
    taken = [f"{p} ({facts.listening[p]})" for p in PORTS[node.role] if p in facts.listening]
    if taken:
        yield _finding(
            "ports", f"ports are taken: {', '.join(taken)}", "Kubernetes listens there", "end them"
        )
    if facts.disk_free < DISK_FREE:
        yield _finding(
            "disk",
            f"{facts.disk_free} MiB are free below /var/lib",
            f"images and packages need {DISK_FREE}",
            "free some space",
        )
    if facts.swaps and not facts.container:
        yield Finding(
            "hosts.swap",
            "note",
            f"swap is on ({', '.join(facts.swaps)}) and will be turned off",
            "kubelet does not start with swap; lab.destroy turns it on again",
        )


def _can_be_node(asked: Asked, node: NodeSpec, facts: MachineFacts) -> Iterator[Finding]:
    """Refuse what cannot carry a node at all."""
    if facts.arch != asked.host.arch:
        yield _finding(
            "architecture",
            f"this is {facts.arch}, and the lab's software is made for {asked.host.arch}",
            "it is made on this computer, for its own architecture",
            f"take machines of {asked.host.arch}",
        )
    missing = [name for name in NEEDED if name not in facts.installed]
    if missing:
        yield _finding(
            "packages",
            f"{', '.join(missing)} is not installed",
            "the roles need it before the lab's own package source is there",
            f"sudo apt-get install {' '.join(missing)}",
        )
    # What a machine of 2 GiB shows is less by what kernel and firmware keep.
    if facts.memory * 8 < node.size.memory * 7:
        yield _finding(
            "memory",
            f"{facts.memory} MiB of memory, and {node.size.memory} are asked for",
            "",
            f"give it more, or ask for less: nodes: {{{node.name}: {{memory: …}}}}",
        )
    if facts.cpus < node.size.cpus:
        yield _finding(
            "cpus",
            f"{facts.cpus} CPU, and {node.size.cpus} are asked for",
            "kubeadm wants 2 on a control plane" if node.role == "control_plane" else "",
            "give it more, or take another machine",
        )
    lacking = sorted(REQUIRED_CAPS - facts.caps)
    if lacking:
        yield _finding(
            "capabilities",
            f"root there has no {', '.join(lacking)}",
            "a node mounts, routes and makes devices",
            "take a machine, or a container that has them",
        )
    if node.role in CLUSTER_ROLES and not facts.overlay:
        why = "containerd puts images together with it"
        yield _finding("overlay", "its kernel has no overlayfs", why, "sudo modprobe overlay")
    if node.role in CLUSTER_ROLES and facts.disk_kind == "overlay":
        yield _finding(
            "var-is-overlay",
            "/var/lib is on overlayfs",
            "overlayfs cannot stack on overlayfs: containerd's snapshots need a real file system",
            "give the container a volume at /var",
        )


def _has_address(asked: Asked, node: NodeSpec, facts: MachineFacts) -> Iterator[Finding]:
    existing = next(e for e in asked.spec.machines if e.machine.name == node.name)
    if card_of(existing, facts):
        return
    has = ", ".join(str(c.address.ip) for c in facts.cards) or "none"
    wanted = existing.node_address or facts.ssh_address
    yield _finding(
        "node-address",
        f"it does not have the address {wanted}" if wanted else "ssh reaches it by no IPv4 address",
        f"it has {has}",
        f"machines: {{{node.name}: {{node_address: …}}}}, where the other machines reach it",
    )


def _one_network(asked: Asked) -> Iterator[Finding]:
    """Pods of other nodes are reached over the nodes themselves (docs/decisions/0003)."""
    found = cards(asked.spec, asked.survey)
    first = asked.spec.nodes[0].name
    if first not in found:
        return
    common = found[first].address.network
    if common.prefixlen > 29:
        yield _finding(
            "network-too-small",
            f"{common} has no room for several machines",
            "the machines must reach each other without a router between",
            "give them a network of their own, and name node_address",
            where=first,
        )
    for name, card in found.items():
        if card.address.network != common:
            yield _finding(
                "other-network",
                f"{card.address} is not in {common}, the network of {first}",
                "routes to the pods of a node go over that node: no router may be between",
                "node_address with an address on a network that all of them have",
                where=name,
            )


def _no_twins(asked: Asked) -> Iterator[Finding]:
    here, found = asked.survey.machines, cards(asked.spec, asked.survey)
    facts: Mapping[str, Callable[[str], str]] = {
        "machine id": lambda name: here[name].machine_id,
        # Containers show the one of the machine that they run on.
        "product id": lambda name: "" if here[name].container else here[name].product_id,
        "address": lambda name: str(found[name].address.ip) if name in found else "",
        "MAC address": lambda name: found[name].mac if name in found else "",
    }
    for what, of in facts.items():
        for value, count in Counter(of(name) for name in here).items():
            if value and count > 1:
                names = [name for name in here if of(name) == value]
                yield _finding(
                    "twins",
                    f"they have the same {what}: {value}",
                    "they are one machine under several names, or copies of one",
                    "take another, or make copies differ: sudo rm /etc/machine-id && "
                    "sudo systemd-machine-id-setup, and reboot",
                    where=", ".join(names),
                )


def _one_kind(asked: Asked) -> Iterator[Finding]:
    """What kubeadm sets for the whole cluster must fit every machine."""
    here = asked.survey.machines
    kinds: Mapping[str, Callable[[MachineFacts], str]] = {
        "kind": lambda m: "containers" if m.container else "machines with a kernel of their own",
        "cgroup": lambda m: f"machines with cgroup v{m.cgroup}",
    }
    for slug, of in kinds.items():
        found = {of(facts) for facts in here.values()}
        if len(found) > 1:
            some = {of(here[name]): name for name in reversed(list(here))}
            yield _finding(
                f"mixed-{slug}",
                f"there are {' and '.join(f'{w} ({some[w]})' for w in sorted(found))}",
                "kubelet is set up in one way for the whole cluster",
                "take machines of one kind",
            )


def _clocks(asked: Asked) -> Iterator[Finding]:
    clocks = {name: facts.clock for name, facts in asked.survey.machines.items()}
    if not clocks:
        return
    middle = median(clocks.values())
    for name, clock in clocks.items():
        if abs(clock - middle) > CLOCKS_APART:
            yield _finding(
                "clock",
                f"its clock is off by {clock - middle:+.0f} s",
                "certificates are not valid yet, and leases look old",
                "sudo timedatectl set-ntp true, and wait until timedatectl says synchronized",
                where=name,
            )


def _ranges(asked: Asked) -> Iterator[Finding]:
    """Refuse ranges inside the cluster that the machines use for something else."""
    for key, mine in (("pods", asked.spec.pods), ("services", asked.spec.services)):
        for name, facts in asked.survey.machines.items() if mine else ():
            for route in facts.routes:
                inside = _own_pods(asked, name, route.network)
                if mine and mine.overlaps(route.network) and not inside:
                    yield _finding(
                        f"{key}-in-use",
                        f"{mine} is in use: {route.network}, {route.owner}",
                        f"what is there and {key} of the cluster could not both be reached",
                        f"network.{key} with a range that is free there",
                        where=name,
                    )


def _balanced(asked: Asked) -> Iterator[Finding]:
    asked_for, found = asked.spec.load_balancer, cards(asked.spec, asked.survey)
    if not asked_for or asked.spec.nodes[0].name not in found:
        return
    common = found[asked.spec.nodes[0].name].address.network
    had = [(name, card.address.ip) for name, card in found.items()]
    had += [("this computer", address) for address in asked.survey.here]
    if why := out_of_place(asked_for, common, "the machines'", had):
        yield _finding(
            "load-balancer",
            f"{asked_for[0]}-{asked_for[1]} cannot be given to services",
            why,
            f"a range inside {common} that nobody has",
            where="network.load_balancer",
        )


_OF_EACH: tuple[Callable[[Asked, NodeSpec, MachineFacts], Iterator[Finding]], ...] = (
    _no_stranger,
    _can_be_node,
    _has_address,
)
_OF_ALL: tuple[Callable[[Asked], Iterator[Finding]], ...] = (
    _one_network,
    _no_twins,
    _one_kind,
    _clocks,
    _ranges,
    _balanced,
)
