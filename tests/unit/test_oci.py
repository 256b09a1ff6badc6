"""The archives that labwright.oci writes, read back as a container runtime reads them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from labwright import oci
from labwright.oci import File, Image

REF = "labwright.local/thing:v1"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF" + b"\0" * 5000)
    path.chmod(0o700)
    return path


def image(program: Path, **more: Any) -> Image:
    files = {
        "usr/local/bin/thing": File(program),
        "bin/sh": File(link="thing", mode=0o777),
        "tmp": File(mode=0o1777),
    }
    return Image(REF, files, **more)


def blobs(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}  # type: ignore[union-attr]


def opened(archive: Path) -> tuple[Any, Any, Any, bytes]:
    """Follow the digests from the index on, checking each; give the layer's bytes last."""
    content = blobs(archive)

    def blob(facts: Any) -> bytes:
        data = content["blobs/" + facts["digest"].replace(":", "/")]
        assert "sha256:" + hashlib.sha256(data).hexdigest() == facts["digest"]
        assert len(data) == facts["size"]
        return data

    assert json.loads(content["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(content["index.json"])["manifests"]
    manifest = json.loads(blob(entry))
    (layer,) = manifest["layers"]
    return entry, manifest, json.loads(blob(manifest["config"])), blob(layer)


def test_every_blob_is_found_under_its_digest(tmp_path: Path, program: Path) -> None:
    archive = tmp_path / "thing.tar"
    digest = oci.write(image(program), archive)
    entry, _manifest, config, layer = opened(archive)
    assert entry["digest"] == digest
    plain = hashlib.sha256(gzip.decompress(layer)).hexdigest()
    assert config["rootfs"]["diff_ids"] == [f"sha256:{plain}"]


def test_both_annotations_carry_the_full_name(tmp_path: Path, program: Path) -> None:
    oci.write(image(program), tmp_path / "a.tar")
    entry, *_rest = opened(tmp_path / "a.tar")
    assert entry["annotations"] == {
        "org.opencontainers.image.ref.name": REF,
        "io.containerd.image.name": REF,
    }


def test_the_layer_holds_files_links_and_the_folders_above_them(
    tmp_path: Path, program: Path
) -> None:
    oci.write(image(program), tmp_path / "a.tar")
    *_rest, layer = opened(tmp_path / "a.tar")
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer))) as tar:
        members = {m.name: m for m in tar}
        file = tar.extractfile("usr/local/bin/thing")
        assert file is not None
        assert file.read() == program.read_bytes()
    assert list(members) == sorted(members)
    assert {"usr", "usr/local", "usr/local/bin", "bin", "tmp"} <= members.keys()
    assert (members["bin/sh"].issym(), members["bin/sh"].linkname) == (True, "thing")
    assert members["tmp"].mode == 0o1777
    assert all((m.uid, m.gid, m.mtime, m.uname) == (0, 0, 0, "") for m in members.values())


def test_the_same_files_give_the_same_bytes(tmp_path: Path, program: Path) -> None:
    first = oci.write(image(program), tmp_path / "a.tar")
    os.utime(program, (1, 1))
    program.chmod(0o755)
    assert oci.write(image(program), tmp_path / "b.tar") == first
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert not list(tmp_path.glob("*.layer"))


def test_config_says_how_to_run_it(tmp_path: Path, program: Path) -> None:
    more = {"entrypoint": ("/thing",), "cmd": ("-v",), "env": ("A=b",), "arch": "arm64"}
    oci.write(image(program, **more), tmp_path / "a.tar")
    _entry, _manifest, config, _layer = opened(tmp_path / "a.tar")
    assert config["config"] == {
        "Entrypoint": ["/thing"],
        "Cmd": ["-v"],
        "Env": ["A=b"],
        "WorkingDir": "/",
    }
    assert (config["os"], config["architecture"]) == ("linux", "arm64")


def test_a_missing_file_leaves_no_half_layer(tmp_path: Path) -> None:
    missing = Image(REF, {"thing": File(tmp_path / "not-there")})
    with pytest.raises(FileNotFoundError):
        oci.write(missing, tmp_path / "a.tar")
    assert not list(tmp_path.iterdir())


def test_tree_keeps_modes_and_links(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir(mode=0o755)
    (tmp_path / "bin/tool").write_text("x")
    (tmp_path / "bin/tool").chmod(0o4755)
    (tmp_path / "bin/alias").symlink_to("tool")
    assert oci.tree(tmp_path) == {
        "bin": File(mode=0o755),
        "bin/tool": File(tmp_path / "bin/tool", mode=0o4755),
        "bin/alias": File(link="tool", mode=0o777),
    }


def test_pack_keeps_the_manifest_and_takes_bytes_and_files(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(b"layer")
    manifest = b'{ "schemaVersion": 2 }\n'
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    parts: dict[str, bytes | Path] = {"sha256:aa": b"config", "sha256:bb": tmp_path / "layer"}
    digest = oci.pack(REF, manifest, kind, parts, tmp_path / "a.tar")
    content = blobs(tmp_path / "a.tar")
    assert digest == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    assert content[f"blobs/{digest.replace(':', '/')}"] == manifest
    assert (content["blobs/sha256/aa"], content["blobs/sha256/bb"]) == (b"config", b"layer")
    (entry,) = json.loads(content["index.json"])["manifests"]
    assert (entry["mediaType"], entry["size"]) == (kind, len(manifest))
    assert oci.pack(REF, manifest, kind, parts, tmp_path / "b.tar") == digest
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
