"""What stands between Invoke and the commands: printing and exit codes."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from invoke.exceptions import Exit

from labwright import __version__
from labwright.console import Console
from labwright.errors import INTERRUPTED, HostError, LabError, errors
from labwright.lab import Lab, Options
from labwright.model import HostFacts, Plan

# ssh's own exit code for a connection that did not come about.
SSH_FAILED = 255


def up(lab: str, *, yes: bool, verbose: bool) -> None:
    """Bring a lab up and say what was made."""
    with _session(lab, yes=yes, verbose=verbose) as (it, console):
        console.print(f"Labwright {__version__}: lab {it.name}")
        start = time.monotonic()
        plan = it.up()
        _made(it, plan, console, time.monotonic() - start)


def plan(lab: str, *, files: bool) -> None:
    """Print a dry run."""
    with _session(lab) as (it, console):
        made, outlines, rendered = it.plan()
        _choices(made, console)
        for warning in made.warnings:
            console.finding(warning)
        for number, (title, lines) in enumerate(outlines, start=1):
            console.print(f"[{number}/{len(outlines)}] {title}")
            for line in lines:
                console.print(f"      {line}")
        if files:
            for name, text in rendered.items():
                console.print(f"\n--- {name}")
                console.raw(text)


def status(lab: str, *, as_json: bool) -> None:
    """Print a lab's state, as a table or as JSON."""
    with _session(lab) as (it, console):
        state = it.status()
        if as_json:
            console.raw(json.dumps(state, indent=2) + "\n")
            return
        console.print(
            f"lab {state['lab']}: Kubernetes {state['kubernetes']} on {state['provider']}, "
            f"API {state['api']}"
        )
        keys = ("role", "address", "machine", "kubernetes", "version")
        rows = [[name, *(node[key] for key in keys)] for name, node in state["nodes"].items()]
        console.rows(rows, ("node", *keys))
        if state["problem"]:
            console.print(f"the API did not answer: {state['problem']}")


def verify(lab: str, *, verbose: bool) -> None:
    """Prove a lab."""
    with _session(lab, verbose=verbose) as (it, console):
        it.verify()
        console.print(f"report: {it.workdir.path / 'report' / 'verify.xml'}")


def ssh(lab: str, node: str, command: str) -> None:
    """Hand the terminal to ssh, and end with its exit code."""
    with _session(lab) as (it, console):
        code = it.ssh(node, [command] if command else [])
        if code == SSH_FAILED:
            console.print(
                f"ssh to {node} ended with 255; is the lab up? ./invokew lab.up starts it"
            )
    _end(code)


def kubeconfig(lab: str, *, merge: bool) -> None:
    """Print or merge a kubeconfig."""
    with _session(lab) as (it, console):
        if not merge:
            console.raw(it.kubeconfig())
            return
        target = it.merge_kubeconfig()
        console.print(f"{target} has the context labwright-{it.name}, and it is the current one")


def down(lab: str, *, verbose: bool) -> None:
    """Halt a lab."""
    with _session(lab, verbose=verbose) as (it, _):
        it.down()


def destroy(lab: str, *, yes: bool, verbose: bool) -> None:
    """Remove a lab."""
    with _session(lab, yes=yes, verbose=verbose) as (it, _):
        it.destroy()


def doctor(lab: str) -> None:
    """Print what was measured and what it means; end with 3 when the lab cannot come up here."""
    with _session(lab) as (it, console):
        facts, findings = it.doctor()
        console.rows(_facts(facts))
        for finding in findings:
            console.finding(finding)
        if errors(findings):
            _end(HostError.exit_code)
        console.print("this host can bring the lab up")


@contextmanager
def _session(
    lab: str, *, yes: bool = False, verbose: bool = False
) -> Iterator[tuple[Lab, Console]]:
    """Give a lab and its console; a LabError is printed and becomes its exit code."""
    console = Console(verbose)
    # A SIGTERM, as a CI job gets when it is called off, ends what runs like Ctrl-C does; and
    # Ctrl-C does so even where a script started us in the background, which ignores it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    options = Options(lab=lab, yes=yes, root=Path.cwd(), sink=console, ask=console.ask)
    try:
        yield Lab(options), console
    except LabError as error:
        console.error(error)
        _end(error.exit_code)
    except KeyboardInterrupt:
        console.print("interrupted: what is done is kept, and the same command goes on from here")
        _end(INTERRUPTED)


def _end(code: int) -> NoReturn:
    raise Exit(code=code)


def _choices(made: Plan, console: Console) -> None:
    console.print(f"lab {made.name}: {len(made.nodes)} nodes")
    console.rows([f"  {c.what}", c.chosen, c.why] for c in made.choices)


def _made(it: Lab, made: Plan, console: Console, seconds: float) -> None:
    console.print()
    console.print(f"lab {made.name} is up and verified after {seconds:.0f} s")
    console.rows([f"  {n.name}", n.role.replace("_", " "), str(n.address.ip)] for n in made.nodes)
    if "dns" not in made.addons:
        why = next(c.why for c in made.choices if c.what == "cluster DNS")
        console.print(f"  without cluster DNS: {why}")
    folder = it.workdir.path
    flag = f" --lab {it.options.lab}" if it.options.lab else ""
    for line in (
        "next:",
        f"  export KUBECONFIG={it.workdir.kubeconfig}",
        f"  {folder / 'bin' / 'kubectl'} get nodes -o wide",
        f"  ./invokew lab.ssh cp1{flag}              # a shell on the control plane",
        f"  ./invokew lab.kubeconfig --merge{flag}   # add the context to your own kubeconfig",
        f"  ./invokew lab.status{flag}               # machines and nodes",
        f"  ./invokew lab.destroy{flag}              # remove it all",
    ):
        console.print(line)


def _facts(facts: HostFacts) -> list[tuple[str, str]]:
    docker = f"API {facts.docker_api}" if facts.docker_api else f"no: {facts.docker_why}"
    return [
        ("system", f"{facts.os} {facts.os_version}, kernel {facts.kernel}, {facts.arch}"),
        ("size", f"{facts.cpus} CPUs, {facts.memory} MiB, {facts.disk_free} MiB free on disk"),
        ("programs", ", ".join(f"{name} ({tool.path})" for name, tool in facts.tools.items())),
        ("Docker", docker),
        ("cgroups", f"version {facts.cgroup}"),
        ("KVM", "opens" if facts.kvm else "no"),
        ("VirtualBox driver", "loaded" if facts.vboxdrv else "no"),
        ("networks in use", ", ".join(f"{n.network} ({n.owner})" for n in facts.networks)),
        ("name servers", ", ".join(map(str, facts.nameservers)) or "none"),
        *((f"vendor {name}", answer) for name, answer in facts.upstream.items()),
    ]
