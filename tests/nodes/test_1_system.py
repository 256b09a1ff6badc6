"""The node itself: reachable, on the lab's own network, its kernel ready, nothing open to NAT."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Lab

# What may listen where the NAT card is: ssh, by which Vagrant reaches the node.
NAT_PORTS = {22}


def test_answers_over_ssh(host: Any, node: str) -> None:
    result = host.run("hostname")
    assert result.rc == 0, f"{node} does not answer over ssh: {result.stderr.strip()}"
    assert result.stdout.strip() == node


def test_has_its_planned_address(host: Any, lab: Lab, node: str) -> None:
    planned = lab.lock["nodes"][node]["address"]
    assert planned in host.check_output("ip -o -4 address show")


def test_kernel_forwards_and_bridges(host: Any) -> None:
    out = host.check_output(
        "cat /proc/sys/net/ipv4/ip_forward; grep -cw overlay /proc/filesystems; "
        "ls -d /proc/sys/net/bridge 2>/dev/null || true"
    ).split()
    assert out[0] == "1", "net.ipv4.ip_forward is 0: pods cannot reach other nodes"
    assert int(out[1]) >= 1, "this kernel has no overlay file system"


def test_swap_is_off(host: Any, lab: Lab) -> None:
    if not lab.facts["own_kernel"]:
        pytest.skip("swap belongs to the host's kernel, not to this node")
    assert host.check_output("tail -n +2 /proc/swaps") == ""


def test_nothing_but_ssh_listens_on_the_nat_side(host: Any, lab: Lab, node: str) -> None:
    with host.sudo():
        sockets = host.check_output("ss -Htlnp").splitlines()
    exposed = []
    for line in sockets:
        address, _, port = line.split()[3].rpartition(":")
        inside = address.startswith(("127.", "[::1]", "[::ffff:127.")) or "%lo" in address
        if not inside and address != lab.address(node) and int(port) not in NAT_PORTS:
            program = re.search(r'"([^"]+)"', line)
            exposed.append(f"{program[1] if program else '?'} on {address}:{port}")
    assert not exposed, f"open to the NAT side: {', '.join(exposed)}"
