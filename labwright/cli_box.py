"""The box commands: printing and exit codes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labwright.boxshop import FORMS, Shop
from labwright.cli import printing
from labwright.console import Console
from labwright.lab import Options
from labwright.tools.boxes import Entry

DAY = 86400


def build(
    provider: str,
    guest: str,
    *,
    lab: str,
    baked: bool,
    to: str,
    url: str,
    yes: bool,
    verbose: bool,
) -> None:
    """Build boxes and say where they are."""
    with _shop(lab=lab, yes=yes, verbose=verbose) as (shop, console):
        providers = FORMS if provider == "all" else provider.split(",")
        made = shop.bake(providers) if baked else shop.build(providers, guest)
        for one in made:
            size = one.path.stat().st_size / 1e6
            console.print(f"{one.provider}: {one.name} {one.version}, {size:.0f} MB")
            console.print(f"  {one.path}")
            console.print(f"  sha256 {one.sha256}")
        if to:
            for path in shop.hand_on(made, Path(to).expanduser(), url):
                console.print(f"wrote {path}")
            console.print(f"next: ./invokew box.add --source={to}")


def add(source: str, provider: str, name: str, *, verbose: bool) -> None:
    """Add boxes and name them."""
    with _shop(verbose=verbose) as (shop, console):
        found = shop.add(source, provider, name)
        for line in found:
            console.print(f"added {line}")
        if not found:
            console.print("Vagrant had it already")


def show(*, everything: bool) -> None:
    """Print Vagrant's list as a table."""
    with _shop() as (shop, console):
        now = time.time()
        console.rows(
            (_row(entry, labs, now) for entry, labs in shop.listed(everything=everything)),
            ("box", "version", "provider", "size", "age", "used by"),
        )


def prune(*, yes: bool) -> None:
    """Remove boxes and name them."""
    with _shop(yes=yes) as (shop, console):
        gone = shop.prune()
        for entry in gone:
            console.print(f"removed {entry.box.name} {entry.box.version} ({entry.box.provider})")
        if not gone:
            console.print("nothing to remove: machines use each of them, or there is none")


def _row(entry: Entry, labs: list[str], now: float) -> list[str]:
    box, days = entry.box, int((now - entry.added) // DAY)
    age = f"{days} d" if days else "today"
    size = f"{entry.size / 1e6:.0f} MB"
    return [box.name, box.version, box.provider, size, age, ", ".join(labs) or "-"]


@contextmanager
def _shop(
    *, lab: str = "", yes: bool = False, verbose: bool = False
) -> Iterator[tuple[Shop, Console]]:
    with printing(verbose) as console:
        given = Options(lab=lab, yes=yes, verbose=verbose, sink=console, ask=console.ask)
        yield Shop(given), console
