"""Bring every node to the state that the plan says, with Ansible."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from labwright import render
from labwright.model import SUPPLY_PORT
from labwright.phases.base import Run
from labwright.phases.fetch import folders
from labwright.tools import ansible
from labwright.tools.serve import Registry, serving
from labwright.tools.ssh import Ssh


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
        with supplied(run, folders(run)):
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


@contextlib.contextmanager
def supplied(
    run: Run, served: Mapping[str, Path], registry: Registry | None = None
) -> Iterator[str]:
    """Serve folders, each below its name, and yield the address that nodes reach them at.

    ``registry`` answers there too. Raises HostError.
    """
    plan, port = run.plan, SUPPLY_PORT
    # Through a tunnel the nodes have that port, and here any will do.
    with (
        serving(served, str(plan.host_address), 0 if plan.tunnel else port, registry) as url,
        contextlib.ExitStack() as tunnels,
    ):
        if plan.tunnel and (served or registry):
            ssh = Ssh(run.tools.shell, run.workdir.ssh_config)
            ours = int(url.rpartition(":")[2])
            run.step("open the way back to this computer")
            for tunnel in ssh.ways_back([n.name for n in plan.nodes], port, ours):
                tunnels.callback(tunnel)
        yield f"http://127.0.0.1:{port}" if plan.tunnel else url
