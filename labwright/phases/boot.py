"""Bring the machines up through Vagrant, and note how ssh reaches them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from labwright import render
from labwright.errors import BootError, Finding
from labwright.model import Machine
from labwright.names import domain_name, network_name
from labwright.phases import existing
from labwright.phases.base import Run
from labwright.phases.boxing import ensure_box
from labwright.providers import PROVIDERS
from labwright.tools.ssh import ensure_key, host_keys, key_lines
from labwright.tools.vagrant import parse_ssh_config
from labwright.tools.workdir import Workdir, write

# How long a machine may take to show its host key, in seconds.
KEYS_DEADLINE = 90


@dataclass(frozen=True, slots=True)
class Boot:
    """Ends with every planned machine running."""

    name: str = "boot"

    def title(self, run: Run) -> str:
        """Count the machines."""
        if not _boots(run):
            return f"Note how to reach {len(run.plan.nodes)} machines"
        return f"Boot {len(run.plan.nodes)} machines on {run.plan.provider}"

    def skip(self, run: Run) -> str | None:
        """Never: only Vagrant knows what runs."""
        return None

    def outline(self, run: Run) -> list[str]:
        """Name the machines with their addresses and sizes."""
        nodes = run.plan.nodes
        if not _boots(run):
            return [f"reach {n.name} ({n.role.replace('_', ' ')}) at {n.address.ip}" for n in nodes]
        there = answering(run)
        return [
            f"{_way(run, n.name, there)} {n.name} ({n.role.replace('_', ' ')}) at {n.address.ip}, "
            f"{n.size.cpus} CPU, {n.size.memory} MiB"
            for n in nodes
        ]

    def execute(self, run: Run) -> None:
        """Start what does not run. Raises BootError."""
        if not _boots(run):
            existing.connect(run)
            run.conclude("all answer")
            return
        ensure_network(run)
        if self._all_answer(run):
            run.conclude("all were running")
            return
        ensure_key(run.tools.shell, run.workdir.path / "ssh" / "id_ed25519", run.plan.context)
        states = run.vagrant.states()
        down = [n.name for n in run.plan.nodes if states.get(n.name) != "running"]
        if down:
            absent = [n for n in down if states.get(n, "absent") == "absent"]
            make_ready(run, absent)
            ensure_box(run)
            run.say(f"start {', '.join(down)}")
            _start(run, down, absent)
        # Also where all run: one did not answer where it was, and may have another lease now.
        self._note(run)
        run.conclude(f"started {', '.join(down)}" if down else "all were running")

    def _all_answer(self, run: Run) -> bool:
        """Whether each node shows the host key we know: it runs, and Vagrant need not be asked.

        A call of Vagrant's costs two seconds, most of a second `lab.up` that finds all done.
        """
        reached = read_machines(run.workdir)
        if set(reached) != {node.name for node in run.plan.nodes}:
            return False
        known = run.workdir.known_hosts.read_text("utf-8").splitlines()
        try:
            shown = host_keys(run.tools.shell, reached.values(), deadline=0)
        except BootError:
            return False
        return set(key_lines(shown)) <= set(known)

    def _note(self, run: Run) -> None:
        reached = run.vagrant.machines()
        missing = [n.name for n in run.plan.nodes if n.name not in reached]
        if missing:
            what = f"Vagrant knows no way to reach {', '.join(missing)}"
            fix = "run the same command again; if it stays so, ./invokew lab.destroy"
            raise BootError(Finding("boot.unreachable", "error", what, fix=fix))
        # A machine made anew has a new host key at the same port.
        hosts = run.workdir.known_hosts
        deadline = KEYS_DEADLINE * run.plan.patience
        write(hosts, host_keys(run.tools.shell, reached.values(), deadline), 0o600)
        write(run.workdir.ssh_config, render.ssh_config(reached, hosts), 0o600)
        write(run.workdir.inventory / "machines.yml", render.machines(reached), 0o600)


def _start(run: Run, names: list[str], fresh: list[str]) -> None:
    if PROVIDERS[run.plan.provider].caps.boots_apart:
        # A machine that boots keeps about one processor busy. Memory sets no bound of its own: in
        # the end all of them run.
        run.vagrant.up_apart(names, run.tool, at_once=run.plan.host_cpus, fresh=fresh)
    else:
        run.vagrant.up(names, run.tool)


def read_machines(folder: Workdir) -> dict[str, Machine]:
    """Give how ssh reached the nodes when they were last booted; nothing before that."""
    if not (folder.ssh_config.is_file() and folder.known_hosts.is_file()):
        return {}
    return parse_ssh_config(folder.ssh_config.read_text("utf-8"))


def any_answers(run: Run) -> bool:
    """Whether at least one machine of a made lab shows an ssh host key."""
    return bool(answering(run, one=True))


def answering(run: Run, *, one: bool = False) -> set[str]:
    """Give the machines of a made lab that show an ssh host key; with ``one``, the first of them.

    Vagrant is not asked, as ``lab.plan`` may run before it is installed.
    """
    if not _boots(run):
        return {name for name, answers in existing.answers(run).items() if answers}
    found: set[str] = set()
    for name, machine in read_machines(run.workdir).items():
        try:
            host_keys(run.tools.shell, [machine], deadline=0)
        except BootError:
            continue
        found.add(name)
        if one:
            break
    return found


def _way(run: Run, name: str, there: Collection[str]) -> str:
    """Say what boot would do with a machine: one that was made and does not answer is halted."""
    if name in there:
        return "leave as it runs:"
    return "start" if name in read_machines(run.workdir) else "boot"


def states(run: Run) -> dict[str, str]:
    """Give each machine's state: ``running``, or the provider's own word."""
    if not _boots(run):
        return {name: "running" if a else "silent" for name, a in existing.answers(run).items()}
    return run.vagrant.states()


def _boots(run: Run) -> bool:
    return PROVIDERS[run.plan.provider].caps.boots


def ensure_network(run: Run) -> None:
    """Make the lab's network where the provider leaves that to us."""
    plan = run.plan
    if PROVIDERS[plan.provider].caps.own_network:
        name, gateway = network_name(plan.name), str(plan.host_address)
        folder, subnet = run.workdir.path, str(plan.subnet)
        run.tools.docker.ensure_network(name, folder, subnet, gateway, plan.mtu)


def make_ready(run: Run, absent: Collection[str]) -> None:
    """Make the hypervisor ready: its pool, and no remains of a boot that was cut short.

    ``absent`` are the nodes of which Vagrant knows no machine.
    """
    plan = run.plan
    caps = PROVIDERS[plan.provider].caps
    if caps.own_network:
        # One that Docker could not start, for its port is taken, is made all the same.
        strays = [domain_name(plan.name, name) for name in absent]
        run.tools.docker.remove_strays(run.workdir.path, strays)
    if caps.management:
        # Where the console's words go; libvirt makes the file, and no folder.
        (run.workdir.path / "logs").mkdir(parents=True, exist_ok=True)
        domains = [domain_name(plan.name, node.name) for node in plan.nodes]
        run.tools.libvirt.make_ready(domains, run.workdir.path)
