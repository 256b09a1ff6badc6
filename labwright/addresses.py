"""Finds a lab its own network: one that the provider permits and nothing on the host uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from labwright.errors import Finding, HostError
from labwright.model import Choice, HostFacts, HostNetwork, Spec


@dataclass(frozen=True, slots=True)
class Place:
    """The network chosen, why, and what is worth a warning."""

    subnet: IPv4Network
    choice: Choice
    warnings: tuple[Finding, ...]


def place(
    spec: Spec,
    host: HostFacts,
    permitted: Sequence[IPv4Network],
    kept: str | None,
    owner: str,
    strict: bool = False,
) -> Place:
    """Choose the subnet: lab.yaml's, the one this lab had before, or the first free /24.

    ``owner`` names the lab's own network, which it does not collide with; ``strict`` says that
    the provider refuses what is outside ``permitted``, instead of only not choosing it.
    Raises HostError when the asked one is in use, or when none is free.
    """
    before = _network(kept)
    others = [n for n in host.networks if not _own(n, owner, before)]
    warnings = tuple(_inside(spec, others))
    if spec.subnet:
        _must_be_free(spec.subnet, others, permitted, strict)
        return Place(spec.subnet, Choice("subnet", str(spec.subnet), "from lab.yaml"), warnings)
    if before and _may_stay(before, spec, others, permitted):
        return Place(before, Choice("subnet", str(before), "this lab had it before"), warnings)
    for candidate in _candidates(permitted):
        if _free(candidate, others) and not _clashes(candidate, spec):
            choice = Choice(
                "subnet", str(candidate), "the first free one that the provider permits"
            )
            return Place(candidate, choice, warnings)
    raise HostError(
        Finding(
            "host.no-free-subnet",
            "error",
            "no network is free for the lab",
            f"tried every /24 in {', '.join(map(str, permitted))}",
            "destroy a lab that is not needed, or set network.subnet",
        )
    )


# What Docker, Podman and LXC on a tools node give their containers: none that a lab takes by
# itself, and none of Docker's own defaults, which the host's Docker may have given to something.
# The last is no private network (RFC 2544), so that no lab can have taken it.
CONTAINERS = tuple(
    map(IPv4Network, ("172.29.0.0/16", "172.30.0.0/16", "10.57.0.0/16", "198.18.0.0/16"))
)


def containers(spec: Spec, subnet: IPv4Network) -> IPv4Network:
    """Choose the range of a tools node's own containers: apart from all that the lab speaks to."""
    taken = (subnet, spec.pods, spec.services)
    return next(net for net in CONTAINERS if not any(net.overlaps(other) for other in taken))


def _network(text: str | None) -> IPv4Network | None:
    try:
        return IPv4Network(text) if text else None
    except ValueError:
        return None


def _own(there: HostNetwork, owner: str, before: IPv4Network | None) -> bool:
    """Whether a network is this lab's own: by name, or a hypervisor's card where the lab was."""
    card = there.owner.startswith(("route on vboxnet", "route on virbr"))
    return there.owner == owner or (card and there.network == before)


def _may_stay(
    subnet: IPv4Network,
    spec: Spec,
    others: Sequence[HostNetwork],
    permitted: Sequence[IPv4Network],
) -> bool:
    return _permitted(subnet, permitted) and _free(subnet, others) and not _clashes(subnet, spec)


def _candidates(permitted: Sequence[IPv4Network]) -> Iterator[IPv4Network]:
    for network in permitted:
        yield from network.subnets(new_prefix=24)


def _free(subnet: IPv4Network, others: Sequence[HostNetwork]) -> bool:
    return not any(subnet.overlaps(other.network) for other in others)


def _clashes(subnet: IPv4Network, spec: Spec) -> bool:
    return subnet.overlaps(spec.pods) or subnet.overlaps(spec.services)


def _permitted(subnet: IPv4Network, permitted: Sequence[IPv4Network]) -> bool:
    return any(subnet.subnet_of(network) for network in permitted)


def _must_be_free(
    subnet: IPv4Network,
    others: Sequence[HostNetwork],
    permitted: Sequence[IPv4Network],
    strict: bool,
) -> None:
    if strict and not _permitted(subnet, permitted):
        raise HostError(
            Finding(
                "host.subnet-not-permitted",
                "error",
                f"{subnet} is outside {', '.join(map(str, permitted))}",
                "VirtualBox permits host-only addresses only there",
                f"set network.subnet: auto, or a network inside {permitted[0]}",
                "network.subnet",
                "https://www.virtualbox.org/manual/ch06.html#network_hostonly",
            )
        )
    for other in others:
        if subnet.overlaps(other.network):
            raise HostError(
                Finding(
                    "host.subnet-in-use",
                    "error",
                    f"{subnet} is in use on this host",
                    f"{other.owner} has {other.network}",
                    f"set network.subnet: auto, or a network inside {permitted[0]}",
                    "network.subnet",
                )
            )


def _inside(spec: Spec, others: Sequence[HostNetwork]) -> Iterator[Finding]:
    for key, network in (("pods", spec.pods), ("services", spec.services)):
        for other in others:
            if network.overlaps(other.network):
                yield Finding(
                    f"host.{key}-in-use",
                    "warning",
                    f"{network} is in use on this host too",
                    f"{other.owner} has {other.network}: pods will not reach it",
                    f"set network.{key} to another range",
                    f"network.{key}",
                )
