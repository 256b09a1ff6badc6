"""The bundle commands: printing and exit codes."""

from __future__ import annotations

import time
from pathlib import Path

from labwright.bundle import Manifest
from labwright.cli import end, printing, session
from labwright.errors import SupplyError
from labwright.lab import Options
from labwright.tools import bundles, workdir
from labwright.tools.bundle_serve import catalogue_path, serving_bundle
from labwright.tools.download import Http


def make(lab: str, to: str, *, yes: bool, verbose: bool) -> None:
    """Make a bundle of a lab, and say how it is used."""
    target = Path(to).expanduser().resolve()
    with session(Options(lab=lab, yes=yes, verbose=verbose)) as (it, console):
        it.bundle(target)
        console.print("next:")
        console.print(f"  ./invokew bundle.verify {target}")
        console.print(f"  ./invokew lab.up --supply bundle:{target}")


def verify(bundle: str) -> None:
    """Hash every file of a bundle; end with SupplyError's code where one is bad."""
    with printing() as console:
        start = time.monotonic()
        where = Path(bundle).expanduser()
        manifest = bundles.manifest(where)
        if found := bundles.verify(where):
            raise SupplyError(found)
        seconds = time.monotonic() - start
        rate = manifest.size / 1e6 / max(seconds, 0.001)
        console.print(
            f"{len(manifest.files)} files, {manifest.size / 1e6:.0f} MB, all as the manifest says "
            f"({seconds:.1f} s, {rate:.0f} MB/s)"
        )
        console.print(f"sha256 {manifest.digest}")


def show(bundle: str, *, files: bool) -> None:
    """Print what a bundle holds."""
    with printing() as console:
        manifest = bundles.manifest(Path(bundle).expanduser())
        console.rows(_facts(manifest))
        console.rows(
            (
                [entry.id, f"{entry.size / 1e6:.1f} MB", f"{len(entry.files)} files"]
                for entry in manifest.entries.values()
            ),
            ("entry", "size", "files"),
        )
        for path, fact in manifest.files.items() if files else ():
            console.print(f"{fact.sha256}  {fact.size:>11}  {path}")


def serve(bundle: str, address: str, port: int) -> None:
    """Serve a bundle until Ctrl-C."""
    with printing() as console:
        cache = workdir.cache() / "bundles"
        with Http() as http:
            folder = bundles.opened(bundle, cache, http, console.print)

        def told(client: str, path: str, count: int) -> None:
            console.print(f"{client} {count / 1e6:.1f} MB {path}")

        with serving_bundle(folder, address, port, told) as url:
            manifest = bundles.manifest(folder)
            console.print(f"serving {folder} at {url}; Ctrl-C ends it. On the learners' computers:")
            console.print(f"  ./invokew lab.up --supply bundle:{url}#sha256={manifest.digest}")
            if path := catalogue_path(manifest):
                console.print(f"  vagrant box add {url}/{path}   # or box.add: its box alone")
            console.print(
                "its images are a registry too: mirrors.registries in lab.yaml can name it"
            )
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                console.print("no longer served")
                end(0)


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return [
        ("lab", manifest.lab),
        ("made by", f"Labwright {manifest.made_by}"),
        ("versions", versions),
        *manifest.facts.items(),
        ("size", f"{manifest.size / 1e6:.0f} MB in {len(manifest.files)} files"),
        ("sha256", manifest.digest),
    ]
