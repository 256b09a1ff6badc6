"""Write what the plan says: Vagrantfile, inventory, lab.lock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labwright import lock, render
from labwright.locate import read_lock, save_plan
from labwright.phases import certificates, rancher
from labwright.phases.base import Run
from labwright.phases.fetch import stock
from labwright.phases.preflight import refuse_drift
from labwright.tools import bundles
from labwright.tools.workdir import write


@dataclass(frozen=True, slots=True)
class RenderFiles:
    """Ends with every file of the lab below .lab/<name>/."""

    name: str = "render"

    def title(self, run: Run) -> str:
        """Name the folder."""
        return f"Write .lab/{run.plan.name}/"

    def skip(self, run: Run) -> str | None:
        """Never: it is how a change of lab.yaml arrives."""
        return None

    def outline(self, run: Run) -> list[str]:
        """Name the files."""
        ours = [f"write .lab/{run.plan.name}/{path}" for path in self._files(run)]
        return [f"write {run.lock_file}", *ours]

    def execute(self, run: Run) -> None:
        """Write those that differ. Raises HostError; SupplyError for a lab.lock that is held to."""
        changed, lines = write_lock(run)
        for line in lines:
            run.say(line)
        changed += [n for n in run.workdir.write(self._files(run)) if n != "lab.lock"]
        changed += certificates.ensure(run.plan, run.workdir)
        changed += rancher.ensure(run)
        run.workdir.write({"source": run.spec.source})
        save_plan(run.workdir, run.plan)
        run.conclude(", ".join(changed) or "nothing changed")

    def _files(self, run: Run) -> dict[str, str]:
        return {
            **render.files(run.plan, stock(run)),
            "lab.lock": lock.text(lock_content(run)),
        }


def lock_content(run: Run) -> dict[str, Any]:
    """Give what lab.lock says of a lab; of one from a bundle, what that bundle's lock says."""
    content = lock.content(run.plan, stock(run))
    folder = Path(run.plan.bundle)
    if not run.plan.bundle or not folder.is_dir():  # none, or one that a plan has only looked at
        return content
    _manifest, text = bundles.read(folder)
    return lock.bundled(content, lock.read(text).content)


@dataclass(frozen=True, slots=True)
class WriteLock:
    """Ends with lab.lock beside lab.yaml, and nothing else of the lab."""

    name: str = "lock"

    def title(self, run: Run) -> str:
        """Name the file."""
        return f"Write {run.lock_file}"

    def skip(self, run: Run) -> str | None:
        """Never."""
        return None

    def outline(self, run: Run) -> list[str]:
        """Name the file."""
        return [f"write {run.lock_file}"]

    def execute(self, run: Run) -> None:
        """Write it where it differs. Raises HostError, SupplyError."""
        run.conclude("written" if write_lock(run)[0] else "nothing changed")


def write_lock(run: Run) -> tuple[list[str], list[str]]:
    """Write lab.lock beside lab.yaml; give its path if that changed it, and how it did.

    A strict run leaves it as it is. Raises SupplyError where that would change a lab.
    """
    content = lock_content(run)
    refuse_drift(run, content)
    if run.lock_file is None or run.strict:
        return [], []
    before = read_lock(run.lock_file).content
    if not write(run.lock_file, lock.text(content)):
        return [], []
    lines = lock.drift(before, content) if before else []
    return [str(run.lock_file)], [f"{run.lock_file.name}: {line}" for line in lines]
