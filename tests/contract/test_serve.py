"""The supply's server, asked over real sockets: files, and nothing but files."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from labwright.errors import HostError
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
