"""What is in a bundle's folder, and who may write to it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from labwright.bundle import LOCK, MANIFEST, Manifest, parse
from labwright.errors import SupplyError
from labwright.tools.bundle_problems import problem, refused

HELD = ".lock"


def survey(folder: Path) -> tuple[dict[str, os.stat_result], list[str]]:
    """Give the plain files below a folder by path, and the paths of links, devices and the like.

    Links are not followed.
    """
    files: dict[str, os.stat_result] = {}
    odd: list[str] = []
    for root, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(root, name)
            facts, relative = path.lstat(), path.relative_to(folder).as_posix()
            if stat.S_ISREG(facts.st_mode):
                files[relative] = facts
            elif not stat.S_ISDIR(facts.st_mode):
                odd.append(relative)
    return files, odd


def without_links(folder: Path) -> Collection[str]:
    """Give the paths of all files. Raises SupplyError: something there is no plain file."""
    files, odd = survey(folder)
    if odd:
        raise problem(
            "odd",
            f"{folder} holds {odd[0]}, which is neither a file nor a folder",
            "a bundle is made of plain files: a link could show or alter files elsewhere",
            f"remove {odd[0]}, or name another folder",
        )
    return files.keys()


def manifest_of(folder: Path) -> Manifest | None:
    """Read a bundle folder's manifest; none: there is no bundle. Raises SupplyError: damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise refused(error, path) from error
    return parse(raw.decode("utf-8", "replace"), str(path))


def whole(folder: Path, manifest: Manifest) -> bool:
    """Tell whether a folder holds this bundle, going by the sizes: only the lock is read."""
    try:
        if manifest_of(folder) != manifest or _sha256(folder / LOCK) != manifest.lock:
            return False
    except (SupplyError, OSError):
        return False
    there = {path: facts.st_size for path, facts in survey(folder)[0].items()}
    wanted = {path: fact.size for path, fact in manifest.files.items()}
    return all(there.get(path) == size for path, size in wanted.items())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def held(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Let one run at a time write to the folder, and say what a disk refuses.

    Raises SupplyError.
    """
    lock = FileLock(folder / HELD)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, folder, say)
        yield
        (folder / HELD).unlink(missing_ok=True)
    except OSError as error:
        raise refused(error, folder) from error
    finally:
        lock.release()


def _acquire(lock: FileLock, folder: Path, say: Callable[[str], None]) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another run is writing {folder}: waiting for it")
        lock.acquire(poll_interval=0.2)
