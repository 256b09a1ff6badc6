"""The node itself: reachable, on the lab's own network, its kernel ready, nothing open to NAT."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

import pytest

from tests.nodes.conftest import GUARDED

if TYPE_CHECKING:
    from tests.nodes.conftest import Lab

# What may listen where the NAT card is: ssh, by which Vagrant reaches the node.
NAT_PORTS = {22}
# The programs of a lab; a machine that was there before it may well have others.
OURS = ("containerd", "dockerd", "etcd", "ganesha", "kube", "rpcbind")


def test_answers_over_ssh(seen: Mapping[str, str], node: str) -> None:
    assert seen["hostname"] == node


def test_has_its_planned_address(seen: Mapping[str, str], lab: Lab, node: str) -> None:
    assert f" {lab.lock['nodes'][node]['address']} " in seen["addresses"]


def test_kernel_forwards_packets(seen: Mapping[str, str]) -> None:
    assert seen["forwarding"] == "1", "ip_forward is 0: pods cannot reach other nodes"


def test_kernel_has_overlay(seen: Mapping[str, str]) -> None:
    assert "overlay" in seen["file systems"].split()


def test_swap_is_off(seen: Mapping[str, str], lab: Lab) -> None:
    if not lab.facts["own_kernel"]:
        pytest.skip("swap belongs to the host's kernel, not to this node")
    assert seen["swaps"] == ""


def test_trusts_the_labs_authority(seen: Mapping[str, str], lab: Lab) -> None:
    ours = (lab.folder / "tls/ca.crt").read_text("utf-8")
    assert seen["authority"] == ours.strip()


def test_nothing_but_ssh_listens_on_the_nat_side(
    seen: Mapping[str, str], lab: Lab, node: str
) -> None:
    assert seen["sockets"], "ss shows no listening socket at all"
    exposed = []
    for line in seen["sockets"].splitlines():
        address, _, port = line.split()[3].rpartition(":")
        inside = address.startswith(("127.", "[::1]", "[::ffff:127.")) or "%lo" in address
        inside = inside or _is_containers(address, lab, node) or _is_another_s(line, lab)
        inside = inside or (int(port) == GUARDED and _is_refused(seen["guarded"], lab, node))
        if not inside and address != lab.address(node) and int(port) not in NAT_PORTS:
            program = re.search(r'"([^"]+)"', line)
            exposed.append(f"{program[1] if program else '?'} on {address}:{port}")
    assert not exposed, f"open to the NAT side: {', '.join(exposed)}"


def _is_refused(answers: str, lab: Lab, node: str) -> bool:
    """Whether the node lets nobody in at the guarded port but at its address in the lab."""
    asked = [line.split() for line in answers.splitlines()]
    return all(code == "000" for address, code in asked if address != lab.address(node))


def _is_another_s(line: str, lab: Lab) -> bool:
    """Whether a machine that was there before the lab listens with a program of its own."""
    return "machine_owner" in lab.facts and not any(f'"{name}' in line for name in OURS)


def _is_containers(address: str, lab: Lab, node: str) -> bool:
    """Whether an address is that of a bridge for a tools node's own containers."""
    if node not in lab.having("tools"):
        return False
    try:
        found = IPv4Address(address.partition("%")[0])
    except ValueError:
        return False
    return found in IPv4Network(lab.node_facts(node)["container_network"])
