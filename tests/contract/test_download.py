"""Downloads over real sockets, from servers that fail as real ones do."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from labwright.errors import SupplyError
from labwright.tools.download import Http, HttpError, Wanted, shown
from tests.vendors import Faulty, needs, run

CONTENT = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(31_250)) + b"end"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


@pytest.fixture
def http() -> Iterator[Http]:
    with Http(patience=20, backoff=0.01) as session:
        yield session


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Faulty]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "box").write_bytes(CONTENT)
    (folder / "empty").touch()
    with Faulty(folder) as door:
        yield door


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "box"


def wanted(server: Faulty, sha256: str = SHA256, size: int | None = None) -> Wanted:
    return Wanted(f"{server.url}/box", sha256, size)


def ranges(server: Faulty) -> list[str]:
    return [seen.range for seen in server.requests("/box")]


def gone(target: Path) -> bool:
    return not target.exists() and not target.with_name("box.part").exists()


def test_a_file_comes_whole_and_progress_ends_at_its_size(
    http: Http, server: Faulty, target: Path
) -> None:
    steps: list[tuple[int, int | None]] = []
    assert http.download(wanted(server), target, lambda *s: steps.append(s)) == SHA256
    assert target.read_bytes() == CONTENT
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert steps == sorted(steps)
    assert not target.with_name("box.part").exists()


def test_what_is_there_and_right_is_not_asked_for_again(
    http: Http, server: Faulty, target: Path
) -> None:
    target.write_bytes(CONTENT)
    http.download(wanted(server), target)
    assert not server.seen
    target.write_bytes(CONTENT[:-1] + b"?")
    http.download(wanted(server), target)
    assert target.read_bytes() == CONTENT


def test_a_cut_connection_is_gone_on_with(http: Http, server: Faulty, target: Path) -> None:
    server.cut("/box", after=HALF)
    server.cut("/box", after=1000)
    assert http.download(wanted(server), target) == SHA256
    assert target.read_bytes() == CONTENT
    assert ranges(server) == ["", "bytes=1000-", f"bytes={1000 + HALF}-"] or ranges(server) == [
        "",
        f"bytes={HALF}-",
        f"bytes={HALF + 1000}-",
    ]


def test_an_earlier_run_is_gone_on_with(http: Http, server: Faulty, target: Path) -> None:
    target.with_name("box.part").write_bytes(CONTENT[:HALF])
    assert http.download(wanted(server), target) == SHA256
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [f"bytes={HALF}-"]


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_a_spoiled_earlier_run_is_begun_again(
    http: Http, server: Faulty, target: Path, left: bytes
) -> None:
    target.with_name("box.part").write_bytes(left)
    assert http.download(wanted(server, size=len(CONTENT)), target) == SHA256
    assert target.read_bytes() == CONTENT


def test_an_earlier_run_is_worth_nothing_without_a_digest(
    http: Http, server: Faulty, target: Path
) -> None:
    target.with_name("box.part").write_bytes(b"x" * HALF)
    server.cut("/box", after=HALF)
    assert http.download(wanted(server, ""), target) == SHA256
    assert target.read_bytes() == CONTENT
    # This server names no version of the file, so its halves might not fit.
    assert ranges(server) == ["", ""]


def test_a_file_that_changed_between_two_pieces_is_begun_again(
    http: Http, server: Faulty, target: Path
) -> None:
    server.flip("/box", at=1000, times=1)
    server.cut("/box", after=HALF)
    assert http.download(wanted(server), target) == SHA256
    assert target.read_bytes() == CONTENT
    assert ranges(server) == ["", f"bytes={HALF}-", ""]


def test_a_server_without_ranges_sends_it_all_again(
    http: Http, server: Faulty, target: Path
) -> None:
    server.deaf("/box")
    server.cut("/box", after=HALF)
    assert http.download(wanted(server), target) == SHA256
    assert target.read_bytes() == CONTENT
    assert ranges(server) == ["", f"bytes={HALF}-"]


def test_an_end_that_always_comes_early_is_no_success(
    http: Http, server: Faulty, target: Path
) -> None:
    server.deaf("/box")
    server.cut("/box", after=HALF, times=1000)
    with pytest.raises(HttpError) as caught:
        http.download(wanted(server, ""), target)
    (finding,) = caught.value.findings
    cut = f"the connection was cut after {HALF} of {len(CONTENT)} bytes"
    assert finding.why == f"{cut}, after 7 tries"
    assert not target.exists()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_recovers_is_asked_again(
    http: Http, server: Faulty, target: Path, status: int
) -> None:
    server.answer(status, "/box", times=3, Retry_After="0")
    http.download(wanted(server), target)
    assert len(server.seen) == 4
    server.answer(status, "/box", times=2)
    assert http.get(f"{server.url}/box") == CONTENT


def test_a_server_that_does_not_recover_is_given_up(
    http: Http, server: Faulty, target: Path
) -> None:
    server.answer(503, "/box", times=1000)
    with pytest.raises(HttpError) as caught:
        http.get(f"{server.url}/box")
    assert caught.value.status == 503
    assert caught.value.findings[0].why == "HTTP 503 Service Unavailable, after 7 tries"
    assert len(server.seen) == 7


def test_a_pause_longer_than_our_patience_is_not_waited_for(http: Http, server: Faulty) -> None:
    server.answer(429, "/box", times=1000, Retry_After="3600")
    with pytest.raises(HttpError) as caught:
        http.get(f"{server.url}/box")
    assert caught.value.status == 429
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_final(http: Http, server: Faulty, target: Path, status: int) -> None:
    server.answer(status, "/box", times=1000)
    with pytest.raises(HttpError) as caught:
        http.download(wanted(server), target)
    assert caught.value.status == status
    assert caught.value.findings[0].fix
    assert len(server.seen) == 1
    assert http.ask(f"{server.url}/box", accept={status}).status == status


@pytest.mark.parametrize("at", [0, HALF, len(CONTENT) - 1])
def test_a_flipped_bit_is_refused(http: Http, server: Faulty, target: Path, at: int) -> None:
    server.flip("/box", at)
    with pytest.raises(SupplyError) as caught:
        http.download(wanted(server), target)
    (finding,) = caught.value.findings
    assert finding.what == f"{server.url}/box is not what was promised"
    assert SHA256 in finding.why
    assert finding.why.count("sha256") == 1
    assert gone(target)


@pytest.mark.parametrize("size", [0, 1, len(CONTENT) - 1, len(CONTENT) + 1])
def test_another_size_is_refused(http: Http, server: Faulty, target: Path, size: int) -> None:
    with pytest.raises(SupplyError, match="is not what was promised"):
        http.download(wanted(server, "", size), target)
    assert gone(target)


def test_an_empty_file_is_a_file(http: Http, server: Faulty, target: Path) -> None:
    empty = hashlib.sha256().hexdigest()
    assert http.download(Wanted(f"{server.url}/empty", empty, 0), target) == empty
    assert target.read_bytes() == b""


@pytest.mark.parametrize("scheme", ["file://", ""])
def test_files_and_paths_work_too(http: Http, tmp_path: Path, target: Path, scheme: str) -> None:
    source = tmp_path / "a source"
    source.write_bytes(CONTENT)
    url = source.as_uri() if scheme else str(source)
    assert http.get(url) == CONTENT
    assert http.download(Wanted(url, SHA256, len(CONTENT)), target) == SHA256
    assert target.read_bytes() == CONTENT
    with pytest.raises(SupplyError, match="is not what was promised"):
        http.download(Wanted(url, "0" * 64), tmp_path / "other")
    with pytest.raises(HttpError, match="could not be fetched"):
        http.download(Wanted(f"{url}-not", SHA256), tmp_path / "other")
    assert http.ask(f"{url}-not", accept={404}).status == 404


def test_small_things_have_a_limit(http: Http, server: Faulty) -> None:
    with pytest.raises(SupplyError, match="longer than"):
        http.get(f"{server.url}/box", limit=len(CONTENT) - 1)
    assert http.get(f"{server.url}/box", limit=len(CONTENT)) == CONTENT


@pytest.mark.parametrize(
    "end", ["{host}/nothing", "127.0.0.1:1/refused", "no-such-name.invalid/x", "[::bad/x"]
)
def test_no_secret_is_in_a_message(server: Faulty, end: str) -> None:
    host = server.url.removeprefix("http://")
    url = f"http://user:hunter2@{end.format(host=host)}?token=hunter2#hunter2"
    with Http(patience=0.1, backoff=0.01) as session, pytest.raises(HttpError) as caught:
        session.get(url)
    assert "hunter2" not in str(caught.value)
    assert "user" not in str(caught.value)


def test_shown_keeps_what_names_the_place() -> None:
    assert shown("https://u:p@host:5000/v2/x?ns=y#z") == "https://host:5000/v2/x"
    assert shown("/a/path") == "/a/path"


def test_a_token_is_not_replaced_by_netrc(
    http: Http, server: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    http.get(f"{server.url}/box", headers={"Authorization": "Bearer abc"})
    assert server.seen[-1].headers["Authorization"] == "Bearer abc"


def test_the_environment_s_proxy_is_asked(
    http: Http, server: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    assert http.get("http://nowhere.invalid/box") == CONTENT
    assert server.seen[-1].path == "http://nowhere.invalid/box"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with pytest.raises(HttpError, match="the proxy of this computer's environment"):
        http.get("http://nowhere.invalid/box")


def test_a_certificate_nobody_vouches_for_is_refused_at_once(http: Http, tmp_path: Path) -> None:
    needs("openssl")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", cert,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with Faulty(tmp_path) as door:
        door.encrypt(context)
        with pytest.raises(HttpError) as caught:
            http.get(door.url.replace("http:", "https:") + "/cert.pem")
    assert caught.value.findings[0].why == "its certificate is not trusted by this computer"


def test_trouble_with_our_own_disk_is_not_the_server_s(
    http: Http, server: Faulty, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        http.download(wanted(server), tmp_path / "no-such-folder" / "box")
    assert not isinstance(caught.value, requests.RequestException)
    assert len(server.seen) == 1
