"""Machines that are there already: meet them, measure them, connect to them, give them back."""

from __future__ import annotations

import contextlib
import getpass
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from labwright import machines as judging
from labwright import render
from labwright.errors import BootError, Finding, HostError
from labwright.locate import read_plan
from labwright.model import SUPPLY_PORT, Existing, Machine, MachineFacts, Plan, Survey
from labwright.phases.base import Run
from labwright.tools import ansible, machines
from labwright.tools.machines import Shown
from labwright.tools.serve import listening
from labwright.tools.ssh import Ssh
from labwright.tools.workdir import write

OWNER = "owner"
# More at once only wait for this computer's own cores.
AT_ONCE = 16


def begin(run: Run) -> None:
    """Begin to act on a lab: from now on what the user says of it is kept in its folder."""
    if not run.spec.machines:
        return
    if not owner(run):
        write(run.workdir.path / OWNER, uuid.uuid4().hex + "\n", 0o600)
    run.survey = _survey(run, keep=True)


def owner(run: Run) -> str:
    """Give the id by which machines know this folder's lab; empty before the first lab.up."""
    try:
        return (run.workdir.path / OWNER).read_text("utf-8").strip()
    except OSError:
        return ""


def survey(run: Run) -> Survey | None:
    """Measure the machines that lab.yaml names, once a run; nothing on them is changed.

    Raises HostError: a host key that nobody has vouched for.
    """
    if run.survey is None and run.spec.machines:
        run.survey = _survey(run, keep=False)
    return run.survey


@dataclass
class _Meeting:
    """One round of meeting machines; ``known`` maps a name in ssh's configuration to its keys."""

    run: Run
    scratch: Path
    config: Path
    known_hosts: Path
    known: dict[str, list[Shown]] = field(default_factory=dict)
    problems: list[Finding] = field(default_factory=list)

    def note(self) -> None:
        """Write down whose keys are known."""
        lines = [f"{n} {key.kind} {key.blob}\n" for n, keys in self.known.items() for key in keys]
        write(self.known_hosts, "".join(lines), 0o600)


def _survey(run: Run, *, keep: bool) -> Survey:
    there = {e.machine.name: e.machine for e in run.spec.machines}
    shell = run.tools.shell
    if not shell.has("ssh"):
        what, fix = "ssh is not installed", "sudo apt-get install openssh-client"
        raise HostError(Finding("hosts.no-ssh", "error", what, fix=fix))
    if found := [*_no_such_keys(there)]:
        raise HostError(found)
    with tempfile.TemporaryDirectory(prefix="labwright-") as folder:
        scratch = Path(folder)
        known_hosts = scratch / "known_hosts"
        meeting = _Meeting(run, scratch, scratch / "ssh_config", known_hosts)
        write(meeting.config, render.existing_config(there, known_hosts), 0o600)
        _meet(meeting, keep=keep)
        us = _us(there.values())
        with _heard(us) as port:
            facts = _measure_all(meeting, list(there), (str(us), port) if us and port else None)
    reached = bool(facts) and all(machine.reaches_us for machine in facts.values())
    return Survey(
        machines=facts,
        problems=tuple(meeting.problems),
        here=machines.own_addresses(shell),
        here_id=machines.here_id(),
        us=us if reached else None,
    )


def _no_such_keys(there: Mapping[str, Machine]) -> Iterator[Finding]:
    for name, machine in there.items():
        keys = {machine.key, machine.bastion.key if machine.bastion else ""}
        for path in sorted(keys - {""}):
            if not Path(path).is_file():
                what, fix = f"there is no key {path}", "key: the private half of a key pair"
                yield Finding("hosts.no-key", "error", what, "", fix, f"machines.{name}.key")


def _meet(meeting: _Meeting, *, keep: bool) -> None:
    """See to it that the key of each machine is known, bastions first: the others are behind."""
    run = meeting.run
    meeting.known = _read_known(run.workdir.known_hosts)
    named = {e.machine.name: e for e in run.spec.machines}
    hops = render.bastions({name: e.machine for name, e in named.items()})
    wanted = {name: hop.host_key for name, hop in hops.items()}
    _learn(meeting, wanted, {name: (hop.host, hop.port) for name, hop in hops.items()}, keep=keep)
    wanted = {name: e.host_key for name, e in named.items()}
    # What the user's own known_hosts says of an address behind a bastion is of another network.
    places = {
        name: ("" if e.machine.bastion else e.machine.host, e.machine.port)
        for name, e in named.items()
    }
    _learn(meeting, wanted, places, keep=keep)


def _learn(
    meeting: _Meeting,
    wanted: Mapping[str, str],
    places: Mapping[str, tuple[str, int]],
    *,
    keep: bool,
) -> None:
    """Learn the keys of machines that were never met. Raises HostError."""
    run, shell = meeting.run, meeting.run.tools.shell
    for name, key in wanted.items():
        if key and not any(known.is_named(key) for known in meeting.known.get(name, ())):
            # lab.yaml speaks for a machine that was made anew.
            meeting.known.pop(name, None)
    strange = [name for name in wanted if name not in meeting.known]
    meeting.note()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        job = {
            n: pool.submit(machines.show, shell, meeting.config, n, meeting.scratch)
            for n in strange
        }
    asked: dict[str, Shown] = {}
    for name in strange:
        shown = job[name].result()
        if isinstance(shown, Finding):
            meeting.problems.append(shown)
            continue
        host, port = places[name]
        if wanted[name]:
            if not shown.is_named(wanted[name]):
                raise HostError(_other_key(name, shown, wanted[name]))
        elif theirs := machines.users_keys(shell, host, port) if host else []:
            if shown not in theirs and shown.kind in {key.kind for key in theirs}:
                raise HostError(_other_key(name, shown, "the one in your known_hosts"))
            if shown not in theirs:
                asked[name] = shown
        else:
            asked[name] = shown
        meeting.known[name] = [shown]
    if asked:
        _ask(run, asked, places)
    meeting.note()
    if keep and strange:
        write(run.workdir.known_hosts, meeting.known_hosts.read_text("utf-8"), 0o600)


def _ask(run: Run, asked: Mapping[str, Shown], places: Mapping[str, tuple[str, int]]) -> None:
    lines = [f"{name} {places[name][0]} {k.kind} {k.fingerprint}" for name, k in asked.items()]
    for line in lines:
        run.say(f"met for the first time: {line}")
    question = "These machines show these host keys:\n  " + "\n  ".join(lines) + "\nAre they right?"
    if not run.consent(question):
        raise HostError(
            Finding(
                "hosts.unknown-host-key",
                "error",
                f"nobody has said that these host keys are right: {', '.join(asked)}",
                "; ".join(lines),
                "./invokew lab.up asks; or give each machine its host_key in lab.yaml",
                "machines",
                judging.DOCS,
            )
        )


def _other_key(name: str, shown: Shown, wanted: str) -> Finding:
    what = f"it shows the host key {shown.kind} {shown.fingerprint}, not {wanted}"
    fix = "find out who answers there; if it is right, change host_key or your known_hosts"
    return Finding("hosts.other-host-key", "error", what, "", fix, f"machines.{name}", judging.DOCS)


def _read_known(path: Path) -> dict[str, list[Shown]]:
    try:
        lines = [line.split() for line in path.read_text("utf-8").splitlines()]
    except OSError:
        return {}
    known: dict[str, list[Shown]] = {}
    for words in lines:
        if len(words) > 2:
            known.setdefault(words[0], []).append(Shown(words[1], words[2]))
    return known


def _us(there: Iterable[Machine]) -> IPv4Address | None:
    """Give the one address from which this computer speaks to all; ``None`` through a bastion."""
    found: set[IPv4Address | None] = set()
    for machine in there:
        found.add(None if machine.bastion else machines.source_address(machine.host))
    return found.pop() if len(found) == 1 else None


@contextlib.contextmanager
def _heard(us: IPv4Address | None) -> Iterator[int]:
    """Listen where the supply will be served, so that machines can try; 0 where we cannot."""
    with contextlib.ExitStack() as stack:
        port = 0
        for wish in (SUPPLY_PORT, 0) if us else ():
            with contextlib.suppress(HostError):
                url = stack.enter_context(listening(lambda _target: None, str(us), wish))
                port = int(url.rpartition(":")[2])
                break
        yield port


def _measure_all(
    meeting: _Meeting, names: Sequence[str], us: tuple[str, int] | None
) -> dict[str, MachineFacts]:
    met = [name for name in names if name in meeting.known]
    shell, config = meeting.run.tools.shell, meeting.config
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(
            lambda name: machines.measure(shell, config, name, judging.NEEDED, us), met
        )
        said = dict(zip(met, found, strict=True))
    meeting.problems += [facts for facts in said.values() if isinstance(facts, Finding)]
    return {name: facts for name, facts in said.items() if isinstance(facts, MachineFacts)}


def connect(run: Run) -> None:
    """Write down how ssh and Ansible reach the machines: preflight has just been there."""
    there = {e.machine.name: e.machine for e in run.plan.machines}
    folder = run.workdir
    write(folder.ssh_config, render.existing_config(there, folder.known_hosts), 0o600)
    users = {name: machine.user or getpass.getuser() for name, machine in there.items()}
    inventory = render.existing_machines(users, folder.ssh_config)
    write(folder.inventory / "machines.yml", inventory, 0o600)


def answers(run: Run, names: Sequence[str] = ()) -> dict[str, bool]:
    """Say which machines of a made lab let us in."""
    asked = list(names) or [e.machine.name for e in run.plan.machines]
    if not run.workdir.ssh_config.is_file():
        return dict.fromkeys(asked, False)
    ssh = Ssh(run.tools.shell, run.workdir.ssh_config)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(asked, pool.map(ssh.answers, asked), strict=True))


def names(plan: Plan) -> str:
    """Name every machine of a made lab with its address; nothing for machines that we made."""
    return named(plan, [e.machine.name for e in plan.machines])


def named(plan: Plan, wanted: Sequence[str]) -> str:
    """Name some machines with their addresses."""
    found: list[Existing] = [e for e in plan.machines if e.machine.name in wanted]
    return ", ".join(f"{e.machine.name} ({e.machine.host})" for e in found)


def not_ours(run: Run) -> BootError:
    """Say that machines which Labwright did not start are not its to stop."""
    return BootError(
        Finding(
            "boot.not-ours",
            "error",
            f"the machines of lab {run.workdir.name} are not Labwright's to halt",
            "it did not start them, and could not start them again",
            "halt them yourself: ./invokew lab.ssh w1 --command 'sudo poweroff'; lab.up goes on "
            "when they are back; lab.destroy takes the lab off them",
            "",
            judging.DOCS,
        )
    )


def reset(run: Run, wanted: Sequence[str]) -> None:
    """Give machines back as they were. Raises ConvergeError, HostError.

    One that does not answer is left as it is, if the user says so.
    """
    made = read_plan(run.workdir)
    if not run.workdir.ssh_config.is_file():
        return  # Nothing was done on any of them yet.
    alive = answers(run, wanted)
    silent = [name for name, answer in alive.items() if not answer]
    if silent:
        _leave(run, named(made, silent))
    todo = [name for name in wanted if alive[name]]
    if todo:
        _play(run, todo)
    _forget(run, wanted)


def _forget(run: Run, gone: Sequence[str]) -> None:
    """Forget the host keys: what bears the name next is another machine."""
    known = _read_known(run.workdir.known_hosts)
    lines = [
        f"{name} {key.kind} {key.blob}\n"
        for name, keys in known.items()
        if name not in gone
        for key in keys
    ]
    write(run.workdir.known_hosts, "".join(lines), 0o600)


def _play(run: Run, todo: Sequence[str]) -> None:
    run.say(f"reset {', '.join(todo)}")
    ansible.play(
        "reset.yml",
        [render.ROOT / "inventory", run.workdir.inventory],
        run.workdir.path / "ansible",
        run.workdir.known_hosts,
        run.step,
        on_line=run.tool,
        limit=todo,
    )
    ssh = Ssh(run.tools.shell, run.workdir.ssh_config)
    for name in todo:
        ssh.run(name, _SWEEP)


# What Ansible itself worked in. A folder that somebody keeps something in stays.
_SWEEP = (
    'for home in "$HOME" /root; do sudo rmdir --ignore-fail-on-non-empty '
    '"$home/.ansible/tmp" "$home/.ansible" 2> /dev/null; done; true'
)


def _leave(run: Run, silent: str) -> None:
    what = f"{silent} cannot be reached, and would stay as it is"
    fix = "bring it back and run the same command again, or say that it is to be left"
    if not run.consent(f"{silent} cannot be reached. Leave it as it is, and forget it?"):
        raise HostError(Finding("hosts.silent", "error", what, "not confirmed", fix))
    later = f"on the machine itself, when it is back: {judging.RESET}"
    run.finding(Finding("hosts.left", "warning", f"{silent} was left as it is", "", later))
