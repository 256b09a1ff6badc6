"""The labs of this user: what each takes of the computer, whichever folder it is in.

A lab that is halted, or only planned, shows nowhere else: no card, no container, no listener.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import platformdirs
from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from labwright.model import Place
from labwright.tools.workdir import refused, write

_PLACE: TypeAdapter[Place] = TypeAdapter(Place)


def folder() -> Path:
    """Give the folder of the register: an entry a lab."""
    return Path(platformdirs.user_state_dir("labwright", appauthor=False)) / "labs"


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold the register: who plans meanwhile waits, and then sees what was written.

    Raises HostError where the folder refuses.
    """
    where = folder()
    try:
        where.mkdir(parents=True, exist_ok=True)
        lock = FileLock(where / "lock")
        lock.acquire()
    except OSError as error:
        raise refused(error, where) from error
    try:
        yield
    finally:
        lock.release()


def known() -> list[Place]:
    """Give every lab whose folder is there, in the order of their folders; no entry is changed.

    What cannot be read is nobody's: another version's, or damaged.
    """
    places = (_read(path) for path in folder().glob("*.json"))
    here = [place for place in places if place and Path(place.folder).is_dir()]
    return sorted(here, key=lambda place: place.folder)


def record(place: Place) -> None:
    """Write a lab's entry, and remove those whose folder is gone. Raises HostError."""
    for path in folder().glob("*.json"):
        other = _read(path)
        if other and not Path(other.folder).is_dir():
            path.unlink(missing_ok=True)
    write(_entry(place.folder), _PLACE.dump_json(place, indent=1).decode() + "\n")


def forget(lab: Path) -> None:
    """Remove the entry of the lab in a folder."""
    _entry(str(lab)).unlink(missing_ok=True)


def _entry(lab: str) -> Path:
    return folder() / f"{hashlib.sha256(lab.encode()).hexdigest()[:16]}.json"


def _read(path: Path) -> Place | None:
    try:
        return _PLACE.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
