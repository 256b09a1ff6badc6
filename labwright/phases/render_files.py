"""Write what the plan says: Vagrantfile, inventory, lock."""

from __future__ import annotations

from dataclasses import dataclass

from labwright import render
from labwright.locate import save_plan
from labwright.phases.base import Run
from labwright.phases.fetch import stock


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
        """Write those that differ. Raises HostError."""
        changed = run.workdir.write(self._files(run))
        run.workdir.write({"source": run.spec.source})
        save_plan(run.workdir, run.plan)
        run.conclude(", ".join(changed) or "nothing changed")

    def _files(self, run: Run) -> dict[str, str]:
        return render.files(run.plan, stock(run))
