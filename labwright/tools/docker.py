"""Docker's own command line: the daemon, node images, and the labs' networks."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from labwright.errors import BootError, Finding, HostError
from labwright.tools import procfs
from labwright.tools.shell import Shell, ToolError

START_DEADLINE = 60.0
# A lab is its folder: two folders may each have a lab of the same name.
FOLDER_LABEL = "labwright.folder"
LAB_LABEL = "labwright.lab"
# https://docs.docker.com/engine/network/drivers/bridge/#options
MTU_OPTION = "com.docker.network.driver.mtu"
NAME_OPTION = "com.docker.network.bridge.name"

DENIED = "permission denied"


def forget_dead_containerd(root: Path = Path("/")) -> None:
    """Remove the pid file of dockerd's containerd where that process is none.

    Where /run outlives the computer's rest the number is another process's by then. dockerd takes
    it for its containerd and waits for it in vain (moby/moby#40292).
    """
    file = root / "run/docker/containerd/containerd.pid"
    pid = procfs.number(file)
    if pid and "containerd" not in procfs.text(root / "proc" / str(pid) / "comm"):
        with contextlib.suppress(OSError):
            file.unlink()


def denied(why: str) -> Finding:
    """Say that Docker runs and does not let this user in."""
    fix = (
        "run as root; or, knowing that members of the group docker are as good as root: "
        "sudo usermod -aG docker $USER, then log in again"
    )
    return Finding("host.docker.denied", "error", "this user may not use Docker", why, fix)


class Docker:
    """The Docker daemon that this user reaches."""

    def __init__(self, shell: Shell) -> None:
        """Use ``docker`` from the PATH."""
        self._shell = shell

    def api(self) -> tuple[str | None, str]:
        """Give the daemon's API version, or ``None`` and why it does not answer."""
        words = ["docker", "version", "--format", "{{.Server.APIVersion}}"]
        try:
            result = self._shell.run(words, check=False, timeout=10)
        except ToolError as error:
            return None, error.findings[0].what
        version = result.out.strip()
        if result.code == 0 and version:
            return version, ""
        return None, (result.tail(1) or ("no answer",))[0]

    def start(self, log: Path) -> None:
        """Start the daemon and wait until it answers.

        systemd where it runs; elsewhere dockerd itself: Debian's init script fails on a host
        that may not raise limits. Raises HostError when no daemon answers within a minute.
        """
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        if procfs.systemd():
            self._shell.run([*sudo, "systemctl", "start", "docker"], check=False, terminal=True)
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            if sudo:
                self._shell.run(["sudo", "--validate"], terminal=True)
            forget_dead_containerd()
            self._shell.detach([*sudo, "dockerd"], log)
        deadline = time.monotonic() + START_DEADLINE
        while time.monotonic() < deadline:
            version, why = self.api()
            if version:
                return
            if DENIED in why.lower():
                raise HostError(denied(why))
            time.sleep(0.5)
        tail = (
            log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        )
        raise HostError(
            Finding("host.docker.not-started", "error", "Docker did not start", why), tail[-20:]
        )

    def has_image(self, name: str) -> bool:
        """Whether an image is there."""
        return self._run("image", "inspect", "--format", "{{.Id}}", name, check=False) is not None

    def ensure_network(
        self, name: str, folder: Path, subnet: str, gateway: str, mtu: int = 1500
    ) -> bool:
        """Make the network of the lab in ``folder`` unless it is there; give whether it was made.

        Raises BootError when one of that name has another subnet or is another folder's.
        """
        there = self.network(name)
        if there is None:
            options = (
                *("--driver=bridge", f"--subnet={subnet}", f"--gateway={gateway}"),
                f"--opt={MTU_OPTION}={mtu}",
            )
            labels = (f"--label={FOLDER_LABEL}={folder}", f"--label={LAB_LABEL}={folder.name}")
            self._run("network", "create", *options, *labels, name)
            return True
        self.refuse_taken(name, folder)
        has, _owner = there
        if has != subnet:
            what = f"the Docker network {name} has {has}, and the plan says {subnet}"
            raise BootError(Finding("boot.network", "error", what, fix="./invokew lab.destroy"))
        return False

    def refuse_taken(self, name: str, folder: Path) -> None:
        """Raise BootError when the network of that name is another folder's."""
        _subnet, owner = self.network(name) or ("", str(folder))
        if owner != str(folder):
            what = f"the Docker network {name} belongs to {owner or 'something else'}"
            why = "a lab of the same name was made there"
            fix = "set another name in lab.yaml, or ./invokew lab.destroy there"
            raise BootError(Finding("boot.name-taken", "error", what, why, fix, "name"))

    def network(self, name: str) -> tuple[str, str] | None:
        """Give a network's subnet and its lab's folder, or ``None`` where there is none."""
        form = '{{(index .IPAM.Config 0).Subnet}} {{index .Labels "' + FOLDER_LABEL + '"}}'
        out = self._run("network", "inspect", "--format", form, name, check=False)
        if out is None:
            return None
        subnet, _, folder = out.strip().partition(" ")
        return subnet, folder

    def networks(self) -> list[tuple[str, str]]:
        """Give ``(name, subnet)`` of every network that has one."""
        return [(name, subnet) for name, subnet, _device in self.bridges()]

    def bridges(self) -> list[tuple[str, str, str]]:
        """Give ``(name, subnet, device)`` of every network that has a subnet."""
        names = (self._run("network", "ls", "-q", check=False) or "").split()
        if not names:
            return []
        # One that goes in between makes docker fail, and say what it knows of the others.
        said = self._shell.run(["docker", "network", "inspect", *names], check=False).out
        raw: list[dict[str, Any]] = json.loads(said or "[]")
        return [
            (net["Name"], config["Subnet"], _device(net))
            for net in raw
            for config in (net["IPAM"]["Config"] or [])
            if "." in config.get("Subnet", "")
        ]

    def owned(self, folder: Path) -> dict[str, list[str]]:
        """Give the containers and networks of the lab in a folder."""
        where = ("--filter", f"label={FOLDER_LABEL}={folder}", "-q")
        return {
            "containers": (self._run("ps", "-a", *where, check=False) or "").split(),
            "networks": (self._run("network", "ls", *where, check=False) or "").split(),
        }

    def machines(self, folder: Path) -> set[str]:
        """Give the names of a lab's containers, whether they run or not."""
        words = ("ps", "-a", "--filter", f"label={FOLDER_LABEL}={folder}", "--format={{.Names}}")
        return set((self._run(*words, check=False) or "").split())

    def remove_strays(self, folder: Path, names: Collection[str]) -> None:
        """Remove those containers of a lab's that have one of these names, with their volumes."""
        for name in sorted(self.machines(folder) & {*names}):
            self.remove_container(name)

    def images_of(self, repository: str) -> list[str]:
        """Give a repository's images with their tags, the newest first."""
        words = ("image", "ls", repository, "--format={{.Repository}}:{{.Tag}}")
        return (self._run(*words, check=False) or "").split()

    def remove_unused_image(self, name: str) -> bool:
        """Remove an image unless a container was made of it; give whether it went."""
        return self._run("image", "rm", name, check=False) is not None

    def remove(self, folder: Path) -> None:
        """Remove a lab's containers with their volumes, then its network."""
        owned = self.owned(folder)
        if owned["containers"]:
            self._run("rm", "-f", "-v", *owned["containers"])
        if owned["networks"]:
            self._run("network", "rm", *owned["networks"])

    def import_image(self, archive: Path, name: str, changes: Sequence[str] = ()) -> None:
        """Make an image of a root file system archive."""
        options = [word for change in changes for word in ("--change", change)]
        self._run("import", *options, str(archive), name)

    def run_detached(self, name: str, image: str, args: Sequence[str], cmd: Sequence[str]) -> None:
        """Start a container in the background."""
        self._run("run", "-d", f"--name={name}", *args, image, *cmd)

    def address(self, container: str) -> tuple[str, str]:
        """Give a container's address on the default bridge, and the host's there."""
        form = "{{.NetworkSettings.IPAddress}} {{.NetworkSettings.Gateway}}"
        own, host = (self._run("inspect", "--format", form, container) or "").split()
        return own, host

    def commit(self, container: str, image: str, changes: Sequence[str] = ()) -> None:
        """Make an image of a container's file system."""
        options = [word for change in changes for word in ("--change", change)]
        self._run("commit", *options, container, image)

    def export(self, container: str, archive: Path) -> None:
        """Write a container's file system, less what is mounted there, into a tar archive."""
        self._run("export", f"--output={archive}", container)

    def remove_container(self, name: str) -> None:
        """Remove a container and its volumes, if it is there."""
        self._run("rm", "-f", "-v", name, check=False)

    def execute(self, container: str, *words: str, stdin: str | None = None) -> str:
        """Run a program in a container and give its output."""
        flags = ["-i"] if stdin is not None else []
        return self._shell.run(["docker", "exec", *flags, container, *words], input=stdin).out

    def _run(self, *words: str, check: bool = True) -> str | None:
        result = self._shell.run(["docker", *words], check=check)
        return result.out if result.code == 0 else None


def _device(net: Mapping[str, Any]) -> str:
    """Name the bridge of a network on the host; one without a name has it from its id."""
    named = (net.get("Options") or {}).get(NAME_OPTION)
    return str(named or f"br-{net['Id'][:12]}") if net.get("Driver") == "bridge" else ""
