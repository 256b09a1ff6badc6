"""Helm charts on this computer: what a folder or an archive says of itself, and packing one."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from packaging.version import InvalidVersion, Version

from labwright.catalog.ranges import within
from labwright.errors import Finding, SpecError
from labwright.model import Chart

# A version in which to try whether a range can be read at all.
ANY = "1.0.0"


def read(path: Path, where: str) -> Chart:
    """Read a chart; ``where`` is the key of lab.yaml that names it. Raises SpecError."""
    try:
        archive = packed(path)
        about = _about(archive)
    except (OSError, tarfile.TarError, EOFError, yaml.YAMLError, KeyError, ValueError) as error:
        raise SpecError(_no_chart(path, where, str(error))) from error
    chart = Chart(
        path=str(path),
        name=str(about.get("name") or ""),
        version=str(about.get("version") or ""),
        app_version=str(about.get("appVersion") or ""),
        kube_version=str(about.get("kubeVersion") or ""),
        sha256=hashlib.sha256(archive).hexdigest(),
    )
    try:
        Version(chart.version)
        within(chart.kube_version, ANY)
    except (InvalidVersion, ValueError) as error:
        raise SpecError(_no_chart(path, where, f"its Chart.yaml: {error}")) from error
    return chart


def packed(path: Path) -> bytes:
    """Give a chart as the archive that Helm reads: as it is, or a folder always the same way.

    Raises OSError.
    """
    if not path.is_dir():
        return path.read_bytes()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            inside = file.relative_to(path)
            if not any(part.startswith(".git") for part in inside.parts):
                # Helm takes the name of the folder for nothing; Chart.yaml has the chart's.
                info = tarfile.TarInfo(f"chart/{inside.as_posix()}")
                info.size, info.mode = file.stat().st_size, 0o644
                with file.open("rb") as opened:
                    tar.addfile(info, opened)
    return gzip.compress(content.getvalue(), mtime=0)


def _about(archive: bytes) -> Mapping[str, Any]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:*") as tar:
        names = [n for n in tar.getnames() if n.count("/") == 1 and n.endswith("/Chart.yaml")]
        file = tar.extractfile(names[0]) if names else None
        about = yaml.safe_load(file.read()) if file else None
    if not isinstance(about, dict):
        raise ValueError("there is no Chart.yaml in it")
    return about


def _no_chart(path: Path, where: str, why: str) -> Finding:
    what = f"{path} is not a Helm chart" if path.exists() else f"there is no {path}"
    fix = "name a chart's folder, or its .tgz as `helm package` makes it"
    return Finding("spec.no-chart", "error", what, why, fix, where)
