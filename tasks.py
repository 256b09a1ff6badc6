"""Invoke's tasks: arguments in, one call, an exit code out. No logic here."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

from labwright import cli, selftest

LAB = {
    "lab": "a lab's name, or the path of its lab.yaml (default: lab.yaml here)",
    "yes": "do not ask: install what the host lacks, and confirm",
    "verbose": "show the other tools' own output",
}


@task(help=LAB)
def up(_c: Context, lab: str = "", yes: bool = False, verbose: bool = False) -> None:
    """Make the lab real: machines, Kubernetes, proof. Goes on where it stopped."""
    cli.up(lab, yes=yes, verbose=verbose)


@task(help={"lab": LAB["lab"], "files": "print the rendered files too"})
def plan(_c: Context, lab: str = "", files: bool = False) -> None:
    """Say what lab.up would do, and why. Touches nothing."""
    cli.plan(lab, files=files)


@task(help={"lab": LAB["lab"], "json": "print JSON"})
def status(_c: Context, lab: str = "", json: bool = False) -> None:
    """Show the machines and nodes of a lab."""
    cli.status(lab, as_json=json)


@task(help={"lab": LAB["lab"], "verbose": LAB["verbose"]})
def verify(_c: Context, lab: str = "", verbose: bool = False) -> None:
    """Prove a lab that is up: every check of tests/nodes."""
    cli.verify(lab, verbose=verbose)


@task(help={"lab": LAB["lab"], "node": "the node", "command": "run this instead of a shell"})
def ssh(_c: Context, node: str, lab: str = "", command: str = "") -> None:
    """Open a shell on a node, or run a command there."""
    cli.ssh(lab, node, command)


@task(help={"lab": LAB["lab"], "merge": "put it into your own kubeconfig as a context"})
def kubeconfig(_c: Context, lab: str = "", merge: bool = False) -> None:
    """Print the lab's kubeconfig, or merge it into yours."""
    cli.kubeconfig(lab, merge=merge)


@task(help={"lab": LAB["lab"], "verbose": LAB["verbose"]})
def down(_c: Context, lab: str = "", verbose: bool = False) -> None:
    """Halt the machines; lab.up starts them again."""
    cli.down(lab, verbose=verbose)


@task(help=LAB)
def destroy(_c: Context, lab: str = "", yes: bool = False, verbose: bool = False) -> None:
    """Remove every trace of a lab, after asking."""
    cli.destroy(lab, yes=yes, verbose=verbose)


@task(help={"lab": LAB["lab"]})
def doctor(_c: Context, lab: str = "") -> None:
    """Say what this host has, and what stands in the way of a lab."""
    cli.doctor(lab)


@task(
    help={
        "fast": "leave out the end-to-end lab",
        "pattern": "only the tests whose names match (pytest -k)",
    }
)
def test(_c: Context, fast: bool = False, pattern: str = "") -> None:
    """Run every check of the project: ruff, mypy, ansible-lint, pytest."""
    selftest.run(fast=fast, pattern=pattern)


@task
def schema(_c: Context) -> None:
    """Write lab.schema.json anew, after a change of lab.yaml's keys."""
    selftest.write_schema()


lab_tasks = Collection("lab", up, plan, status, verify, ssh, kubeconfig, down, destroy, doctor)
namespace = Collection(lab_tasks, test, Collection("dev", schema))
