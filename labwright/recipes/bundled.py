"""An entry of a bundle, copied into the store; each file is hashed on its way."""

from __future__ import annotations

from pathlib import Path

from labwright.errors import Finding, SupplyError
from labwright.recipes.base import Job
from labwright.tools import bundles
from labwright.tools.bundle_files import manifest_of


def build(job: Job) -> None:
    """Copy the entry that the plan counts on.

    Raises SupplyError: the bundle is gone, is another one now, or is damaged.
    """
    folder = Path(job.lab.bundle)
    manifest = manifest_of(folder)
    entry = manifest.entries.get(job.artifact.id) if manifest else None
    if entry is None or entry.content != job.artifact.version:
        raise SupplyError(
            Finding(
                "supply.bundle-changed",
                "error",
                f"{folder} is not the bundle that this lab was planned with",
                f"its {job.artifact.id} is missing or has another content",
                "put the bundle back, or run lab.up --supply bundle:PATH with the new one",
            )
        )
    bundles.import_entry(folder, entry, job.out)
    # A bundle may lie on a disk that knows no modes; what it holds of programs is here.
    for program in (job.out / "bin").glob("*"):
        program.chmod(0o755)
