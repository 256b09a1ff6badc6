"""Halt a lab, or remove every trace of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from labwright import kubeconfig
from labwright.errors import HostError
from labwright.names import domain_name, management_name, network_name
from labwright.phases import existing, preflight
from labwright.phases.base import Run
from labwright.providers import PROVIDERS


@dataclass(frozen=True, slots=True)
class Halt:
    """Ends with every machine shut down and its disk kept."""

    name: str = "halt"

    def title(self, run: Run) -> str:
        """Count the machines."""
        return f"Halt {len(run.plan.nodes)} machines"

    def skip(self, run: Run) -> str | None:
        """Never: only Vagrant knows what runs."""
        return None

    def outline(self, run: Run) -> list[str]:
        """Name the machines."""
        return [f"halt {node.name}" for node in run.plan.nodes]

    def execute(self, run: Run) -> None:
        """Halt them. Raises BootError."""
        if not PROVIDERS[run.plan.provider].caps.boots:
            raise existing.not_ours(run)
        run.vagrant.halt(run.tool)
        run.conclude("./invokew lab.up starts them again")


@dataclass(frozen=True, slots=True)
class Destroy:
    """Ends with no machine, network, volume, key, context or file of the lab."""

    name: str = "destroy"

    def title(self, run: Run) -> str:
        """Name the lab."""
        return f"Destroy lab {run.workdir.name}"

    def skip(self, run: Run) -> str | None:
        """Skip what was never made."""
        path = run.workdir.path
        there = (
            run.workdir.exists
            or any(run.tools.docker.owned(path).values())
            or bool(run.tools.libvirt.owned(path))
        )
        return None if there else "there is nothing of it"

    def outline(self, run: Run) -> list[str]:
        """Name what goes."""
        if run.workdir.exists and (named := existing.names(run.plan)):
            return [f"reset {named}", f"remove .lab/{run.workdir.name}"]
        return [f"remove machines, network and .lab/{run.workdir.name}"]

    def execute(self, run: Run) -> None:
        """Remove machines through Vagrant, then what carries the lab's label, then files."""
        if run.workdir.exists and run.plan.machines:
            existing.reset(run, [node.name for node in run.plan.nodes])
        elif run.workdir.exists:
            preflight.wake(run, run.plan.provider)
            run.vagrant.destroy(run.tool)
        if not run.workdir.exists or PROVIDERS[run.plan.provider].caps.own_network:
            run.tools.docker.remove(run.workdir.path)
        if not run.workdir.exists or PROVIDERS[run.plan.provider].caps.management:
            self._clear_libvirt(run)
        try:
            kubeconfig.take_out(kubeconfig.users_file(), f"labwright-{run.workdir.name}")
        except HostError as error:
            # The user's own file is in no state to be changed; the lab goes all the same.
            for finding in error.findings:
                run.finding(replace(finding, level="warning"))
        run.workdir.remove()
        run.conclude("nothing of it is left")

    def _clear_libvirt(self, run: Run) -> None:
        """Remove what Vagrant keeps, or left where it was cut short."""
        name, libvirt = run.workdir.name, run.tools.libvirt
        networks = (network_name(name), management_name(name))
        made = run.plan if run.workdir.exists else None
        domains = [domain_name(name, node.name) for node in made.nodes] if made else []
        libvirt.remove(run.workdir.path, domains, networks)
        # A box of the user's own may be another Vagrantfile's too.
        if made and made.box and made.own_box:
            libvirt.remove_base(made.box.name)
