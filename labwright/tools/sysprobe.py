"""What the computer as such is like: memory, disk, clock, locale, package sources, boxes."""

from __future__ import annotations

import ctypes
import locale
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from labwright.doctor.facts import System
from labwright.tools import procfs, workdir

DEAD_SOURCES = re.compile(
    r"^[^#]*(?:apt\.kubernetes\.io|packages\.cloud\.google\.com/apt)", re.MULTILINE
)
WRITES, WRITE_SIZE, WRITE_SECONDS = 200, 2300, 2.0
BULK = 32 * 2**20
# The return value of adjtimex for a clock that no server keeps (linux/timex.h).
TIME_ERROR = 5
# macOS has no fdatasync.
SYNC = getattr(os, "fdatasync", os.fsync)


def measure(root: Path) -> System:
    """Measure; the disk is written to for two seconds at most."""
    available = procfs.meminfo(root).get("MemAvailable")
    sync_ms, rate = disk(_existing(workdir.cache()))
    named, utf8 = own_locale()
    return System(
        memory_available=available // 1024 if available is not None else None,
        sync_ms=sync_ms,
        write_rate=rate,
        clock=_clock(),
        locale=named,
        utf8=utf8,
        wsl="microsoft" in procfs.text(root / "proc/sys/kernel/osrelease").lower(),
        systemd=procfs.systemd(root),
        dead_sources=tuple(_dead_sources(root)),
        boxes=_boxes(),
    )


def _existing(path: Path) -> Path:
    while not path.is_dir():
        path = path.parent
    return path


def disk(folder: Path) -> tuple[float | None, float | None]:
    """Write as etcd does, small and synced, for two seconds at most; then 32 MiB at once.

    Gives milliseconds of the slowest hundredth, and MB/s. Nothing stays behind.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            took = sorted(_synced_writes(file.fileno()))
            start = time.perf_counter()
            os.write(file.fileno(), bytes(BULK))
            SYNC(file.fileno())
            rate = BULK / 1e6 / max(time.perf_counter() - start, 1e-6)
    except OSError:
        return None, None
    return took[len(took) * 99 // 100] * 1000, rate


def _synced_writes(handle: int) -> Iterator[float]:
    data, end = bytes(WRITE_SIZE), time.perf_counter() + WRITE_SECONDS
    for _ in range(WRITES):
        start = time.perf_counter()
        os.write(handle, data)
        SYNC(handle)
        yield time.perf_counter() - start
        if time.perf_counter() > end:
            return


def _clock() -> bool | None:
    """Ask the kernel whether something keeps its clock; ``None`` where it has no adjtimex."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    # A zeroed struct timex asks and sets nothing; it is 208 bytes on 64-bit Linux.
    state = adjtimex(ctypes.create_string_buffer(256))
    return None if state < 0 else state != TIME_ERROR


def own_locale() -> tuple[str, bool]:
    """Give the locale that Ansible will see, and whether it will take it."""
    named = next((v for n in ("LC_ALL", "LC_CTYPE", "LANG") if (v := os.environ.get(n))), "")
    encoding = named.partition(".")[2].partition("@")[0].lower().replace("-", "")
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "")
    except locale.Error:
        return f"{named} (not installed)", False
    finally:
        locale.setlocale(locale.LC_ALL, before)
    return named, encoding == "utf8"


def _dead_sources(root: Path) -> Iterator[str]:
    folder = root / "etc/apt"
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for path in files:
        if path.suffix in {".list", ".sources"} and DEAD_SOURCES.search(procfs.text(path)):
            yield str(path)


def _boxes() -> tuple[str, ...]:
    home = Path(os.environ.get("VAGRANT_HOME", Path.home() / ".vagrant.d"))
    folders = (home / "boxes").glob("*")
    return tuple(sorted(p.name.replace("-VAGRANTSLASH-", "/") for p in folders if p.is_dir()))
