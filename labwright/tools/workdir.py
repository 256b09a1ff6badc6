"""Where a lab's state lives: ``.lab/<name>/``, one owner at a time, every write whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from labwright.errors import Finding, HostError


def cache() -> Path:
    """Give the folder of what can be made again: supplies, images, logs of daemons."""
    return Path(platformdirs.user_cache_dir("labwright", appauthor=False))


def write(path: Path, content: str | bytes, mode: int = 0o644) -> bool:
    """Write a file whole or not at all; give whether that changed it.

    Raises HostError where the folder refuses.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        if path.is_file() and path.read_bytes() == data:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).chmod(mode)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise refused(error, path) from error
    return True


def refused(error: OSError, path: Path) -> HostError:
    """Say what a file system did not let us do."""
    fix = {
        errno.ENOSPC: "free some space there",
        errno.EEXIST: "a file is where a folder should be: name another place",
        errno.ENOTDIR: "a file is where a folder should be: name another place",
    }.get(error.errno or 0, "give yourself the right to write there")
    return HostError(
        Finding("host.cannot-write", "error", f"{path} cannot be written", str(error), fix)
    )


class Workdir:
    """The folder of one lab. Its files: Vagrantfile, inventory/, lab.lock, kubeconfig, journal …"""

    def __init__(self, root: Path, name: str) -> None:
        """Take ``root/.lab/name``; nothing is made until something is written."""
        self.root = root
        self.path = root.resolve() / ".lab" / name
        self.name = name

    @property
    def exists(self) -> bool:
        """Whether this lab was ever rendered here."""
        return (self.path / "plan.json").is_file()

    @property
    def kubeconfig(self) -> Path:
        """The lab's own kubeconfig, for its owner only."""
        return self.path / "kubeconfig"

    @property
    def ssh_config(self) -> Path:
        """The ssh configuration with an entry for each node."""
        return self.path / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        """The host keys of the nodes."""
        return self.path / "known_hosts"

    @property
    def inventory(self) -> Path:
        """The folder of Ansible's generated inventory."""
        return self.path / "inventory"

    @property
    def journal(self) -> Path:
        """The events of every run."""
        return self.path / "journal.jsonl"

    def write(self, files: Mapping[str, str]) -> list[str]:
        """Write rendered files; give the paths of those that changed."""
        return [name for name, text in files.items() if write(self.path / name, text)]

    def source(self) -> str | None:
        """Give the path of the lab.yaml this lab was made from: empty for the defaults."""
        try:
            return (self.path / "source").read_text(encoding="utf-8").strip()
        except OSError:
            return None

    def remove(self) -> None:
        """Remove the whole folder: keys, certificates and reports with it."""
        shutil.rmtree(self.path, ignore_errors=True)
        # What holds other labs' folders is not empty, and stays.
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    @contextlib.contextmanager
    def held(self, command: str) -> Iterator[None]:
        """Hold the lab for one command.

        Raises HostError when another process has it, and says which and since when.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / "lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise self._busy() from None
        except OSError as error:
            raise refused(error, self.path) from error
        try:
            since = datetime.now(UTC).astimezone().strftime("%H:%M:%S")
            write(self.path / "holder", f"{command}, process {os.getpid()}, since {since}\n")
            yield
        finally:
            (self.path / "holder").unlink(missing_ok=True)
            lock.release()

    def _busy(self) -> HostError:
        try:
            holder = (self.path / "holder").read_text(encoding="utf-8").strip()
        except OSError:
            holder = "another command"
        return HostError(
            Finding(
                "host.lab-busy",
                "error",
                f"lab {self.name} is in use by {holder}",
                "two commands at once would undo each other",
                "wait until it ends, or stop that process",
            )
        )


def labs(root: Path) -> list[str]:
    """Give the names of the labs rendered below a folder."""
    return sorted(p.parent.name for p in (root / ".lab").glob("*/plan.json"))
