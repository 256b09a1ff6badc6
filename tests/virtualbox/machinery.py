"""The real VirtualBox in a root of its own, and the real Vagrant outside that drives it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import filelock
import pytest

from labwright.selftest import MONITORS
from labwright.tools import workdir
from labwright.tools.shell import Shell, ToolError

HERE = Path(__file__).parent
# What the tests were written against; another series may say other words.
SERIES = "7.2"
VAGRANT = "2.3.4"
# Set by ./invokew test.virtualbox, which gives the tests mounts and processes of their own.
APART = "LABWRIGHT_APART"
SHIM = (HERE / "shim.rb").read_text("utf-8")
SCREEN = "640x480x16"
NO_DRIVER = Path("/dev/vboxdrv")
DEBIAN = Path("/etc/debian_version")


def reason_to_skip(shell: Shell) -> str:
    """Say why the tests cannot run on this computer; empty where they can."""
    lacking = [name for program, name in MONITORS.items() if not shell.has(program)]
    version = shell.run(["vagrant", "--version"]).out.split()[-1] if not lacking else "none"
    reasons = (
        (not DEBIAN.exists(), "the test's root is made by Debian's tools, and this is no Debian"),
        (os.geteuid() != 0, "only root may mount and enter the test's root"),
        (APART not in os.environ, "./invokew test.virtualbox was not asked, or may not mount"),
        (bool(lacking), f"not installed: {', '.join(lacking)}"),
        (NO_DRIVER.exists(), f"{NO_DRIVER} is here: the tests are about VirtualBox without it"),
        (version != VAGRANT, f"written for Vagrant {VAGRANT}, this is {version}"),
    )
    return next((reason for holds, reason in reasons if holds), "")


def root(shell: Shell) -> Path:
    """Give the folder with the root, made where it is not there yet; it is kept for later runs.

    Skips the tests where the archive has another series of VirtualBox by now, or does not answer.
    """
    script = HERE / "chroot.sh"
    recipe = hashlib.sha256(script.read_bytes()).hexdigest()[:12]
    cache = workdir.cache() / "virtualbox"
    cache.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(cache / "lock"):
        found = sorted(cache.glob(f"{SERIES}.*-{recipe}"))
        if found:
            return found[-1]
        made = cache / "making"
        _remove(shell, made)
        try:
            shell.run([script, made], timeout=1200)
        except ToolError as error:
            pytest.skip(f"no root could be made: {' | '.join(error.details[-3:])}")
        version = _installed(made)
        if version.startswith(f"{SERIES}."):
            return made.rename(cache / f"{version}-{recipe}")
        _remove(shell, made)
    pytest.skip(f"written for VirtualBox {SERIES}, and Debian's archive has {version} now")


def _remove(shell: Shell, folder: Path) -> None:
    shell.run(["rm", "-rf", "--one-file-system", folder])


def _installed(folder: Path) -> str:
    status = (folder / "var/lib/dpkg/status").read_text("utf-8")
    found = re.search(r"(?m)^Package: virtualbox\n(?:[^\n]+\n)*?Version: (\S+)", status)
    assert found, "the root has no package virtualbox"
    return found[1]


@contextlib.contextmanager
def mounted(shell: Shell, folder: Path, state: Path) -> Iterator[None]:
    """Give the root what programs expect, and ``state`` at its own path; read-only otherwise."""
    state.mkdir(parents=True, exist_ok=True)
    plain = [
        ["--bind", str(folder), str(folder)],
        ["--types", "proc", "proc", str(folder / "proc")],
        ["--rbind", "/dev", str(folder / "dev")],
        ["--rbind", "--options", "ro", "/sys", str(folder / "sys")],
        *(["--types", "tmpfs", "tmpfs", str(folder / n)] for n in ("tmp", "run", "root")),
        ["--options", "remount,bind,ro", str(folder)],
    ]
    try:
        for words in plain:
            shell.run(["mount", *words])
        inside = folder / "tmp" / state.relative_to("/tmp")
        inside.mkdir(parents=True)
        shell.run(["mount", "--bind", state, inside])
        yield
    finally:
        shell.run(["umount", "--recursive", "--lazy", folder], check=False)


@dataclass(frozen=True)
class Machines:
    """VirtualBox with a registry of machines of its own, below ``state``."""

    shell: Shell
    root: Path
    state: Path
    env: Mapping[str, str]

    def manage(self, *words: object, check: bool = True) -> str:
        """Run VBoxManage; give all it said. Raises ToolError."""
        said = self.shell.run(
            [HERE / "bin" / "VBoxManage", *(str(word) for word in words)],
            env=self.env,
            check=check,
            timeout=120,
        )
        return said.out + said.err

    def info(self, machine: str) -> dict[str, str]:
        """Give what ``showvminfo --machinereadable`` says of a machine."""
        return parse(self.manage("showvminfo", machine, "--machinereadable"))

    def started(self) -> dict[str, dict[str, str]]:
        """Give what each machine was like when it was to start: its name → its values."""
        folder = self.state / "started"
        found = [parse(file.read_text("utf-8")) for file in folder.iterdir()]
        return {values["name"]: values for values in found}

    def names(self) -> set[str]:
        """Name the registered machines."""
        return set(re.findall(r'(?m)^"(.+)" \{', self.manage("list", "vms")))

    def disks(self) -> list[dict[str, str]]:
        """Give what VirtualBox knows of each disk."""
        said = self.manage("list", "hdds").strip()
        return [
            {
                k.strip(): v.strip()
                for k, _, v in (line.partition(":") for line in text.splitlines())
            }
            for text in said.split("\n\n")
        ]


def parse(text: str) -> dict[str, str]:
    """Read ``name="value"`` lines."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip('"'): value.strip('"') for name, _, value in pairs}


@contextlib.contextmanager
def virtualbox(shell: Shell, folder: Path, state: Path) -> Iterator[Machines]:
    """Give VirtualBox with an empty registry; what it started is ended afterwards."""
    for name in ("home", "config", "machines", "interfaces", "started"):
        (state / name).mkdir(parents=True, exist_ok=True)
    env = {
        "VBOX_ROOT": str(folder),
        "VBOX_STATE": str(state),
        "VBOX_START": "real",
        "VBOX_NET": "real",
    }
    with mounted(shell, folder, state):
        made = Machines(shell, folder, state, env)
        made.manage("setproperty", "machinefolder", state / "machines")
        try:
            yield made
        finally:
            end_inside(folder)


def show(machines: Machines) -> None:
    """Give machines a screen to draw on, until everything in the root is ended."""
    words = ["chroot", machines.root, "Xvfb", ":77", "-nolisten", "tcp", "-screen", "0", SCREEN]
    threading.Thread(
        target=machines.shell.run, args=[words], kwargs={"check": False}, daemon=True
    ).start()


def end_inside(folder: Path) -> None:
    """End every process that runs in the root, each by its own number."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in inside(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = time.monotonic() + 10
        while inside(folder) and time.monotonic() < deadline:
            time.sleep(0.1)


def inside(folder: Path) -> list[int]:
    """Give the processes whose root is that folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/root"):
        with contextlib.suppress(OSError):
            if path.readlink() == folder:
                found.append(int(path.parent.name))
    return found


def small_box(machines: Machines, to: Path) -> Path:
    """Make a box with an empty disk by VirtualBox's own export: enough where nothing boots."""
    work = machines.state / "box"
    work.mkdir()
    machines.manage("createvm", "--name", "box", "--register", "--ostype", "Debian12_64")
    machines.manage("modifyvm", "box", "--memory", 512, "--ioapic", "on", "--nic1", "nat")
    disk = work / "disk.vdi"
    machines.manage("createmedium", "disk", "--filename", disk, "--size", 16)
    machines.manage("storagectl", "box", "--name", "IDE", "--add", "ide", "--controller", "PIIX4")
    machines.manage(
        *("storageattach", "box", "--storagectl", "IDE", "--port", 0, "--device", 0),
        *("--type", "hdd", "--medium", disk),
    )
    machines.manage("export", "box", "--output", work / "box.ovf")
    machines.manage("unregistervm", "box", "--delete")
    (work / "metadata.json").write_text(json.dumps({"provider": "virtualbox"}))
    with tarfile.open(to, "w") as tar:
        for file in sorted(work.iterdir()):
            tar.add(file, file.name)
    return to
