"""Spec + host facts + catalog → Plan. Pure: no clock, no random, no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from labwright import keys, site
from labwright.catalog import Catalog, minor
from labwright.errors import Finding, HostError, SpecError, errors
from labwright.model import (
    Choice,
    HostFacts,
    KubeProxyMode,
    Node,
    NodeFacts,
    NodeSpec,
    Pins,
    Plan,
    Rancher,
    Service,
    Spec,
    domain,
)
from labwright.providers import PROVIDERS
from labwright.providers.base import Provider
from labwright.software import Inputs, Software
from labwright.supplies.base import ROLE_ARTIFACTS, charts

# MiB on one node, for Rancher with its webhook and Fleet beside what a node runs anyway.
RANCHER_MEMORY = 4096
_AnyNode = TypeVar("_AnyNode", Node, NodeSpec)


def build(given: Inputs) -> Plan:
    """Resolve a lab.

    Raises SpecError for what lab.yaml must change, HostError for what the host must.
    """
    host = given.host
    provider, provider_choice, told = _provider(given.spec, host, given.locked.word("provider"))
    place = site.settle(given, provider)
    spec, software, networks = place.spec, place.software, place.networks
    kube_proxy, proxy_choice, proxy_told = _kube_proxy(spec, provider, host, place.facts)
    return Plan(
        name=spec.name,
        provider=provider.name,
        supply=software.supply,
        origin=software.origin,
        guest=software.guest.name,
        versions=software.versions,
        subnet=networks.subnet,
        host_address=place.host_address,
        pods=networks.pods,
        services=networks.services,
        dns_service=networks.services.network_address + 10,
        containers=networks.containers,
        nodes=place.nodes,
        facts=place.facts,
        schedule_on_control_planes=spec.schedule_on_control_planes,
        addons=software.addons,
        nameservers=place.nameservers,
        image_repository=software.image_repository,
        artifacts=software.artifacts,
        keys=software.keys,
        node_image=_node_image(software.keys, given.roles_digest, None),
        node_args=provider.node_args(host),
        host_cpus=host.cpus,
        box=software.box,
        own_box=software.own_box,
        choices=(provider_choice, *place.choices, proxy_choice),
        warnings=(
            *(finding for finding in told if finding.level == "warning"),
            *place.warnings,
            *_too_small(spec, software),
            *_unmountable(spec, place.facts),
            *proxy_told,
        ),
        wanted=software.wanted,
        bundle=given.bundled.folder if given.bundled else "",
        rancher=_rancher(given) if "rancher" in software.addons else None,
        services_at=tuple(_services(spec, given.catalog, software.addons, place.nodes)),
        mtu=place.mtu,
        balanced=spec.load_balancer,
        machines=spec.machines,
        owner=given.owner if spec.machines else "",
        tunnel=place.tunnel,
        management=networks.management,
        kube_proxy=kube_proxy,
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


def _provider(
    spec: Spec, host: HostFacts, before: str
) -> tuple[Provider, Choice, Sequence[Finding]]:
    """Choose a provider; what it warns of comes with it."""
    if spec.provider:
        provider = PROVIDERS[spec.provider]
        spoken = provider.probe(host)
        if not provider.caps.boots:
            return provider, Choice("provider", provider.name, "lab.yaml names machines"), spoken
        if found := errors(spoken):
            raise HostError(found)
        return provider, Choice("provider", provider.name, "lab.yaml asks for it"), spoken
    reasons: list[str] = []
    found_all: list[Finding] = []
    for name, provider in sorted(PROVIDERS.items(), key=lambda item: item[0] != before):
        if not provider.caps.boots:
            continue  # Only lab.yaml can name machines.
        # What has to be said of it is a reason to take it only when it is asked for.
        spoken = provider.probe(host)
        if not spoken:
            first = "as lab.lock has it" if name == before else "the first choice"
            why = "; ".join(reasons) or f"{first}, and it works here"
            return provider, Choice("provider", name, why), ()
        reasons.append(f"{name}: {spoken[0].what}")
        found_all.extend(spoken)
    raise HostError(found_all)


def _kube_proxy(
    spec: Spec, provider: Provider, host: HostFacts, facts: NodeFacts
) -> tuple[KubeProxyMode, Choice, Sequence[Finding]]:
    """Choose what kube-proxy writes its rules with.

    Raises SpecError where the nodes share a kernel that is known to lack nftables.
    """
    if spec.kube_proxy is None:
        why = "works with every kernel that a node can have"
        return "iptables", Choice("kube-proxy", "iptables", why), ()
    choice = Choice("kube-proxy", spec.kube_proxy, "lab.yaml asks for it")
    # Machines that exist may be containers too, but not on this computer's kernel.
    known = host.nf_tables if provider.caps.boots else None
    if spec.kube_proxy != "nftables" or facts.own_kernel or known:
        return spec.kube_proxy, choice, ()
    if known is None:
        return spec.kube_proxy, choice, (_untold_nftables(),)
    raise SpecError(
        Finding(
            "spec.no-nftables",
            "error",
            "this host's kernel has no nftables",
            "the nodes are containers and share it (CONFIG_NF_TABLES is not set)",
            "kube_proxy: iptables, or a provider of virtual machines",
            "kube_proxy",
            "https://kubernetes.io/docs/reference/networking/virtual-ips/",
        )
    )


def _untold_nftables() -> Finding:
    return Finding(
        "host.nftables-unknown",
        "warning",
        "whether the nodes' kernel has nftables cannot be told",
        "they are containers, and its configuration is not readable; without it no Service answers",
        "kube_proxy: iptables, if kube-proxy does not become ready",
        "kube_proxy",
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
