"""Invoke's tasks: arguments in, one call, an exit code out. No logic here."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

from labwright import cli, cli_box, cli_bundle, cli_dev, cli_doctor, selftest

LAB = {
    "lab": "a lab's name, or the path of its lab.yaml (default: lab.yaml here)",
    "yes": "do not ask: install what the host lacks, and confirm",
    "verbose": "show the other tools' own output",
}


SUPPLY = "upstream, packages, or bundle:PATH, instead of lab.yaml's"


@task(help={**LAB, "supply": SUPPLY, "locked": "refuse to differ from lab.lock"})
def up(
    _c: Context,
    lab: str = "",
    yes: bool = False,
    verbose: bool = False,
    supply: str = "",
    locked: bool = False,
) -> None:
    """Make the lab real: machines, Kubernetes, proof. Goes on where it stopped."""
    cli.up(lab, yes=yes, verbose=verbose, supply=supply, locked=locked)


@task(help={"lab": LAB["lab"], "files": "print the rendered files too", "supply": SUPPLY})
def plan(_c: Context, lab: str = "", files: bool = False, supply: str = "") -> None:
    """Say what lab.up would do, and why. Touches nothing."""
    cli.plan(lab, files=files, supply=supply)


@task(help={"lab": LAB["lab"], "everything": "every version, not only the newest"})
def versions(_c: Context, lab: str = "", everything: bool = False) -> None:
    """Show the versions that are known, what this lab gets, and what goes with what."""
    cli.versions(lab, everything=everything)


@task(
    optional=["upgrade"],
    help={
        "lab": LAB["lab"],
        "upgrade": "move to the newest that goes: all, or components, as in --upgrade=etcd,pause",
        "yes": LAB["yes"],
        "supply": SUPPLY,
    },
)
def lock(
    _c: Context, lab: str = "", upgrade: str = "", yes: bool = False, supply: str = ""
) -> None:
    """Resolve the lab and write lab.lock, without booting anything."""
    cli.lock(lab, upgrade=upgrade, yes=yes, supply=supply)


@task(help={"one": "a lab, a folder with one, or its software.json", "other": "another"})
def diff(_c: Context, one: str, other: str) -> None:
    """Say how the software on the nodes of two labs differs."""
    cli.diff(one, other)


@task(help={"lab": LAB["lab"], "json": "print JSON"})
def status(_c: Context, lab: str = "", json: bool = False) -> None:
    """Show the machines and nodes of a lab."""
    cli.status(lab, as_json=json)


@task(help={"lab": LAB["lab"]})
def addons(_c: Context, lab: str = "") -> None:
    """Show the add-ons there are, and how those of a lab are."""
    cli.addons(lab)


@task(help={"lab": LAB["lab"]})
def rancher(_c: Context, lab: str = "") -> None:
    """Say how to get to Rancher: address, user, where the password is, what to trust."""
    cli.rancher(lab)


@task(help={"lab": LAB["lab"], "verbose": LAB["verbose"]})
def verify(_c: Context, lab: str = "", verbose: bool = False) -> None:
    """Prove a lab that is up: every check of tests/nodes."""
    cli.verify(lab, verbose=verbose)


@task(
    help={
        "focus": "only the tests whose names match this regular expression (default: all)",
        "skip": "without the tests whose names match this one",
        "processes": "how many tests run side by side",
        **LAB,
    }
)
def conformance(
    _c: Context,
    lab: str = "",
    focus: str = "",
    skip: str = "",
    processes: int = 4,
    yes: bool = False,
    verbose: bool = False,
) -> None:
    """Run Kubernetes' own conformance tests on a lab that is up."""
    cli.conformance(lab, focus=focus, skip=skip, processes=processes, yes=yes, verbose=verbose)


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


@task(
    help={
        "lab": LAB["lab"],
        "json": "print JSON (docs/doctor.md)",
        "fix": "mend what is safe, after showing the commands and asking",
        "yes": "do not ask",
    }
)
def doctor(
    _c: Context, lab: str = "", json: bool = False, fix: bool = False, yes: bool = False
) -> None:
    """Say what this host has, and what keeps each provider from working on it."""
    cli_doctor.doctor(lab, as_data=json, fix=fix, yes=yes)


@task(help={"lab": LAB["lab"], "to": "a folder, or the .tar.gz to be (default: here)"})
def support(_c: Context, lab: str = "", to: str = "") -> None:
    """Pack journal, facts, plan and logs of a lab into one archive, secrets taken out."""
    cli_doctor.support(lab, to)


@task(
    help={
        "fast": "leave out the end-to-end lab",
        "pattern": "only the tests whose names match (pytest -k)",
    }
)
def test(_c: Context, fast: bool = False, pattern: str = "") -> None:
    """Run every check of the project: ruff, mypy, ansible-lint, pytest."""
    selftest.run(fast=fast, pattern=pattern)


@task(help={"pattern": "only the tests whose names match (pytest -k)"})
def virtualbox(_c: Context, pattern: str = "") -> None:
    """Drive the real VirtualBox in a root of its own, and boot a machine in its emulator."""
    selftest.virtualbox(pattern=pattern)


@task(help={"pattern": "only the tests whose names match (pytest -k)"})
def libvirt(_c: Context, pattern: str = "") -> None:
    """Bring up two real machines with libvirt, emulated where KVM boots none, and verify them."""
    selftest.libvirt(pattern=pattern)


@task(
    name="conformance",
    help={"focus": "only the tests whose names match this regular expression (default: all)"},
)
def conform(_c: Context, focus: str = "") -> None:
    """Run Kubernetes' conformance tests on a lab of three nodes, and write docs/conformance.md."""
    selftest.conformance(focus=focus)


@task
def schema(_c: Context) -> None:
    """Write lab.schema.json anew, after a change of lab.yaml's keys."""
    selftest.write_schema()


@task(
    positional=["component", "version"],
    help={"component": "kubernetes, containerd, …", "version": "1.36.3, without a v"},
)
def pin(_c: Context, component: str, version: str) -> None:
    """Pin what goes into a version of a component that is compiled from Go modules."""
    cli_dev.pin(component, version)


@task(help={"to": "a folder, or a file that ends in .tar.zst", **LAB})
def make(_c: Context, to: str, lab: str = "", yes: bool = False, verbose: bool = False) -> None:
    """Collect all that a lab is made of, for labs without a network."""
    cli_bundle.make(lab, to, yes=yes, verbose=verbose)


@task(name="verify", help={"bundle": "a folder or a .tar.zst"})
def verify_bundle(_c: Context, bundle: str) -> None:
    """Hash every file of a bundle."""
    cli_bundle.verify(bundle)


@task(help={"bundle": "a folder or a .tar.zst", "files": "list the files too"})
def show(_c: Context, bundle: str, files: bool = False) -> None:
    """Say what a bundle holds."""
    cli_bundle.show(bundle, files=files)


@task(help={"bundle": "a folder", "address": "the address to listen on", "port": "the port"})
def serve(_c: Context, bundle: str, address: str, port: int = 8751) -> None:
    """Give a bundle to a class: read-only, on one address, until Ctrl-C."""
    cli_bundle.serve(bundle, address, port)


PROVIDER = "libvirt, virtualbox, docker (an image to load), or all"


@task(
    help={
        "provider": PROVIDER,
        "guest": "debian-12, debian-13 or ubuntu-24.04",
        "baked": "with what this lab is made of inside: packages and images; needs Docker",
        "lab": LAB["lab"],
        "to": "copy it into this folder, with a catalogue that Vagrant reads",
        "url": "where that folder will be served (default: the folder itself)",
        "yes": LAB["yes"],
        "verbose": LAB["verbose"],
    }
)
def build(
    _c: Context,
    provider: str = "all",
    guest: str = "debian-12",
    baked: bool = False,
    lab: str = "",
    to: str = "",
    url: str = "",
    yes: bool = False,
    verbose: bool = False,
) -> None:
    """Build Vagrant boxes of our own, from the distribution's archive alone."""
    cli_box.build(provider, guest, lab=lab, baked=baked, to=to, url=url, yes=yes, verbose=verbose)


@task(
    help={
        "source": "a folder of box.build --to, a catalogue (.json) or a .box file, a path or an "
        "address (default: what was built here)",
        "provider": "only the box of this provider",
        "name": "the name of a plain .box file, which has none",
        "verbose": LAB["verbose"],
    },
)
def add(
    _c: Context, source: str = "", provider: str = "", name: str = "", verbose: bool = False
) -> None:
    """Add boxes to Vagrant's own list."""
    cli_box.add(source, provider, name, verbose=verbose)


@task(name="list", help={"everything": "boxes of others too"})
def list_boxes(_c: Context, everything: bool = False) -> None:
    """Show our own boxes in Vagrant's list: size, age, and the labs that use them."""
    cli_box.show(everything=everything)


@task(help={"yes": "do not ask"})
def prune(_c: Context, yes: bool = False) -> None:
    """Remove our own boxes that no machine was made from, after asking."""
    cli_box.prune(yes=yes)


lab_tasks = Collection(
    "lab",
    *(up, plan, status, addons, rancher, verify, conformance, ssh, kubeconfig, down, destroy),
    *(doctor, support),
    *(versions, lock, diff),
)
bundle_tasks = Collection("bundle", make, verify_bundle, show, serve)
box_tasks = Collection("box", build, add, list_boxes, prune)
test_tasks = Collection("test", virtualbox, libvirt, conform)
test_tasks.add_task(test, default=True)
namespace = Collection(
    lab_tasks, bundle_tasks, box_tasks, test_tasks, Collection("dev", schema, pin)
)
