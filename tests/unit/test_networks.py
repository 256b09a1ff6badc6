"""What programs say of a computer's networks, as recorded, and what is read off it."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from labwright.addresses import PORTS
from labwright.model import HostNetwork
from labwright.tools import networks

RECORDED = Path(__file__).parent.parent / "fixtures" / "networks"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text("utf-8")


def told(found: Iterable[HostNetwork]) -> list[tuple[str, str, str]]:
    return [(str(n.network), n.owner, n.device) for n in found]


def address(name: str, *entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"ifname": name, "addr_info": list(entries), **more}


def test_cards_that_are_down_count_too() -> None:
    said = [
        address("lo", {"local": "127.0.0.1", "prefixlen": 8}),
        address("eth0", {"local": "10.1.2.3", "prefixlen": 24}, operstate="UP"),
        address("vboxnet0", {"local": "192.168.56.1", "prefixlen": 24}, operstate="DOWN"),
        address("tun0", {"local": "10.8.0.6", "address": "10.8.0.5", "prefixlen": 32}),
        address("ifb0"),
        address("odd", {"local": "nonsense", "prefixlen": 24}),
    ]
    assert told(networks.ip_addresses(said)) == [
        ("10.1.2.0/24", "address of eth0", "eth0"),
        ("192.168.56.0/24", "address of vboxnet0", "vboxnet0"),
        ("10.8.0.6/32", "address of tun0", "tun0"),
        ("10.8.0.5/32", "address of tun0", "tun0"),
    ]


def test_routes_of_all_tables_are_networks_but_for_ways_out() -> None:
    said = [
        {"dst": "default", "gateway": "10.1.2.1", "dev": "eth0"},
        {"dst": "0.0.0.0/1", "dev": "tun0"},
        {"dst": "128.0.0.0/1", "dev": "tun0"},
        {"dst": "default", "dev": "wg0", "table": "51820"},
        {"dst": "192.168.56.0/21", "dev": "wg0", "table": "51820"},
        {"dst": "10.9.0.7", "dev": "ppp0"},
        {"type": "unreachable", "dst": "172.20.0.0/16"},
        {"type": "local", "dst": "127.0.0.0/8", "dev": "lo", "table": "local"},
        {"dst": "multicast", "dev": "eth0"},
        {"dst": "224.0.0.0/24", "dev": "eth0"},
    ]
    assert told(networks.ip_routes(said)) == [
        ("192.168.56.0/21", "route on wg0", "wg0"),
        ("10.9.0.7/32", "route on ppp0", "ppp0"),
        ("172.20.0.0/16", "unreachable route", ""),
    ]


def test_a_card_s_network_is_named_once() -> None:
    net = IPv4Network("192.168.56.0/24")
    found = [
        HostNetwork(net, "docker:x", "br-1"),
        HostNetwork(net, "address of br-1", "br-1"),
        HostNetwork(IPv4Network("192.168.56.255"), "route on br-1", "br-1"),
        HostNetwork(net, "route on tun0", "tun0"),
        HostNetwork(IPv4Network("10.0.0.0/24"), "blackhole route"),
        HostNetwork(IPv4Network("10.0.0.0/25"), "prohibit route"),
    ]
    assert list(networks.without_twins(found)) == [found[0], *found[3:]]


@pytest.mark.parametrize(
    ("said", "way"),
    [
        ([{"dst": "1.1.1.1", "dev": "eth0", "metrics": []}], ("eth0", 0)),
        ([{"dst": "1.1.1.1", "dev": "wg0", "metrics": [{"mtu": 1380}]}], ("wg0", 1380)),
        ([{"dst": "1.1.1.1", "dev": "ppp0"}], ("ppp0", 0)),
        ([], ("", 0)),
    ],
)
def test_the_way_out(said: list[Any], way: tuple[str, int]) -> None:
    assert networks.ip_way(said) == way


def test_macos() -> None:
    cards, routes = recorded("macos-ifconfig.txt"), recorded("macos-netstat.txt")
    assert told(networks.ifconfig(cards)) == [
        ("192.168.1.0/24", "address of en0", "en0"),
        ("172.16.8.0/23", "address of en5", "en5"),
        ("192.168.56.0/24", "address of bridge100", "bridge100"),
        ("10.8.0.6/32", "address of utun3", "utun3"),
        ("10.8.0.5/32", "address of utun3", "utun3"),
    ]
    found = told(networks.netstat(routes))
    assert ("10.8.0.0/24", "route on utun3", "utun3") in found
    assert ("172.31.0.0/16", "route on utun3", "utun3") in found
    assert ("192.168.1.0/24", "route on en0", "en0") in found
    assert not {"0.0.0.0/1", "128.0.0.0/1", "127.0.0.0/8", "224.0.0.0/4"} & {n for n, *_ in found}
    # The tunnel took half of the internet, and so a packet of any size goes through it.
    assert networks.netstat_way(routes) == "utun3"
    assert networks.ifconfig_mtus(cards)["utun3"] == 1380
    without = "\n".join(line for line in routes.splitlines() if "utun3" not in line)
    assert networks.netstat_way(without) == "en0"


def test_windows_in_any_language() -> None:
    found = told(networks.route_print(recorded("windows-route-print.txt")))
    assert [net for net, *_ in found] == [
        "10.8.0.4/30",
        "10.20.0.0/16",
        "192.168.1.0/24",
        "192.168.1.23/32",
        "192.168.56.0/24",
        "192.168.56.1/32",
        "192.168.56.255/32",
        "255.255.255.255/32",
    ]
    assert found[1][1] == "Windows' route on 10.8.0.6"


def test_libvirt_s_networks() -> None:
    xml = recorded("virsh-net-dumpxml.xml")
    assert told(networks.libvirt(xml)) == [
        ("192.168.122.0/24", "libvirt:default", "virbr0"),
        ("192.168.59.0/24", "libvirt:labwright-lvx", "virbr2"),
        ("192.168.121.0/24", "libvirt:labwright-lvx-nat", "virbr1"),
    ]
    six = "<network><name>six</name><ip family='ipv6' address='fd00::1' prefix='64'/></network>"
    assert told(networks.libvirt(six)) == []
    short = "<network><name>x</name><ip address='10.4.0.1' prefix='22'></ip></network>"
    assert told(networks.libvirt(short)) == [("10.4.0.0/22", "libvirt:x", "")]


def test_virtualbox_s_networks() -> None:
    assert told(networks.virtualbox(recorded("virtualbox-hostonlyifs.txt"))) == [
        ("192.168.56.0/24", "virtualbox:vboxnet0", "vboxnet0"),
        ("192.168.57.0/24", "virtualbox:vboxnet1", "vboxnet1"),
    ]
    assert told(networks.virtualbox(recorded("virtualbox-hostonlynets.txt"))) == [
        ("192.168.58.0/24", "virtualbox:vagrantnet-vbox1", "")
    ]
    assert told(networks.virtualbox("")) == []


TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0100007F:08AE 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   2: 020200C0:80BE 507100CB:01BB 01 00000000:00000000 00:00000000 00000000     0
"""


def test_listeners_at_any_address_count() -> None:
    assert networks.listeners(TCP) == {2222, 22}


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as one:
        for port in PORTS:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            one.listen()
            yield port
            return


def test_ports_are_tried_where_there_is_no_table(tmp_path: Path, taken: int) -> None:
    assert taken in networks.listening(tmp_path)


def test_ports_are_read_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/tcp").write_text(TCP)
    assert networks.listening(tmp_path) == {2222, 22}


def test_a_listener_of_this_computer_is_seen(taken: int) -> None:
    assert taken in networks.listening(Path("/"))
