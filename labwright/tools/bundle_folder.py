"""Fills a bundle's folder, and goes on where an earlier run was interrupted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from labwright.bundle import LOCK, MANIFEST, FileFact, Manifest, dump, safe
from labwright.errors import SupplyError
from labwright.tools import workdir
from labwright.tools.bundle_bytes import DamageError, Meter, check, copy, each, link, part_of
from labwright.tools.bundle_files import held, manifest_of, without_links
from labwright.tools.bundle_problems import problem, sound

PROGRESS = ".progress"
Siblings = Mapping[FileFact, Path]


def fill(
    manifest: Manifest,
    lock: str,
    sources: Mapping[str, Path],
    target: Path,
    meter: Meter,
    say: Callable[[str], None],
) -> None:
    """Make ``target`` hold the bundle; ``sources`` gives the file for each of its paths.

    Raises SupplyError: a source is not what the manifest says, or ``target`` is something else.
    """
    _only_ours(target)
    with held(target, say):
        memory = _Memory(target)
        siblings = _siblings(target)
        shared: list[int] = []

        def place(item: tuple[str, FileFact]) -> None:
            path, fact = item
            if not _there(memory, target / path, path, fact, meter):
                if _share(siblings.get(fact), sources[path], target / path, fact, meter):
                    shared.append(fact.size)
                else:
                    with sound(sources[path]):
                        copy(sources[path], target / path, fact, meter, 0o444)
                memory.add(path, fact)

        each(place, manifest.files.items(), meter)
        memory.end(manifest)
        workdir.write(target / LOCK, lock, 0o444)
        workdir.write(target / MANIFEST, dump(manifest), 0o444)
    if shared:
        say(f"{sum(shared) / 1e6:.0f} MB are shared with other bundles in {target.parent}")


def _there(memory: _Memory, file: Path, path: str, fact: FileFact, meter: Meter) -> bool:
    if known := memory.sha256(path):
        if known == fact.sha256:
            meter.add(fact.size)
        return known == fact.sha256
    try:
        check(file, fact, meter)
    except DamageError:
        return False
    memory.add(path, fact)
    return True


def _share(other: Path | None, source: Path, target: Path, fact: FileFact, meter: Meter) -> bool:
    # Never the store's own file, which an entry made of links could hide behind.
    return other is not None and not other.samefile(source) and link(other, target, fact, meter)


def _siblings(target: Path) -> Siblings:
    """Give the files of the bundles beside this one by what they are."""
    found: dict[FileFact, Path] = {}
    for folder in _beside(target.resolve()):
        with contextlib.suppress(SupplyError):
            manifest = manifest_of(folder)
            for path, fact in manifest.files.items() if manifest else ():
                if (folder / path).resolve() == folder / path:
                    found.setdefault(fact, folder / path)
    return found


def _beside(target: Path) -> list[Path]:
    try:
        return sorted(folder for folder in target.parent.iterdir() if folder != target)
    except OSError:  # one may be allowed to write to a folder and not to list what is in it
        return []


def _only_ours(target: Path) -> None:
    """Refuse a folder that holds something else: what is too much there will be removed."""
    if not target.exists():
        return
    there = without_links(target)
    if there and not {MANIFEST, PROGRESS} & set(there):
        raise problem(
            "not-empty",
            f"{target} is not empty, and no bundle",
            f"it holds {min(there)}",
            "name a folder that is not there yet",
        )


class _Memory:
    """What is known of the files in a folder, so that they are not hashed again.

    A line of ``.progress`` tells of one file; a file that was written to since is not known.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / PROGRESS
        self._known: dict[str, tuple[str, int, int]] = {}
        for line in self._lines():
            with contextlib.suppress(ValueError, LookupError, TypeError):
                path, sha256, size, changed = json.loads(line)
                if safe(path):
                    self._known[path] = (sha256, size, changed)
        # From here on the folder is no bundle until the new one is finished.
        for path, fact in self._earlier().items():
            self.add(path, fact)
        (folder / MANIFEST).unlink(missing_ok=True)

    def add(self, path: str, fact: FileFact) -> None:
        facts = self._facts(path)
        if facts is not None and facts[0] == fact.size:
            self._known[path] = (fact.sha256, *facts)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps([path, *self._known[path]]) + "\n")

    def sha256(self, path: str) -> str:
        """Give what a file's content is known to be, if it is."""
        sha256, *then = self._known.get(path, ("",))
        return sha256 if then == [*(self._facts(path) or ())] else ""

    def end(self, manifest: Manifest) -> None:
        """Remove what earlier bundles left here, and the memory itself."""
        for path in self._known.keys() - manifest.files.keys():
            _remove(self._folder, path)
        for path in self._known.keys() | manifest.files.keys():
            part_of(self._folder / path).unlink(missing_ok=True)
        self._file.unlink(missing_ok=True)

    def _lines(self) -> list[str]:
        try:
            return self._file.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            self._file.touch()
            return []

    def _earlier(self) -> dict[str, FileFact]:
        with contextlib.suppress(SupplyError):
            if manifest := manifest_of(self._folder):
                return manifest.files
        return {}

    def _facts(self, path: str) -> tuple[int, int] | None:
        try:
            facts = (self._folder / path).lstat()
        except OSError:
            return None
        return facts.st_size, facts.st_mtime_ns


def _remove(folder: Path, path: str) -> None:
    (folder / path).unlink(missing_ok=True)
    for parent in (folder / path).parents:
        if parent == folder:
            return
        with contextlib.suppress(OSError):  # others are in it still
            parent.rmdir()
