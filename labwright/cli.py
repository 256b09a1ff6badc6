"""What stands between Invoke and the commands: printing and exit codes."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from invoke.exceptions import Exit

from labwright import __version__, catalog, known
from labwright.console import Console
from labwright.errors import INTERRUPTED, LabError
from labwright.lab import Lab, Options
from labwright.model import Plan
from labwright.phases.conformance import Conform
from labwright.tools import nodes, workdir

# Versions of a component that a table shows; `lab.lock --upgrade` and the catalog know all.
SHOWN = 4
# ssh's own exit code for a connection that did not come about.
SSH_FAILED = 255


def up(lab: str, *, yes: bool, verbose: bool, supply: str, locked: bool) -> None:
    """Bring a lab up and say what was made."""
    given = Options(lab=lab, yes=yes, verbose=verbose, supply=supply, locked=locked)
    with session(given) as (it, console):
        console.print(f"Labwright {__version__}: lab {it.name}")
        start = time.monotonic()
        plan = it.up()
        _made(it, plan, console, time.monotonic() - start)


def plan(lab: str, *, files: bool, supply: str) -> None:
    """Print a dry run."""
    with session(Options(lab=lab, supply=supply)) as (it, console):
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
    with session(Options(lab=lab)) as (it, console):
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


def addons(lab: str) -> None:
    """Print the add-ons of a lab."""
    with session(Options(lab=lab)) as (it, console):
        rows = [[a.name, a.state, a.version, a.address, a.title] for a in it.addons()]
        console.rows(rows, ("add-on", "state", "version", "address", ""))


def rancher(lab: str) -> None:
    """Print how to get to Rancher."""
    with session(Options(lab=lab)) as (it, console):
        found = it.rancher()
        console.rows(
            (
                ("address", found.url),
                ("state", found.state),
                ("user", found.user),
                ("password", f"cat {found.password_file}   # the first one, until you change it"),
                ("trust", found.trust),
                ("hosts file", f"{found.hosts}   # where this computer does not know the name"),
            )
        )


def verify(lab: str, *, verbose: bool) -> None:
    """Prove a lab."""
    with session(Options(lab=lab, verbose=verbose)) as (it, console):
        it.verify()
        console.print(f"report: {it.workdir.path / 'report' / 'verify.xml'}")


def conformance(
    lab: str, *, focus: str, skip: str, processes: int, yes: bool, verbose: bool
) -> None:
    """Run Kubernetes' conformance tests on a lab."""
    with session(Options(lab=lab, yes=yes, verbose=verbose)) as (it, console):
        phase = Conform(focus=focus, skip_tests=skip, processes=processes)
        folder = it.conform(phase)
        console.print(f"report: {folder / 'table.md'}, {folder / 'junit.xml'}")


def ssh(lab: str, node: str, command: str) -> None:
    """Hand the terminal to ssh, and end with its exit code."""
    with session(Options(lab=lab)) as (it, console):
        code = it.ssh(node, [command] if command else [])
        if code == SSH_FAILED:
            console.print(
                f"ssh to {node} ended with 255; is the lab up? ./invokew lab.up starts it"
            )
    end(code)


def kubeconfig(lab: str, *, merge: bool) -> None:
    """Print or merge a kubeconfig."""
    with session(Options(lab=lab)) as (it, console):
        if not merge:
            console.raw(it.kubeconfig())
            return
        target = it.merge_kubeconfig()
        console.print(f"{target} has the context labwright-{it.name}, and it is the current one")


def down(lab: str, *, verbose: bool) -> None:
    """Halt a lab."""
    with session(Options(lab=lab, verbose=verbose)) as (it, _):
        it.down()


def destroy(lab: str, *, yes: bool, verbose: bool) -> None:
    """Remove a lab."""
    with session(Options(lab=lab, yes=yes, verbose=verbose)) as (it, _):
        it.destroy()


def lock(lab: str, *, upgrade: str | bool, yes: bool, supply: str) -> None:
    """Resolve a lab, write lab.lock, and print what changed in it."""
    with session(Options(lab=lab, yes=yes, supply=supply)) as (it, console):
        names = upgrade.split(",") if isinstance(upgrade, str) and upgrade else []
        path, lines = it.lock(names if upgrade else None)
        for line in lines:
            console.print(f"  {line}")
        console.print(f"{path}: {len(lines)} changes" if lines else f"{path}")


def versions(lab: str, *, everything: bool) -> None:
    """Print the catalog: what this lab gets, what there is, and what goes with what."""
    with session(Options(lab=lab)) as (it, console):
        known, made, error = it.versions()
        gets = made.versions if made else {}
        console.rows(
            (
                [name, gets.get(name, "-"), *_known(component, everything=everything)]
                for name, component in known.components.items()
                if component.kind != "word"
            ),
            ("component", "this lab", "known versions, by supply"),
        )
        console.print()
        console.rows(
            ([_expression(c.when), _expression(c.needs), c.source] for c in known.constraints),
            ("with", "goes only", "source"),
        )
        if error:
            console.print()
            raise error


def diff(one: str, other: str) -> None:
    """Print how the software on two labs' nodes differs; end with 1 where it does."""
    with printing() as console:
        found = list(nodes.differences(_software(one), _software(other)))
        if not found:
            console.print("same packages and images on every node")
            return
        console.rows(
            ([node, name, here or "-", there or "-"] for node, name, here, there in found),
            ("node", "package or image", one, other),
        )
        console.print(f"{len(found)} differences")
        end(1)


def _software(which: str) -> nodes.Software:
    """Read a record, or ask a lab: ``which`` is a file, a folder with labs, or a lab's name."""
    path = Path(which)
    if path.is_file():
        return nodes.load(path)
    if path.parent.name == ".lab" and path.is_dir():
        return Lab(Options(lab=path.name, root=path.parent.parent)).software()
    if path.is_dir() and (labs := workdir.labs(path)):
        return Lab(Options(lab=labs[0], root=path)).software()
    return Lab(Options(lab=which)).software()


def _known(component: catalog.Component, *, everything: bool) -> list[str]:
    """Give the versions of each supply: ``packages: 1.20.2; upstream: 1.37.2, …``."""
    parts = []
    for supply in ("packages", "upstream", ""):
        known = [
            r.version
            for r in reversed(component.releases)
            if (supply in r.supplies if supply else not r.supplies)
        ]
        shown = known if everything else known[:SHOWN]
        more = ["…"] if len(shown) < len(known) else []
        if known:
            parts.append((f"{supply}: " if supply else "") + ", ".join([*shown, *more]))
    return ["; ".join(parts)]


def _expression(parts: Mapping[str, str]) -> str:
    return " and ".join(f"{name} {expression}" for name, expression in parts.items())


@contextmanager
def session(given: Options) -> Iterator[tuple[Lab, Console]]:
    """Give a lab and its console; a LabError is printed and becomes its exit code."""
    with printing(given.verbose) as console:
        yield Lab(replace(given, sink=console, ask=console.ask)), console


@contextmanager
def printing(verbose: bool = False) -> Iterator[Console]:
    """Give a console; a LabError is printed there and becomes the exit code."""
    console = Console(verbose)
    # A SIGTERM, as a CI job gets when it is called off, ends what runs like Ctrl-C does; and
    # Ctrl-C does so even where a script started us in the background, which ignores it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        yield console
    except LabError as error:
        known.explain(error)
        console.error(error)
        end(error.exit_code)
    except KeyboardInterrupt:
        console.print("interrupted: what is done is kept, and the same command goes on from here")
        end(INTERRUPTED)


def end(code: int) -> NoReturn:
    """End the program with an exit code."""
    raise Exit(code=code)


def _choices(made: Plan, console: Console) -> None:
    console.print(
        f"lab {made.name}: {len(made.nodes)} {'node' if len(made.nodes) == 1 else 'nodes'}"
    )
    if made.wanted.images and made.pins is None:
        console.print("  digests: not asked yet; lab.up or lab.lock asks and writes lab.lock")
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
