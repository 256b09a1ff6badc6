"""Fetches over HTTP: small answers at once, large files with resume; never a half for a whole."""

from __future__ import annotations

import contextlib
import hashlib
import http.cookiejar
import ssl
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
import urllib3.exceptions as causes

from labwright import __version__
from labwright.errors import Finding, SupplyError
from labwright.tools.partfile import Part, Progress, Wanted, chunks
from labwright.tools.trouble import (
    CONNECT,
    HOPELESS,
    READ,
    Again,
    HttpError,
    Tries,
    admit,
    reason,
    root_of,
    shown,
)

__all__ = ["Answer", "Http", "HttpError", "Progress", "Wanted", "shown"]

T = TypeVar("T")
LIMIT = 64 << 20
OK = frozenset({200})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said; the names in ``headers`` are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Http:
    """One session: the environment's proxies, timeouts, and patience with servers that recover.

    Asks again after cut connections and HTTP 429, 500, 502, 503 and 504, pausing longer each time
    or as Retry-After says, until ``patience`` seconds or 7 tries brought no new byte. Threads may
    share it.
    """

    def __init__(self, patience: float = 120.0, backoff: float = 0.5) -> None:
        """Wait ``backoff`` seconds after the first failure, and twice as long after each other."""
        self._patience, self._backoff = patience, backoff
        self._session = requests.Session()
        # What a server says by hash or by signature needs no cookies.
        self._session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=()))
        self._session.headers.update(
            {"User-Agent": f"labwright/{__version__}", "Accept-Encoding": "identity"}
        )

    def __enter__(self) -> Http:
        """Give itself."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """Close the connections that were kept for later."""
        self.close()

    def close(self) -> None:
        """Close the connections that were kept for later."""
        self._session.close()

    def get(
        self, url: str, *, headers: Mapping[str, str] | None = None, limit: int = LIMIT
    ) -> bytes:
        """Give a small thing whole, from ``http(s)://``, ``file://`` or a path.

        Raises HttpError; SupplyError where it is longer than ``limit`` bytes.
        """
        return self.ask(url, headers=headers, limit=limit).body

    def ask(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        limit: int = LIMIT,
        accept: Collection[int] = OK,
    ) -> Answer:
        """Give the answer with its status and headers, where the status is one of ``accept``.

        Raises HttpError; SupplyError where it is longer than ``limit`` bytes.
        """
        path = _local(url)
        if path is not None:
            return _read(url, path, limit, accept)

        def attempt(_tries: Tries) -> Answer:
            with self._opened(url, headers or {}, accept) as response:
                body = bytearray()
                for chunk in chunks(response):
                    body += chunk
                    _bounded(url, len(body), limit)
                names = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status_code, names, bytes(body))

        return self._patiently(url, attempt)

    def download(
        self,
        wanted: Wanted,
        target: Path,
        progress: Progress = lambda _done, _total: None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Fetch a file and give its sha256; a ``target`` that is already right is kept.

        It grows as ``<target>.part``; what an earlier run left there is gone on with where a digest
        says in the end whether the halves fit. ``progress`` gets the bytes done and in all.

        Raises HttpError; SupplyError where it is not what was promised, and the part is gone then.
        """
        if wanted.sha256 and target.is_file() and _sha256(target) == wanted.sha256:
            progress(target.stat().st_size, target.stat().st_size)
            return wanted.sha256
        part = Part(wanted, target.with_name(f"{target.name}.part"), progress)
        self._fill(part, headers or {})
        if part.pieced and not part.right():  # the pieces may be of two versions of the file
            part.restart()
            self._fill(part, headers or {})
        part.check()
        part.path.replace(target)
        return part.sha256.hexdigest()

    def _fill(self, part: Part, headers: Mapping[str, str]) -> None:
        path = _local(part.wanted.url)
        if path is not None:
            part.copy(path)
            return

        def attempt(tries: Tries) -> None:
            part.grown = tries.encourage
            if part.complete():
                return
            asked = {**headers, **part.rest()}
            with self._opened(part.wanted.url, asked, {200, 206, 416}) as response:
                part.take(response)

        self._patiently(part.wanted.url, attempt)

    def _patiently(self, url: str, attempt: Callable[[Tries], T]) -> T:
        tries = Tries(url, self._patience, self._backoff)
        while True:
            try:
                return attempt(tries)
            except Again as trouble:
                tries.pause(trouble)

    @contextlib.contextmanager
    def _opened(
        self, url: str, headers: Mapping[str, str], accept: Collection[int]
    ) -> Iterator[requests.Response]:
        # Without an `auth` of its own, requests puts the password of ~/.netrc over a token.
        auth = (lambda request: request) if "Authorization" in headers else None
        try:
            with self._session.get(
                url, headers=dict(headers), stream=True, timeout=(CONNECT, READ), auth=auth
            ) as response:
                admit(url, response, accept)
                yield response
        except HOPELESS as error:
            raise HttpError(url, reason(error), 0) from error
        except (requests.RequestException, causes.HTTPError) as error:
            if isinstance(root_of(error), ssl.SSLCertVerificationError):
                raise HttpError(url, reason(error), 0) from error
            raise Again(reason(error)) from error


def _local(url: str) -> Path | None:
    if url.startswith("file://"):
        return Path(url2pathname(urlsplit(url).path))
    return None if "://" in url else Path(url)


def _read(url: str, path: Path, limit: int, accept: Collection[int]) -> Answer:
    try:
        with path.open("rb") as file:
            body = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        if 404 in accept:
            return Answer(404, {}, b"")
        raise HttpError(url, "there is no such file", 404) from error
    except OSError as error:
        raise HttpError(url, str(error.strerror), 0) from error
    _bounded(url, len(body), limit)
    return Answer(200, {}, body)


def _bounded(url: str, size: int, limit: int) -> None:
    if size > limit:
        what = f"{shown(url)} is longer than such a thing can be"
        raise SupplyError(
            Finding("supply.too-long", "error", what, f"more than {limit >> 20} MiB came")
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
