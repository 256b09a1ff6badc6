"""Spec + host facts + catalog → Plan. Pure: no clock, no random, no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface

from labwright import addresses, keys
from labwright.catalog import Catalog, Release, kubeadm_api
from labwright.errors import Finding, HostError, SpecError, errors
from labwright.model import (
    Choice,
    HostFacts,
    Node,
    Plan,
    Spec,
    SupplyName,
)
from labwright.providers import PROVIDERS
from labwright.providers.base import Provider
from labwright.supplies import SUPPLIES
from labwright.supplies.base import Supply


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that decides a plan.

    ``roles_digest`` is the digest of what a node is baked with; ``kept_subnet`` is where this lab
    was planned before, so that it stays there; ``stored`` are the keys that the store has.
    """

    spec: Spec
    host: HostFacts
    catalog: Catalog
    roles_digest: str
    kept_subnet: str | None = None
    stored: frozenset[str] = field(default_factory=frozenset)


def build(given: Inputs) -> Plan:
    """Resolve a lab.

    Raises SpecError for what lab.yaml must change, HostError for what the host must.
    """
    spec, host = given.spec, given.host
    provider, provider_choice = _provider(spec, host)
    supply, supply_choice = _supply(spec, host)
    release, release_choice = _release(spec, given.catalog, supply)
    addons, addon_choices = _addons(given, supply, release)
    place = addresses.place(
        spec,
        host,
        provider.caps.subnets,
        given.kept_subnet,
        owner=network_name(spec.name),
        strict=provider.caps.only_subnets,
    )
    without = () if "dns" in addons else ("coredns",)
    artifacts = tuple(a for a in supply.artifacts(release) if a.id not in without)
    artifact_keys = keys.keys(artifacts, without)
    return Plan(
        name=spec.name,
        provider=provider.name,
        supply=supply.name,
        versions={"kubernetes": release.version, **release.components},
        kubeadm_api=kubeadm_api(release.version),
        subnet=place.subnet,
        host_address=place.subnet.network_address + 1,
        pods=spec.pods,
        services=spec.services,
        dns_service=spec.services.network_address + 10,
        nodes=tuple(_nodes(spec, place)),
        facts=provider.node_facts(host),
        schedule_on_control_planes=spec.schedule_on_control_planes,
        addons=addons,
        nameservers=host.nameservers,
        image_repository=supply.image_repository,
        artifacts=artifacts,
        keys=artifact_keys,
        node_image=f"labwright/node:{_image_key(artifact_keys, given.roles_digest)}",
        node_args=provider.node_args(host),
        host_cpus=host.cpus,
        box=spec.box,
        choices=(provider_choice, supply_choice, release_choice, *addon_choices, place.choice),
        warnings=(*place.warnings, *_tight(spec, host)),
    )


def network_name(lab: str) -> str:
    """Name the network of a lab, as Docker and libvirt show it.

    Not ``vagrant_network…``: Vagrant removes any such network that no running container uses,
    another halted lab's as well (plugins/providers/docker/action/destroy_network.rb).
    """
    return f"labwright-{lab}"


def _provider(spec: Spec, host: HostFacts) -> tuple[Provider, Choice]:
    if spec.provider:
        provider = PROVIDERS[spec.provider]
        if found := errors(provider.probe(host)):
            raise HostError(found)
        return provider, Choice("provider", provider.name, "lab.yaml asks for it")
    reasons: list[str] = []
    found_all: list[Finding] = []
    for name, provider in PROVIDERS.items():
        found = errors(provider.probe(host))
        if not found:
            why = "; ".join(reasons) or "the first choice, and it works here"
            return provider, Choice("provider", name, why)
        reasons.append(f"{name}: {found[0].what}")
        found_all.extend(found)
    raise HostError(found_all)


def _supply(spec: Spec, host: HostFacts) -> tuple[Supply, Choice]:
    name: SupplyName = spec.supply or "packages"
    supply = SUPPLIES[name]
    if found := errors(supply.probe(host)):
        raise HostError(found)
    if spec.supply:
        return supply, Choice("supply", name, "lab.yaml asks for it")
    return supply, Choice("supply", name, "; ".join(f"{h}: {w}" for h, w in host.upstream.items()))


def _release(spec: Spec, catalog: Catalog, supply: Supply) -> tuple[Release, Choice]:
    offered = catalog.offered_by(supply.name)
    if spec.kubernetes is None:
        release = offered[-1]
        return release, Choice("kubernetes", release.version, f"the newest of {supply.name}")
    for release in reversed(offered):
        if release.version == spec.kubernetes or release.version.startswith(f"{spec.kubernetes}."):
            return release, Choice("kubernetes", release.version, "lab.yaml asks for it")
    have = ", ".join(r.version for r in offered)
    raise SpecError(
        Finding(
            "spec.kubernetes-version",
            "error",
            f"the {supply.name} supply has no Kubernetes {spec.kubernetes}",
            f"it has {have}",
            f'set kubernetes: "{offered[-1].version}", or auto',
            "kubernetes",
        )
    )


def _addons(
    given: Inputs, supply: Supply, release: Release
) -> tuple[tuple[str, ...], list[Choice]]:
    """Leave DNS out where CoreDNS can be neither built nor taken from the store."""
    wanted = given.spec.addons
    if "dns" not in wanted:
        return wanted, [Choice("cluster DNS", "none", "lab.yaml leaves it out")]
    whole = keys.keys(supply.artifacts(release))
    version = release.components["coredns"]
    if whole["coredns"] in given.stored:
        return wanted, [Choice("cluster DNS", f"CoreDNS {version}", "built before")]
    if given.host.go_modules is False:
        rest = tuple(name for name in wanted if name != "dns")
        return rest, [Choice("cluster DNS", "none", "the Go module proxy does not answer")]
    return wanted, [Choice("cluster DNS", f"CoreDNS {version}", "from the Go module proxy")]


def _nodes(spec: Spec, place: addresses.Place) -> Iterable[Node]:
    slices = spec.pods.subnets(new_prefix=24)
    seen = {"control_plane": 10, "worker": 20}
    for wanted in spec.nodes:
        seen[wanted.role] += 1
        address = place.subnet.network_address + seen[wanted.role]
        yield Node(
            name=wanted.name,
            role=wanted.role,
            size=wanted.size,
            address=IPv4Interface(f"{address}/{place.subnet.prefixlen}"),
            pods=next(slices),
            mac=_mac(spec.name, wanted.name),
        )


def _mac(lab: str, node: str) -> str:
    """Derive a MAC address in VirtualBox's range, the same for a node whenever it is planned."""
    digest = hashlib.sha256(f"{lab}/{node}".encode()).hexdigest()
    return "08:00:27:" + ":".join(digest[i : i + 2] for i in (0, 2, 4))


def _image_key(artifact_keys: Mapping[str, str], roles_digest: str) -> str:
    words = [f"{name}={key}" for name, key in sorted(artifact_keys.items())] + [roles_digest]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


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
