#!/usr/bin/python3
"""Takes a Labwright lab off this machine: its processes, packages, files, routes and rules.

What the machine was like before is in /etc/labwright/before.json, and is put back. The argument is
the id of the lab; without it, a person is asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HOME = Path("/etc/labwright")
SELF = Path("/usr/local/sbin/labwright-reset")
UNITS = ("kubelet.service", "labwright-pod-routes.service")
# Those of nodes beside the cluster, by a path: what was there before the lab goes on.
MORE_UNITS = {
    "/var/lib/docker": ("docker.service", "docker.socket"),
    "/etc/ganesha": ("nfs-ganesha.service",),
    "/var/lib/lxc": ("lxc-net.service",),
}
LINKS = {"/etc/cni": "cni0", "/var/lib/docker": "docker0", "/var/lib/lxc": "lxcbr0"}
MOUNTED = ("/var/lib/kubelet", "/run/containerd", "/var/lib/containerd", "/var/lib/docker")
# The pod routes' mark, as in the role network.
PROTOCOL = "201"
RULES = re.compile(r"^:(KUBE|CNI)-|^-A (KUBE|CNI)-|-j (KUBE|CNI)-|--comment \"?labwright\b")


def run(*words: str, text: str | None = None, timeout: float = 300) -> str:
    """Return what a program prints; what it cannot do has been done, or is said at the end."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            words,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def say(text: str) -> None:
    """Tell what was done."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def read(path: Path) -> str:
    """Return a file's text, or nothing."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def stop(ours: list[str]) -> None:
    """End what runs: kubelet first, or it starts everything anew."""
    more = [unit for path, units in MORE_UNITS.items() if path in ours for unit in units]
    for unit in (*UNITS, *more):
        run("systemctl", "disable", "--now", unit)
    for space in run("ctr", "namespaces", "ls", "-q").split():
        for task in run("ctr", "-n", space, "tasks", "ls", "-q").split():
            run("ctr", "-n", space, "tasks", "kill", "--all", "--signal", "SIGKILL", task)
    run("systemctl", "disable", "--now", "containerd.service")
    # systemd leaves these to a containerd that comes back.
    for exe in Path("/proc").glob("[0-9]*/exe"):
        with contextlib.suppress(OSError):
            if exe.readlink().name.startswith("containerd-shim"):
                os.kill(int(exe.parent.name), signal.SIGKILL)
    time.sleep(0.5)


def mounted(*tops: str) -> list[str]:
    """Return the mount points whose paths begin with one of these."""
    points = [line.split()[1] for line in read(Path("/proc/mounts")).splitlines()]
    return [point for point in points if point.startswith(tops)]


def unmount() -> None:
    """Unmount what pods and containers had, the innermost first.

    Folders are removed after this: what is still mounted there may be a NAS with others' files.
    """
    inside = tuple(f"{top}/" for top in MOUNTED)
    spaces = ("/run/netns/cni-", "/var/run/netns/cni-")
    for point in sorted(set(mounted(*inside, *spaces)), reverse=True):
        run("umount", "--lazy", point.replace("\\040", " "))
    for path in Path("/run/netns").glob("cni-*"):
        path.unlink()
    if left := mounted(*inside):
        sys.exit(f"still mounted, and so nothing was removed: {' '.join(left)}")


def unroute(ours: list[str]) -> None:
    """Remove the lab's links, routes and firewall rules; others' stay as they are."""
    run("ip", "route", "flush", "proto", PROTOCOL)
    run("ip", "route", "flush", "type", "unreachable", "proto", PROTOCOL)
    for port in json.loads(run("ip", "-j", "link", "show", "master", "cni0") or "[]"):
        if port.get("ifname"):
            run("ip", "link", "delete", port["ifname"])
    for path, link in LINKS.items():
        if path in ours:
            run("ip", "link", "delete", link)
    for tool in ("iptables", "ip6tables"):
        lines = run(f"{tool}-save").splitlines()
        kept = [line for line in lines if not RULES.search(line)]
        if kept != lines:
            run(f"{tool}-restore", text="\n".join(kept) + "\n")


def remove_packages() -> None:
    """Purge what the lab has installed, unless something of the user's own needs it by now."""
    now = set(run("dpkg-query", "-W", "-f", "${Package}\n").split())
    ours = set(read(HOME / "packages").split())
    begun = read(HOME / "packages-begun")
    if begun:
        # The last run of the lab was cut short.
        installed = run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n").splitlines()
        ours |= {n.split()[1] for n in installed if n.startswith("installed ")} - set(begun.split())
    todo = sorted(ours & now)
    if not todo:
        return
    if others := would_go(todo) - ours:
        say(f"kept for {' '.join(sorted(others))}: packages that these need by now")
        todo = [name for name in todo if not would_go([name]) - ours]
    words = ("apt-get", "purge", "--yes", "--allow-change-held-packages", "-o", "Dpkg::Use-Pty=0")
    run(*words, *todo, timeout=900)
    left = set(run("dpkg-query", "-W", "-f", "${Package}\n").split()) & set(todo)
    if left:
        sys.exit(f"apt-get could not remove {' '.join(sorted(left))}: sudo apt-get -f install")
    say(f"{len(todo)} packages removed")


def would_go(names: list[str]) -> set[str]:
    """Return all that apt would remove with some packages."""
    words = ("apt-get", "--simulate", "purge", "--allow-change-held-packages")
    return set(re.findall(r"(?m)^(?:Purg|Remv) (\S+)", run(*words, *names)))


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)


def in_place(path: Path, text: str) -> None:
    """Write a file where it is: in a container it may be a mount."""
    if read(path) != text:
        path.write_text(text, encoding="utf-8")


def restore(before: dict[str, Any]) -> None:
    """Put back what the lab has changed."""
    files = before["files"]
    hosts = Path("/etc/hosts")
    block = re.compile(r"(?ms)^# BEGIN labwright\n.*?^# END labwright\n")
    in_place(hosts, block.sub("", read(hosts)))
    fstab = Path("/etc/fstab")
    if files.get("/etc/fstab"):
        was = files["/etc/fstab"].splitlines()
        lines = read(fstab).splitlines(keepends=True)
        own = {f"# {line}\n": f"{line}\n" for line in was}
        in_place(fstab, "".join(own.get(line, line) for line in lines))
    if files.get("/etc/hostname") is not None:
        in_place(Path("/etc/hostname"), files["/etc/hostname"])
    else:
        remove(Path("/etc/hostname"))
    run("hostname", before["hostname"])
    for unit in run("systemctl", "list-unit-files", "--state=masked", "--no-legend").splitlines():
        name = unit.split()[0] if unit.split() else ""
        if name and name not in before["masked"]:
            run("systemctl", "unmask", name)
    run("systemctl", "daemon-reload")
    run("systemctl", "reset-failed")
    for name, value in before["sysctls"].items():
        run("sysctl", "-q", "-w", f"{name}={value}")
    there = [line.split()[0] for line in read(Path("/proc/swaps")).splitlines()[1:]]
    for swap in before["swaps"]:
        if swap not in there:
            run("swapon", swap)


def agreed(marker: dict[str, str], owner: str) -> bool:
    """Tell whether this machine is to be reset."""
    if owner:
        if marker["owner"] != owner:
            sys.exit(f"this machine is {marker['node']} of another lab, {marker['lab']}")
        return True
    if not sys.stdin.isatty():
        sys.exit("nobody is there to be asked; give the lab's id")
    question = f"Take lab {marker['lab']} with all its data off this machine ({marker['node']})? "
    return input(question).strip().lower() in {"y", "yes"}


def main(owner: str = "") -> None:
    """Reset the machine, if it is a node and somebody wants it."""
    if not (HOME / "lab").is_file():
        return
    marker = json.loads(read(HOME / "lab"))
    if not agreed(marker, owner):
        return
    before = json.loads(read(HOME / "before.json"))
    stop(before["ours"])
    unmount()
    unroute(before["ours"])
    remove_packages()
    for path in before["ours"]:
        remove(Path(path))
    for listing in Path("/var/lib/apt/lists").glob("*_8750_*"):
        remove(listing)
    if Path("/etc/ssl/certs/labwright.pem").is_symlink():
        run("update-ca-certificates", "--fresh")
    restore(before)
    # Last: until now a run that was cut short can be begun again.
    remove(HOME)
    remove(SELF)
    say(f"no longer {marker['node']} of lab {marker['lab']}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
