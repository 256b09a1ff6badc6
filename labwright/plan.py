"""Spec + host facts + catalog → Plan. Pure: no clock, no random, no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from typing import TypeVar

from labwright import addresses, keys
from labwright.catalog import Catalog, kubeadm_api, minor
from labwright.errors import Finding, HostError, errors
from labwright.model import (
    CLUSTER_ROLES,
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
    domain,
)
from labwright.providers import PROVIDERS
from labwright.providers.base import Provider
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
    told = [finding for finding in provider.probe(host) if finding.level == "warning"]
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
    facts = provider.node_facts(host)
    return Plan(
        name=spec.name,
        provider=provider.name,
        supply=software.supply,
        origin=software.origin,
        guest=software.guest.name,
        versions=software.versions,
        kubeadm_api=kubeadm_api(software.versions["kubernetes"]),
        subnet=place.subnet,
        host_address=place.subnet.network_address + 1,
        pods=spec.pods,
        services=spec.services,
        dns_service=spec.services.network_address + 10,
        containers=addresses.containers(spec, place.subnet),
        nodes=nodes,
        facts=facts,
        schedule_on_control_planes=spec.schedule_on_control_planes,
        addons=software.addons,
        nameservers=host.nameservers,
        image_repository=software.image_repository,
        artifacts=software.artifacts,
        keys=software.keys,
        node_image=_node_image(software.keys, given.roles_digest, None),
        node_args=provider.node_args(host),
        host_cpus=host.cpus,
        box=software.box,
        own_box=software.own_box,
        choices=(provider_choice, *software.choices, place.choice),
        warnings=(
            *told,
            *(*software.warnings, *place.warnings),
            *(*_tight(spec, host), *_too_small(spec, software)),
            *_unmountable(spec, facts),
        ),
        wanted=software.wanted,
        bundle=given.bundled.folder if given.bundled else "",
        rancher=_rancher(given) if "rancher" in software.addons else None,
        services_at=tuple(_services(spec, given.catalog, software.addons, nodes)),
        management=_management(provider, spec, host, place.subnet),
    )


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


def management_name(lab: str) -> str:
    """Name the network that Vagrant reaches a lab's nodes on, where it is one of our own."""
    return f"{network_name(lab)}-nat"


def domain_name(lab: str, node: str) -> str:
    """Name a node's machine, as VirtualBox and libvirt show it."""
    return f"{network_name(lab)}-{node}"


def _management(
    provider: Provider, spec: Spec, host: HostFacts, subnet: IPv4Network
) -> IPv4Network | None:
    """Choose the network of management: the one there is, or the first free /24."""
    ranges = provider.caps.management
    if not ranges:
        return None
    own = {network_name(spec.name), management_name(spec.name)}
    for there in host.networks:
        if there.owner == management_name(spec.name):
            return there.network
    taken = [n.network for n in host.networks if n.owner not in own]
    taken += [subnet, spec.pods, spec.services]
    for wide in ranges:
        for candidate in wide.subnets(new_prefix=24):
            if not any(candidate.overlaps(other) for other in taken):
                return candidate
    what = "no network is free for Vagrant to reach the machines on"
    why = f"tried every /24 in {', '.join(map(str, ranges))}"
    fix = "destroy a lab that is not needed, or set provider: docker"
    raise HostError(Finding("host.no-free-subnet", "error", what, why, fix))


def _provider(spec: Spec, host: HostFacts, before: str) -> tuple[Provider, Choice]:
    if spec.provider:
        provider = PROVIDERS[spec.provider]
        if found := errors(provider.probe(host)):
            raise HostError(found)
        return provider, Choice("provider", provider.name, "lab.yaml asks for it")
    reasons: list[str] = []
    found_all: list[Finding] = []
    for name, provider in sorted(PROVIDERS.items(), key=lambda item: item[0] != before):
        # What has to be said of it is a reason to take it only when it is asked for.
        spoken = provider.probe(host)
        if not spoken:
            first = "as lab.lock has it" if name == before else "the first choice"
            why = "; ".join(reasons) or f"{first}, and it works here"
            return provider, Choice("provider", name, why)
        reasons.append(f"{name}: {spoken[0].what}")
        found_all.extend(spoken)
    raise HostError(found_all)


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
