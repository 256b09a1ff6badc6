"""The content store: finished artifacts, each in a folder of its own that is never altered.

``<root>/<key>/`` holds an entry and its ``manifest.json``; ``.work/<key>/`` a build that is not
finished; ``.out/<key>/`` what it has put out so far; ``.damaged/<key>/`` an entry that failed its
check, kept until a sound one has taken its place.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from labwright.bundle import Entry
from labwright.errors import Finding, LabError, SupplyError

Build = Callable[[Path, Path], None]
MANIFEST = "manifest.json"


class Store:
    """Entries below one folder; any number of runs may use it at the same time."""

    def __init__(self, root: Path, say: Callable[[str], None] = lambda _text: None) -> None:
        """Keep entries below ``root``; ``say`` gets what a user should know."""
        self.root = root
        self._say = say

    def path(self, key: str) -> Path:
        """Give the folder where the entry is, or would be."""
        return self.root / key

    def has(self, key: str) -> bool:
        """Tell whether the entry is there, with all its files at their full size."""
        return not self._damage(key, full=False)

    def verify(self, key: str) -> tuple[str, ...]:
        """Hash every file again and give what is wrong, a sentence each; nothing: it is sound."""
        return self._damage(key, full=True)

    def same(self, entries: Mapping[str, Entry]) -> dict[str, str]:
        """Give id → key for entries of a bundle that the store has too, under the bundle's key."""
        return {
            name: entry.key
            for name, entry in entries.items()
            if self.has(entry.key) and self._files(entry.key) == _plain(entry)
        }

    def _files(self, key: str) -> dict[str, tuple[int, str]]:
        text = (self.path(key) / MANIFEST).read_text(encoding="utf-8")
        return {n: (f["size"], f["sha256"]) for n, f in json.loads(text)["files"].items()}

    def ensure(self, key: str, build: Build, *, verify: bool = False) -> Path:
        """Give the entry's folder, calling ``build(work, out)`` when there is none.

        ``work`` is kept when the build fails or is interrupted, so that the next one goes on
        there; ``out`` is empty at each start. With ``verify`` every file is hashed first. A
        damaged entry is moved away and built again. Two runs at once build once.

        Raises SupplyError: the disk is full, or the folder may not be written.
        """
        if not verify and self.has(key):
            return self.path(key)
        with self._clear_errors(), self._locked(key):
            if self.path(key).exists():
                damage = self._damage(key, full=verify)
                if not damage:
                    return self.path(key)
                self._set_aside(key, damage)
            self._build(key, build)
        return self.path(key)

    def _build(self, key: str, build: Build) -> None:
        work, out = self.root / ".work" / key, self.root / ".out" / key
        remove_tree(out)
        work.mkdir(parents=True, exist_ok=True)
        out.mkdir(parents=True)
        build(work, out)
        text = json.dumps({"key": key, "files": describe(out)}, indent=1, sort_keys=True)
        (out / MANIFEST).write_text(text + "\n", encoding="utf-8")
        out.rename(self.path(key))
        remove_tree(work)
        remove_tree(self.root / ".damaged" / key)

    def _damage(self, key: str, *, full: bool) -> tuple[str, ...]:
        folder = self.path(key)
        try:
            files = self._files(key)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return (f"{MANIFEST} is missing or unreadable",)
        # Sizes alone find what a crash leaves behind (files cut short); they cost no reading.
        bad = [name for name, facts in files.items() if facts[0] != _size(folder / name)]
        if bad or not full:
            return tuple(f"{name} is missing or has another size" for name in bad)
        hashes = _hashes(folder, list(files))
        return tuple(
            f"{name} has other content than when it was made"
            for name, facts in files.items()
            if facts[1] != hashes[name]
        )

    def _set_aside(self, key: str, damage: tuple[str, ...]) -> None:
        self._say(f"{key} is damaged and is made again: {'; '.join(damage[:3])}")
        aside = self.root / ".damaged" / key
        remove_tree(aside)
        aside.parent.mkdir(parents=True, exist_ok=True)
        self.path(key).rename(aside)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        folder = self.root / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self._say(f"another run is making {key}: waiting for it")
            lock.acquire(poll_interval=0.5)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except LabError as error:
            # A compiler meets the full disk before this process does, and says so in its words.
            if any("no space left on device" in line.lower() for line in error.details):
                raise SupplyError(self._full(), error.details) from error
            raise
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise SupplyError(self._full()) from error
            if isinstance(error, PermissionError):
                raise SupplyError(self._forbidden(error)) from error
            raise

    def _full(self) -> Finding:
        there = next(p for p in (self.root, *self.root.parents) if p.exists())
        free = shutil.disk_usage(there).free // 2**20
        return Finding(
            "store.disk-full",
            "error",
            "the disk is full",
            f"{free} MiB are left where {self.root} is",
            "free some space and run the same command again: finished steps are kept; or set "
            "XDG_CACHE_HOME to a folder on a larger disk",
        )

    def _forbidden(self, error: PermissionError) -> Finding:
        return Finding(
            "store.forbidden",
            "error",
            f"{error.filename or self.root} may not be written",
            f"{error.strerror}: an earlier run as another user may have made it",
            f"sudo chown -R $(id -u):$(id -g) {self.root}",
        )


def _plain(entry: Entry) -> dict[str, tuple[int, str]]:
    return {path: (fact.size, fact.sha256) for path, fact in entry.files.items()}


def describe(folder: Path) -> dict[str, dict[str, Any]]:
    """Give path below ``folder`` → ``sha256`` (hex) and ``size`` (bytes) of each regular file."""
    names = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if stat.S_ISREG(path.lstat().st_mode)
    )
    hashes = _hashes(folder, names)
    return {name: {"sha256": hashes[name], "size": _size(folder / name)} for name in names}


def remove_tree(folder: Path) -> None:
    """Remove a folder if it is there, read-only parts too: Go's module cache is made of them."""

    def unlock(function: Callable[..., Any], path: str, _error: Any) -> None:
        if not Path(path).exists():
            return
        Path(path).parent.chmod(0o700)
        Path(path).chmod(0o700)
        function(path)

    if folder.exists():
        shutil.rmtree(folder, onerror=unlock)


def _hashes(folder: Path, names: list[str]) -> dict[str, str]:
    # Threads are enough: hashlib lets go of the interpreter's lock while it works.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return dict(zip(names, pool.map(lambda name: _sha256(folder / name), names), strict=True))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
