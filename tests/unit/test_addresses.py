"""Whatever a host uses, a lab's network is free, permitted and apart; or the lab is refused."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from labwright import spec
from labwright.addresses import (
    CONTAINERS,
    PORTS,
    Ground,
    Networks,
    macs,
    settle,
    ssh_ports,
)
from labwright.errors import Finding, HostError
from labwright.lock import Locked
from labwright.model import HostFacts, HostNetwork, Place, Spec
from labwright.providers import PROVIDERS
from labwright.providers.base import FIRST_SUBNETS, MORE_SUBNETS
from tests.fakes import DEBIAN

OWN = "labwright-lab"
FIRST = "192.168.56.0/24"


def networks(inside: str, smallest: int = 28) -> st.SearchStrategy[IPv4Network]:
    """Give networks that lie in a range, the range itself among them."""
    outer = IPv4Network(inside)

    def cut(prefix: int, at: int) -> IPv4Network:
        address = int(outer.network_address) + at % outer.num_addresses
        return IPv4Network((address, prefix), strict=False)

    return st.builds(
        cut, st.integers(outer.prefixlen, smallest), st.integers(0, outer.num_addresses - 1)
    )


# Crowded where labs go, so that collisions and full ranges come up.
USED = st.lists(
    networks("192.168.56.0/21", 25) | networks("10.0.0.0/8") | networks("172.16.0.0/12"),
    max_size=8,
)
PODS = networks("10.0.0.0/8", 16) | networks("192.168.0.0/16", 18)
KEPT = st.none() | networks("192.168.0.0/16", 24) | networks("10.56.0.0/16", 24)
slow_start = settings(suppress_health_check=[HealthCheck.too_slow])


def host(*used: tuple[str | IPv4Network, str]) -> list[HostNetwork]:
    return [HostNetwork(IPv4Network(network), owner) for network, owner in used]


def choose(
    used: list[HostNetwork],
    permitted: tuple[IPv4Network, ...] = FIRST_SUBNETS,
    kept: str | None = None,
    subnet: str | None = None,
    pods: IPv4Network = IPv4Network("10.244.0.0/16"),  # noqa: B008
    services: IPv4Network = IPv4Network("10.96.0.0/16"),  # noqa: B008
) -> IPv4Network:
    asked = IPv4Network(subnet) if subnet else None
    wanted = replace(spec.build({}), subnet=asked, pods=pods, services=services)
    facts = replace(DEBIAN, networks=tuple(used))
    locked = Locked({"network": {"subnet": kept}} if kept else {})
    return settle(Ground(wanted, facts, permitted, OWN, locked=locked)).subnet


def attempt(
    do: Callable[[], IPv4Network],
) -> tuple[IPv4Network | None, tuple[Finding, ...]]:
    try:
        return do(), ()
    except HostError as error:
        return None, error.findings


@slow_start
@given(
    used=USED,
    own=st.none() | networks("192.168.56.0/21", 24),
    permitted=st.sampled_from([p.caps.subnets for p in PROVIDERS.values() if p.caps.boots]),
    pods=PODS,
    kept=KEPT,
)
@example([], None, FIRST_SUBNETS, IPv4Network("192.168.0.0/18"), None)
@example([], None, FIRST_SUBNETS, IPv4Network("192.168.0.0/18"), IPv4Network(FIRST))
@example([], None, FIRST_SUBNETS, IPv4Network("10.1.0.0/16"), IPv4Network("10.56.3.0/24"))
def test_a_chosen_network_is_permitted_free_and_apart(
    used: list[IPv4Network],
    own: IPv4Network | None,
    permitted: tuple[IPv4Network, ...],
    pods: IPv4Network,
    kept: IPv4Network | None,
) -> None:
    services = IPv4Network("172.31.0.0/16")
    there = host(*((n, "route on eth0") for n in used), *([(own, f"docker:{OWN}")] if own else []))
    old = str(kept) if kept else None
    chosen, found = attempt(lambda: choose(there, permitted, old, pods=pods, services=services))
    if chosen is None:
        assert [f.id for f in found] == ["host.no-free-subnet"]
        everything = [n for outer in permitted for n in outer.subnets(new_prefix=24)]
        taken = [*used, pods, services]
        assert not [n for n in everything if not any(n.overlaps(t) for t in taken)]
        return
    assert any(chosen.subnet_of(outer) for outer in permitted)
    assert not any(chosen.overlaps(n) for n in used)
    assert not chosen.overlaps(pods)
    assert not chosen.overlaps(services)


@slow_start
@given(used=USED, asked=networks("192.168.0.0/16", 24) | networks("10.0.0.0/8", 24))
def test_a_network_asked_for_is_taken_or_its_user_is_named(
    used: list[IPv4Network], asked: IPv4Network
) -> None:
    there = host(*((n, f"route on eth{i}") for i, n in enumerate(used)))
    in_the_way = [f"{n.owner} has {n.network}" for n in there if n.network.overlaps(asked)]
    chosen, found = attempt(lambda: choose(there, MORE_SUBNETS, subnet=str(asked)))
    if not in_the_way:
        assert chosen == asked
        return
    (finding,) = found
    assert (finding.id, finding.where) == ("host.subnet-in-use", "network.subnet")
    assert str(asked) in finding.what
    assert any(words in finding.why for words in in_the_way)


def test_the_first_free_one_is_taken() -> None:
    assert str(choose([])) == FIRST
    assert str(choose(host((FIRST, "docker:x")))) == "192.168.57.0/24"
    assert str(choose(host(("192.168.57.128/25", "x"), (FIRST, "x")))) == "192.168.58.0/24"


def test_the_second_range_serves_when_the_first_is_full() -> None:
    full = host(("192.168.0.0/16", "route on wlan0"))
    assert str(choose(full, MORE_SUBNETS)) == "10.56.0.0/24"
    with pytest.raises(HostError) as caught:
        choose(full, FIRST_SUBNETS)
    (finding,) = caught.value.findings
    assert finding.id == "host.no-free-subnet"
    assert "192.168.56.0/21" in finding.why


@pytest.mark.parametrize("asked", [None, FIRST])
def test_a_lab_does_not_collide_with_itself(asked: str | None) -> None:
    assert str(choose(host((FIRST, f"docker:{OWN}")), subnet=asked, kept=FIRST)) == FIRST


def test_another_lab_is_in_the_way() -> None:
    there = host((FIRST, "docker:labwright-other"))
    assert str(choose(there, kept=FIRST)) == "192.168.57.0/24"
    with pytest.raises(HostError, match=f"docker:labwright-other has {FIRST}"):
        choose(there, subnet=FIRST)


@pytest.mark.parametrize("kept", ["nonsense", "192.168.56.7/24", "fd00::/64"])
def test_a_damaged_lock_does_not_stop_the_planner(kept: str) -> None:
    assert str(choose([], kept=kept)) == FIRST


NAMES = ["cp1", *(f"w{n}" for n in range(1, 51)), "tools1", "nas1"]
BLOCKS = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


@cache
def lab_of(workers: int, tools: int) -> Spec:
    return spec.build({"workers": workers, "tools": tools})


@cache
def macs_of(lab: str) -> dict[str, str]:
    return macs(lab, NAMES, ())


class World:
    """A computer, its labs and a wish, all made up from one seed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - the same hosts each time
        crowd = self.dice.choice([0, 1, 3, 10, 40])
        owners = ["address of eth0", "route on tun0", "docker:x", "libvirt:default"]
        self.networks = tuple(
            HostNetwork(self.net(), self.dice.choice(owners), f"card{n}") for n in range(crowd)
        )
        self.labs = tuple(self.lab(n) for n in range(self.dice.choice([0, 0, 1, 2, 7])))
        few = self.dice.choice([0, 5, 500, len(PORTS)]) if seed % 10 == 0 else 0
        host = replace(
            DEBIAN,
            networks=self.networks,
            listening=frozenset(self.dice.sample(PORTS, few)),
        )
        wide = self.dice.random() < 0.5
        conf = [self.net() for _ in range(self.dice.randrange(3))]
        ranges = self.dice.choice([FIRST_SUBNETS, MORE_SUBNETS, tuple(conf)])
        self.before = self.lab(99) if self.dice.random() < 0.3 else None
        self.made = bool(self.before) and self.dice.random() < 0.5
        # Another network for a lab that is there is refused by the phase Retire.
        asked = {} if self.made else self.explicit()
        wish = replace(lab_of(self.dice.randrange(1, 51), int(wide)), **asked)
        locked = {"network": {"subnet": str(self.net(24)), "pods": str(self.net(20))}}
        self.ground = Ground(
            wish,
            host,
            ranges,
            OWN,
            locked=Locked(locked if self.dice.random() < 0.3 else {}),
            labs=self.labs,
            before=self.before,
            made=self.made,
        )

    def net(self, prefix: int = 0, *, plain: bool = False) -> IPv4Network:
        crowded = [*FIRST_SUBNETS, *map(IPv4Network, ("10.244.0.0/14", "10.96.0.0/12"))]
        block = self.dice.choice([*BLOCKS, *(crowded if not plain else ())])
        size = max(block.prefixlen, prefix or self.dice.choice([8, 12, 16, 20, 22, 24, 24, 28, 32]))
        at = int(block.network_address) + self.dice.randrange(block.num_addresses)
        return IPv4Network((at, size), strict=False)

    def explicit(self) -> dict[str, Any]:
        """Give networks such as lab.yaml may name: apart from each other."""
        found: dict[str, IPv4Network] = {}
        for key, smallest in {"subnet": 24, "pods": 18, "services": 20}.items():
            net = self.net(self.dice.randint(16, smallest), plain=True)
            if self.dice.random() < 0.2 and not any(net.overlaps(o) for o in found.values()):
                found[key] = net
        return dict(found)

    def lab(self, number: int) -> Place:
        ports = self.dice.sample(PORTS, 3)
        return Place(
            f"lab{number}",
            f"/labs/{number}",
            self.net(24),
            IPv4Network((f"10.{number}.0.0", 16)),
            IPv4Network((f"10.{100 + number}.0.0", 16)),
            CONTAINERS[0],
            dict(zip(["cp1", "w1", "w2"], ports, strict=True)),
            macs_of(f"lab{number}"),
        )


def collisions(world: World, found: Networks) -> Iterator[str]:
    """Give what a lab's networks have in common with anything else, but for what was asked for."""
    ground, had = world.ground, world.before if world.made else None
    own = {"subnet": found.subnet, "pods": found.pods, "services": found.services}
    fixed = {had.subnet, had.pods, had.services, had.containers} if had else set()
    for one, other in itertools.combinations([*own.values(), found.containers], 2):
        if one.overlaps(other) and not {one, other} <= fixed:
            yield f"{one} and {other} of the lab"
    warned = " ".join(w.why for w in found.warnings)
    others = [*world.networks, *(HostNetwork(p.subnet, f"lab {p.name}") for p in world.labs)]
    for key, net in own.items():
        for there in others:
            if net.overlaps(there.network) and f"{there.owner} has {there.network}" not in warned:
                yield f"{key} {net} and {there}"
    if not (had or ground.spec.subnet):
        for lab in world.labs:
            if found.subnet.overlaps(lab.pods) or found.subnet.overlaps(lab.services):
                yield f"{found.subnet} and what is inside {lab.name}"
        if not any(found.subnet.subnet_of(outer) for outer in ground.permitted):
            yield f"{found.subnet} is not permitted"


def free_subnets(world: World) -> Iterator[int]:
    """Look at each /24 in turn, which is slow and plain; give the first address of the free."""
    ground = world.ground
    taken = [n.network for n in world.networks]
    taken += [net for lab in world.labs for net in (lab.subnet, lab.pods, lab.services)]
    taken += [net for net in (ground.spec.pods, ground.spec.services) if net]
    ends = [(int(net[0]), int(net[-1])) for net in taken]
    for outer in ground.permitted:
        for first in range(int(outer[0]), int(outer[-1]) - 254, 256):
            if not any(low <= first + 255 and first <= high for low, high in ends):
                yield first


def test_ten_thousand_hosts_without_a_collision() -> None:
    refusals = dict.fromkeys(("host.no-free-subnet", "host.subnet-in-use", "host.no-free-port"), 0)
    for seed in range(10_000):
        world = World(seed)
        ground = world.ground
        try:
            found = settle(ground)
        except HostError as error:
            (finding,) = error.findings
            refusals[finding.id] += 1
            assert finding.why, seed
            if finding.id == "host.no-free-subnet" and seed % 5 == 0:
                assert next(free_subnets(world), None) is None, seed
            continue
        assert not list(collisions(world, found)), seed
        if seed % 10 == 0:
            assert found == settle(ground), seed
            names = [node.name for node in ground.spec.nodes]
            assert_ports_and_macs(world, names, refusals)
    # Each way to be refused came up, and so did not: the dice are not loaded.
    assert all(refusals.values()), refusals
    assert sum(refusals.values()) < 5_000, refusals


def assert_ports_and_macs(world: World, names: list[str], refusals: dict[str, int]) -> None:
    host, labs, before, made = world.ground.host, world.labs, world.before, world.made
    theirs = {port for lab in labs for port in lab.ports.values()}
    kept = set(before.ports.values()) if before and made else set()
    free = set(PORTS) - theirs - host.listening
    if len(free | kept - theirs) < len(names):
        with pytest.raises(HostError) as caught:
            ssh_ports(names, host, labs, before, made)
        refusals[caught.value.findings[0].id] += 1
        return
    ports, choice = ssh_ports(names, host, labs, before, made)
    assert list(ports) == names
    assert len(set(ports.values())) == len(names)
    assert not set(ports.values()) & theirs
    assert not (set(ports.values()) - kept) & host.listening
    assert choice.why
    found = macs("lab0", names, labs, before, made)
    assert len(set(found.values())) == len(names)
    assert not set(found.values()) & {mac for lab in labs for mac in lab.macs.values()}
    assert all(re.fullmatch(r"08:00:27(:[0-9a-f]{2}){3}", mac) for mac in found.values())


def test_ports_pass_what_listens_and_say_so() -> None:
    other = World(1).lab(3)
    busy = replace(other, ports={"cp1": 2224, "w1": 2223})
    facts = replace(DEBIAN, listening=frozenset({2222, 2300}))
    ports, choice = ssh_ports(["cp1", "w1"], facts, [busy])
    why = choice.why
    assert ports == {"cp1": 2225, "w1": 2226}
    assert choice.chosen == "2225 to 2226"
    assert "2222 is taken by something that listens here, 2223 to 2224 is taken by lab lab3" in why


def test_two_nodes_that_had_one_port_get_two() -> None:
    """What a register says is no more trusted than any other file."""
    odd = replace(World(1).lab(3), ports={"cp1": 2250, "w1": 2250})
    ports, _ = ssh_ports(["cp1", "w1"], DEBIAN, [], odd, made=True)
    assert ports == {"cp1": 2250, "w1": 2222}


def test_reasons_name_a_few() -> None:
    there = host(*((f"192.168.{n}.0/24", f"docker:n{n}") for n in range(56, 63)))
    found = settle(Ground(spec.build({}), facts_with(there), FIRST_SUBNETS, OWN))
    (why,) = (c.why for c in found.choices if c.what == "subnet")
    assert why == (
        "the first free one that the provider permits: "
        "192.168.56.0/24 is taken by docker:n56, 192.168.57.0/24 is taken by docker:n57, "
        "192.168.58.0/24 is taken by docker:n58, 192.168.59.0/24 is taken by docker:n59, "
        "3 more are taken"
    )


def facts_with(there: list[HostNetwork]) -> HostFacts:
    return replace(DEBIAN, networks=tuple(there))


def test_a_vpn_on_the_lab_s_own_addresses_is_in_the_way() -> None:
    """The lab's Docker network is its own; the same addresses on a tunnel are not."""
    net = IPv4Network(FIRST)
    there = [
        HostNetwork(net, f"docker:{OWN}", "br-1"),
        HostNetwork(net, "route on br-1", "br-1"),
        HostNetwork(net, "route on tun0", "tun0"),
    ]
    assert str(choose(there[:2], kept=FIRST)) == FIRST
    assert str(choose(there, kept=FIRST)) == "192.168.57.0/24"
