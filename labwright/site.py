"""Where a lab's nodes are: on machines that a provider makes, or on those that are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import get_args

from labwright import addresses, machines
from labwright.errors import Finding, HostError, LabError, SpecError, errors
from labwright.model import (
    CLUSTER_ROLES,
    NUMBERS,
    SUPPLY_PORT,
    Choice,
    HostFacts,
    Node,
    NodeFacts,
    Role,
    Spec,
    Survey,
    out_of_place,
)
from labwright.names import management_name, network_name
from labwright.providers.base import Provider
from labwright.providers.hosts import node_facts
from labwright.software import Inputs, Software, choose

INOTIFY = 20
"""Instances of it that a container node has: 16 to 30 were counted."""


@dataclass(frozen=True, slots=True)
class Site:
    """The nodes with their networks and software, and what there is to say of each choice.

    ``spec`` has the sizes that machines really have; with ``tunnel`` the nodes reach
    ``host_address`` through the ssh connection to them.
    """

    spec: Spec
    software: Software
    networks: addresses.Networks
    nodes: tuple[Node, ...]
    facts: NodeFacts
    host_address: IPv4Address
    nameservers: tuple[IPv4Address, ...]
    mtu: int
    choices: tuple[Choice, ...]
    warnings: tuple[Finding, ...]
    tunnel: bool = False


def settle(given: Inputs, provider: Provider) -> Site:
    """Place a lab. Raises SpecError or HostError with all that is in the way."""
    return _made(given, provider) if provider.caps.boots else _found(given, provider)


def _made(given: Inputs, provider: Provider) -> Site:
    spec, host = given.spec, given.host
    software = choose(given, provider)
    ground = _ground(given, provider)
    networks = addresses.settle(ground)
    ports, port_choices = _ports(given, provider)
    nodes = tuple(_nodes(ground, networks, ports))
    if found := list(_balanced(spec, networks.subnet, nodes)):
        raise SpecError(found)
    mtu, mtu_choice = addresses.mtu(host)
    return Site(
        spec=spec,
        software=software,
        networks=networks,
        nodes=nodes,
        facts=provider.node_facts(host),
        host_address=networks.subnet.network_address + 1,
        nameservers=host.nameservers,
        mtu=mtu,
        choices=(*software.choices, *networks.choices, *port_choices, mtu_choice),
        warnings=(*software.warnings, *networks.warnings, *_tight(given, provider), *_busy(host)),
    )


def _ground(given: Inputs, provider: Provider) -> addresses.Ground:
    """Give the planner of addresses what it goes by."""
    caps, conf = provider.caps, given.host.permitted
    ranges = caps.subnets
    if caps.only_subnets and conf is not None:
        ranges = tuple(addresses.permitted(caps.subnets, conf))
    return addresses.Ground(
        spec=given.spec,
        host=given.host,
        permitted=ranges,
        owner=network_name(given.spec.name),
        strict=caps.only_subnets,
        locked=given.locked,
        labs=given.labs,
        before=given.before,
        made=given.made,
        inside=caps.inside,
        management=caps.management,
        management_owner=management_name(given.spec.name),
    )


def _ports(given: Inputs, provider: Provider) -> tuple[dict[str, int], list[Choice]]:
    if not provider.caps.forwards:
        return {}, []
    names = [node.name for node in given.spec.nodes]
    found, choice = addresses.ssh_ports(
        names, given.host, given.labs, given.before, made=given.made
    )
    return found, [choice]


def _nodes(
    ground: addresses.Ground, place: addresses.Networks, ports: Mapping[str, int]
) -> Iterable[Node]:
    spec, start = ground.spec, place.subnet.network_address
    slices = place.pods.subnets(new_prefix=24)
    left = {role: iter(NUMBERS[role]) for role in get_args(Role)}
    names = [node.name for node in spec.nodes]
    macs = addresses.macs(spec.name, names, ground.labs, ground.before, ground.made)
    for wanted in spec.nodes:
        yield Node(
            name=wanted.name,
            role=wanted.role,
            size=wanted.size,
            address=IPv4Interface(f"{start + next(left[wanted.role])}/{place.subnet.prefixlen}"),
            pods=next(slices) if wanted.role in CLUSTER_ROLES else None,
            mac=macs[wanted.name],
            ssh_port=ports.get(wanted.name, 0),
        )


def _balanced(spec: Spec, subnet: IPv4Network, nodes: Iterable[Node]) -> Iterable[Finding]:
    """Find what keeps lab.yaml's own range from being given to services."""
    if not spec.load_balancer:
        return
    ours = [("this computer", subnet[1]), *((node.name, node.address.ip) for node in nodes)]
    if why := out_of_place(spec.load_balancer, subnet, "the lab's", ours):
        (first, last), numbers = spec.load_balancer, NUMBERS["load_balancer"]
        yield Finding(
            "spec.load-balancer",
            "error",
            f"{first}-{last} cannot be given to services",
            why,
            f"a range such as {subnet[numbers[0]]}-{subnet[numbers[-1]]}, or leave the key out",
            "network.load_balancer",
        )


def _busy(host: HostFacts) -> Iterable[Finding]:
    if SUPPLY_PORT in host.listening:
        yield Finding(
            "host.port-taken",
            "warning",
            f"something listens on port {SUPPLY_PORT} here",
            "the nodes fetch their packages from that port of this computer, on the lab's network",
            f"end it where it listens on all addresses: ss -ltnp sport = {SUPPLY_PORT} names it",
        )


def _tight(given: Inputs, provider: Provider) -> Iterable[Finding]:
    spec, host = given.spec, given.host
    wanted = sum(node.size.memory for node in spec.nodes)
    if wanted > host.memory:
        yield Finding(
            "host.memory",
            "warning",
            f"the nodes may use {wanted} MiB, and this host has {host.memory} MiB",
            "machines that run out of memory lose pods, or the host its programs",
            "lower defaults.memory or workers",
        )
    # What containers watch counts for one user: root, whoever that is in them.
    nodes = len(spec.nodes) + sum(len(lab.ports) for lab in given.labs if lab.node_image)
    limit = host.inotify
    if not provider.caps.own_kernel and limit and nodes * INOTIFY > limit:
        yield Finding(
            "host.inotify",
            "warning",
            f"with your other labs there are {nodes} container nodes, and this host's limit of "
            f"inotify is enough for about {limit // INOTIFY}",
            f"fs.inotify.max_user_instances is {limit}; a kubelet that gets none does not start",
            "./invokew lab.doctor --fix raises it",
            docs="https://github.com/k0sproject/k0s/issues/8113",
        )


def _found(given: Inputs, provider: Provider) -> Site:
    """Take the machines as they are; what is wrong with any of them is told of all at once."""
    survey = given.survey or Survey({})
    had = given.before.pods if given.before else None
    asked = machines.Asked(given.spec, survey, given.host, given.owner, had)
    software, told = _fitting(given, provider, asked)
    spec = machines.measured(given.spec, survey)
    subnet, why = machines.network(spec, survey)
    # Their routes count, not this computer's; and its labs are on networks of its own.
    ground = addresses.Ground(
        spec=replace(spec, subnet=subnet),
        host=replace(given.host, networks=machines.networks(asked)),
        permitted=(subnet,),
        owner=network_name(spec.name),
        locked=given.locked,
        before=given.before,
        made=given.made,
    )
    networks = addresses.settle(ground)
    mtu = machines.mtu(asked)
    kept = [choice for choice in networks.choices if choice.what != "subnet"]
    return Site(
        spec=spec,
        software=software,
        networks=networks,
        nodes=tuple(_placed(spec, survey, networks)),
        facts=node_facts(survey.machines),
        host_address=survey.us or IPv4Address("127.0.0.1"),
        nameservers=_nameservers(spec, survey) or given.host.nameservers,
        mtu=mtu,
        choices=(
            *(*software.choices, why, *kept),
            Choice("MTU", str(mtu), "the smallest of the machines' cards"),
        ),
        warnings=(*told, *software.warnings, *networks.warnings),
        tunnel=survey.us is None,
    )


def _fitting(
    given: Inputs, provider: Provider, asked: machines.Asked
) -> tuple[Software, tuple[Finding, ...]]:
    """Choose the software for machines that are there; give what there is to say of them."""
    found = machines.judge(asked)
    try:
        software = choose(given, provider)
    except LabError:
        if errors(found):
            raise HostError(found) from None
        raise
    found += machines.wrong_guests(asked.survey, software.guest.name, given.catalog)
    if errors(found):
        raise HostError(found)
    return software, tuple(found)


def _placed(spec: Spec, survey: Survey, networks: addresses.Networks) -> Iterable[Node]:
    """Give the nodes as the machines are: their own addresses and cards."""
    slices = networks.pods.subnets(new_prefix=24)
    cards = machines.cards(spec, survey)
    for wanted in spec.nodes:
        yield Node(
            name=wanted.name,
            role=wanted.role,
            size=wanted.size,
            address=cards[wanted.name].address,
            pods=next(slices) if wanted.role in CLUSTER_ROLES else None,
            mac=cards[wanted.name].mac,
        )


def _nameservers(spec: Spec, survey: Survey) -> tuple[IPv4Address, ...]:
    """Machines that are there have name servers of their own."""
    first = survey.machines.get(spec.nodes[0].name)
    return first.nameservers if first else ()
