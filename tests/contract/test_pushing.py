"""The image that verify pushes to a lab's registry, against a real one."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from labwright import oci
from labwright.oci import File, Image
from tests.nodes import pushing
from tests.vendors import Registry, run


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_an_image_with_a_word_is_made_on_top_of_one_and_deleted(tmp_path: Path, form: str) -> None:
    (tmp_path / "program").write_text("a program\n")
    files = {"bin/program": File(tmp_path / "program")}
    oci.write(Image("lab/probe:base", files, ("/bin/program",)), tmp_path / "base.tar")
    with Registry(tmp_path / "registry") as registry:
        registry.push(tmp_path / "base.tar", "lab/probe:base", form=form)
        place = f"{registry.url}/v2/lab/probe"
        config = pushing.make(place, "base", "some-word")
        copied = tmp_path / "copied"
        source = f"docker://{registry.host}/lab/probe:some-word"
        # skopeo checks all digests, and that layers and configuration go together.
        run("skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", source,
            f"oci:{copied}:x")  # fmt: skip
        (entry,) = json.loads((copied / "index.json").read_text())["manifests"]
        manifest = json.loads(blob(copied, entry["digest"]).read_text())
        assert len(manifest["layers"]) == 2
        with tarfile.open(blob(copied, manifest["layers"][1]["digest"])) as tar:
            word = tar.extractfile("word")
            assert word
            assert word.read() == b"some-word"
        if form == "oci":
            assert manifest["config"]["digest"] == config
        assert pushing.remove(place, "some-word") == 404
        assert pushing.remove(place, "never-was") == 404
        assert registry.digest("lab/probe:base")


def blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")
