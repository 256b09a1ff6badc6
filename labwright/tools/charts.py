"""Finds charts in a Helm repository by its index.yaml (https://helm.sh/docs/topics/chart_repository/)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import yaml

from labwright.errors import Finding, SupplyError
from labwright.tools.download import Http, Progress, Wanted, shown

# Rancher's index is several MB: libyaml reads it about ten times as fast as Python does.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class ChartPin:
    """One chart: where it is, and its ``sha256`` in hex, empty where the index has none."""

    name: str
    version: str
    url: str
    sha256: str


def find(http: Http, repo_url: str, name: str, version: str) -> ChartPin:
    """Find a chart by its exact version; a leading v makes no difference.

    Raises SupplyError: no repository there, no such chart, or no such version.
    """
    base = repo_url.rstrip("/") + "/"
    charts = _entries(base, http.get(f"{base}index.yaml"))
    versions = {str(entry.get("version")): entry for entry in charts.get(name) or ()}
    for known, entry in versions.items():
        if known.removeprefix("v") == version.removeprefix("v") and entry.get("urls"):
            digest = str(entry.get("digest") or "").removeprefix("sha256:").lower()
            return ChartPin(name, known, urljoin(base, str(entry["urls"][0])), digest)
    has = f"it has {', '.join(list(versions)[:5])}" if versions else "it has no chart of that name"
    raise SupplyError(
        Finding(
            "supply.chart",
            "error",
            f"chart {name} {version} is not in {shown(repo_url)}",
            has,
            "choose a version it has, or name another repository under mirrors.charts in lab.yaml",
        )
    )


def fetch(
    http: Http,
    pin: ChartPin,
    target: Path,
    progress: Progress = lambda _done, _total: None,
) -> str:
    """Fetch the chart's archive and give its sha256, checked where the pin has one.

    Raises SupplyError.
    """
    return http.download(Wanted(pin.url, pin.sha256), target, progress)


def _entries(base: str, index: bytes) -> Mapping[str, Any]:
    try:
        entries = yaml.load(index, LOADER)["entries"]  # noqa: S506 - both loaders are safe ones
        return {str(name): [dict(e) for e in found or ()] for name, found in entries.items()}
    except (yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"{shown(base)}index.yaml is not the index of a chart repository"
        why = str(error).partition("\n")[0]
        fix = "check the address of the chart repository, and mirrors.charts in lab.yaml"
        raise SupplyError(Finding("supply.chart-index", "error", what, why, fix)) from error
