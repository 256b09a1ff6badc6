"""The project's own checks, as ``invoke test`` runs them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from invoke.exceptions import Exit

from labwright import cli, spec
from labwright.lab import Options
from labwright.phases.conformance import Conform
from labwright.render import ROOT
from labwright.tools import apt
from labwright.tools.shell import Shell
from labwright.tools.workdir import write

CHECKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ruff", ("-m", "ruff", "check", ".")),
    ("format", ("-m", "ruff", "format", "--check", ".")),
    ("mypy", ("-m", "mypy")),
    ("ansible-lint", ("-m", "ansiblelint", "--offline", "--strict", "playbooks")),
)


# Programs that the tests run, and Debian's packages of them.
PROGRAMS = {
    "apt-ftparchive": "apt-utils",
    "docker-registry": "docker-registry",
    "gpg": "gnupg",
    "gpgv": "gpgv",
    "grub-mkimage": "grub-pc-bin",
    "iptables": "iptables",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "sfdisk": "fdisk",
    "skopeo": "skopeo",
    "ssh": "openssh-client",
}

# What the tests with a virtual machine monitor of their own run besides.
MONITORS = {
    "grub-mkimage": "grub-pc-bin",
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "vagrant": "vagrant",
}
# What follows in docs/conformance.md is written by `conformance`.
MADE = "<!-- Written by ./invokew test.conformance. -->"
# Mounts and processes end with the tests, whatever happens to those.
APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def run(*, fast: bool, pattern: str) -> None:
    """Run everything in the order of its cost; the first failure ends it.

    Raises Exit with the failing check's code.
    """
    here = str(Path(sys.executable).parent)
    # ansible-lint starts ansible by name; docker's daemon is where only root's PATH looks.
    path = os.pathsep.join([here, os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    shell = Shell({"PATH": path})
    _tools(shell)
    _programs(shell)
    for name, words in CHECKS:
        print(f"== {name}", flush=True)  # noqa: T201
        _end(shell.hand_over([sys.executable, *words]))
    options = [
        "-m",
        "pytest",
        *(["-m", "not e2e"] if fast else []),
        *(["-k", pattern] if pattern else []),
    ]
    print("== pytest", flush=True)  # noqa: T201
    _end(shell.hand_over([sys.executable, *options]))


def virtualbox(*, pattern: str) -> None:
    """Run tests/virtualbox, which take root and minutes; without root they say why they skip.

    Raises Exit with pytest's code.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    shell = Shell({"PATH": path})
    _tools(shell)
    _programs(shell, MONITORS)
    words = [
        sys.executable,
        "-m",
        "pytest",
        "tests/virtualbox",
        *(["-k", pattern] if pattern else []),
    ]
    # Only root may, and in some containers not even root.
    if shell.has(APART[0]) and not shell.run([*APART, "true"], check=False).code:
        _end(shell.hand_over([*APART, *words], {"LABWRIGHT_APART": "1"}))
    else:
        _end(shell.hand_over(words))


def libvirt(*, pattern: str) -> None:
    """Run tests/libvirt: a lab of real machines, for half an hour where they are emulated.

    Raises Exit with pytest's code.
    """
    shell = Shell()
    _tools(shell)
    words = ["-m", "pytest", "tests/libvirt", *(["-k", pattern] if pattern else [])]
    _end(shell.hand_over([sys.executable, *words]))


def conformance(*, focus: str) -> None:
    """Run Kubernetes' conformance tests on three nodes; all of them are docs/conformance.md.

    Raises Exit with the code of the lab's command that failed.
    """
    with tempfile.TemporaryDirectory(prefix="labwright-conformance-") as name:
        folder = Path(name)
        (folder / "lab.yaml").write_text("name: conformance\n", encoding="utf-8")
        with cli.session(Options(root=folder, yes=True)) as (lab, _console):
            try:
                lab.up()
                lab.conform(Conform(focus=focus, processes=6))
            finally:
                table = lab.workdir.path / "report/conformance/table.md"
                if not focus and table.is_file():
                    page = ROOT / "docs/conformance.md"
                    text = page.read_text("utf-8").partition(MADE)[0]
                    write(page, f"{text}{MADE}\n\n{table.read_text('utf-8')}")
                lab.destroy()


def write_schema() -> None:
    """Write the JSON Schema of lab.yaml where editors find it."""
    write(ROOT / "lab.schema.json", json.dumps(spec.schema(), indent=2) + "\n")


def _tools(shell: Shell) -> None:
    """Install the developers' tools from their lock file, once."""
    lock = ROOT / "requirements-dev.lock"
    stamp = Path(sys.prefix) / "requirements-dev.lock"
    if stamp.is_file() and stamp.read_bytes() == lock.read_bytes():
        return
    words = ["-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock)]
    _end(shell.hand_over([sys.executable, *words]))
    shutil.copyfile(lock, stamp)


def _programs(shell: Shell, programs: Mapping[str, str] = PROGRAMS) -> None:
    """In CI, install what the tests stand vendors up with; elsewhere they skip without it."""
    lacking = [name for program, name in programs.items() if not shell.has(program)]
    if lacking and os.environ.get("CI"):
        apt.install(shell, lacking, lambda _line: None)


def _end(code: int) -> None:
    if code:
        raise Exit(code=code)
