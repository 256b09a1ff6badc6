"""Gets a bundle from another computer, over plain HTTP: one file at a time, each one verified."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urldefrag

from labwright.bundle import LOCK, MANIFEST, Manifest, dump, parse
from labwright.errors import SupplyError
from labwright.tools import workdir
from labwright.tools.bundle_bytes import Progress
from labwright.tools.bundle_files import held, manifest_of, whole
from labwright.tools.bundle_problems import problem
from labwright.tools.download import Http, HttpError, Wanted, shown

PIN = "sha256="
HEX = re.compile(r"[0-9a-f]{64}")


def fetch(
    where: str, cache: Path, http: Http, say: Callable[[str], None], progress: Progress
) -> Path:
    """Give ``cache/<digest>``, filled from the URL; ``#sha256=<digest>`` at its end pins it.

    A pinned bundle that the cache has whole is not asked for. What an earlier run fetched is kept.

    Raises SupplyError.
    """
    address, pin = _parts(where)
    if pin and _kept(cache / pin, pin):
        return cache / pin
    manifest = manifest_at(where, cache, http)
    folder = cache / manifest.digest
    if not whole(folder, manifest):
        say(f"get {manifest.size / 1e6:.0f} MB from {shown(address)}")
        with held(folder, say):
            _fill(manifest, address, folder, http, progress)
    return folder


def manifest_at(where: str, cache: Path, http: Http) -> Manifest:
    """Give the manifest of the bundle at a URL, and fetch nothing else. Raises SupplyError."""
    address, pin = _parts(where)
    kept = manifest_of(cache / pin) if pin and _kept(cache / pin, pin) else None
    manifest = kept or _manifest(address, http)
    if pin not in {"", manifest.digest}:
        raise problem(
            "another",
            f"{shown(address)} has another bundle than the one asked for",
            f"its digest is {manifest.digest}, not {pin}",
            "ask its owner for the address with its digest",
        )
    return manifest


def _parts(where: str) -> tuple[str, str]:
    address, fragment = urldefrag(where)
    address = address.removesuffix(MANIFEST).rstrip("/") + "/"
    pin = fragment.removeprefix(PIN).lower()
    if fragment and (not fragment.startswith(PIN) or not HEX.fullmatch(pin)):
        raise problem(
            "pin",
            f"#{fragment} says nothing about a bundle",
            f"what may follow the address is #{PIN} and 64 hex digits",
            "./invokew bundle.show gives a bundle's digest",
        )
    return address, pin


def _kept(folder: Path, digest: str) -> bool:
    with contextlib.suppress(SupplyError):
        manifest = manifest_of(folder)
        return manifest is not None and manifest.digest == digest and whole(folder, manifest)
    return False


def _manifest(address: str, http: Http) -> Manifest:
    try:
        text = http.get(f"{address}{MANIFEST}")
    except HttpError as error:
        if error.status != 404:
            raise
        raise problem(
            "none",
            f"there is no bundle at {shown(address)}",
            f"it has no {MANIFEST}",
            "ask its owner for the address that ./invokew bundle.serve says",
        ) from error
    return parse(text.decode("utf-8", "replace"), f"{shown(address)}{MANIFEST}")


def _fill(manifest: Manifest, address: str, folder: Path, http: Http, progress: Progress) -> None:
    before = 0
    for path, fact in manifest.files.items():
        target = folder / path
        # A file gets its name only after it was verified: one of full size is whole.
        if not (target.is_file() and target.stat().st_size == fact.size):
            target.parent.mkdir(parents=True, exist_ok=True)
            wanted = Wanted(f"{address}{quote(path)}", fact.sha256, fact.size)

            def count(done: int, _total: int | None, before: int = before) -> None:
                progress(before + done, manifest.size)

            http.download(wanted, target, count)
        before += fact.size
        progress(before, manifest.size)
    http.download(Wanted(f"{address}{LOCK}", manifest.lock), folder / LOCK)
    workdir.write(folder / MANIFEST, dump(manifest), 0o444)
