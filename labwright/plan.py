"""Spec + host facts + catalog → Plan. Pure: no clock, no random, no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from typing import TypeVar

from labwright import addresses, keys, machines
from labwright.catalog import Catalog, Guest, kubeadm_api, minor
from labwright.errors import Finding, HostError, LabError, errors
from labwright.model import (
    CLUSTER_ROLES,
    Box,
    Choice,
    HostFacts,
    Node,
    NodeFacts,
    NodeSpec,
    Pins,
    Plan,
    Rancher,
    Role,
    Service,
    Spec,
    Survey,
    domain,
)
from labwright.providers import PROVIDERS
from labwright.providers.base import Provider
from labwright.providers.hosts import node_facts
from labwright.software import Inputs, Software, choose
from labwright.supplies.base import ROLE_ARTIFACTS, charts

# MiB on one node, for Rancher with its webhook and Fleet beside what a node runs anyway.
RANCHER_MEMORY = 4096
_AnyNode = TypeVar("_AnyNode", Node, NodeSpec)


def build(given: Inputs) -> Plan:
    """Resolve a lab.

    Raises SpecError for what lab.yaml must change, HostError for what the host must.
    """
    spec, host = given.spec, given.host
    provider, provider_choice = _provider(spec, host, given.locked.word("provider"))
    if provider.caps.boots:
        software = choose(given, provider)
        place = addresses.place(
            spec,
            host,
            provider.caps.subnets,
            given.locked.subnet,
            owner=network_name(spec.name),
            strict=provider.caps.only_subnets,
        )
        nodes = tuple(_nodes(spec, place))
        facts, survey = provider.node_facts(host), Survey({})
    else:
        survey = given.survey or Survey({})
        software, told = _existing(given, provider, survey)
        spec = machines.measured(spec, survey)
        place = addresses.Place(*machines.network(spec, survey), told)
        nodes = tuple(_placed(spec, survey))
        facts = node_facts(survey.machines)
    return Plan(
        name=spec.name,
        provider=provider.name,
        supply=software.supply,
        origin=software.origin,
        guest=software.guest.name,
        versions=software.versions,
        kubeadm_api=kubeadm_api(software.versions["kubernetes"]),
        subnet=place.subnet,
        host_address=_host_address(provider, survey, place),
        pods=spec.pods,
        services=spec.services,
        dns_service=spec.services.network_address + 10,
        containers=addresses.containers(spec, place.subnet),
        nodes=nodes,
        facts=facts,
        schedule_on_control_planes=spec.schedule_on_control_planes,
        addons=software.addons,
        nameservers=_nameservers(spec, survey) or host.nameservers,
        image_repository=software.image_repository,
        artifacts=software.artifacts,
        keys=software.keys,
        node_image=_node_image(software.keys, given.roles_digest, None),
        node_args=provider.node_args(host),
        host_cpus=host.cpus,
        box=(spec.box or _box(software.guest, provider)) if provider.caps.boots else None,
        choices=(provider_choice, *software.choices, place.choice),
        warnings=(
            *(*software.warnings, *place.warnings),
            *(_tight(spec, host) if provider.caps.boots else ()),
            *_too_small(spec, software),
            *_unmountable(spec, facts),
        ),
        wanted=software.wanted,
        bundle=given.bundled.folder if given.bundled else "",
        rancher=_rancher(given) if "rancher" in software.addons else None,
        services_at=tuple(_services(spec, given.catalog, software.addons, nodes)),
        balanced=spec.load_balancer,
        machines=spec.machines,
        owner=given.owner if spec.machines else "",
        tunnel=bool(spec.machines) and survey.us is None,
    )


def _existing(
    given: Inputs, provider: Provider, survey: Survey
) -> tuple[Software, tuple[Finding, ...]]:
    """Choose the software for machines that are there; give what there is to say of them.

    Raises HostError with all that is wrong with any of them.
    """
    found = machines.judge(machines.Asked(given.spec, survey, given.host, given.owner))
    try:
        software = choose(given, provider)
    except LabError:
        if errors(found):
            raise HostError(found) from None
        raise
    found += machines.wrong_guests(survey, software.guest.name, given.catalog)
    if errors(found):
        raise HostError(found)
    return software, tuple(found)


def _placed(spec: Spec, survey: Survey) -> Iterable[Node]:
    """Give the nodes as the machines are: their own addresses and cards."""
    slices = spec.pods.subnets(new_prefix=24)
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


def _host_address(provider: Provider, survey: Survey, place: addresses.Place) -> IPv4Address:
    """Say where nodes reach this computer: through the tunnel it is on their own loopback."""
    if provider.caps.boots:
        return place.subnet.network_address + 1
    return survey.us or IPv4Address("127.0.0.1")


def _nameservers(spec: Spec, survey: Survey) -> tuple[IPv4Address, ...]:
    """Machines that are there have name servers of their own."""
    first = survey.machines.get(spec.nodes[0].name)
    return first.nameservers if first else ()


def pinned(made: Plan, pins: Pins, roles_digest: str) -> Plan:
    """Take in what repositories and registries answered."""
    artifacts = made.artifacts
    if pins.charts:
        artifacts = (*artifacts, charts(pins))
    places = keys.keys(artifacts)
    beside = {wish.name for wish in made.wanted.debs if wish.role}
    image = _node_image(places, roles_digest, pins, beside)
    return replace(made, pins=pins, artifacts=artifacts, keys=places, node_image=image)


def network_name(lab: str) -> str:
    """Name the network of a lab, as Docker and libvirt show it.

    Not ``vagrant_network…``: Vagrant removes any such network that no running container uses,
    another halted lab's as well (plugins/providers/docker/action/destroy_network.rb).
    """
    return f"labwright-{lab}"


def _provider(spec: Spec, host: HostFacts, before: str) -> tuple[Provider, Choice]:
    if spec.provider:
        provider = PROVIDERS[spec.provider]
        if not provider.caps.boots:
            return provider, Choice("provider", provider.name, "lab.yaml names machines")
        if found := errors(provider.probe(host)):
            raise HostError(found)
        return provider, Choice("provider", provider.name, "lab.yaml asks for it")
    reasons: list[str] = []
    found_all: list[Finding] = []
    for name, provider in sorted(PROVIDERS.items(), key=lambda item: item[0] != before):
        if not provider.caps.boots:
            continue  # Only lab.yaml can name machines.
        found = errors(provider.probe(host))
        if not found:
            first = "as lab.lock has it" if name == before else "the first choice"
            why = "; ".join(reasons) or f"{first}, and it works here"
            return provider, Choice("provider", name, why)
        reasons.append(f"{name}: {found[0].what}")
        found_all.extend(found)
    raise HostError(found_all)


def _box(guest: Guest, provider: Provider) -> Box | None:
    """Give the guest's box for a provider that boots machines from one."""
    return guest.boxes.get(provider.name)


def _nodes(spec: Spec, place: addresses.Place) -> Iterable[Node]:
    slices = spec.pods.subnets(new_prefix=24)
    seen: dict[Role, int] = {"control_plane": 10, "worker": 20, "tools": 100, "nas": 110}
    for wanted in spec.nodes:
        seen[wanted.role] += 1
        address = place.subnet.network_address + seen[wanted.role]
        yield Node(
            name=wanted.name,
            role=wanted.role,
            size=wanted.size,
            address=IPv4Interface(f"{address}/{place.subnet.prefixlen}"),
            pods=next(slices) if wanted.role in CLUSTER_ROLES else None,
            mac=_mac(spec.name, wanted.name),
        )


def _rancher(given: Inputs) -> Rancher:
    asked = given.spec.rancher
    return Rancher(_rancher_host(given.spec), asked.tls, given.chart, asked.password_file)


def _rancher_host(spec: Spec) -> str:
    return spec.rancher.hostname or f"rancher.{domain(spec.name)}"


def _services(
    spec: Spec, catalog: Catalog, addons: Iterable[str], nodes: Sequence[Node]
) -> Iterable[Service]:
    for name in addons:
        if host := catalog.addons[name].host:
            takers = _taking_pods(nodes) if catalog.addons[name].at == "ingress" else nodes
            node = takers[0]
            full = _rancher_host(spec) if name == "rancher" else f"{host}.{domain(spec.name)}"
            yield Service(name, full, node.address.ip)


def _taking_pods(nodes: Sequence[_AnyNode]) -> Sequence[_AnyNode]:
    """Give the nodes that ordinary pods run on: the workers, or the control plane without any."""
    return [n for n in nodes if n.role == "worker"] or nodes[:1]


def _mac(lab: str, node: str) -> str:
    """Derive a MAC address in VirtualBox's range, the same for a node whenever it is planned."""
    digest = hashlib.sha256(f"{lab}/{node}".encode()).hexdigest()
    return "08:00:27:" + ":".join(digest[i : i + 2] for i in (0, 2, 4))


def _node_image(
    places: Mapping[str, str],
    roles_digest: str,
    pins: Pins | None,
    beside: Collection[str] = (),
) -> str:
    """Name the baked image after all that goes into it, so not after packages ``beside`` it."""
    goes_in = {name: key for name, key in places.items() if name not in _NOT_BAKED}
    words = [f"{name}={key}" for name, key in sorted(goes_in.items())] + [roles_digest]
    if pins:
        words += [
            f"{name}={pin.sha256}"
            for name, pin in sorted(pins.packages.items())
            if name not in beside
        ]
        words += [f"{name}={pin.digest}" for name, pin in sorted(pins.images.items())]
    return f"labwright/node:{hashlib.sha256(chr(10).join(words).encode()).hexdigest()[:16]}"


# For the host and the user, or installed later; no node is baked with them.
_NOT_BAKED = frozenset({"helm", "host", "charts", *ROLE_ARTIFACTS.values()})


def _tight(spec: Spec, host: HostFacts) -> Iterable[Finding]:
    wanted = sum(node.size.memory for node in spec.nodes)
    if wanted > host.memory:
        yield Finding(
            "host.memory",
            "warning",
            f"the nodes may use {wanted} MiB, and this host has {host.memory} MiB",
            "machines that run out of memory lose pods, or the host its programs",
            "lower defaults.memory or workers",
        )


def _unmountable(spec: Spec, facts: NodeFacts) -> Iterable[Finding]:
    if any(node.role == "nas" for node in spec.nodes) and not facts.nfs:
        yield Finding(
            "host.no-nfs",
            "warning",
            "pods of this lab cannot mount what nas1 exports",
            "its nodes share this host's kernel, which has no NFS client (/proc/filesystems, "
            "/lib/modules); nas1 serves all the same, to clients in user space",
            "load it where there is one: sudo modprobe nfs; or take a provider of machines",
            "nas",
        )


def _too_small(spec: Spec, software: Software) -> Iterable[Finding]:
    """Warn where Rancher itself, and not something in its place, would find no room."""
    if "rancher" not in software.addons or minor(software.versions["rancher"]) < (2, 0):
        return
    largest = max(_taking_pods(spec.nodes), key=lambda node: node.size.memory)
    if largest.size.memory < RANCHER_MEMORY:
        yield Finding(
            "host.rancher-memory",
            "warning",
            f"{largest.name} has {largest.size.memory} MiB, and Rancher wants {RANCHER_MEMORY}",
            "with less it is started anew again and again",
            f"nodes: {{{largest.name}: {{memory: 4GiB}}}}",
            "nodes",
        )
