"""Serves a bundle to other computers: its files, and its images as a registry, read-only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from labwright.bundle import LOCK, MANIFEST, Manifest
from labwright.tools.bundle_files import manifest_of, without_links
from labwright.tools.bundle_problems import nothing_at
from labwright.tools.ociserve import IMAGES, Registry
from labwright.tools.serve import Answer, Told, file_answer, listening, nobody, path_of


@contextlib.contextmanager
def serving_bundle(folder: Path, address: str, port: int, told: Told = nobody) -> Iterator[str]:
    """Serve the bundle at ``/`` and its images at ``/v2/`` of ``http://address:port``; give that.

    Only what the manifest names is served. ``told`` hears of each request, from any thread.

    Raises SupplyError: no bundle, or its images are damaged; HostError: no such address.
    """
    manifest = manifest_of(folder)
    if manifest is None:
        raise nothing_at(folder)
    without_links(folder)
    found = (folder / id_ for id_, entry in manifest.entries.items() if IMAGES in entry.files)
    images = next(found, None)
    registry = Registry(images) if images else None
    find = partial(_find, _tags(manifest), folder.resolve())
    with listening(find, address, port, registry, told) as url:
        yield url


def _tags(manifest: Manifest) -> dict[str, str]:
    files = {path: fact.sha256 for path, fact in manifest.files.items()}
    return {**files, LOCK: manifest.lock, MANIFEST: manifest.digest}


def _find(tags: dict[str, str], folder: Path, target: str) -> Answer | None:
    path = path_of(target)
    # A bundle may come from anywhere: a link in it must not show this computer's other files.
    if path not in tags or (folder / path).resolve() != folder / path:
        return None
    return file_answer(folder / path, tags[path])
