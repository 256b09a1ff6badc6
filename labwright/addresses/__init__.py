"""Finds a lab its place: networks, ports and MAC addresses that nothing else here has."""

from __future__ import annotations

from labwright.addresses.ground import Ground
from labwright.addresses.networks import Networks, settle
from labwright.addresses.ports import MTU, PORTS, SPARE_PORTS, macs, mtu, ssh_ports
from labwright.addresses.ranges import CONTAINERS, permitted

__all__ = [
    "CONTAINERS",
    "MTU",
    "PORTS",
    "SPARE_PORTS",
    "Ground",
    "Networks",
    "macs",
    "mtu",
    "permitted",
    "settle",
    "ssh_ports",
]
