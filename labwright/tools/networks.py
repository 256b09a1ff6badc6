"""What this computer's networks are: those in use, the way out, and ports that are taken.

The parsers are pure; Linux is asked by ``ip``, macOS by ``ifconfig`` and ``netstat``, and Windows,
from inside WSL, by its own ``route.exe``.
"""

from __future__ import annotations

import contextlib
import json
import platform
import re
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from pathlib import Path
from typing import Any

from labwright.addresses import MTU, PORTS
from labwright.errors import LabError
from labwright.model import HostNetwork
from labwright.tools import procfs
from labwright.tools.docker import Docker
from labwright.tools.programs import which
from labwright.tools.shell import Shell

# A route to more than this is a way out and no network: a VPN that takes all has 0.0.0.0/1 and
# 128.0.0.0/1, or the internet in pieces.
WIDEST = 8
# Nobody is asked: the kernel only says which card it would take.
ANYWHERE = "1.1.1.1"
LISTEN = "0A"
PATIENCE = 10
# What asks a daemon that may not be there.
SHORT = 5


def networks(shell: Shell, docker: Docker) -> tuple[HostNetwork, ...]:
    """Give every network in use, and who uses it: those with a name first.

    What the host has on the card of a network that has a name is that network.
    """
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(ask, shell) for ask in (_libvirt, _virtualbox)]
        cards = pool.submit(_cards, shell)
        named = [*_docker(docker), *(net for job in jobs for net in job.result())]
        rest = cards.result()
    return tuple(without_twins([*named, *rest]))


def without_twins(found: Iterable[HostNetwork]) -> Iterator[HostNetwork]:
    """Leave out what lies in one that came before on the same card: addresses, broadcasts."""
    kept: list[HostNetwork] = []
    for net in found:
        twins = (k for k in kept if k.device == net.device and net.device)
        if not any(net.network.subnet_of(twin.network) for twin in twins):
            kept.append(net)
            yield net


def way_out(shell: Shell) -> tuple[str, int]:
    """Give the card that packets for the internet take, and its MTU; Ethernet's where none is."""
    if ip := which("ip"):
        route = _json(shell, [ip, "-j", "-4", "route", "get", ANYWHERE])
        card, size = ip_way(route)
        return card, size or procfs.number(Path("/sys/class/net", card, "mtu")) or MTU
    if platform.system() == "Darwin":
        card = netstat_way(_said(shell, ["netstat", "-rn", "-f", "inet"]))
        return card, ifconfig_mtus(_said(shell, ["ifconfig", "-a"])).get(card, MTU)
    return "", MTU


def listening(root: Path) -> frozenset[int]:
    """Give the TCP ports that something listens on, at whatever address."""
    tables = [root / "proc/net/tcp", root / "proc/net/tcp6"]
    if any(table.is_file() for table in tables):
        return listeners("".join(procfs.text(table) for table in tables))
    return frozenset(port for port in PORTS if not _binds(port))


def listeners(text: str) -> frozenset[int]:
    """Read the ports off /proc/net/tcp."""
    rows = [line.split() for line in text.splitlines()]
    ends = [row[1] for row in rows if len(row) > 3 and row[3] == LISTEN]
    return frozenset(int(end.partition(":")[2], 16) for end in ends)


def permitted(path: Path) -> tuple[IPv4Network, ...] | None:
    """Read networks.conf: lines of ``* RANGE RANGE …``; ``None`` where there is none."""
    if not path.is_file():
        return None
    lines = [line.strip() for line in procfs.text(path).splitlines()]
    words = [word for line in lines if line[:1] == "*" for word in line[1:].split()]
    return tuple(net for word in words if (net := _network(word)))


def ip_addresses(data: Iterable[Any]) -> Iterator[HostNetwork]:
    """Read ``ip -j -4 addr``: the networks of all cards, those that are down too."""
    for card in data:
        name = str(card.get("ifname", ""))
        for entry in card.get("addr_info", ()):
            # A tunnel's own end is a network of one; the other end is what it reaches.
            ends = [f"{entry.get('local')}/{entry.get('prefixlen')}"]
            ends += [f"{far}/{entry.get('prefixlen')}"] if (far := entry.get("address")) else []
            yield from _used(ends, f"address of {name}", name)


def ip_routes(data: Iterable[Any]) -> Iterator[HostNetwork]:
    """Read ``ip -j -4 route show table all``."""
    for route in data:
        name = str(route.get("dev", ""))
        owner = f"route on {name}" if name else f"{route.get('type', 'unicast')} route"
        yield from _used([str(route.get("dst", ""))], owner, name)


def ip_way(data: Iterable[Any]) -> tuple[str, int]:
    """Read ``ip -j -4 route get``: the card, and the MTU if the route has one of its own."""
    for route in data:
        sizes = [m["mtu"] for m in route.get("metrics", ()) if isinstance(m.get("mtu"), int)]
        return str(route.get("dev", "")), sizes[0] if sizes else 0
    return "", 0


def ifconfig(text: str) -> Iterator[HostNetwork]:
    """Read ``ifconfig -a`` of macOS: ``inet 192.168.1.5 netmask 0xffffff00 …`` below each card."""
    for name, lines in _blocks(text):
        for local, far, mask in re.findall(
            r"^\s+inet (\S+)(?: --> (\S+))? netmask 0x([0-9a-f]{8})", lines, re.MULTILINE
        ):
            prefix = int(mask, 16).bit_count()
            ends = [f"{end}/{prefix}" for end in (local, far) if end]
            yield from _used(ends, f"address of {name}", name)


def ifconfig_mtus(text: str) -> dict[str, int]:
    """Read the MTU of each card off ``ifconfig -a``."""
    sizes = {name: re.search(r"\bmtu (\d+)", lines) for name, lines in _blocks(text)}
    return {name: int(found[1]) for name, found in sizes.items() if found}


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    for block in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        name, colon, _ = block.partition(":")
        if colon:
            yield name, block


def netstat(text: str) -> Iterator[HostNetwork]:
    """Read ``netstat -rn -f inet`` of macOS, which leaves out zeros: ``10.8/16``, ``192.168.1``."""
    for to, name in _netstat_rows(text):
        if found := _short(to):
            yield from _used([found], f"route on {name}", name)


def netstat_way(text: str) -> str:
    """Give the card of the way out: of the half of the internet that a VPN took, or the default."""
    rows = list(_netstat_rows(text))
    for wanted in ("0/1", "default"):
        for to, name in rows:
            if to == wanted:
                return name
    return ""


def _netstat_rows(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 4 and (words[0] == "default" or words[0][:1].isdigit()):
            yield words[0], words[3]


def _short(text: str) -> str:
    """Write out what macOS shortens; one without a prefix is a network of whole bytes, or a host.

    A first byte alone is the class's network, as ``127`` is 127.0.0.0/8.
    """
    address, _, prefix = text.partition("/")
    numbers = address.split(".")
    if not all(number.isdigit() for number in numbers) or len(numbers) > 4:
        return ""
    full = ".".join((numbers + ["0"] * 4)[:4])
    return f"{full}/{prefix or 8 * len(numbers)}"


def route_print(text: str) -> Iterator[HostNetwork]:
    """Read Windows' ``route print -4``: target, mask, gateway, card's address and metric.

    Only numbers are looked at, as the words are in the user's language.
    """
    number = r"(\d+\.\d+\.\d+\.\d+)"
    rows = re.findall(rf"^\s*{number}\s+{number}\s+\S.*?\s{number}\s+\d+\s*$", text, re.MULTILINE)
    for to, mask, card in rows:
        yield from _used([f"{to}/{mask}"], f"Windows' route on {card}", f"windows:{card}")


def libvirt(xml: str) -> Iterator[HostNetwork]:
    """Read ``virsh net-dumpxml`` of one or more networks.

    libvirt writes it itself, in one form; what a program of the user's is asked for is no XML of
    a stranger's, and yet no parser has to trust it.
    """
    for block in re.findall(r"<network\b.*?</network>", xml, re.DOTALL):
        name = re.search(r"<name>([^<]*)</name>", block)
        bridge = re.search(r"<bridge\b[^>]*\bname='([^']*)'", block)
        for tag in re.findall(r"<ip\b[^>]*>", block):
            facts = dict(re.findall(r"(\w+)='([^']*)'", tag))
            size = facts.get("prefix") or facts.get("netmask")
            if facts.get("family", "ipv4") == "ipv4" and size:
                owner = f"libvirt:{name[1] if name else ''}"
                device = bridge[1] if bridge else ""
                yield from _used([f"{facts.get('address')}/{size}"], owner, device)


def virtualbox(text: str) -> Iterator[HostNetwork]:
    """Read ``VBoxManage list hostonlyifs`` and ``hostonlynets``: an entry begins with its name."""
    for block in re.split(r"^(?=Name:)", text, flags=re.MULTILINE):
        facts = {
            key.strip(): value.strip()
            for key, colon, value in (line.partition(":") for line in block.splitlines())
            if colon
        }
        name, device = facts.get("Name", ""), ""
        if "IPAddress" in facts:
            net, device = f"{facts['IPAddress']}/{facts.get('NetworkMask', '')}", name
        else:
            net = f"{facts.get('LowerIP')}/{facts.get('NetworkMask')}"
        yield from _used([net], f"virtualbox:{name}", device)


def _docker(docker: Docker) -> Iterator[HostNetwork]:
    if docker.api()[0]:
        for name, subnet, device in docker.bridges():
            yield from _used([subnet], f"docker:{name}", device)


def _libvirt(shell: Shell) -> list[HostNetwork]:
    """Ask libvirt for all its networks, those that do not run too; reading needs no right."""
    if not which("virsh"):
        return []
    virsh = ["virsh", "--readonly", "--connect", "qemu:///system"]
    names = _said(shell, [*virsh, "net-list", "--all", "--name"]).split()
    return [n for name in names for n in libvirt(_said(shell, [*virsh, "net-dumpxml", name]))]


def _virtualbox(shell: Shell) -> list[HostNetwork]:
    if not which("VBoxManage"):
        return []
    # What is for guests alone, as a NAT network is, never meets the host.
    kinds = ["hostonlyifs", *(["hostonlynets"] if platform.system() == "Darwin" else [])]
    return [n for kind in kinds for n in virtualbox(_said(shell, ["VBoxManage", "list", kind]))]


def _cards(shell: Shell) -> list[HostNetwork]:
    found: list[HostNetwork] = []
    if ip := which("ip"):
        found += ip_addresses(_json(shell, [ip, "-j", "-4", "addr", "show"]))
        found += ip_routes(_json(shell, [ip, "-j", "-4", "route", "show", "table", "all"]))
    elif platform.system() == "Darwin":
        found += ifconfig(_said(shell, ["ifconfig", "-a"]))
        found += netstat(_said(shell, ["netstat", "-rn", "-f", "inet"]))
    if windows := which("route.exe"):
        found += route_print(_said(shell, [windows, "print", "-4"]))
    return found


def _said(shell: Shell, words: list[str]) -> str:
    """Give what a program says; nothing where it fails, as what it would tell is not there."""
    try:
        return shell.run(words, check=False, timeout=PATIENCE).out
    except LabError:
        return ""


def _json(shell: Shell, words: list[str]) -> list[Any]:
    try:
        data = json.loads(_said(shell, words) or "[]")
    except ValueError:
        return []
    return data if isinstance(data, list) else []


def _used(texts: Iterable[str], owner: str, device: str) -> Iterator[HostNetwork]:
    """Give those that are networks a lab could collide with."""
    for text in texts:
        net = _network(text)
        if net and net.prefixlen >= WIDEST and not (net.is_loopback or net.is_multicast):
            yield HostNetwork(net, owner, device)


def _network(text: str) -> IPv4Network | None:
    try:
        return IPv4Network(text, strict=False)
    except (AddressValueError, NetmaskValueError, ValueError):
        return None


def _binds(port: int) -> bool:
    with contextlib.closing(socket.socket()) as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
