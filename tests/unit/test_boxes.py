"""Boxes without Vagrant: its list as it is on the disk, catalogues, what is refused and printed."""

from __future__ import annotations

import io
import json
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labwright import cli_box
from labwright.boxes import FOUND, NO_FILE
from labwright.boxshop import Made, Shop
from labwright.errors import HostError, LabError, SpecError
from labwright.lab import Options
from labwright.model import HadBox
from labwright.phases import bake_machine
from labwright.recipes import rootfs
from labwright.tools import boxes


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "vagrant"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "vagrant"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(Options(root=tmp_path))


def put(home: Path, *parts: str) -> None:
    folder = home.joinpath("boxes", *parts)
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text("{}")


def test_vagrants_list_is_read_as_each_release_lays_it_out(home: Path) -> None:
    assert boxes.had() == ()
    put(home, "labwright-VAGRANTSLASH-debian-12", "0.0.7", "libvirt")
    put(home, "https-VAGRANTCOLON--VAGRANTSLASH-x", "1", "amd64", "virtualbox")
    assert boxes.had() == (
        HadBox("labwright/debian-12", "0.0.7", "libvirt"),
        HadBox("https:/x", "1", "virtualbox"),
    )


@pytest.mark.parametrize("text", ["", "[]", '{"machines": []}', '{"machines": {"a": {}}}'])
def test_an_index_of_machines_that_says_nothing_uses_nothing(home: Path, text: str) -> None:
    index = home / "data/machine-index/index"
    index.parent.mkdir(parents=True)
    index.write_text(text)
    assert boxes.users() == {}


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_place_answers_or_says_why_not(tmp_path: Path, port: int) -> None:
    (tmp_path / "a b.box").touch()
    assert boxes.source(str(tmp_path / "a b.box")) == FOUND
    assert boxes.source((tmp_path / "a b.box").as_uri()) == FOUND
    assert boxes.source(str(tmp_path / "none.box")) == NO_FILE
    assert boxes.source(f"http://127.0.0.1:{port}/x.box") == FOUND
    assert boxes.source("http://127.0.0.1:1/x.box") == "does not answer"
    assert boxes.source("http://127.0.0.1:port/x.box") == "does not answer"


def test_vagrants_own_catalogue_may_be_another(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAGRANT_SERVER_URL", f"http://127.0.0.1:{port}")
    assert boxes.source("") == FOUND
    monkeypatch.setenv("VAGRANT_SERVER_URL", "http://127.0.0.1:1")
    assert boxes.source("") == "does not answer"


def test_a_folder_gets_a_box_more_without_losing_the_others(shop: Shop, tmp_path: Path) -> None:
    def made(provider: str, version: str) -> Made:
        path = tmp_path / f"{provider}{version}"
        path.write_text(version)
        return Made("labwright/debian-12", version, provider, path, boxes.digest(path))

    folder = tmp_path / "served"
    shop.hand_on([made("libvirt", "0.0.1"), made("docker", "")], folder, "http://b.test/boxes/")
    shop.hand_on([made("virtualbox", "0.0.2")], folder, "http://b.test/boxes")
    shop.hand_on([made("libvirt", "0.0.3")], folder, "http://b.test/boxes")
    raw = json.loads((folder / "debian-12.json").read_text())
    offered = {v["version"]: v["providers"][0]["url"] for v in raw["versions"]}
    assert offered == {
        "0.0.2": "http://b.test/boxes/debian-12-virtualbox.box",
        "0.0.3": "http://b.test/boxes/debian-12-libvirt.box",
    }
    assert (folder / "debian-12-docker.tar").is_file()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "no box of our own is built yet"),
        ("empty", "has no catalogue"),
        ("alone", "is beside it"),
        ("none.json", "cannot be read"),
        ("odd.json", "is not a catalogue of boxes"),
        ("file.box", "says neither its name nor its provider"),
        ("none.box", "there is no file"),
    ],
)
def test_what_cannot_be_added_is_said(shop: Shop, tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "alone").mkdir()
    offer = boxes.Offer("1", "libvirt", "http://b.test/x.box")
    text = boxes.dump(boxes.catalogue("me/x", "", [offer]))
    (tmp_path / "alone/x.json").write_text(text)
    (tmp_path / "file.box").write_text("")
    (tmp_path / "odd.json").write_text('{"name": "x", "versions": 1}')
    with pytest.raises(SpecError) as caught:
        shop.add(str(tmp_path / source) if source else "", "", "")
    (finding,) = caught.value.findings
    assert said in finding.what
    assert finding.fix


@pytest.mark.parametrize("source", ["~/file.box", "http://b.test/file.box"])
def test_a_box_is_looked_for_where_vagrant_would_and_no_server_is_asked(
    monkeypatch: pytest.MonkeyPatch, shop: Shop, tmp_path: Path, source: str
) -> None:
    (tmp_path / "file.box").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    asked: list[object] = []
    monkeypatch.setattr("socket.create_connection", lambda *args, **_: asked.append(args))
    with pytest.raises(SpecError) as caught:
        shop.add(source, "", "")
    assert caught.value.findings[0].id == "spec.box-nameless"
    assert asked == []


@pytest.mark.parametrize(
    ("provider", "guest", "slug"),
    [
        ("libvirt", "debain-12", "spec.unknown-guest"),
        ("libvirt", "ubuntu-22.04", "spec.unknown-guest"),
        ("vmware", "debian-12", "spec.unknown-provider"),
        ("docker", "debian-13", "spec.unknown-guest"),
        ("docker", "ubuntu-24.04", "spec.unknown-guest"),
    ],
)
def test_what_cannot_be_built_is_said(shop: Shop, provider: str, guest: str, slug: str) -> None:
    with pytest.raises(LabError) as caught:
        shop.build([provider], guest)
    assert caught.value.findings[0].id == slug


def test_an_image_of_dockers_is_not_baked_here(shop: Shop) -> None:
    with pytest.raises(SpecError) as caught:
        shop.bake(["docker"])
    assert caught.value.findings[0].id == "spec.nothing-to-bake"


def test_a_folder_that_refuses_is_said(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "box").touch()
    with pytest.raises(HostError):
        shop.hand_on([Made("x/y", "1", "libvirt", tmp_path / "box", "")], tmp_path / "file")


def test_the_list_is_a_table(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(home, "labwright-VAGRANTSLASH-debian-12", "0.0.7", "libvirt")
    put(home, "me-VAGRANTSLASH-x", "1", "libvirt")
    cli_box.show(everything=False)
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["box", "version", "provider", "size", "age", "used", "by"]
    assert row.split() == ["labwright/debian-12", "0.0.7", "libvirt", "0", "MB", "today", "-"]
    cli_box.show(everything=True)
    assert "me/x" in capsys.readouterr().out
    (home / "boxes").rename(home / "away")
    cli_box.prune(yes=True)
    assert "nothing to remove" in capsys.readouterr().out


def test_a_baked_root_is_the_containers_without_what_is_dockers(tmp_path: Path) -> None:
    exported, root = tmp_path / "exported.tar", tmp_path / "rootfs.tar"
    entrypoint = rootfs.ENTRYPOINT
    status = b"Package: one\nVersion: 1.0\n\nPackage: two\nVersion: 2\n"
    with tarfile.open(exported, "w") as tar:
        for name in (".dockerenv", "etc/resolv.conf", "etc/hosts", "etc/hostname", entrypoint):
            tar.addfile(tarfile.TarInfo(name))
        capable = tarfile.TarInfo("usr/bin/ping")
        capable.pax_headers = {"SCHILY.xattr.security.capability": "\x01\0"}
        capable.mode, capable.uid = 0o755, 7
        tar.addfile(capable)
        info = tarfile.TarInfo(bake_machine.STATUS)
        info.size = len(status)
        tar.addfile(info, io.BytesIO(status))
    bake_machine._settle(exported, root)
    with tarfile.open(root) as tar:
        assert tar.getnames() == ["etc/hosts", "usr/bin/ping", bake_machine.STATUS]
        hosts = tar.extractfile("etc/hosts")
        assert hosts is not None
        assert b"127.0.0.1\tlocalhost" in hosts.read()
        ping = tar.getmember("usr/bin/ping")
        assert ping.pax_headers["SCHILY.xattr.security.capability"] == "\x01\0"
        assert (ping.mode, ping.uid) == (0o755, 7)
    assert bake_machine._packages(root) == {"one": "1.0", "two": "2"}
