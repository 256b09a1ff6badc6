"""Finds a lab its place: networks, ports and MAC addresses that nothing else here has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from labwright.errors import Finding, HostError
from labwright.lock import Locked
from labwright.model import CLUSTER_ROLES, Choice, HostFacts, HostNetwork, Place, Spec

BLOCKS = tuple(map(IPv4Network, ("192.168.0.0/16", "10.0.0.0/8", "172.16.0.0/12")))
# Where a lab's own networks go; pods and services of other labs may be the same, as nothing
# outside a lab's nodes has a route to them.
FIRST = {"pods": IPv4Network("10.244.0.0/16"), "services": IPv4Network("10.96.0.0/16")}
SUBNETS = tuple(map(IPv4Network, ("192.168.56.0/21", "10.56.0.0/16")))
# Each range with the size of what is cut from it. 172.16.0.0/12 comes late: Docker takes its next
# network from there, and asks nobody.
_WIDE = (
    *((IPv4Network(text), 16) for text in ("10.128.0.0/9", "10.0.0.0/9", "172.16.0.0/12")),
    *((IPv4Network(text), 18) for text in ("192.168.128.0/17", "192.168.64.0/18")),
)
MORE: Mapping[str, Sequence[tuple[IPv4Network, int]]] = {
    "pods": ((IPv4Network("10.244.0.0/14"), 16), (IPv4Network("10.248.0.0/13"), 16), *_WIDE),
    "services": ((IPv4Network("10.96.0.0/11"), 16), *_WIDE),
}
# What Docker, Podman and LXC on a tools node give their containers: none that a lab takes by
# itself, and none of Docker's own defaults, which the host's Docker may have given to something.
# The last are no private networks (RFC 2544), so that no lab can have taken them.
CONTAINERS = tuple(
    map(
        IPv4Network,
        ("172.29.0.0/16", "172.30.0.0/16", "10.57.0.0/16", "198.18.0.0/16", "198.19.0.0/16"),
    )
)
# Of the host's loopback, for nodes' sshd: below what the kernel hands out by itself.
PORTS = (*range(2222, 2322), *range(22222, 23222))
# Where Vagrant may look when a port was taken since: none that a lab is planned with.
SPARE_PORTS = range(2150, 2222)
# How many that are in the way a reason names.
NAMED = 4
# A packet of Ethernet's, and the least that IPv4 lets every host take (RFC 791).
MTU, LEAST_MTU = 1500, 576


@dataclass(frozen=True, slots=True)
class Ground:
    """All that decides a lab's place.

    ``permitted`` are the ranges that lab networks may lie in, and ``strict`` says that the provider
    refuses any other; ``owner`` names the lab's own network. ``labs`` are the user's other labs,
    ``before`` what this one had, and ``made`` says that its machines may have it still.
    ``inside`` are networks that only the machines are in.
    """

    spec: Spec
    host: HostFacts
    permitted: Sequence[IPv4Network]
    owner: str
    strict: bool = False
    locked: Locked = field(default_factory=Locked)
    labs: Sequence[Place] = ()
    before: Place | None = None
    made: bool = False
    inside: Sequence[IPv4Network] = ()


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


def permitted(first: Sequence[IPv4Network], conf: Sequence[IPv4Network]) -> list[IPv4Network]:
    """Give the parts of ``first``, then of all private ranges, that networks.conf permits."""
    cut = (
        max(block, allowed, key=lambda net: net.prefixlen)
        for block in (*first, *SUBNETS, *BLOCKS)
        for allowed in conf
        if block.overlaps(allowed)
    )
    return list(dict.fromkeys(cut))


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
    return Networks(
        subnet=subnet.network,
        pods=pods.network,
        services=services.network,
        containers=tools.network,
        choices=tuple(Choice(name, str(c.network), c.why) for name, c in chosen.items()),
        warnings=tuple(warning for c in chosen.values() for warning in c.warnings),
    )


def ssh_ports(
    nodes: Iterable[str],
    host: HostFacts,
    labs: Sequence[Place],
    before: Place | None = None,
    made: bool = False,
) -> tuple[dict[str, int], Choice]:
    """Give each node a port of the host's loopback for its sshd, and say why these.

    Machines that are there keep theirs, as it is in use by themselves. Raises HostError where
    none is left.
    """
    names = list(nodes)
    owners = {port: f"lab {lab.name}" for lab in labs for port in lab.ports.values()}
    used = dict.fromkeys(host.listening, "something that listens here") | owners
    kept: dict[str, int] = {}
    for name in names:
        port = before.ports.get(name, 0) if before else 0
        free = port not in owners and (made or port not in used)
        if port and free and port not in kept.values():
            kept[name] = port
    left = (port for port in PORTS if port not in used and port not in kept.values())
    found = {name: kept.get(name) or next(left, 0) for name in names}
    if not all(found.values()):
        whole = f"{PORTS[0]} to {PORTS[-1]}"
        raise HostError(
            Finding(
                "host.no-free-port",
                "error",
                "no port of this host is free for a node's ssh",
                f"every one of the {len(PORTS)} between {whole} that labs take is in use",
                "destroy a lab that is not needed, or end what listens there",
            )
        )
    last = max(found.values(), default=0)
    passed: dict[str, list[int]] = {}
    for port in PORTS:
        if port < last and port in used and port not in found.values():
            passed.setdefault(used[port], []).append(port)
    why = "as before" if set(kept) == set(names) else "free on this host and in every lab"
    why += _because((_runs(ports), owner) for owner, ports in passed.items())
    return found, Choice("ssh ports", _runs(sorted(found.values())), why)


def macs(
    lab: str,
    nodes: Iterable[str],
    labs: Sequence[Place],
    before: Place | None = None,
    made: bool = False,
) -> dict[str, str]:
    """Give each node a MAC address that no other node of any lab has.

    It is in VirtualBox's range, which the other providers take too, and is the same for a node
    whenever it is planned.
    """
    used = {mac for other in labs for mac in other.macs.values()}
    found: dict[str, str] = {}
    for node in nodes:
        kept = before.macs.get(node, "") if before and made else ""
        again = 0
        mac = kept or _mac(lab, node, again)
        while mac in used:
            again += 1
            mac = _mac(lab, node, again)
        used.add(mac)
        found[node] = mac
    return found


def mtu(host: HostFacts) -> tuple[int, Choice]:
    """Give the largest packet that pods may send: no larger than what the way out takes."""
    size = max(LEAST_MTU, min(MTU, host.mtu))
    card = f"{host.way_out}, the way out, takes no more" if size < MTU else "Ethernet's"
    return size, Choice("MTU", str(size), card)


def _mac(lab: str, node: str, again: int) -> str:
    words = f"{lab}/{node}" + (f"/{again}" if again else "")
    digest = hashlib.sha256(words.encode()).hexdigest()
    return "08:00:27:" + ":".join(digest[i : i + 2] for i in (0, 2, 4))


def _others(ground: Ground) -> list[HostNetwork]:
    """Give what the lab must stay clear of: all that the host has but the lab's own network."""
    had = {ground.locked.network("subnet"), ground.before.subnet if ground.before else None}
    own = [n for n in ground.host.networks if _own(n, ground.owner, had)]
    cards = {n.device for n in own if n.device}
    rest = [n for n in ground.host.networks if n not in own and n.device not in cards]
    rest += [HostNetwork(net, "the machines' way out") for net in ground.inside]
    return [*rest, *(HostNetwork(lab.subnet, f"lab {lab.name}") for lab in ground.labs)]


# Cards of hypervisors, which carry no lab's name.
_CARDS = ("vboxnet", "virbr", "bridge")


def _own(there: HostNetwork, owner: str, had: Iterable[IPv4Network | None]) -> bool:
    """Whether a network is this lab's own: by name, or a hypervisor's card where the lab was."""
    kind, _, name = there.owner.partition(":")
    card = kind == "virtualbox" or there.device.startswith(_CARDS)
    return name == owner or (card and there.network in had)


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
    if had and _permits(ground.permitted, had) and not _hits(had, taken):
        return _Chosen(had, "this lab had it before")
    found, passed = _first([(net, 24) for net in ground.permitted], taken)
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
    if had and not _hits(had, taken):
        return _Chosen(had, "this lab had it before")
    passed = _hits(FIRST[name], taken)
    if not passed:
        return _Chosen(FIRST[name], "the first choice, and free here")
    found, _ = _first(MORE[name], [*taken, *reserved])
    if found:
        return _Chosen(found, f"free here{_named(passed)}")
    # Nothing is: apart from the lab's own at least, or no pod would reach its nodes.
    last, _ = _first(MORE[name], [*mine, *reserved])
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
    if had and not _hits(had, mine):
        return _Chosen(had, "this lab has it", tuple(_in_use("containers", had, others)))
    passed = _hits(CONTAINERS[0], [*mine, *others])
    for net in CONTAINERS:
        if not _hits(net, [*mine, *others]):
            return _Chosen(net, f"free here{_named(passed)}")
    last = next(net for net in CONTAINERS if not _hits(net, mine))
    return _Chosen(last, "apart from the lab", tuple(_in_use("containers", last, others)))


def _in_use(name: str, net: IPv4Network, others: Sequence[HostNetwork]) -> Iterator[Finding]:
    """Warn of what the host has in a range that the lab has all the same."""
    who = {"subnet": "nodes", "services": "pods", "containers": "containers of tools1"}
    key = "" if name == "containers" else f"network.{name}"
    fix = {
        "subnet": "./invokew lab.destroy and lab.up move the lab",
        "containers": "",
    }.get(name, f"set {key} to another range")
    for other in _hits(net, others):
        why = f"{other.owner} has {other.network}: {who.get(name, name)} will not reach it"
        what = f"{net} is in use on this host too"
        yield Finding(f"host.{name}-in-use", "warning", what, why, fix, key)


def _first(
    ranges: Iterable[tuple[IPv4Network, int]], taken: Sequence[HostNetwork]
) -> tuple[IPv4Network | None, list[HostNetwork]]:
    """Find the first network of a range's size that is free; give what was in the way too."""
    passed: list[HostNetwork] = []
    for outer, prefix in ranges:
        size = 2 ** (32 - prefix)
        at, end = int(outer.network_address), int(outer.broadcast_address)
        while at + size - 1 <= end:
            candidate = IPv4Network((at, prefix))
            hits = _hits(candidate, taken)
            if not hits:
                return candidate, passed
            passed += [hit for hit in hits if hit not in passed]
            # Beyond the largest of them: a range of thousands may be one network's.
            beyond = max(int(hit.network.broadcast_address) for hit in hits) + 1
            at = -(-beyond // size) * size
    return None, passed


def _hits(net: IPv4Network, taken: Iterable[HostNetwork]) -> list[HostNetwork]:
    return [other for other in taken if net.overlaps(other.network)]


def _permits(ranges: Iterable[IPv4Network], net: IPv4Network) -> bool:
    return any(net.subnet_of(outer) for outer in ranges)


def _named(passed: Iterable[HostNetwork]) -> str:
    return _because((str(n.network), n.owner) for n in passed)


def _because(passed: Iterable[tuple[str, str]]) -> str:
    """Name who has what would have come first; a few of them, as a lab may have to pass many."""
    found = list(dict.fromkeys(passed))
    words = [f"{what} is taken by {owner}" for what, owner in found[:NAMED]]
    more = [f"{len(found) - NAMED} more are taken"] if len(found) > NAMED else []
    return f": {', '.join([*words, *more])}" if found else ""


def _runs(numbers: Sequence[int]) -> str:
    """Write ascending numbers as ``2222 to 2224, 2230``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{r[0]} to {r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


def _must_be_free(ground: Ground, subnet: IPv4Network, others: Sequence[HostNetwork]) -> None:
    ranges = ground.permitted
    inside = f"a network inside {ranges[0]}" if ranges else "permit one in networks.conf"
    if ground.strict and not _permits(ranges, subnet):
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
    for other in _hits(subnet, others):
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
