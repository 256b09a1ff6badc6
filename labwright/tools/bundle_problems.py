"""What can be wrong with a bundle, in words."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from labwright.bundle import MANIFEST
from labwright.errors import Finding, SupplyError
from labwright.tools.bundle_bytes import SORTS, DamageError


def refused(error: OSError, folder: Path) -> SupplyError:
    """Say what a file system did not let us do."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        there = next(p for p in (folder, *folder.parents) if p.exists())
        return problem(
            "disk-full",
            "the disk is full",
            f"{shutil.disk_usage(there).free // 2**20} MiB are left where {folder} is",
            "free some space and run the same command again: finished files are kept",
        )
    if error.errno == errno.EFBIG:
        return problem(
            "too-big",
            f"{error.filename or folder} would be larger than its file system allows",
            str(error),
            "write the bundle to a disk with another file system than FAT",
        )
    return problem(
        "cannot-use",
        f"{error.filename or folder} cannot be read or written",
        str(error),
        "give yourself the right to use it, or name another folder",
    )


def problem(name: str, what: str, why: str, fix: str) -> SupplyError:
    """Give an error about bundles, ``bundle.<name>``."""
    return SupplyError(Finding(f"bundle.{name}", "error", what, why, fix))


def damaged(path: str, sort: str, where: Path) -> Finding:
    """Give what is wrong with a file of a bundle; ``sort`` is a key of SORTS."""
    return Finding(
        f"bundle.{sort}",
        "error",
        f"{path} is not what the bundle's manifest says",
        SORTS[sort],
        "copy the bundle again; or where it was made, remove that file and run bundle.make again",
        str(where),
    )


def nothing_at(path: Path) -> SupplyError:
    """Give the error for a place without a bundle."""
    return problem(
        "none",
        f"there is no bundle at {path}",
        f"a folder with {MANIFEST}, a file *.tar.zst or an address http://… is expected",
        "./invokew bundle.make makes one",
    )


@contextlib.contextmanager
def sound(source: Path) -> Iterator[None]:
    """Raise SupplyError for a DamageError: ``source`` is a file of the store."""
    try:
        yield
    except DamageError as error:
        raise problem(
            "source",
            f"{source} is not what it was when it was made",
            str(error),
            f"rm -r {source.parent}, and run the same command again: it is made anew",
        ) from error
