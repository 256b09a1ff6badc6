"""What the network around this host does: names, certificates, and answers from nowhere."""

from __future__ import annotations

import os
import re
import socket
import ssl
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path

from labwright.doctor.facts import Network
from labwright.errors import LabError
from labwright.model import HostFacts
from labwright.tools import host, procfs
from labwright.tools.shell import Shell
from labwright.tools.trouble import shown

DEADLINE = 1.5
HTTPS = 443
# Addresses kept for examples (RFC 5737): nobody has any of them, unless this host's own network.
NOBODY = ("192.0.2.33", "198.51.100.33", "203.0.113.33")
FIREWALLS = ("firewalld", "ufw")
LISTEN = "0A"
ANYWHERE = frozenset({"00000000", "0" * 32})
PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def measure(shell: Shell, found: HostFacts, root: Path) -> Network:
    """Measure; servers have a deadline, and a silent resolver takes its own time."""
    resolv = procfs.text(root / "etc/resolv.conf")
    search = re.findall(r"^(?:search|domain)\s+(.+)$", resolv, re.MULTILINE)
    policy, chain = _forward(shell)
    answering = [name for name, answer in found.upstream.items() if answer == "answers"]
    return Network(
        resolvers=tuple(re.findall(r"^nameserver\s+(\S+)", resolv, re.MULTILINE)),
        search=tuple(search[-1].split()) if search else (),
        made_up=made_up(),
        strangers=strangers(_foreign(found)),
        untrusted=untrusted(answering),
        proxies=proxies(os.environ),
        listening=listening(
            procfs.text(root / "proc/net/tcp") + procfs.text(root / "proc/net/tcp6")
        ),
        forward_policy=policy,
        docker_chain=chain,
        firewall=_firewall(shell),
    )


def strangers(addresses: Iterable[str] = NOBODY, port: int = HTTPS) -> tuple[str, ...]:
    """Give those addresses at which somebody completes a TLS handshake."""
    return _which(addresses, lambda address: _handshake(address, port, _careless()) is None)


def untrusted(names: Iterable[str], port: int = HTTPS) -> tuple[str, ...]:
    """Give those servers whose certificate this computer does not trust; silent ones are not."""
    context = ssl.create_default_context()
    return _which(
        names,
        lambda name: isinstance(_handshake(name, port, context), ssl.SSLCertVerificationError),
    )


def made_up() -> str:
    """Give what a name that cannot exist resolves to (RFC 6761: .invalid), empty as it should."""
    try:
        return socket.gethostbyname(f"labwright-{uuid.uuid4().hex[:12]}.invalid")
    except OSError:
        return ""


def proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the proxy variables that are set, without user and password."""
    found = {n: v for n, v in environment.items() if n.upper() in PROXY_NAMES and v}
    return {n: v if n.upper() == "NO_PROXY" else shown(v) for n, v in found.items()}


def _careless() -> ssl.SSLContext:
    """Give a context that takes any certificate: the question is only whether one is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _handshake(name: str, port: int, context: ssl.SSLContext) -> OSError | None:
    try:
        with (
            socket.create_connection((name, port), timeout=DEADLINE) as connection,
            context.wrap_socket(connection, server_hostname=name),
        ):
            return None
    except OSError as error:
        return error


def _which(names: Iterable[str], test: Callable[[str], bool]) -> tuple[str, ...]:
    asked = tuple(names)
    with ThreadPoolExecutor(max(len(asked), 1)) as pool:
        return tuple(n for n, yes in zip(asked, pool.map(test, asked), strict=True) if yes)


def listening(text: str) -> tuple[int, ...]:
    """Give the ports that /proc/net/tcp shows as taken on all addresses."""
    rows = [line.split() for line in text.splitlines()]
    ends = [row[1].split(":") for row in rows if len(row) > 3 and row[3] == LISTEN]
    return tuple(sorted({int(port, 16) for address, port in ends if address in ANYWHERE}))


def _forward(shell: Shell) -> tuple[str, bool]:
    """Give the FORWARD policy, and whether Docker's chain is there; empty where it is not told."""
    program = host.which("iptables")
    if program is None:
        return "", False
    try:
        said = shell.run([program, "-S"], check=False, timeout=10).out
    except LabError:
        return "", False
    policy = re.search(r"^-P FORWARD (\w+)$", said, re.MULTILINE)
    return policy[1] if policy else "", "-N DOCKER-USER" in said


def _firewall(shell: Shell) -> str:
    if not shell.has("systemctl"):
        return ""
    for name in FIREWALLS:
        words = ["systemctl", "is-active", "--quiet", name]
        try:
            if shell.run(words, check=False, timeout=5).code == 0:
                return name
        except LabError:
            return ""
    return ""


def _foreign(found: HostFacts) -> tuple[str, ...]:
    """Give those that no network of this host has."""
    own = [n.network for n in found.networks if n.network.prefixlen]
    return tuple(a for a in NOBODY if not any(IPv4Address(a) in network for network in own))
