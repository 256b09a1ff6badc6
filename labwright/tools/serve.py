"""Serves a built supply to the nodes: read-only HTTP on one address, while a phase needs it."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate, mktime_tz, parsedate_tz
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import unquote

from labwright.errors import Finding, HostError

JSON = "application/json"
BINARY = "application/octet-stream"
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
# A client that falls asleep with its connection open must not keep a thread for ever.
IDLE = 300.0


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a file: ``size`` bytes from ``offset``."""

    path: Path
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer to a GET: the ``body`` as it is or where it lies, and ``kind``, its type."""

    status: int
    kind: str
    body: bytes | Slice
    headers: Mapping[str, str] = field(default_factory=dict)


class Registry(Protocol):
    """Answers for everything below ``/v2``."""

    def answer(self, method: str, target: str) -> Answer:
        """Answer a request for ``target``, a path with its query; a HEAD as if it were a GET."""


# A request's target → the file there; the client's address, the path, the body's bytes sent.
Find = Callable[[str], Answer | None]
Told = Callable[[str, str, int], None]


def nobody(_client: str, _path: str, _count: int) -> None:
    """Take word of a request and pass it to nobody."""


@contextlib.contextmanager
def serving(
    folders: Mapping[str, Path],
    address: str,
    port: int,
    registry: Registry | None = None,
    told: Told = nobody,
) -> Iterator[str]:
    """Serve ``folders`` below their names at ``http://address:port/`` and give that URL.

    Raises HostError when the address cannot be had.
    """
    with listening(partial(_in_folders, folders), address, port, registry, told) as url:
        yield url


@contextlib.contextmanager
def listening(
    find: Find, address: str, port: int, registry: Registry | None = None, told: Told = nobody
) -> Iterator[str]:
    """Serve what ``find`` and the registry have, and give the URL; ``told`` runs in any thread.

    Raises HostError when the address cannot be had.
    """
    try:
        server = _Server((address, port), partial(_Handler, find, registry, told))
    except OSError as error:
        raise HostError(
            Finding(
                "host.supply-port",
                "error",
                f"the supply cannot be served on {address}:{port}",
                str(error),
                "end what listens there, or what keeps the lab's network from coming up",
            )
        ) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield f"http://{address}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def path_of(target: str) -> str | None:
    """Give the path of a request below ``/``, or none where it could lead elsewhere."""
    parts = [part for part in unquote(target.partition("?")[0]).split("/") if part not in {"", "."}]
    path = "/".join(parts)
    odd = ".." in parts or "\\" in path or not path.isprintable() or not target.startswith("/")
    return None if odd else path


def file_answer(path: Path, tag: str = "") -> Answer | None:
    """Answer with a plain file, if there is one; ``tag`` is its ETag."""
    if not path.is_file():
        return None
    facts = path.stat()
    headers = {"Last-Modified": formatdate(facts.st_mtime, usegmt=True)}
    if tag:
        headers["ETag"] = f'"{tag}"'
    kind = JSON if path.suffix == ".json" else BINARY
    return Answer(200, kind, Slice(path, 0, facts.st_size), headers)


def _in_folders(folders: Mapping[str, Path], target: str) -> Answer | None:
    head, _, rest = (path_of(target) or "").partition("/")
    return file_answer(folders[head] / rest) if rest and head in folders else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A whole class may ask in one moment; socketserver's own five would be turned away.
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that goes away in the middle: that is its own affair."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers with files, or parts of them; lists nothing and says nothing."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Labwright", ""
    timeout = IDLE

    def __init__(self, find: Find, registry: Registry | None, told: Told, *args: Any) -> None:
        self._find, self._registry, self._told = find, registry, told
        super().__init__(*args)

    def log_message(self, *_words: Any) -> None:
        """Say nothing: what a node fetched is in Ansible's own output."""

    def do_GET(self) -> None:
        """Send the file or the blob."""
        answer = self._asked()
        if answer is None:
            self.send_error(404)
            self._told(self.client_address[0], _printable(self.path), 0)
        else:
            self._give(answer)

    def do_HEAD(self) -> None:
        """Send what a GET would, less the body."""
        self.do_GET()

    def do_POST(self) -> None:
        """Refuse."""
        # What comes with the request is not read: nothing can follow on this connection.
        self.close_connection = True
        if self._registry is not None and self._for_registry():
            self._give(self._registry.answer(self.command, self.path))
        else:
            self.send_error(501)

    do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815

    def _for_registry(self) -> bool:
        return (self.path.partition("?")[0] + "/").startswith("/v2/")

    def _asked(self) -> Answer | None:
        if self._registry is not None and self._for_registry():
            return self._registry.answer("GET", self.path)
        return self._find(self.path)

    def _give(self, answer: Answer) -> None:
        with contextlib.ExitStack() as stack:
            body, file = answer.body, None
            if isinstance(body, Slice):
                file = stack.enter_context(body.path.open("rb"))
            size = body.size if isinstance(body, Slice) else len(body)
            status, first, count = self._wanted(answer, size)
            self._headers(answer, status, first, count, size)
            sent = 0 if self.command == "HEAD" else self._send(body, file, first, count)
        self._told(self.client_address[0], _printable(self.path), sent)

    def _wanted(self, answer: Answer, size: int) -> tuple[int, int, int]:
        """Give the status, the first byte and how many of them."""
        if answer.status != 200:
            return answer.status, 0, size
        if self._has_it(answer.headers):
            return 304, 0, 0
        asked = self.headers.get("Range", "") if self._same(answer.headers) else ""
        return _part(asked, size)

    def _has_it(self, facts: Mapping[str, str]) -> bool:
        """Tell whether the client's own copy is as good."""
        if tags := self.headers.get("If-None-Match"):
            return facts.get("ETag", "-") in {tag.strip() for tag in tags.split(",")}
        since = parsedate_tz(self.headers.get("If-Modified-Since", ""))
        changed = parsedate_tz(facts.get("Last-Modified", ""))
        return bool(since and changed) and mktime_tz(changed) <= mktime_tz(since)  # type: ignore[arg-type]

    def _same(self, facts: Mapping[str, str]) -> bool:
        """Tell whether a part would fit to the halves that the client has."""
        condition = self.headers.get("If-Range")
        return condition in {None, facts.get("ETag"), facts.get("Last-Modified")}

    def _headers(self, answer: Answer, status: int, first: int, count: int, size: int) -> None:
        self.send_response(status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if isinstance(answer.body, Slice):
            self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{first + count - 1}/{size}")
        if status == 416:
            self.send_header("Content-Range", f"bytes */{size}")
        if status != 304:
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(count))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _send(self, body: bytes | Slice, file: IO[bytes] | None, first: int, count: int) -> int:
        if not count:
            return 0
        if isinstance(body, bytes):
            self.wfile.write(body[first : first + count])
            return count
        sent: int = self.connection.sendfile(file, body.offset + first, count)
        if sent != count:
            self.close_connection = True  # the file was cut short since: the client must notice
        return sent


def _part(asked: str, size: int) -> tuple[int, int, int]:
    """Read a Range header: one range, https://www.rfc-editor.org/rfc/rfc9110#name-range."""
    found = RANGE.fullmatch(asked.strip())
    if not found or found[1] == found[2] == "":
        return 200, 0, size
    if not found[1]:
        first, last = max(0, size - int(found[2])), size - 1
    else:
        first, last = int(found[1]), min(int(found[2] or size), size - 1)
        if found[2] and int(found[2]) < first:
            return 200, 0, size
    return (206, first, last - first + 1) if first <= last else (416, 0, 0)


def _printable(path: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in path)
