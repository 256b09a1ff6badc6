"""The packages of an upstream lab with all they depend on, for a bundle: apt itself collects."""

from __future__ import annotations

import hashlib
from pathlib import Path

from labwright.errors import Finding, SupplyError
from labwright.model import DebPin
from labwright.recipes import archive
from labwright.recipes.apt import index, installed, take
from labwright.recipes.base import Apt, Job
from labwright.tools.store import remove_tree


def build(job: Job) -> None:
    """Make a flat repository of the pinned packages and their closure, as recipes.apt does.

    apt checks the signature of each source. Raises SupplyError.
    """
    pins = job.lab.pins.packages if job.lab.pins else {}
    packages = {name: pins[name] for name in job.artifact.params}
    job.say(f"download {len(packages)} packages and what they need")
    remove_tree(job.work / "apt/archives")
    sources = "".join(f"{line}\n" for s in job.lab.wanted.apt for line in archive.lines(job, s))
    # A container's root has its packages already; what a box has is not known here.
    status = installed(job)
    apt = Apt(job, job.work / "apt", sources, status)
    apt.update()
    take(apt.closure(*(f"{name}={pin.version}" for name, pin in packages.items())), job.out)
    have = index(job, apt.released())
    there = status.read_text("utf-8")
    for name, pin in packages.items():
        if have.get(name) == pin.version:
            _check(job.out, name, pin)
        elif f"Package: {name}\n" not in there:
            raise SupplyError(_not_there(name, pin.version))


def _check(out: Path, name: str, pin: DebPin) -> None:
    """Refuse other bytes under a version that is pinned; apt knows no pins."""
    (deb,) = out.glob(f"{name}_*.deb")
    with deb.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != pin.sha256:
        raise SupplyError(
            Finding(
                "supply.package-changed",
                "error",
                f"{name} {pin.version} is not the package that lab.lock has",
                f"its source has other bytes under that version: sha256 {found}",
                "./invokew lab.lock --upgrade, and lab.up",
            )
        )


def _not_there(name: str, version: str) -> Finding:
    return Finding(
        "supply.package-gone",
        "error",
        f"{name} {version} cannot be collected",
        "its source does not have that version any more",
        "./invokew lab.lock --upgrade, and lab.up",
    )
