"""How each artifact of the ``packages`` supply is made."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from labwright.errors import Finding, SupplyError
from labwright.recipes import (
    apt,
    box,
    bundled,
    charts,
    collect,
    conformance,
    gobuild,
    helm,
    hosttools,
    images,
    modules,
    pull,
    rootfs,
    traefik,
)
from labwright.recipes.base import HOST_PACKAGES, Job, Recipe
from labwright.tools.shell import ToolError

__all__ = ["HOST_PACKAGES", "RECIPES", "Job", "Recipe", "build"]

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "go": gobuild.toolchain,
        **dict.fromkeys(modules.PROGRAMS, gobuild.build),
        "traefik": traefik.build,
        "base": rootfs.build,
        "machine-root": rootfs.build_machine,
        "box": box.build,
        "apt": apt.build,
        "apt-role": apt.build_for_role,
        "images": images.build,
        "bundle": bundled.build,
        "charts": charts.build,
        "collect": collect.build,
        "conformance-images": conformance.build,
        "helm": helm.build,
        "host": hosttools.build,
        "pull": pull.build,
    }
)


def build(job: Job) -> None:
    """Make one artifact. Raises SupplyError, with the failing program's last words."""
    try:
        RECIPES[job.artifact.recipe](job)
    except ToolError as error:
        finding = Finding(
            f"supply.{job.artifact.id}",
            "error",
            f"{job.artifact.title or job.artifact.id} could not be made: {error.findings[0].what}",
            f"the whole of its output is in {job.work / 'log'}",
            "mend what it says and run the same command again: finished steps are kept",
        )
        raise SupplyError(finding, error.details) from error
