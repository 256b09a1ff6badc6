"""Ports, MAC addresses and the size of packets: none that anything else here has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from labwright.addresses.reasons import because, runs_of
from labwright.errors import Finding, HostError
from labwright.model import Choice, HostFacts, Place

# Of the host's loopback, for nodes' sshd: below what the kernel hands out by itself.
PORTS = (*range(2222, 2322), *range(22222, 23222))
# Where Vagrant may look when a port was taken since: none that a lab is planned with.
SPARE_PORTS = range(2150, 2222)
# A packet of Ethernet's, and the least that IPv4 lets every host take (RFC 791).
MTU, LEAST_MTU = 1500, 576


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
    why += because((runs_of(ports), owner) for owner, ports in passed.items())
    return found, Choice("ssh ports", runs_of(sorted(found.values())), why)


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
