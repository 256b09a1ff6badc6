"""Moves and checks a bundle's files: each byte is hashed on its way, nothing half-done is kept."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, TypeVar

from labwright.bundle import PART, FileFact

CHUNK = 1 << 20
# Linux's FICLONE: the copy shares the blocks of the original until one of them is written to, on
# file systems that can (Btrfs, XFS): https://man7.org/linux/man-pages/man2/ficlone.2const.html
FICLONE = 0x40049409

Progress = Callable[[int, int], None]
T = TypeVar("T")


def ignore(_done: int, _total: int) -> None:
    """Take the progress and show nothing."""


class Meter:
    """Counts bytes for a progress callback, from any thread; ends the others when one fails."""

    def __init__(self, progress: Progress, total: int) -> None:
        """Tell ``progress(done, total)``; it is never called twice at the same time."""
        self.total = total
        self.done = 0
        self.ended = False
        self._progress = progress
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count ``count`` more bytes. Raises EndedError when another thread has failed."""
        with self._lock:
            if self.ended:
                raise EndedError
            self.done += count
            self._progress(self.done, self.total)


class EndedError(Exception):
    """The work was given up because of a failure elsewhere."""


class DamageError(Exception):
    """A file is not what its manifest says; ``sort`` is a key of SORTS."""

    def __init__(self, sort: str) -> None:
        """Keep the sort."""
        super().__init__(SORTS[sort])
        self.sort = sort


SORTS = {
    "missing": "it is not there, or not a plain file",
    "size": "it has another size than when it was made",
    "content": "it has other content than when it was made",
    "unreadable": "it cannot be read",
    "foreign": "it does not belong to the bundle",
}


def each(work: Callable[[T], None], items: Iterable[T], meter: Meter) -> None:
    """Do the work for every item, on every core; the first failure ends all and is raised."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        running = [pool.submit(work, item) for item in items]
        done, _waiting = wait(running, return_when=FIRST_EXCEPTION)
        meter.ended = any(future.exception() for future in done)
    except BaseException:
        meter.ended = True
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    failures = [f.exception() for f in running if not f.cancelled() and f.exception()]
    for failure in sorted(failures, key=lambda error: isinstance(error, EndedError))[:1]:
        raise failure  # type: ignore[misc]


def check(path: Path, fact: FileFact, meter: Meter) -> None:
    """Hash a file. Raises DamageError when it is not what ``fact`` says."""
    with plain(path, fact) as file:
        stream(file, None, fact, meter)


def copy(source: Path, target: Path, fact: FileFact, meter: Meter, mode: int) -> None:
    """Copy a file, hashing it; ``target`` appears whole or not at all.

    Raises DamageError when the source is not what ``fact`` says.
    """
    with plain(source, fact) as file, arriving(target, mode) as part:
        if _clone(file, part):
            check(Path(part.name), fact, meter)
        else:
            stream(file, part, fact, meter)


def link(other: Path, target: Path, fact: FileFact, meter: Meter) -> bool:
    """Make ``target`` another name of a file of another bundle; give whether that was possible."""
    part = part_of(target)
    part.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    try:
        os.link(other, part, follow_symlinks=False)
        check(part, fact, meter)
        part.replace(target)
    except (OSError, DamageError):
        # Another file system, one without links, or a damaged file: a copy serves as well.
        return False
    finally:
        part.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def arriving(target: Path, mode: int) -> Iterator[IO[bytes]]:
    """Give a file to write to; it gets the name ``target`` when all has gone well."""
    part = part_of(target)
    part.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as file:
            yield file
        part.chmod(mode)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def part_of(target: Path) -> Path:
    """Give the name of a file while it is not finished."""
    return target.with_name(target.name + PART)


def stream(file: IO[bytes], out: IO[bytes] | None, fact: FileFact, meter: Meter) -> None:
    """Read one file's bytes to the end, hash them, and write them to ``out`` if there is one.

    Raises DamageError when they are not what ``fact`` says.
    """
    sha256, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(CHUNK))
    while size <= fact.size and (count := _read(file, buffer)):
        size += count
        meter.add(count)
        sha256.update(buffer[:count])
        if out is not None:
            out.write(buffer[:count])
    if size != fact.size or sha256.hexdigest() != fact.sha256:
        meter.add(-size)  # another source may be tried
        raise DamageError("content" if size == fact.size else "size")


def _read(file: IO[bytes], buffer: memoryview) -> int:
    try:
        count: int = file.readinto(buffer)  # type: ignore[attr-defined]
    except OSError as error:
        raise DamageError("unreadable") from error
    return count


@contextlib.contextmanager
def plain(path: Path, fact: FileFact) -> Iterator[IO[bytes]]:
    """Open a plain file of the size that ``fact`` says. Raises DamageError."""
    try:
        facts = path.lstat()
    except OSError as error:
        raise DamageError("missing") from error
    if not stat.S_ISREG(facts.st_mode):
        raise DamageError("missing")
    if facts.st_size != fact.size:
        raise DamageError("size")
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise DamageError("unreadable") from error
    with file:
        yield file


def _clone(file: IO[bytes], part: IO[bytes]) -> bool:
    try:
        import fcntl  # noqa: PLC0415 - not there on every system

        fcntl.ioctl(part.fileno(), FICLONE, file.fileno())
    except (ImportError, OSError):
        return False
    return True
