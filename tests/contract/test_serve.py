"""The supply's server, asked over real sockets: files, and nothing but files."""

from __future__ import annotations

import http.client
import os
import queue
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from labwright.errors import HostError
from labwright.tools import serve
from labwright.tools.serve import serving

HOME = "127.0.0.1"
SECRET = "nobody may read this"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret").write_text(SECRET)
    apt = tmp_path / "store" / "apt-0123"
    (apt / "pool").mkdir(parents=True)
    (apt / "Packages").write_text("Package: kubeadm\n")
    (apt / "pool" / "kubeadm 1~2+x.deb").write_bytes(bytes(range(256)) * 4096)
    images = tmp_path / "store" / "images-4567"
    images.mkdir()
    (images / "pause.tar").write_bytes(b"pause")
    with serving({"apt": apt, "images": images}, HOME, 0) as url:
        assert url.startswith(f"http://{HOME}:")
        yield urlsplit(url).port or 0


def ask(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOME, port, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def raw(port: int, line: str) -> bytes:
    """Send a request line that no client library would let through."""
    with socket.create_connection((HOME, port), timeout=5) as connection:
        connection.sendall(f"{line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_files_are_served_whole(port: int) -> None:
    assert ask(port, "/apt/Packages") == (200, b"Package: kubeadm\n")
    assert ask(port, "/apt/./Packages?x=1") == (200, b"Package: kubeadm\n")
    assert ask(port, "/apt/pool/kubeadm%201~2+x.deb") == (200, bytes(range(256)) * 4096)
    assert ask(port, "/images/pause.tar") == (200, b"pause")
    assert ask(port, "/images/pause.tar", "HEAD") == (200, b"")


@pytest.mark.parametrize(
    "path",
    ["/", "/apt/", "/apt/pool/", "/apt/nothing", "/images/Packages", "/store/", "/Packages", "/."],
)
def test_there_is_no_listing_and_no_other_folder(port: int, path: str) -> None:
    status, body = ask(port, path)
    assert status == 404
    assert b"kubeadm" not in body


@pytest.mark.parametrize("path", ["/apt", "/apt/pool"])
def test_a_folder_s_name_shows_nothing(port: int, path: str) -> None:
    status, body = ask(port, path)
    assert status in {301, 404}
    assert body == b"" or status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/apt/../../etc/passwd",
        "/apt/../../../../../../../../etc/passwd",
        "/apt/../secret",
        "/apt/../../secret",
        "/apt/../../other/secret",
        "/apt/%2e%2e/%2e%2e/secret",
        "/apt/..%2f..%2fsecret",
        "/apt/..%2F..%2F..%2F..%2F..%2Fetc%2Fpasswd",
        "/apt/pool/../../../secret",
        "/../secret",
        "/../../../../etc/passwd",
        "//etc/passwd",
        "/apt//etc/passwd",
        "/apt/%00/../secret",
        "/apt\\..\\..\\secret",
        "/%61pt/../../secret",
        "../secret",
        "http://x/apt/../../secret",
    ],
)
def test_no_path_leads_out(port: int, path: str) -> None:
    answer = raw(port, f"GET {path} HTTP/1.1")
    assert answer.startswith(b"HTTP/1.1 ")
    assert not answer.startswith(b"HTTP/1.1 200")
    assert SECRET.encode() not in answer
    assert b"root:" not in answer


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_nothing_can_be_changed(port: int, method: str, tmp_path: Path) -> None:
    assert ask(port, "/apt/Packages", method)[0] == 501
    assert (tmp_path / "store/apt-0123/Packages").read_text() == "Package: kubeadm\n"


def test_one_connection_serves_many_files(port: int) -> None:
    connection = http.client.HTTPConnection(HOME, port, timeout=5)
    for path, status in (("/apt/Packages", 200), ("/images/pause.tar", 200), ("/apt/no", 404)):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


def test_nodes_are_served_at_the_same_time(port: int) -> None:
    # One that asks and does not go on keeps nobody else waiting.
    with socket.create_connection((HOME, port)) as idle, ThreadPoolExecutor(8) as pool:
        idle.sendall(b"GET /apt/Packages HTTP/1.1\r\n")
        answers = list(pool.map(lambda _: ask(port, "/apt/Packages"), range(24)))
    assert answers == [(200, b"Package: kubeadm\n")] * 24


CONTENT = bytes(range(256)) * 4096
PACKAGE = "/apt/pool/kubeadm%201~2+x.deb"


def ask_for(
    port: int, path: str, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(HOME, port, timeout=5)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=names)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, 1048575),
        ("bytes=1000-1999", 1000, 1999),
        ("bytes=1048575-", 1048575, 1048575),
        ("bytes=1000-99999999", 1000, 1048575),
        ("bytes=-1", 1048575, 1048575),
        ("bytes=-99999999", 0, 1048575),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_part_is_served(port: int, method: str, asked: str, first: int, last: int) -> None:
    status, headers, body = ask_for(port, PACKAGE, method, Range=asked)
    assert status == 206
    assert headers["Content-Range"] == f"bytes {first}-{last}/1048576"
    assert headers["Content-Length"] == str(last - first + 1)
    assert body == (CONTENT[first : last + 1] if method == "GET" else b"")


@pytest.mark.parametrize("asked", ["bytes=1048576-", "bytes=2000000-3000000", "bytes=-0"])
def test_a_part_that_is_not_there_is_refused(port: int, asked: str) -> None:
    status, headers, body = ask_for(port, PACKAGE, Range=asked)
    assert (status, headers["Content-Range"], body) == (416, "bytes */1048576", b"")


@pytest.mark.parametrize(
    "asked",
    ["", "bytes", "bytes=", "bytes=-", "bytes=2-1", "bytes=0-1,4-5", "lines=0-1", "bytes=a-b",
     "bytes=0x1-2", f"bytes={'9' * 40}-"],
)  # fmt: skip
def test_what_is_no_single_range_is_answered_whole(port: int, asked: str) -> None:
    status, headers, body = ask_for(port, PACKAGE, Range=asked)
    assert (status, body) == (200, CONTENT)
    assert headers["Accept-Ranges"] == "bytes"


def test_a_part_of_another_version_is_not_served(port: int) -> None:
    changed = ask_for(port, PACKAGE)[1]["Last-Modified"]
    assert ask_for(port, PACKAGE, Range="bytes=5-6", If_Range=changed)[0] == 206
    status, _headers, body = ask_for(port, PACKAGE, Range="bytes=5-6", If_Range='"other"')
    assert (status, body) == (200, CONTENT)


def test_what_a_client_has_is_not_sent_again(port: int) -> None:
    changed = ask_for(port, PACKAGE)[1]["Last-Modified"]
    assert ask_for(port, PACKAGE, If_Modified_Since=changed)[::2] == (304, b"")
    long_ago = "Thu, 01 Jan 1970 00:00:00 GMT"
    assert ask_for(port, PACKAGE, If_Modified_Since=long_ago)[0] == 200
    assert ask_for(port, PACKAGE, If_Modified_Since="nonsense")[0] == 200


def test_an_empty_file_is_served(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with serving({"x": tmp_path}, HOME, 0) as url:
        port = urlsplit(url).port or 0
        assert ask(port, "/x/empty") == (200, b"")
        assert ask_for(port, "/x/empty", Range="bytes=0-")[0] == 416


def test_a_file_cut_short_on_the_way_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    give = serve.file_answer

    def cut(path: Path, tag: str = "") -> serve.Answer | None:
        answer = give(path, tag)
        os.truncate(path, 400)
        return answer

    monkeypatch.setattr(serve, "file_answer", cut)
    with serving({"x": tmp_path}, HOME, 0) as url, pytest.raises(http.client.IncompleteRead):
        ask(urlsplit(url).port or 0, "/x/file")


def test_each_request_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    told: queue.Queue[tuple[str, str, int]] = queue.Queue()
    with serving({"x": tmp_path}, HOME, 0, told=lambda *facts: told.put(facts)) as url:
        port = urlsplit(url).port or 0
        for method, path, headers, sent in (
            ("GET", "/x/file?a", {}, 1000),
            ("GET", "/x/file", {"Range": "bytes=10-19"}, 10),
            ("HEAD", "/x/file", {}, 0),
            ("GET", "/x/none", {}, 0),
        ):
            ask_for(port, path, method, **headers)
            assert told.get(timeout=5) == (HOME, path, sent)
        raw(port, "GET /x/\x1b[2J HTTP/1.1")
        assert "\x1b" not in told.get(timeout=5)[1]


def test_a_client_that_goes_away_is_no_traceback(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(5):
        with socket.create_connection((HOME, port), timeout=5) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(f"GET {PACKAGE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            connection.recv(10)
    assert ask(port, PACKAGE) == (200, CONTENT)
    assert capfd.readouterr().err == ""


def test_a_port_in_use_is_said(port: int, tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught, serving({"x": tmp_path}, HOME, port):
        pass
    (finding,) = caught.value.findings
    assert finding.id == "host.supply-port"
    assert f"{HOME}:{port}" in finding.what


def test_an_address_that_is_not_ours_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(HostError, match=r"cannot be served on 192\.0\.2\.1"),
        serving({"x": tmp_path}, "192.0.2.1", 0),
    ):
        pass


def test_after_the_phase_nobody_listens(tmp_path: Path) -> None:
    def use() -> int:
        with serving({"x": tmp_path}, HOME, 0) as url:
            raise LookupError(urlsplit(url).port)

    with pytest.raises(LookupError) as caught:
        use()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOME, caught.value.args[0]), timeout=5)
    # The port can be had again at once: `lab.up` may follow on `lab.up`.
    with serving({"x": tmp_path}, HOME, caught.value.args[0]):
        pass
