"""Keeps a lab's certificates below ``.lab/<name>/tls/``: its authority's and its services'."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from labwright import authority, catalog
from labwright.authority import Pair, Scope, Server
from labwright.model import Plan
from labwright.tools.workdir import Workdir, write

AUTHORITY = "ca"


def ensure(plan: Plan, workdir: Workdir) -> list[str]:
    """Make the certificates that are missing, old or for other names; give those files' names.

    Raises HostError where the folder refuses.
    """
    folder, now = workdir.path / "tls", datetime.now(UTC)
    scope = Scope(plan.name, plan.domain, plan.subnet)
    ours = _read(folder, AUTHORITY)
    made: list[str] = []
    if ours is None or not authority.speaks_for(ours, scope, now):
        ours = authority.found(scope, now)
        made += _write(folder, AUTHORITY, ours)
    addresses = tuple(node.address.ip for node in plan.nodes)
    for service in plan.services_at:
        server = Server((service.host,), addresses)
        there = _read(folder, service.name)
        if there is None or not authority.serves(ours, there, server, now):
            made += _write(folder, service.name, authority.issue(ours, server, now))
    for name in {*catalog.load().addons} - {service.name for service in plan.services_at}:
        for kind in ("crt", "key"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
    return made


def _read(folder: Path, name: str) -> Pair | None:
    try:
        texts = [(folder / f"{name}.{kind}").read_text("utf-8") for kind in ("crt", "key")]
    except OSError:
        return None
    return Pair(*texts)


def _write(folder: Path, name: str, pair: Pair) -> list[str]:
    # The key first: a certificate is what tells that the pair is whole.
    write(folder / f"{name}.key", pair.key, 0o600)
    write(folder / f"{name}.crt", pair.certificate)
    return [f"tls/{name}.crt"]
