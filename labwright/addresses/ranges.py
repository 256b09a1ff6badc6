"""Ranges that labs take networks from, and the first in them that is free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network

from labwright.model import HostNetwork

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


def permitted(first: Sequence[IPv4Network], conf: Sequence[IPv4Network]) -> list[IPv4Network]:
    """Give the parts of ``first``, then of all private ranges, that networks.conf permits."""
    cut = (
        max(block, allowed, key=lambda net: net.prefixlen)
        for block in (*first, *SUBNETS, *BLOCKS)
        for allowed in conf
        if block.overlaps(allowed)
    )
    return list(dict.fromkeys(cut))


def first_free(
    ranges: Iterable[tuple[IPv4Network, int]], taken: Sequence[HostNetwork]
) -> tuple[IPv4Network | None, list[HostNetwork]]:
    """Find the first network of a range's size that is free; give what was in the way too."""
    passed: list[HostNetwork] = []
    for outer, prefix in ranges:
        size = 2 ** (32 - prefix)
        at, end = int(outer.network_address), int(outer.broadcast_address)
        while at + size - 1 <= end:
            candidate = IPv4Network((at, prefix))
            hits = hits_of(candidate, taken)
            if not hits:
                return candidate, passed
            passed += [hit for hit in hits if hit not in passed]
            # Beyond the largest of them: a range of thousands may be one network's.
            beyond = max(int(hit.network.broadcast_address) for hit in hits) + 1
            at = -(-beyond // size) * size
    return None, passed


def hits_of(net: IPv4Network, taken: Iterable[HostNetwork]) -> list[HostNetwork]:
    """Give those that a network overlaps."""
    return [other for other in taken if net.overlaps(other.network)]


def permits(ranges: Iterable[IPv4Network], net: IPv4Network) -> bool:
    """Whether a network lies in one of the ranges."""
    return any(net.subnet_of(outer) for outer in ranges)
