"""The commands: each a list of phases, or one question asked of a lab."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labwright import __version__, addons, catalog, kubeconfig, lock, render, spec
from labwright.errors import INTERRUPTED, Finding, HostError, LabError, SpecError
from labwright.events import Event, Journal, Sink, nowhere, tee
from labwright.locate import lock_of, name_of, read_lock, read_plan, read_spec
from labwright.model import Node, Plan
from labwright.phases import boot, conformance, diagnosis, existing, preflight, rancher, support
from labwright.phases.bake import Bake
from labwright.phases.base import Phase, Run, Tools, run_all
from labwright.phases.boot import Boot
from labwright.phases.bundling import Collect, Pack
from labwright.phases.conformance import Collect as CollectTests
from labwright.phases.conformance import Conform
from labwright.phases.converge import Converge
from labwright.phases.export import Export
from labwright.phases.fetch import Fetch, stock
from labwright.phases.preflight import Preflight
from labwright.phases.render_files import RenderFiles, WriteLock
from labwright.phases.retire import ADMIN, Retire
from labwright.phases.teardown import Destroy, Halt
from labwright.phases.verify import Verify
from labwright.tools import labs, nodes, workdir
from labwright.tools.docker import Docker
from labwright.tools.shell import Shell
from labwright.tools.ssh import Ssh
from labwright.tools.store import Store
from labwright.tools.workdir import Workdir

UP: tuple[Phase, ...] = (
    Preflight(claims=True),
    Fetch(),
    Bake(),
    Retire(),
    RenderFiles(),
    Boot(),
    Converge(),
    Export(),
    Verify(),
)


@dataclass
class Options:
    """What a command was asked with.

    ``lab`` is a lab's name or a lab.yaml's path, ``supply`` one to take instead of lab.yaml's;
    ``locked`` refuses to differ from lab.lock; ``lenient`` is for a look at the host, whatever
    lab.yaml says.
    """

    lab: str = ""
    yes: bool = False
    verbose: bool = False
    supply: str = ""
    locked: bool = False
    lenient: bool = False
    root: Path = field(default_factory=Path.cwd)
    sink: Sink = nowhere
    ask: Callable[[str], bool] = lambda _question: False


class Lab:
    """One lab and the commands on it."""

    def __init__(self, options: Options) -> None:
        """Find the lab that is meant. Raises SpecError."""
        self.options = options
        self.name = name_of(options.root, options.lab, lenient=options.lenient)
        self.workdir = Workdir(options.root, self.name)
        store = Store(workdir.cache() / "store", lambda text: self._sink(Event("say", text)))
        shell = Shell()
        self.tools = Tools(shell, store, Docker(shell))
        self._sink: Sink = options.sink

    def up(self) -> Plan:
        """Make the lab real and prove it. Raises LabError."""
        return self._phases("lab.up", UP, self._wanted()).plan

    def verify(self) -> None:
        """Prove a lab that is up. Raises VerifyError."""
        self._phases("lab.verify", (Verify(),), self._made())

    def conform(self, phase: Conform) -> Path:
        """Run Kubernetes' conformance tests on a lab that is up, and give the report's folder.

        Raises VerifyError: a test failed.
        """
        run = self._made()
        self._phases("lab.conformance", (CollectTests(), phase), run)
        return conformance.folder(run)

    def down(self) -> None:
        """Halt the machines; what is on them stays. Raises BootError."""
        self._phases("lab.down", (Halt(),), self._made())

    def destroy(self) -> None:
        """Remove every trace of the lab, after asking by name. Raises BootError, HostError."""
        question = f"Destroy lab {self.name}: its machines, disks, keys and reports?"
        why = "not confirmed"
        if self.workdir.exists and (named := existing.names(self._made().plan)):
            question = (
                f"Destroy lab {self.name}: take Kubernetes, its packages and all data of the lab "
                f"off these machines: {named}; and its keys and reports here?"
            )
            why = f"not confirmed for {named}"
        if not (self.options.yes or self.options.ask(question)):
            what = f"lab {self.name} was left as it is"
            fix = "answer yes, or give --yes"
            raise HostError(Finding("host.no-consent", "error", what, why, fix))
        run = self._made() if self.workdir.exists else self._wanted()
        self._phases("lab.destroy", (Destroy(),), run)
        # Holding a lab that never was has made its folder.
        self.workdir.remove()
        labs.forget(self.workdir.path)

    def plan(self) -> tuple[Plan, list[tuple[str, list[str]]], dict[str, str]]:
        """Give the plan, each phase's outline and the rendered files; touch nothing."""
        run = self._wanted()
        facts = preflight.measure(self.tools, run.spec)
        made = preflight.make(run, facts, preflight.peek_bundle(run))
        run.settle(preflight.with_kept_pins(run, made))
        outlines = [(phase.title(run), _outline(phase, run)) for phase in UP]
        return run.plan, outlines, render.files(run.plan, stock(run))

    def lock(self, upgrade: Collection[str] | None) -> tuple[Path, list[str]]:
        """Resolve the lab and write its lab.lock; give that file and what changed in it.

        ``upgrade`` names components to move to the newest that goes; an empty one moves all,
        ``None`` none. Raises LabError.
        """
        run = self._wanted()
        before = run.locked.content
        known = catalog.load()
        if upgrade is not None:
            unknown = [name for name in upgrade if name not in known.components]
            if unknown:
                what = f"there is no component {', '.join(unknown)}"
                fix = "./invokew lab.versions lists them"
                raise SpecError(Finding("spec.unknown-component", "error", what, fix=fix))
            run.locked = run.locked.without(upgrade, known)
        try:
            self._phases("lab.lock", (Preflight(), Fetch(), WriteLock()), run)
        finally:
            # Holding a lab that was never made has made its folder.
            if not self.workdir.exists:
                self.workdir.remove()
        path = lock_of(self.options.root, run.spec)
        return path, lock.drift(before, read_lock(path).content) if before else []

    def versions(self) -> tuple[catalog.Catalog, Plan | None, LabError | None]:
        """Give the catalog, and the plan of this lab or why there is none."""
        run = self._wanted()
        facts = preflight.measure(self.tools, run.spec)
        try:
            return catalog.load(), preflight.make(run, facts, preflight.peek_bundle(run)), None
        except LabError as error:
            return catalog.load(), None, error

    def bundle(self, target: Path) -> None:
        """Make a bundle of a lab that was made. Raises SupplyError, HostError."""
        self._phases("bundle.make", (Collect(), Pack(target)), self._made())

    def software(self) -> nodes.Software:
        """Give what is on the nodes: asked now, or as the last lab.up found it."""
        names = [node.name for node in self._made().plan.nodes]
        try:
            return nodes.record(Ssh(self.tools.shell, self.workdir.ssh_config), names)
        except LabError:
            return nodes.load(self.workdir.path / nodes.RECORD)

    def doctor(self) -> diagnosis.Diagnosis:
        """Measure the host, judge each provider, and say what this lab would meet here."""
        try:
            run = self._wanted()
        except SpecError as error:
            # A host can be looked at whatever is wrong with lab.yaml.
            return diagnosis.of_host(self.tools, error.findings)
        return diagnosis.diagnose(run)

    def support(self, target: Path) -> tuple[Path, list[str]]:
        """Pack what others need to see of this lab, secrets taken out; give what is inside.

        ``target`` is a folder or the archive to be.
        """
        checkup = diagnosis.of_host(self.tools).checkup
        return support.pack(self._run(), checkup, support.archive(target, self.name))

    def status(self) -> dict[str, Any]:
        """Give the lab's state as JSON-like data: ``nodes`` by name, and the first ``problem``."""
        run = self._made()
        states = boot.states(run)
        first = run.plan.control_planes[0].name
        problem, ready = "", {}
        if states.get(first) == "running":
            try:
                ready = self._ready(first, run.plan.patience)
            except LabError as error:
                problem = "; ".join([error.findings[0].what, *error.details[-1:]])
        return {
            "lab": run.plan.name,
            "provider": run.plan.provider,
            "kubernetes": run.plan.versions["kubernetes"],
            "api": f"https://{run.plan.endpoint}",
            "problem": problem,
            "nodes": {
                node.name: {
                    "role": node.role,
                    "address": str(node.address.ip),
                    "machine": states.get(node.name, "absent"),
                    **_in_cluster(node, ready),
                }
                for node in run.plan.nodes
            },
        }

    def addons(self) -> list[addons.State]:
        """Give the state of every add-on there is, as the cluster says it now."""
        plan = self._made().plan
        ssh = Ssh(self.tools.shell, self.workdir.ssh_config)
        try:
            text = ssh.run(plan.control_planes[0].name, f"sudo kubectl {ADMIN} {addons.ASK}")
            items = json.loads(text)["items"]
        except LabError:
            items = None
        return list(addons.states(plan, catalog.load().addons, items))

    def rancher(self) -> rancher.Access:
        """Give what a person needs to log in to Rancher, but the password. Raises SpecError."""
        plan = self._made().plan
        if plan.rancher is None:
            what, fix = f"lab {self.name} has no Rancher", "add rancher to addons, and lab.up"
            raise SpecError(Finding("spec.no-rancher", "error", what, fix=fix, where="addons"))
        state = next(s.state for s in self.addons() if s.name == rancher.NAME)
        return rancher.access(plan, self.workdir.path, state)

    def ssh(self, node: str, command: Sequence[str] = ()) -> int:
        """Open a shell on a node, or run a command there; give its exit code."""
        names = [n.name for n in self._made().plan.nodes]
        if node not in names:
            what = f"lab {self.name} has no node {node!r}"
            raise SpecError(
                Finding("spec.unknown-node", "error", what, fix=f"take {', '.join(names)}")
            )
        words = Ssh(self.tools.shell, self.workdir.ssh_config).words(node, *command)
        return self.tools.shell.hand_over(words)

    def kubeconfig(self) -> str:
        """Give the text of the lab's kubeconfig. Raises HostError before the first up."""
        if not self.workdir.kubeconfig.is_file():
            what = f"lab {self.name} has no kubeconfig yet"
            raise HostError(Finding("host.no-kubeconfig", "error", what, fix="./invokew lab.up"))
        return self.workdir.kubeconfig.read_text("utf-8")

    def merge_kubeconfig(self) -> Path:
        """Merge the lab's context into the user's kubeconfig, and give that file."""
        target = kubeconfig.users_file()
        kubeconfig.merge(target, self.kubeconfig())
        return target

    def _ready(self, first: str, patience: int) -> dict[str, Any]:
        ssh = Ssh(self.tools.shell, self.workdir.ssh_config)
        command = f"sudo kubectl {ADMIN} get nodes -o json"
        items = json.loads(ssh.run(first, command, timeout=30 * patience))["items"]
        return {item["metadata"]["name"]: _node_state(item) for item in items}

    def _phases(self, command: str, phases: Sequence[Phase], run: Run) -> Run:
        with self.workdir.held(command), self._journalled(command):
            run_all(phases, run)
        return run

    @contextlib.contextmanager
    def _journalled(self, command: str) -> Iterator[None]:
        journal = Journal(self.workdir.journal)
        self._sink = tee(journal, self.options.sink)
        start = time.monotonic()
        data = {"command": command, "lab": self.name, "labwright": __version__}
        journal(Event("run", command, data={**data, "pid": os.getpid()}))
        code = 1
        try:
            yield
            code = 0
        except LabError as error:
            code = error.exit_code
            for finding in error.findings:
                journal(Event("finding", finding=finding))
            raise
        except KeyboardInterrupt:
            code = INTERRUPTED
            raise
        finally:
            # After lab.destroy there is no folder to keep a journal in.
            if self.workdir.path.is_dir():
                seconds = time.monotonic() - start
                journal(Event("end", command, seconds=seconds, data={"exit": code}))

    def _tell(self, event: Event) -> None:
        """Send an event to wherever events go now: a run's journal comes after its Run."""
        self._sink(event)

    def _wanted(self) -> Run:
        """Give a run on what lab.yaml asks for now."""
        run, options = self._run(), self.options
        run.wanted = read_spec(options.root, options.lab)
        if options.supply:
            run.wanted = spec.with_supply(run.wanted, options.supply)
        run.lock_file = lock_of(options.root, run.wanted)
        run.locked = read_lock(run.lock_file)
        run.strict = options.locked
        return run

    def _made(self) -> Run:
        """Give a run on the lab as it was made."""
        run = self._run()
        run.settle(read_plan(self.workdir))
        return run

    def _run(self) -> Run:
        options = self.options
        return Run(
            workdir=self.workdir,
            tools=self.tools,
            sink=self._tell,
            consent=lambda question: options.yes or options.ask(question),
        )


def _in_cluster(node: Node, ready: Mapping[str, Any]) -> Mapping[str, str]:
    if not node.in_cluster:
        return {"kubernetes": "not in it", "version": ""}
    known: Mapping[str, str] = ready.get(node.name, {"kubernetes": "unknown", "version": ""})
    return known


def _outline(phase: Phase, run: Run) -> list[str]:
    reason = phase.skip(run)
    return [f"nothing: {reason}"] if reason else phase.outline(run)


def _node_state(item: Any) -> dict[str, str]:
    conditions = {c["type"]: c["status"] for c in item["status"]["conditions"]}
    state = "Ready" if conditions.get("Ready") == "True" else "NotReady"
    return {"kubernetes": state, "version": item["status"]["nodeInfo"]["kubeletVersion"]}
