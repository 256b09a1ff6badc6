"""libvirt's own command line: the daemon, and what a lab has of domains, disks and networks."""

from __future__ import annotations

import os
import socket
import time
import xml.etree.ElementTree as ET
from collections.abc import Collection
from pathlib import Path

from labwright.errors import BootError, Finding, HostError
from labwright.tools import procfs
from labwright.tools.shell import Shell
from labwright.tools.workdir import write

# Its first start asks each qemu that is installed what it can do: 12 s were measured.
START_DEADLINE = 90.0
SOCKETS = ("run/libvirt/libvirt-sock", "run/libvirt/virtqemud-sock")
# The pool that vagrant-libvirt takes, and makes where there is none.
POOL = "default"
# A lab is its folder: two folders may each have a lab of the same name.
FOLDER_MARK = "labwright.folder="
# The measured minimum where no systemd runs (docs/libvirt.md): nobody starts virtlogd there, and
# a guest of another user takes a minute to start where capabilities are withheld.
QEMU_CONF = """\
# Written by Labwright for a libvirtd that it starts where no systemd does.
user = "root"
group = "root"
stdio_handler = "file"
"""
# libvirtd reads /etc/libvirt/qemu.conf and no other. It is given ours in its place, in a mount
# namespace of its own, and the user's file stays as it is.
LAUNCH = 'mount --bind "$1" /etc/libvirt/qemu.conf && exec libvirtd'


class Libvirt:
    """The libvirt daemon of this host."""

    def __init__(self, shell: Shell) -> None:
        """Use ``virsh`` from the PATH."""
        self._shell = shell

    def start(self, folder: Path) -> None:
        """Start the daemon and wait until it answers; its words and settings are in ``folder``.

        Raises HostError when none answers within the deadline.
        """
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        log = folder / "libvirtd.log"
        if procfs.systemd():
            self._shell.run([*sudo, "systemctl", "start", "libvirtd"], check=False, terminal=True)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / "qemu.conf", QEMU_CONF)
            if sudo:
                self._shell.run(["sudo", "--validate"], terminal=True)
            settings = str(folder / "qemu.conf")
            launch = ["unshare", "--mount", "sh", "-c", LAUNCH, "sh", settings]
            self._shell.detach([*sudo, *launch], log)
        deadline = time.monotonic() + START_DEADLINE
        while True:
            state, why = reached(), ""
            if state == "denied":
                raise HostError(denied())
            if state == "answers":
                if self._virsh("version", check=False):
                    return
                why = "its socket is there, and virsh gets no answer"
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        what = "libvirt did not start"
        found = Finding("host.libvirt.not-started", "error", what, why or "it made no socket")
        raise HostError(found, said.splitlines()[-20:])

    def owner(self, domain: str) -> str | None:
        """Give the folder of the lab that a domain belongs to; ``None`` where there is no domain.

        A domain that is no lab's gives an empty text.
        """
        tree = self._xml("dumpxml", domain)
        if tree is None:
            return None
        mark = tree.findtext("description", "")
        return mark.removeprefix(FOLDER_MARK) if mark.startswith(FOLDER_MARK) else ""

    def owned(self, folder: Path) -> list[str]:
        """Give the domains of the lab in a folder; none where libvirt does not answer."""
        if reached() != "answers":
            return []
        names = self._names("list", "--all", "--name")
        return [name for name in names if self.owner(name) == str(folder)]

    def make_ready(self, domains: Collection[str], folder: Path) -> None:
        """Start the pool; take away disks that a boot which was cut short left without a domain.

        vagrant-libvirt takes a pool that is there and does not run for one that does, and refuses
        to make a machine whose disk is there.

        Raises BootError where another folder's lab has a domain of that name.
        """
        pool = self._virsh("pool-info", POOL, check=False)
        if pool and "running" not in pool:
            self._virsh("pool-start", POOL)
        for domain in domains:
            owner = self.owner(domain)
            if owner is None:
                self._remove_volume(f"{domain}.img")
            elif owner != str(folder):
                what = f"the domain {domain} of libvirt belongs to {owner or 'something else'}"
                why = "a lab of the same name was made there"
                fix = "set another name in lab.yaml, or ./invokew lab.destroy there"
                raise BootError(Finding("boot.name-taken", "error", what, why, fix, "name"))

    def remove(self, folder: Path, domains: Collection[str], networks: Collection[str]) -> None:
        """Remove what Vagrant left of the lab in a folder: domains, their disks, networks."""
        if reached() != "answers":
            return
        for name in self.owned(folder):
            self._virsh("destroy", name, check=False)
            self._virsh("undefine", name, "--nvram", "--remove-all-storage")
        for name in domains:
            if self.owner(name) is None:
                self._remove_volume(f"{name}.img")
        for name in networks:
            tree = self._xml("net-dumpxml", name)
            if tree is not None and not tree.get("connections"):
                self._virsh("net-destroy", name, check=False)
                self._virsh("net-undefine", name)

    def remove_base(self, box: str) -> list[str]:
        """Remove the pool's copies of a box that no machine's disk stands on; give their names.

        Vagrant's own copy stays, from which they are made anew in seconds.
        """
        if reached() != "answers":
            return []
        start = f"{box.replace('/', '-VAGRANTSLASH-')}_vagrant_box_image_"
        paths: dict[str, str] = {}
        used: set[str] = set()
        for name in self._volumes():
            tree = self._xml("vol-dumpxml", name, "--pool", POOL)
            if tree is None:
                continue
            used.add(tree.findtext("backingStore/path", ""))
            if name.startswith(start):
                paths[name] = tree.findtext("target/path", "")
        idle = [name for name, path in paths.items() if path not in used]
        for name in idle:
            self._remove_volume(name)
        return idle

    def _volumes(self) -> list[str]:
        self._virsh("pool-refresh", POOL, check=False)
        lines = (self._virsh("vol-list", POOL, check=False) or "").splitlines()
        return [line.split()[0] for line in lines if line.strip()]

    def _remove_volume(self, name: str) -> None:
        if self._virsh("vol-info", name, "--pool", POOL, check=False):
            self._virsh("vol-delete", name, "--pool", POOL)

    def _names(self, *words: str) -> list[str]:
        lines = (self._virsh(*words, check=False) or "").splitlines()
        return [line.strip() for line in lines if line.strip()]

    def _xml(self, *words: str) -> ET.Element | None:
        text = self._virsh(*words, check=False)
        return ET.fromstring(text) if text else None  # noqa: S314 - libvirt's own words

    def _virsh(self, *words: str, check: bool = True) -> str | None:
        # A virsh of a C locale: some of what it prints is read here.
        argv = ["virsh", "--quiet", "--connect", "qemu:///system", *words]
        result = self._shell.run(argv, check=check, timeout=60, env={"LC_ALL": "C"})
        return result.out if result.code == 0 else None


def reached(root: Path = Path("/")) -> str:
    """Say how libvirt's socket takes a connection: ``answers``, ``denied`` or ``absent``."""
    state = "absent"
    for name in SOCKETS:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(2)
            try:
                client.connect(str(root / name))
            except PermissionError:
                state = "denied"
            except OSError:
                continue
            else:
                return "answers"
    return state


def denied() -> Finding:
    """Say that libvirt runs and does not let this user in."""
    fix = (
        "run as root; or, knowing that members of the group libvirt are as good as root: "
        "sudo usermod -aG libvirt $USER, then log in again"
    )
    what, why = "this user may not use libvirt", "its socket is there and refuses"
    return Finding("host.libvirt.denied", "error", what, why, fix)
