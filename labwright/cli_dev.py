"""The commands for Labwright's own development: printing and exit codes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from labwright import keys
from labwright.cli import printing
from labwright.recipes import Job, build
from labwright.recipes.pinning import Pinner
from labwright.supplies.packages import toolchain
from labwright.tools import workdir
from labwright.tools.shell import Shell
from labwright.tools.store import Store


def pin(component: str, version: str) -> None:
    """Pin a component's version and name the files that were written."""
    with printing() as console:
        shell = Shell()
        store = Store(workdir.cache() / "store", console.print)
        cache = workdir.cache() / "go"
        go = toolchain()

        def make(work: Path, out: Path) -> None:
            build(Job(go, work, out, {}, shell, console.print))

        root = store.ensure(keys.keys((go,))[go.id], make) / "go"
        with tempfile.TemporaryDirectory() as work:
            pinner = Pinner(shell, root, cache, console.print)
            for path in pinner.pin(component, version, Path(work)):
                console.print(f"wrote {path}")
