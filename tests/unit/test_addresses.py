"""Whatever a host uses, a lab's network is free, permitted and apart; or the lab is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from labwright import spec
from labwright.addresses import place
from labwright.errors import Finding, HostError
from labwright.model import HostNetwork
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
    return place(wanted, facts, permitted, kept, OWN).subnet


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
    there = host(*((n, "route on eth0") for n in used), *([(own, OWN)] if own else []))
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
    assert str(choose(host((FIRST, "route on vboxnet3")))) == "192.168.57.0/24"
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
    assert str(choose(host((FIRST, OWN)), subnet=asked, kept=FIRST)) == FIRST


def test_another_lab_is_in_the_way() -> None:
    there = host((FIRST, "labwright-other"))
    assert str(choose(there, kept=FIRST)) == "192.168.57.0/24"
    with pytest.raises(HostError, match=f"labwright-other has {FIRST}"):
        choose(there, subnet=FIRST)


@pytest.mark.parametrize("kept", ["nonsense", "192.168.56.7/24", "fd00::/64"])
def test_a_damaged_lock_does_not_stop_the_planner(kept: str) -> None:
    assert str(choose([], kept=kept)) == FIRST
