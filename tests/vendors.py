"""The vendors' protocols from real software: apt repositories, a registry, a chart repository.

Each is a context manager on an address of the caller's choice; ``url`` says where it answers.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import io
import json
import lzma
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import requests
import yaml

from tests.contract.needs import need

HOME = "127.0.0.1"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
CHUNK = 1 << 16


def needs(*programs: str) -> None:
    """Leave the test out where one of the programs is missing; in CI it fails."""
    for program in programs:
        need(program)


def run(*words: str | Path, cwd: Path | None = None, **env: str) -> str:
    """Run a program to its end and give what it said; its complaints are in the failure."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
    return done.stdout


@dataclass(frozen=True)
class Seen:
    """One request that came to a server."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def range(self) -> str:
        return self.headers.get("Range", "")


@dataclass
class Fault:
    """What happens to the next ``times`` requests for a path that contains ``path``."""

    path: str
    times: int
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    flip: int | None = None
    deaf: bool = False


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a client go away in the middle: it has seen what it came for."""
        if not isinstance(sys.exception(), (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


class Faulty:
    """Serves a folder, or stands before another server, and fails as it is told."""

    def __init__(self, source: str | Path, address: str = HOME, port: int = 0) -> None:
        self.source = source
        self.seen: list[Seen] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = _Server((address, port), lambda *a: _Door(self, *a))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://{address}:{self._server.server_port}"

    def __enter__(self) -> Faulty:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        # The handshake then is a handler's matter, not the accepting thread's.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )

    def answer(self, status: int, path: str = "", times: int = 1, **headers: str) -> None:
        """Answer ``status`` so many times, then go on as before."""
        words = {name.replace("_", "-"): value for name, value in headers.items()}
        self._faults.append(Fault(path, times, status=status, headers=words))

    def missing(self, path: str) -> None:
        """Have nothing there, for good."""
        self.answer(404, path, times=1 << 30)

    def cut(self, path: str, after: int, times: int = 1) -> None:
        """Close the connection after so many bytes of the body."""
        self._faults.append(Fault(path, times, cut=after))

    def flip(self, path: str, at: int, times: int = 1 << 30) -> None:
        """Turn over one bit of the byte at an offset of the file."""
        self._faults.append(Fault(path, times, flip=at))

    def deaf(self, path: str = "") -> None:
        """Take no notice of Range from now on."""
        self._faults.append(Fault(path, 1 << 30, deaf=True))

    def mend(self) -> None:
        """Be a good server again."""
        with self._lock:
            self._faults.clear()

    def requests(self, path: str) -> list[Seen]:
        """Give the requests for paths that contain ``path``, first to last."""
        return [seen for seen in self.seen if path in seen.path]

    def faults(self, path: str) -> list[Fault]:
        """Use up what is to happen to this request: one of each kind."""
        with self._lock:
            found = {
                (bool(f.status), f.cut is None, f.flip is None, f.deaf): f
                for f in reversed(self._faults)
                if f.times and f.path in path
            }
            if failing := [f for f in found.values() if f.status]:
                found = {(True, True, True, True): failing[0]}
            for fault in found.values():
                fault.times -= 1
            return list(found.values())


class _Door(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def __init__(self, owner: Faulty, *args: Any) -> None:
        self._owner = owner
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        seen = Seen(self.command, unquote(self.path), dict(self.headers.items()))
        self._owner.seen.append(seen)
        faults = self._owner.faults(seen.path)
        refused = next((f for f in faults if f.status), None)
        if refused:
            self._begin(refused.status, {**refused.headers, "Content-Length": "0"})
            return
        headers = dict(seen.headers)
        if any(f.deaf for f in faults):
            headers.pop("Range", None)
        with contextlib.ExitStack() as stack:
            status, answered, body = self._source(stack, headers)
            self._begin(status, answered)
            if self.command == "GET":
                self._pour(body, answered, faults)

    def _pour(self, body: BinaryIO, headers: Mapping[str, str], faults: Sequence[Fault]) -> None:
        start = int((re.search(r"bytes (\d+)-", headers.get("Content-Range", "")) or [0, 0])[1])
        cut = next((f.cut for f in faults if f.cut is not None), None)
        flips = [f.flip - start for f in faults if f.flip is not None]
        done = 0
        while chunk := bytearray(body.read(CHUNK)):
            for at in flips:
                if done <= at < done + len(chunk):
                    chunk[at - done] ^= 1
            if cut is not None and done + len(chunk) >= cut:
                self.wfile.write(chunk[: cut - done])
                self.close_connection = True
                return
            self.wfile.write(chunk)
            done += len(chunk)

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _source(
        self, stack: contextlib.ExitStack, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], BinaryIO]:
        if isinstance(self._owner.source, Path):
            return self._file(stack, self._owner.source, headers)
        return self._upstream(stack, self._owner.source, headers)

    def _file(
        self, stack: contextlib.ExitStack, folder: Path, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], BinaryIO]:
        path = (folder / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            return 404, {"Content-Length": "0"}, io.BytesIO()
        size = path.stat().st_size
        file = stack.enter_context(path.open("rb"))
        begin = re.fullmatch(r"bytes=(\d+)-", headers.get("Range", ""))
        if not begin:
            return 200, {"Content-Length": str(size)}, file
        start = int(begin[1])
        if start >= size:
            return 416, {"Content-Length": "0", "Content-Range": f"bytes */{size}"}, io.BytesIO()
        file.seek(start)
        part = {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        return 206, {**part, "Content-Length": str(size - start)}, file

    def _upstream(
        self, stack: contextlib.ExitStack, url: str, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], BinaryIO]:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        stack.callback(connection.close)
        kept = {n: v for n, v in headers.items() if n.lower() not in {"host", "connection"}}
        connection.request(self.command, parts.path.rstrip("/") + self.path, headers=kept)
        answer = stack.enter_context(connection.getresponse())
        passed = {n: v for n, v in answer.getheaders() if n.lower() not in {"date", "connection"}}
        if "Content-Length" not in passed:  # the tests' servers send small things in chunks
            content = answer.read() if self.command == "GET" else b""
            passed = {n: v for n, v in passed.items() if n.lower() != "transfer-encoding"}
            return (
                answer.status,
                {**passed, "Content-Length": str(len(content))},
                io.BytesIO(content),
            )
        return answer.status, passed, answer

    def log_message(self, *_words: Any) -> None:
        """Say nothing: what was asked is in ``seen``."""


class SigningKey:
    """A throw-away OpenPGP key in a home of its own; make one in a test session."""

    def __init__(self, name: str = "Labwright test archive") -> None:
        needs("gpg", "gpgconf")
        # The agent's socket has to fit into 108 bytes: pytest's own folders are too deep.
        self.home = Path(tempfile.mkdtemp(prefix="lw-gpg-"))
        user = f"{name} <archive@localhost>"
        self.gpg("--passphrase", "", "--quick-generate-key", user, "ed25519", "sign", "never")
        self.armoured = self.gpg("--armor", "--export").encode()
        listed = self.gpg("--with-colons", "--list-keys")
        self.fingerprint = re.findall(r"^fpr:+([0-9A-F]+):", listed, re.MULTILINE)[0]

    def __enter__(self) -> SigningKey:
        return self

    def __exit__(self, *_exc: object) -> None:
        run("gpgconf", "--homedir", self.home, "--kill", "all")
        # The agent takes its sockets away as it ends, which is after gpgconf has come back.
        shutil.rmtree(self.home, ignore_errors=True)

    def gpg(self, *words: str | Path) -> str:
        base = ("gpg", "--homedir", self.home, "--batch", "--yes", "--pinentry-mode", "loopback")
        return run(*base, *words)

    def sign(self, release: Path) -> None:
        """Write InRelease and Release.gpg beside a Release file."""
        self.gpg("--clearsign", "-o", release.with_name("InRelease"), release)
        self.gpg("--armor", "-b", "-o", release.with_name("Release.gpg"), release)


class AptRepos:
    """Signed apt repositories below one URL, in the vendors' layouts."""

    def __init__(self, key: SigningKey, folder: Path, address: str = HOME, port: int = 0) -> None:
        needs("apt-ftparchive")
        folder.mkdir(parents=True, exist_ok=True)
        self.key, self.folder = key, folder
        self.server = Faulty(folder, address, port)
        self.url = self.server.url

    def __enter__(self) -> AptRepos:
        self.server.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.__exit__(*exc)

    def kubernetes(self, minor: str, debs: Path, until: datetime | None = None) -> str:
        """Build pkgs.k8s.io's layout for ``v1.20`` from a folder of debs; give its URL."""
        path = f"core:/stable:/{minor}/deb"
        root = self.folder / path
        _copy(debs, root / "amd64")
        _index(root, "amd64", root)
        (root / "Release.key").write_bytes(self.key.armoured)
        self.release(root, {"Suite": "deb"}, until)
        return f"{self.url}/{path}/"

    def archive(
        self,
        name: str,
        debs: Path,
        *,
        suite: str = "bookworm",
        component: str = "main",
        arch: str = "amd64",
        until: datetime | None = None,
    ) -> str:
        """Build an archive with ``dists/`` and ``pool/`` from a folder of debs; give its URL."""
        root = self.folder / name
        _copy(debs, root / "pool" / component)
        folder = root / "dists" / suite / component / f"binary-{arch}"
        _index(root, f"pool/{component}", folder)
        (root / "Release.key").write_bytes(self.key.armoured)
        words = {"Suite": suite, "Codename": suite, "Components": component, "Architectures": arch}
        self.release(root / "dists" / suite, words, until)
        return f"{self.url}/{name}"

    def release(self, folder: Path, words: Mapping[str, str], until: datetime | None) -> None:
        """Write Release over what is in a folder, and sign it."""
        facts = {"Origin": "Labwright tests", **words}
        for name in ("Release", "InRelease", "Release.gpg"):
            (folder / name).unlink(missing_ok=True)
        options = [f"-oAPT::FTPArchive::Release::{n}={v}" for n, v in facts.items()]
        text = run("apt-ftparchive", *options, "release", ".", cwd=folder)
        if until:  # apt-ftparchive takes the option and writes nothing
            text = f"Valid-Until: {until:%a, %d %b %Y %H:%M:%S} UTC\n{text}"
        (folder / "Release").write_text(text, encoding="utf-8")
        self.key.sign(folder / "Release")


def _copy(debs: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for deb in sorted(debs.glob("*.deb")):
        shutil.copyfile(deb, folder / deb.name)


def _index(root: Path, pool: str, folder: Path) -> None:
    text = run("apt-ftparchive", "packages", pool, cwd=root).encode()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Packages").write_bytes(text)
    (folder / "Packages.gz").write_bytes(gzip.compress(text, mtime=0))
    if folder != root:  # pkgs.k8s.io has no .xz
        (folder / "Packages.xz").write_bytes(lzma.compress(text))


def make_deb(
    folder: Path,
    name: str,
    version: str,
    arch: str = "amd64",
    depends: str = "",
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> Path:
    """Build a small package with one file in it, and these."""
    needs("dpkg-deb")
    folder.mkdir(parents=True, exist_ok=True)
    deb = folder / f"{name}_{version.replace(':', '%3a')}_{arch}.deb"
    with tempfile.TemporaryDirectory() as tree:
        (Path(tree) / "DEBIAN").mkdir()
        (Path(tree) / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\n"
            f"Maintainer: Labwright <labwright@localhost>\nDescription: test package {name}\n"
            + (f"Depends: {depends}\n" if depends else "")
        )
        (Path(tree) / name).write_text(f"{name} {version} {arch}\n")
        for path, content in files.items():
            (Path(tree) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(tree) / path).write_bytes(content)
        run("dpkg-deb", "--root-owner-group", "--build", tree, deb)
    return deb


class Registry:
    """CNCF Distribution (Debian's docker-registry) with its own data folder."""

    def __init__(
        self,
        folder: Path,
        address: str = HOME,
        port: int = 0,
        *,
        data: Path | None = None,
        auth: Mapping[str, Any] | None = None,
    ) -> None:
        """``data`` is where another one keeps its images; ``auth`` is the part of its config."""
        needs("docker-registry", "skopeo")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._auth = folder, auth
        self.data = data or folder / "data"
        self.host = f"{address}:{port or _free_port(address)}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> Registry:
        config = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.data)},
                "cache": {"blobdescriptor": "inmemory"},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.host},
            **({"auth": dict(self._auth)} if self._auth else {}),
        }
        (self._folder / "config.yml").write_text(yaml.safe_dump(config))
        with (self._folder / "log").open("ab") as log:
            words = ["docker-registry", "serve", str(self._folder / "config.yml")]
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{self.url}/v2/", timeout=5).status_code in {200, 401}:
                    return
            time.sleep(0.1)
        raise AssertionError((self._folder / "log").read_text()[-2000:])

    def push(self, archive: Path, name: str, *, form: str = "") -> str:
        """Push an OCI archive as ``kube-apiserver:v1.20.2`` and give its digest there.

        ``form`` is skopeo's ``v2s2`` to have it converted to Docker's own manifest.
        """
        keep = ["--format", form] if form else ["--preserve-digests"]
        run(
            "skopeo", "--insecure-policy", "copy", "-q", *keep, "--dest-tls-verify=false",
            f"oci-archive:{archive}", f"docker://{self.host}/{name}",
        )  # fmt: skip
        return self.digest(name)

    def push_index(self, name: str, archives: Mapping[str, Path]) -> dict[str, str]:
        """Push one image for several architectures; give each one's digest and the index's."""
        repository, _, tag = name.rpartition(":")
        entries, digests = [], {}
        for arch, archive in archives.items():
            digests[arch] = self.push(archive, f"{repository}:{tag}-{arch}")
            body = self._manifest(repository, f"{tag}-{arch}")
            entries.append(
                {
                    "mediaType": body.headers["Content-Type"],
                    "digest": digests[arch],
                    "size": len(body.content),
                    "platform": {"os": "linux", "architecture": arch},
                }
            )
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        requests.put(
            f"{self.url}/v2/{repository}/manifests/{tag}",
            data=json.dumps(index),
            headers={"Content-Type": OCI_INDEX},
            timeout=30,
        ).raise_for_status()
        return {**digests, "index": self.digest(name)}

    def digest(self, name: str) -> str:
        """Give the digest of what a tag points at."""
        repository, _, tag = name.rpartition(":")
        return f"sha256:{hashlib.sha256(self._manifest(repository, tag).content).hexdigest()}"

    def _manifest(self, repository: str, tag: str) -> requests.Response:
        kinds = ("manifest.v1+json", "index.v1+json")
        accept = [f"application/vnd.oci.image.{kind}" for kind in kinds]
        docker = "application/vnd.docker.distribution.manifest.v2+json"
        answer = requests.get(
            f"{self.url}/v2/{repository}/manifests/{tag}",
            headers={"Accept": ", ".join((*accept, docker))},
            timeout=30,
        )
        answer.raise_for_status()
        return answer


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


class ChartRepo:
    """A Helm repository; its charts are packed by helm where there is one, by hand elsewhere."""

    def __init__(self, folder: Path, address: str = HOME, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.server = Faulty(folder, address, port)
        self.url = self.server.url

    def __enter__(self) -> ChartRepo:
        self.server.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.__exit__(*exc)

    def add(self, name: str, version: str, templates: Mapping[str, str]) -> Path:
        """Pack a chart of ``templates`` (file name → text), index it, and give its archive."""
        with tempfile.TemporaryDirectory() as folder:
            chart = Path(folder) / name
            (chart / "templates").mkdir(parents=True)
            facts = {"apiVersion": "v2", "name": name, "version": version, "type": "application"}
            (chart / "Chart.yaml").write_text(yaml.safe_dump(facts))
            for path, text in templates.items():
                (chart / "templates" / path).write_text(text)
            if helm := shutil.which("helm"):
                run(helm, "package", chart, "--destination", self.folder)
                run(helm, "repo", "index", self.folder)
            else:
                self._pack(chart, facts)
        return self.folder / f"{name}-{version}.tgz"

    def _pack(self, chart: Path, facts: Mapping[str, str]) -> None:
        archive = self.folder / f"{facts['name']}-{facts['version']}.tgz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(chart, facts["name"])
        index = self.folder / "index.yaml"
        known = yaml.safe_load(index.read_text())["entries"] if index.exists() else {}
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        entry = {**facts, "urls": [archive.name], "digest": digest}
        known.setdefault(facts["name"], []).insert(0, entry)
        made = datetime.now(UTC).isoformat()
        text = yaml.safe_dump({"apiVersion": "v1", "entries": known, "generated": made})
        index.write_text(text)
