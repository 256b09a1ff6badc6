"""Bring every node to the state that the plan says, with Ansible."""

from __future__ import annotations

from dataclasses import dataclass

from labwright import render
from labwright.phases.base import Run
from labwright.phases.fetch import folders
from labwright.tools import ansible
from labwright.tools.serve import serving


@dataclass(frozen=True, slots=True)
class Converge:
    """Ends with a cluster: every node Ready."""

    name: str = "converge"

    def title(self, run: Run) -> str:
        """Name the version."""
        return f"Install Kubernetes {run.plan.versions['kubernetes']} on the nodes"

    def skip(self, run: Run) -> str | None:
        """Never: a converge that finds everything done is how we know that it is."""
        return None

    def outline(self, run: Run) -> list[str]:
        """Name the play."""
        return ["run playbooks/site.yml on every node"]

    def execute(self, run: Run) -> None:
        """Serve the supply and run the play. Raises ConvergeError."""
        inventories = [render.ROOT / "inventory", run.workdir.inventory]
        address = str(run.plan.host_address)
        with serving(folders(run), address, render.SUPPLY_PORT):
            outcome = ansible.play(
                "site.yml",
                inventories,
                run.workdir.path / "ansible",
                run.workdir.known_hosts,
                run.step,
                on_line=run.tool,
            )
        changed = sum(outcome.changed.values())
        run.conclude(f"{changed} tasks changed something" if changed else "nothing to change")
