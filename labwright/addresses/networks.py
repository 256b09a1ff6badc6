"""The networks of a lab: its own, those of pods and services, and that of a tools node."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from labwright.addresses.ground import Ground
from labwright.addresses.ranges import (
    CONTAINERS,
    FIRST,
    MORE,
    SUBNETS,
    first_free,
    hits_of,
    permits,
)
from labwright.addresses.reasons import because
from labwright.errors import Finding, HostError
from labwright.model import CLUSTER_ROLES, Choice, HostNetwork


@dataclass(frozen=True, slots=True)
class _Chosen:
    """One network, why, and what is worth a warning about it."""

    network: IPv4Network
    why: str
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks chosen, why, and what is worth a warning."""

    subnet: IPv4Network
    pods: IPv4Network
    services: IPv4Network
    containers: IPv4Network
    choices: tuple[Choice, ...]
    warnings: tuple[Finding, ...]
    management: IPv4Network | None = None


def settle(ground: Ground) -> Networks:
    """Choose a lab's networks: lab.yaml's, those it had before, or the first that are free.

    Raises HostError when the subnet asked for is in use, or when none is free.
    """
    others = _others(ground)
    fixed = {name: net for name in FIRST if (net := _fixed(ground, name))}
    subnet = _subnet(ground, others, fixed)
    chosen = {"subnet": subnet}
    for name in FIRST:
        apart = [c.network for c in chosen.values()]
        apart += [net for key, net in fixed.items() if key not in {name, *chosen}]
        chosen[name] = _inner(ground, name, others, apart)
    pods, services = chosen["pods"], chosen["services"]
    tools = _containers(ground, others, [c.network for c in chosen.values()])
    if any(node.role == "tools" for node in ground.spec.nodes):
        chosen["containers"] = tools
    if ground.management:
        apart = [*(c.network for c in chosen.values()), tools.network]
        chosen["management"] = _management(ground, others, apart)
    return Networks(
        subnet=subnet.network,
        pods=pods.network,
        services=services.network,
        containers=tools.network,
        choices=tuple(Choice(name, str(c.network), c.why) for name, c in chosen.items()),
        warnings=tuple(warning for c in chosen.values() for warning in c.warnings),
        management=chosen["management"].network if ground.management else None,
    )


def _others(ground: Ground) -> list[HostNetwork]:
    """Give what the lab must stay clear of: all that the host has but the lab's own network."""
    had = {ground.locked.network("subnet"), ground.before.subnet if ground.before else None}
    owners = {ground.owner, ground.management_owner} - {""}
    own = [n for n in ground.host.networks if _own(n, owners, had)]
    cards = {n.device for n in own if n.device}
    rest = [n for n in ground.host.networks if n not in own and n.device not in cards]
    rest += [HostNetwork(net, "the machines' way out") for net in ground.inside]
    theirs = [(net, lab.name) for lab in ground.labs for net in (lab.subnet, lab.management) if net]
    return [*rest, *(HostNetwork(net, f"lab {name}") for net, name in theirs)]


# Cards of hypervisors, which carry no lab's name.
_CARDS = ("vboxnet", "virbr", "bridge")


def _own(there: HostNetwork, owners: Collection[str], had: Collection[IPv4Network | None]) -> bool:
    """Whether a network is this lab's own: by name, or a hypervisor's card where the lab was."""
    kind, _, name = there.owner.partition(":")
    card = kind == "virtualbox" or there.device.startswith(_CARDS)
    return name in owners or (card and there.network in had)


def _fixed(ground: Ground, name: str) -> IPv4Network | None:
    """Give the pods or services that cannot move: lab.yaml's, or those of a lab that is there."""
    asked: IPv4Network | None = getattr(ground.spec, name)
    return asked or (_had(ground, name) if ground.made else None)


def _had(ground: Ground, name: str) -> IPv4Network | None:
    """Give what the lab had before, unless its nodes have outgrown it."""
    before: IPv4Network | None = getattr(ground.before, name) if ground.before else None
    locked = ground.locked.network(name)
    had = before or locked if ground.made else locked or before
    if name != "pods" or had is None:
        return had
    count = sum(node.role in CLUSTER_ROLES for node in ground.spec.nodes)
    return had if had.prefixlen <= 24 and 2 ** (24 - had.prefixlen) >= count else None


def _subnet(
    ground: Ground, others: Sequence[HostNetwork], fixed: Mapping[str, IPv4Network]
) -> _Chosen:
    asked, had = ground.spec.subnet, _had(ground, "subnet")
    if ground.made and had and asked in {None, had}:
        return _Chosen(had, "this lab has it", tuple(_in_use("subnet", had, others)))
    if asked:
        _must_be_free(ground, asked, others)
        return _Chosen(asked, "from lab.yaml")
    inner = [
        HostNetwork(net, f"the {name} of lab {lab.name}")
        for lab in ground.labs
        for name, net in (("pods", lab.pods), ("services", lab.services))
    ]
    mine = [HostNetwork(net, f"network.{name}") for name, net in fixed.items()]
    taken = [*others, *inner, *mine]
    if had and permits(ground.permitted, had) and not hits_of(had, taken):
        return _Chosen(had, "this lab had it before")
    found, passed = first_free([(net, 24) for net in ground.permitted], taken)
    if found:
        return _Chosen(found, f"the first free one that the provider permits{_named(passed)}")
    where = ", ".join(map(str, ground.permitted)) or "nothing: networks.conf permits none"
    raise HostError(
        Finding(
            "host.no-free-subnet",
            "error",
            "no network is free for the lab",
            f"tried every /24 in {where}{_named(passed)}",
            "destroy a lab that is not needed, or set network.subnet",
        )
    )


def _inner(
    ground: Ground, name: str, others: Sequence[HostNetwork], apart: Sequence[IPv4Network]
) -> _Chosen:
    """Choose pods or services."""
    if fixed := _fixed(ground, name):
        why = "from lab.yaml" if getattr(ground.spec, name) else "this lab has it"
        return _Chosen(fixed, why, tuple(_in_use(name, fixed, others)))
    mine = [HostNetwork(net, "the lab itself") for net in apart]
    reserved = [HostNetwork(net, "labs, for their own networks") for net in SUBNETS]
    had, taken = _had(ground, name), [*mine, *others]
    if had and not hits_of(had, taken):
        return _Chosen(had, "this lab had it before")
    passed = hits_of(FIRST[name], taken)
    if not passed:
        return _Chosen(FIRST[name], "the first choice, and free here")
    found, _ = first_free(MORE[name], [*taken, *reserved])
    if found:
        return _Chosen(found, f"free here{_named(passed)}")
    # Nothing is: apart from the lab's own at least, or no pod would reach its nodes.
    last, _ = first_free(MORE[name], [*mine, *reserved])
    if last is None:
        raise HostError(_none(name, taken))
    why = "nothing private is free, and the lab works all the same"
    return _Chosen(last, why, tuple(_in_use(name, last, others)))


def _none(name: str, taken: Sequence[HostNetwork]) -> Finding:
    return Finding(
        f"host.no-free-{name}",
        "error",
        f"no network is free for {name}",
        f"tried all private ranges{_named(taken)}",
        f"set network.{name}, or a smaller network.subnet",
        f"network.{name}",
    )


def _containers(
    ground: Ground, others: Sequence[HostNetwork], apart: Sequence[IPv4Network]
) -> _Chosen:
    """Choose the range of a tools node's own containers: apart from all that they speak to."""
    mine = [HostNetwork(net, "the lab itself") for net in apart]
    had = ground.before.containers if ground.before and ground.made else None
    if had and not hits_of(had, mine):
        return _Chosen(had, "this lab has it", tuple(_in_use("containers", had, others)))
    passed = hits_of(CONTAINERS[0], [*mine, *others])
    for net in CONTAINERS:
        if not hits_of(net, [*mine, *others]):
            return _Chosen(net, f"free here{_named(passed)}")
    last = next(net for net in CONTAINERS if not hits_of(net, mine))
    return _Chosen(last, "apart from the lab", tuple(_in_use("containers", last, others)))


def _management(
    ground: Ground, others: Sequence[HostNetwork], apart: Sequence[IPv4Network]
) -> _Chosen:
    """Choose the network that Vagrant reaches the machines on: the one there is, or a free /24."""
    for there in ground.host.networks:
        if there.owner.partition(":")[2] == ground.management_owner:
            return _Chosen(there.network, "this lab has it")
    taken = [*(HostNetwork(net, "the lab itself") for net in apart), *others]
    had = ground.before.management if ground.before else None
    if had and not hits_of(had, taken):
        return _Chosen(had, "this lab had it before")
    found, passed = first_free([(net, 24) for net in ground.management], taken)
    if found:
        return _Chosen(found, f"free here{_named(passed)}")
    raise HostError(
        Finding(
            "host.no-free-subnet",
            "error",
            "no network is free for Vagrant to reach the machines on",
            f"tried every /24 in {', '.join(map(str, ground.management))}{_named(passed)}",
            "destroy a lab that is not needed, or set provider: docker",
        )
    )


def _in_use(name: str, net: IPv4Network, others: Sequence[HostNetwork]) -> Iterator[Finding]:
    """Warn of what the host has in a range that the lab has all the same."""
    who = {"subnet": "nodes", "services": "pods", "containers": "containers of tools1"}
    key = "" if name == "containers" else f"network.{name}"
    fix = {
        "subnet": "./invokew lab.destroy and lab.up move the lab",
        "containers": "",
    }.get(name, f"set {key} to another range")
    for other in hits_of(net, others):
        why = f"{other.owner} has {other.network}: {who.get(name, name)} will not reach it"
        what = f"{net} is in use on this host too"
        yield Finding(f"host.{name}-in-use", "warning", what, why, fix, key)


def _named(passed: Iterable[HostNetwork]) -> str:
    return because((str(n.network), n.owner) for n in passed)


def _must_be_free(ground: Ground, subnet: IPv4Network, others: Sequence[HostNetwork]) -> None:
    ranges = ground.permitted
    inside = f"a network inside {ranges[0]}" if ranges else "permit one in networks.conf"
    if ground.strict and not permits(ranges, subnet):
        raise HostError(
            Finding(
                "host.subnet-not-permitted",
                "error",
                f"{subnet} is outside {', '.join(map(str, ranges)) or 'all that is permitted'}",
                "VirtualBox permits host-only addresses only there",
                f"set network.subnet: auto, or {inside}; or add a line `* {subnet}` "
                "to /etc/vbox/networks.conf",
                "network.subnet",
                "https://www.virtualbox.org/manual/ch06.html#network_hostonly",
            )
        )
    for other in hits_of(subnet, others):
        raise HostError(
            Finding(
                "host.subnet-in-use",
                "error",
                f"{subnet} is in use on this host",
                f"{other.owner} has {other.network}",
                f"set network.subnet: auto, or {inside}",
                "network.subnet",
            )
        )
