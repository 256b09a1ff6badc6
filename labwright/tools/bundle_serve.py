"""Serves a bundle to other computers: its files, and its images as a registry, read-only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from labwright.boxes import OWNER, own_version
from labwright.bundle import LOCK, MANIFEST, Entry, Manifest
from labwright.supplies.base import OWN_BOXES
from labwright.tools.boxes import PACKAGE, Offer, catalogue, dump
from labwright.tools.bundle_files import manifest_of, without_links
from labwright.tools.bundle_problems import nothing_at
from labwright.tools.ociserve import IMAGES, Registry
from labwright.tools.serve import JSON, Answer, Told, file_answer, listening, nobody, path_of


@contextlib.contextmanager
def serving_bundle(folder: Path, address: str, port: int, told: Told = nobody) -> Iterator[str]:
    """Serve the bundle at ``/`` and its images at ``/v2/`` of ``http://address:port``; give that.

    A bundle with a box has a catalogue for Vagrant at ``/boxes/<guest>.json``. Beside that only
    what the manifest names is served. ``told`` hears of each request, from any thread.

    Raises SupplyError: no bundle, or its images are damaged; HostError: no such address.
    """
    manifest = manifest_of(folder)
    if manifest is None:
        raise nothing_at(folder)
    without_links(folder)
    found = (folder / id_ for id_, entry in manifest.entries.items() if IMAGES in entry.files)
    images = next(found, None)
    registry = Registry(images) if images else None
    made: dict[str, bytes] = {}
    find = partial(_find, _tags(manifest), folder.resolve(), made)
    with listening(find, address, port, registry, told) as url:
        # Vagrant takes no relative addresses, and the port is known only now.
        made.update(_catalogues(manifest, url))
        yield url


def catalogue_path(manifest: Manifest) -> str:
    """Give where the catalogue of a bundle's boxes is served; empty without any."""
    return f"boxes/{manifest.facts['guest']}.json" if _boxes(manifest) else ""


def _boxes(manifest: Manifest) -> dict[str, Entry]:
    """Give provider → entry of the boxes in a bundle."""
    return {
        provider: manifest.entries[name]
        for provider, name in OWN_BOXES.items()
        if PACKAGE in getattr(manifest.entries.get(name), "files", ())
    }


def _catalogues(manifest: Manifest, url: str) -> dict[str, bytes]:
    offers = [
        Offer(own_version(e.key), provider, f"{url}/{e.id}/{PACKAGE}", e.files[PACKAGE].sha256)
        for provider, e in _boxes(manifest).items()
    ]
    if not offers:
        return {}
    guest = manifest.facts["guest"]
    content = catalogue(f"{OWNER}/{guest}", f"nodes of lab {manifest.lab}", offers)
    return {catalogue_path(manifest): dump(content).encode()}


def _tags(manifest: Manifest) -> dict[str, str]:
    files = {path: fact.sha256 for path, fact in manifest.files.items()}
    return {**files, LOCK: manifest.lock, MANIFEST: manifest.digest}


def _find(tags: dict[str, str], folder: Path, made: dict[str, bytes], target: str) -> Answer | None:
    path = path_of(target)
    if path in made:
        return Answer(200, JSON, made[path])
    # A bundle may come from anywhere: a link in it must not show this computer's other files.
    if path not in tags or (folder / path).resolve() != folder / path:
        return None
    return file_answer(folder / path, tags[path])
