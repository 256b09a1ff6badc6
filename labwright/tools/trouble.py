"""What can go wrong on the way to a server: whether to ask again, and how to say it."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3.exceptions as causes
from urllib3.util.retry import Retry

from labwright.errors import Finding, SupplyError

CONNECT, READ = 10.0, 30.0
AGAIN = frozenset({429, 500, 502, 503, 504})
TRIES = 7
LONGEST_PAUSE = 10.0
# A certificate does not become right, nor an address possible, by asking again.
HOPELESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidHeader,
    requests.exceptions.TooManyRedirects,
)


class HttpError(SupplyError):
    """Something could not be fetched; ``status`` is HTTP's, 0 where none came."""

    def __init__(self, url: str, why: str, status: int, tries: int = 1) -> None:
        """Say what was asked, without its secrets, and how it ended."""
        counted = f"{why}, after {tries} tries" if tries > 1 else why
        what = f"{shown(url)} could not be fetched"
        super().__init__(Finding("supply.http", "error", what, counted, _remedy(status)))
        self.status = status


class Again(Exception):  # noqa: N818 - no error yet
    """A reason to ask once more, after ``pause`` seconds where the server named them."""

    def __init__(self, why: str, status: int = 0, pause: float | None = None) -> None:
        """Keep what HttpError will say if it does not get better."""
        super().__init__(why)
        self.why, self.status, self.pause = why, status, pause


class Tries:
    """How long one thing has been tried in vain."""

    def __init__(self, url: str, patience: float, backoff: float) -> None:
        """Allow ``patience`` seconds in vain, beginning with pauses of ``backoff`` seconds."""
        self._url, self._patience, self._backoff = url, patience, backoff
        self._all = 0
        self.encourage()

    def encourage(self) -> None:
        """Count from here: something came."""
        self._vain, self._start = 0, time.monotonic()

    def pause(self, trouble: Again) -> None:
        """Wait before the next try.

        Raises HttpError when it has been tried long enough.
        """
        self._all += 1
        self._vain += 1
        rest = self._start + self._patience - time.monotonic()
        pause = trouble.pause
        if pause is None:
            pause = min(self._backoff * 2 ** (self._vain - 1), LONGEST_PAUSE)
        if self._vain >= TRIES or pause > rest:
            raise HttpError(self._url, trouble.why, trouble.status, self._all) from trouble
        time.sleep(pause)


def shown(url: str) -> str:
    """Give a URL as it may be printed: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(an address that cannot be read)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def admit(url: str, response: requests.Response, accept: Collection[int]) -> None:
    """Let an answer pass whose status is one of ``accept``.

    Raises Again or, where that is no use, HttpError.
    """
    status = response.status_code
    if status in accept:
        return
    why = f"HTTP {status} {response.reason or ''}".strip()
    if status not in AGAIN:
        raise HttpError(url, why, status)
    pause = None
    with contextlib.suppress(causes.InvalidHeader, OverflowError):
        after = response.headers.get("Retry-After")
        pause = float(Retry().parse_retry_after(after)) if after else None
    raise Again(why, status, pause)


def root_of(error: BaseException) -> BaseException:
    """Find what began it: requests wraps urllib3, which wraps the system's error."""
    while True:
        inner: Any = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        if inner is None or inner is error:
            return error
        error = inner


def reason(error: BaseException) -> str:
    """Say it in words of our own: the libraries' own carry the URL with its secrets."""
    root = root_of(error)
    for kind, words in (
        (ssl.SSLCertVerificationError, "its certificate is not trusted by this computer"),
        (requests.exceptions.ProxyError, "the proxy of this computer's environment does not serve"),
        (requests.exceptions.TooManyRedirects, "it redirects in circles"),
        (HOPELESS, "it is not an address that can be asked"),
        (causes.NameResolutionError, "its name does not resolve"),
        (causes.NewConnectionError, "no connection: nothing answers there"),
        (causes.ConnectTimeoutError, f"no connection within {CONNECT:.0f} s"),
        (causes.ReadTimeoutError, f"not a byte within {READ:.0f} s"),
        (requests.exceptions.SSLError, "TLS failed"),
        (causes.SSLError, "TLS failed"),
    ):
        if isinstance(error, kind) or isinstance(root, kind):
            return words
    if isinstance(root, causes.IncompleteRead) and root.expected is not None:
        done = int(root.partial)
        return f"the connection was cut after {done} of {done + root.expected} bytes"
    system = getattr(root, "strerror", None)
    return f"the connection was cut: {system}" if system else "the connection was cut"


def _remedy(status: int) -> str:
    if status in {401, 403}:
        return "name an address that may be read without a login, under mirrors: in lab.yaml"
    if 400 <= status < 500 and status != 429:
        return "check the version and the address; mirrors: in lab.yaml names other addresses"
    return (
        "check this computer's way there (HTTPS_PROXY, name resolution, the server itself), or "
        "name a mirror under mirrors: in lab.yaml; then run the same command again"
    )
