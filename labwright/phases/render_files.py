"""Write what the plan says: Vagrantfile, inventory, lab.lock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labwright import lock, render
from labwright.locate import save_plan
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
        return [f"write .lab/{run.plan.name}/{path}" for path in self._files(run)]

    def execute(self, run: Run) -> None:
        """Write those that differ. Raises HostError; SupplyError for a lab.lock that is held to."""
        changed = [*write_lock(run), *run.workdir.write(self._files(run))]
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
    if not run.plan.bundle:
        return content
    _manifest, text = bundles.read(Path(run.plan.bundle))
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
        run.conclude("written" if write_lock(run) else "nothing changed")


def write_lock(run: Run) -> list[str]:
    """Write lab.lock beside lab.yaml and give its name if that changed it.

    Raises SupplyError in a strict run that would change it.
    """
    content = lock_content(run)
    refuse_drift(run, content)
    if run.lock_file is None or not write(run.lock_file, lock.text(content)):
        return []
    for line in lock.drift(run.locked.content, content) if run.locked.content else []:
        run.say(f"{run.lock_file.name}: {line}")
    return [str(run.lock_file.name)]
