"""A program for the user's own computer: kubectl of the lab's version."""

from __future__ import annotations

from labwright.recipes.base import Job
from labwright.tools.store import remove_tree


def build(job: Job) -> None:
    """Make ``bin/kubectl`` from the nodes' package."""
    (deb,) = job.inputs["apt"].glob("kubectl_*.deb")
    root = job.work / "kubectl"
    remove_tree(root)
    job.run(["dpkg-deb", "--extract", deb, root])
    (job.out / "bin").mkdir()
    program = job.out / "bin/kubectl"
    program.write_bytes((root / "usr/bin/kubectl").read_bytes())
    program.chmod(0o755)
