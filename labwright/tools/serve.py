"""Serves a built supply to the nodes: read-only HTTP on one address, while a phase needs it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from labwright.errors import Finding, HostError


class _Folders(SimpleHTTPRequestHandler):
    """Maps the first part of a path to one of the served folders; lists nothing."""

    protocol_version = "HTTP/1.1"

    def __init__(self, folders: Mapping[str, Path], *args: Any, **kwargs: Any) -> None:
        self._folders = folders
        super().__init__(*args, **kwargs)

    def translate_path(self, path: str) -> str:
        """Give the file for a path; the base class has already made ``..`` harmless."""
        head, _, rest = path.lstrip("/").partition("/")
        folder = self._folders.get(head)
        if folder is None:
            return "/nonexistent"
        self.directory = str(folder)
        return super().translate_path("/" + rest)

    def list_directory(self, path: Any) -> None:
        """Refuse: nodes know what they come for."""
        self.send_error(404)

    def log_message(self, *_words: Any) -> None:
        """Say nothing: what a node fetched is in Ansible's own output."""


@contextlib.contextmanager
def serving(folders: Mapping[str, Path], address: str, port: int) -> Iterator[str]:
    """Serve ``folders`` below their names at ``http://address:port/`` and give that URL.

    Raises HostError when the address cannot be had.
    """
    try:
        server = ThreadingHTTPServer((address, port), partial(_Folders, folders))
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
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield f"http://{address}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
