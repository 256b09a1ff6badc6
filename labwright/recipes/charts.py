"""The Helm charts of a lab, from their repositories."""

from __future__ import annotations

from labwright.recipes.base import Job
from labwright.tools import charts
from labwright.tools.download import Http


def build(job: Job) -> None:
    """Make ``<name>-<version>.tgz`` for each chart that is pinned. Raises SupplyError."""
    pins = job.lab.pins
    with Http() as http:
        for name, pin in (pins.charts if pins else {}).items():
            job.say(f"fetch chart {name} {pin.version}")
            wanted = charts.ChartPin(name, pin.version, pin.url, pin.sha256)
            charts.fetch(http, wanted, job.out / f"{name}-{pin.version}.tgz")
