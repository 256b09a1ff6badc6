"""What the network around this host does: names, certificates, and answers from nowhere."""

from __future__ import annotations

import socket
import ssl
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from labwright.tools.trouble import shown

DEADLINE = 1.5
HTTPS = 443
# Addresses kept for examples (RFC 5737), and one of a service range: nobody has any of them.
NOBODY = ("192.0.2.33", "198.51.100.33", "203.0.113.33", "10.96.255.33")
PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


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
