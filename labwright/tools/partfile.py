"""A file while it is being fetched: what there is of it, and whether it is what was promised."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from labwright.errors import Finding, SupplyError
from labwright.tools.trouble import Again, HttpError, shown

Progress = Callable[[int, int | None], None]
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch; ``sha256`` is hex, empty where unknown; ``size`` is in bytes."""

    url: str
    sha256: str = ""
    size: int | None = None


class Part:
    """A file while it comes: what is there already, its digest so far, how to ask for the rest."""

    def __init__(self, wanted: Wanted, path: Path, progress: Progress) -> None:
        """Begin with what an earlier run left at ``path``, where a digest can judge it later."""
        self.wanted, self.path, self._progress = wanted, path, progress
        self.grown: Callable[[], None] = lambda: None
        self._most = 0
        self._validator = ""
        if wanted.sha256 and path.is_file():
            with path.open("rb") as file:
                self.sha256 = hashlib.file_digest(file, "sha256")
            self.size = self._most = path.stat().st_size
            self.pieced, self._ended = self.size > 0, False
        else:
            self.restart()

    def restart(self) -> None:
        """Forget what there is."""
        self.path.unlink(missing_ok=True)
        self.sha256, self.size = hashlib.sha256(), 0
        self.pieced, self._ended = False, False

    def complete(self) -> bool:
        """Tell whether nothing is left to ask for."""
        return self._ended or (self.size > 0 and self.size == self.wanted.size)

    def rest(self) -> dict[str, str]:
        """Give the headers that ask for what is missing, if the halves can be known to fit."""
        if not self.size or not (self.wanted.sha256 or self._validator):
            return {}
        condition = {"If-Range": self._validator} if self._validator else {}
        return {"Range": f"bytes={self.size}-", **condition}

    def take(self, response: requests.Response) -> None:
        """Add what a server sends: the rest, or all of it again.

        Raises Again where it has no such rest; SupplyError where its size is not the promised one.
        """
        begin = response.headers.get("Content-Range", "")
        if response.status_code == 416 or (
            response.status_code == 206 and not begin.startswith(f"bytes {self.size}-")
        ):
            self.restart()
            raise Again("the server does not have the rest of what was begun", 416)
        if response.status_code == 200:
            self.restart()
        self.pieced = response.status_code == 206
        tag = response.headers.get("ETag", "")
        self._validator = "" if tag.startswith("W/") else tag
        length = response.headers.get("Content-Length", "")
        total = self.size + int(length) if length.isdigit() else self.wanted.size
        self._agree(total)
        with self.path.open("ab") as file:
            for chunk in chunks(response):
                file.write(chunk)
                self._add(chunk, total)
        self._ended = True

    def copy(self, source: Path) -> None:
        """Take a file of this computer.

        Raises HttpError where it cannot be read; SupplyError as ``take``.
        """
        self.restart()
        try:
            total = source.stat().st_size
            self._agree(total)
            with source.open("rb") as file, self.path.open("wb") as out:
                while chunk := file.read(CHUNK):
                    out.write(chunk)
                    self._add(chunk, total)
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise HttpError(self.wanted.url, str(error.strerror), 0) from error
        self._ended = True

    def _add(self, chunk: bytes, total: int | None) -> None:
        self.sha256.update(chunk)
        self.size += len(chunk)
        if self.size > self._most:
            self._most = self.size
            self.grown()
        if self.wanted.size is not None and self.size > self.wanted.size:
            self._agree(self.size)
        self._progress(self.size, total)

    def _agree(self, total: int | None) -> None:
        if None not in {total, self.wanted.size} and total != self.wanted.size:
            self._refuse(f"{self.wanted.size} bytes were promised, there are {total} or more")

    def right(self) -> bool:
        """Tell whether it is what was promised, as far as anything was."""
        return self.wanted.sha256 in {"", self.sha256.hexdigest()} and (
            self.wanted.size in {None, self.size}
        )

    def check(self) -> None:
        """Remove it where it is not right.

        Raises SupplyError.
        """
        if not self.path.exists():
            self.path.touch()  # an empty file has no first byte to open it with
        if self.wanted.size not in {None, self.size}:
            self._refuse(f"{self.wanted.size} bytes were promised, {self.size} came")
        if not self.right():
            digests = f"sha256 {self.wanted.sha256} was promised, {self.sha256.hexdigest()} came"
            self._refuse(digests)

    def _refuse(self, why: str) -> None:
        self.path.unlink(missing_ok=True)
        raise SupplyError(
            Finding(
                "supply.digest",
                "error",
                f"{shown(self.wanted.url)} is not what was promised",
                why,
                "run the command again; if it stays so, ask whoever runs the server or the mirror: "
                "the file was altered there or on its way",
            )
        )


def chunks(response: requests.Response) -> Iterator[bytes]:
    """Give the body as it comes, not unpacked: digests and lengths are of these bytes.

    urllib3 raises where it ends before its Content-Length.
    """
    while chunk := response.raw.read1(CHUNK, decode_content=False):
        yield chunk
