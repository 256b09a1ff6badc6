"""Compare the plan with the lab that is here: refuse what cannot change, retire what is gone."""

from __future__ import annotations

from dataclasses import dataclass

from labwright.errors import BootError, Finding, HostError, LabError, SpecError
from labwright.locate import made_by
from labwright.model import Plan, Size
from labwright.phases import existing
from labwright.phases.base import Run
from labwright.tools.ssh import Ssh
from labwright.tools.vagrant import Vagrant

ADMIN = "--kubeconfig /etc/kubernetes/admin.conf"
DRAIN_DEADLINE = 60
# Add-ons that hold what only users have: the roles take it away with them.
HOLDERS = {"registry": "all images in it", "rancher": "all that was set up in it"}


@dataclass(frozen=True, slots=True)
class Retire:
    """Ends with no machine that the plan does not have."""

    name: str = "retire"

    def title(self, run: Run) -> str:
        """Name the nodes."""
        gone = leftover(made_by(run.workdir), run.plan)
        return f"Retire {', '.join(gone)}" if gone else "Compare with the lab that is here"

    def skip(self, run: Run) -> str | None:
        """Skip a first up, and one that takes nothing away."""
        made = made_by(run.workdir)
        if made is None:
            return "there is none yet"
        refuse_changes(made, run.plan)
        return None if leftover(made, run.plan) or lost(made, run.plan) else "no node has to go"

    def outline(self, run: Run) -> list[str]:
        """Name what would go."""
        made = made_by(run.workdir)
        nodes = [f"{_way(made, name)} {name}" for name in leftover(made, run.plan)]
        return [*nodes, *(_removal(name) for name in lost(made, run.plan))]

    def execute(self, run: Run) -> None:
        """Drain each node, take it out of the cluster, destroy its machine.

        Add-ons with users' data are only asked for here; their roles remove them. Raises BootError,
        HostError.
        """
        made = made_by(run.workdir)
        if made is None:
            return
        gone, data = leftover(made, run.plan), lost(made, run.plan)
        _ask(run, made, gone, data)
        if not gone:
            run.conclude(f"{', '.join(data)} will go")
            return
        ssh = Ssh(run.tools.shell, run.workdir.ssh_config)
        for name in [node.name for node in made.cluster if node.name in gone]:
            run.say(f"drain {name}")
            self._take_out(run, ssh, made.control_planes[0].name, name)
        if made.machines:
            existing.reset(run, gone)
        else:
            # The Vagrantfile that still has them is the one on disk.
            Vagrant(run.workdir.path, made.provider).destroy(run.tool, gone)
        run.workdir.ssh_config.unlink(missing_ok=True)
        run.conclude(f"{', '.join(gone)} gone")

    def _take_out(self, run: Run, ssh: Ssh, first: str, name: str) -> None:
        drain = (
            f"sudo kubectl {ADMIN} drain {name} --ignore-daemonsets --delete-emptydir-data --force "
            f"--timeout={DRAIN_DEADLINE * run.plan.patience}s"
        )
        delete = f"sudo kubectl {ADMIN} delete node {name} --ignore-not-found"
        try:
            ssh.run(first, drain, timeout=DRAIN_DEADLINE * run.plan.patience + 30)
        except LabError as error:
            # A node that is dead already cannot be drained, and has to go all the same.
            run.tool("; ".join(error.details))
        try:
            ssh.run(first, delete, timeout=30 * run.plan.patience)
        except LabError as error:
            what = f"{name} could not be taken out of the cluster; its machine is kept"
            fix = "bring the control plane up again, or ./invokew lab.destroy"
            raise BootError(
                Finding("boot.retire", "error", what, fix=fix), error.details
            ) from error


def _ask(run: Run, made: Plan, gone: list[str], data: list[str]) -> None:
    """Ask whether nodes and add-ons may go. Raises HostError: not confirmed."""
    ways = list(dict.fromkeys(_way(made, name) for name in gone))
    several = len(ways) > 1 or data or made.machines
    nodes = [f"{_way(made, n)} {_called(made, n)}" for n in gone] if several else ways
    todo = [*nodes, *map(_removal, data)]
    question = f"lab.yaml has no {', '.join([*gone, *data])} any more: {', '.join(todo)}?"
    if not run.consent(question):
        end = "reset" if made.machines else "destroyed, with what is on its disk"
        named = ", ".join(_called(made, name) for name in gone)
        whats = [f"{named} would be {end}"] if gone else []
        whats += [f"{name} would go, and with it {HOLDERS[name]}" for name in data]
        fix = "answer yes, give --yes, or put what is missing back into lab.yaml"
        found = [Finding("host.no-consent", "error", w, "not confirmed", fix) for w in whats]
        raise HostError(found)


def leftover(made: Plan | None, wanted: Plan) -> list[str]:
    """Give the nodes that were made and are planned no more."""
    names = {node.name for node in wanted.nodes}
    return [node.name for node in made.nodes if node.name not in names] if made else []


def lost(made: Plan | None, wanted: Plan) -> list[str]:
    """Give the add-ons with users' data that the lab has and the plan does not."""
    here = made.addons if made else ()
    return [name for name in HOLDERS if name in here and name not in wanted.addons]


def _removal(name: str) -> str:
    return f"remove {name} and {HOLDERS[name]}"


def _way(made: Plan | None, name: str) -> str:
    """Say how a node goes: one beside the cluster has nothing to drain."""
    beside = made is not None and name not in {node.name for node in made.cluster}
    end = "reset" if made is not None and made.machines else "destroy"
    return end if beside else f"drain, delete and {end}"


def _called(made: Plan, name: str) -> str:
    """Name a node; a machine that is not ours to remove by its address too."""
    return existing.named(made, [name]) if made.machines else name


def refuse_changes(made: Plan, wanted: Plan) -> None:
    """Raise SpecError for each change that a lab which is up cannot follow."""
    fixed = {
        "provider": (made.provider, wanted.provider),
        "supply": (made.origin, wanted.origin),
        "kubernetes": (made.versions["kubernetes"], wanted.versions["kubernetes"]),
        "network.subnet": (str(made.subnet), str(wanted.subnet)),
        "network.pods": (str(made.pods), str(wanted.pods)),
        "network.services": (str(made.services), str(wanted.services)),
        "kube_proxy": (made.kube_proxy, wanted.kube_proxy),
    }
    before = {node.name: node for node in made.nodes}
    for node in wanted.nodes:
        if node.name not in before:
            continue
        if made.machines and wanted.machines:
            was = before[node.name].address
            fixed[f"machines.{node.name}"] = (str(was.ip), str(node.address.ip))
        else:
            fixed[f"nodes.{node.name}"] = (_size(before[node.name].size), _size(node.size))
    found = [
        Finding(
            "spec.cannot-change",
            "error",
            f"{new} is asked for, and the lab was made with {old}",
            "a cluster and its machines keep these for life",
            f"put {old} back, or ./invokew lab.destroy and lab.up",
            key,
        )
        for key, (old, new) in fixed.items()
        if old != new
    ]
    if found:
        raise SpecError(found)


def _size(size: Size) -> str:
    return f"{size.cpus} CPU, {size.memory} MiB memory, {size.disk} MiB disk"
