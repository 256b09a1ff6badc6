"""Runs on a machine as root and changes nothing: prints what the machine is like, as JSON.

Arguments: SSH_CONNECTION as the login shell had it, and a JSON object with ``packages``, the names
to look for, and ``us``, an address and a port of the computer that asks, or null. It has to run on
a distribution that is too old for the lab, to say that it is: so no newer Python than 3.7.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# What clusters of all kinds leave behind. A folder counts if anything is in it.
TRACES = (
    "/etc/kubernetes",
    "/var/lib/kubelet",
    "/var/lib/etcd",
    "/etc/cni/net.d",
    "/var/lib/cni",
    "/etc/rancher",
    "/var/lib/rancher",
    "/var/lib/k0s",
    "/var/snap/microk8s",
    "/var/lib/labwright",
    "/etc/labwright",
)
LINKS = ("cni0", "flannel.1", "cilium_host", "vxlan.calico", "kube-ipvs0")


def read(path: str) -> str:
    """Return a file's text, or nothing."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def run(*words: str) -> str:
    """Return what a program prints; nothing where it is missing or fails."""
    try:
        done = subprocess.run(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def release() -> dict[str, str]:
    """Return the lines of os-release by name."""
    lines = [line.partition("=") for line in read("/etc/os-release").splitlines()]
    return {name: value.strip("\"'") for name, _, value in lines}


def memory() -> int:
    """Return the memory in MiB, or less where a container is limited."""
    total = int(read("/proc/meminfo").partition("MemTotal:")[2].split()[0]) // 1024
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if read(path).isdigit():
            total = min(total, int(read(path)) // 2**20)
    return total


def disk(folder: str) -> tuple[int, int, str]:
    """Return total and free MiB of the file system of a folder, and its kind."""
    facts = os.statvfs(folder)
    mounts = [line.split() for line in read("/proc/mounts").splitlines()]
    inside = [m for m in mounts if (folder + "/").startswith(m[1].rstrip("/") + "/")]
    kind = max(inside, key=lambda m: len(m[1]))[2] if inside else ""
    unit = facts.f_frsize
    return facts.f_blocks * unit // 2**20, facts.f_bavail * unit // 2**20, kind


def cards() -> list[dict[str, Any]]:
    """Return every IPv4 address with its card."""
    return [
        {
            "device": link["ifname"],
            "mac": link.get("address", ""),
            "mtu": link["mtu"],
            "address": f"{one['local']}/{one['prefixlen']}",
        }
        for link in json.loads(run("ip", "-j", "address") or "[]")
        for one in link.get("addr_info", ())
        if one.get("family") == "inet" and link.get("ifname") != "lo"
    ]


def routes() -> list[dict[str, str]]:
    """Return what the main table leads to, but for the world outside."""
    found = []
    for route in json.loads(run("ip", "-j", "-4", "route") or "[]"):
        try:
            network = str(ipaddress.IPv4Network(route.get("dst", "")))
        except ValueError:
            continue
        if network != "0.0.0.0/0":
            found.append({"network": network, "owner": f"route on {route.get('dev', 'nothing')}"})
    return found


def nameservers() -> list[str]:
    """Return the name servers that another machine could ask too."""
    for path in ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"):
        found = re.findall(r"(?m)^nameserver\s+(\d+\.\d+\.\d+\.\d+)\s*$", read(path))
        found = [one for one in found if not one.startswith("127.")]
        if found:
            return found
    return []


def conntrack_tunable(container: bool) -> bool:
    """Tell whether kube-proxy could set the size of the connection table."""
    path = "/proc/sys/net/netfilter/nf_conntrack_max"
    try:
        return bool(Path(path).stat().st_mode & 0o200)
    except OSError:
        return not container


def has_module(name: str, *file_systems: str) -> bool:
    """Tell whether the kernel has a file system, or a module that can be loaded."""
    known = read("/proc/filesystems").split()
    return any(one in known for one in file_systems) or bool(run("modprobe", "-n", "-v", name))


def listening() -> dict[str, str]:
    """Return each TCP port that something listens on, and the program."""
    found = {}
    for line in run("ss", "-Htlnp").splitlines():
        words = line.split()
        program = re.search(r'"([^"]+)"', line)
        if len(words) > 3 and words[3].rpartition(":")[2].isdigit():
            found[words[3].rpartition(":")[2]] = program.group(1) if program else "?"
    return found


def leftovers() -> list[str]:
    """Return the traces of clusters."""
    found = []
    for path in TRACES:
        files = [n for _, _, names in os.walk(path) for n in names]
        if files or Path(path).is_file():
            found.append(path)
    found += [link for link in LINKS if Path("/sys/class/net", link).exists()]
    found += sorted(path.name for path in Path("/sys/class/net").glob("cali*"))[:1]
    if re.search(r"(?m)^:KUBE-", run("iptables-save")):
        found.append("iptables chains KUBE-…")
    return found


def installed(names: list[str]) -> list[str]:
    """Return those of some packages that are installed."""
    lines = run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n").splitlines()
    there = {line.split()[1] for line in lines if line.startswith("installed ")}
    return [name for name in names if name in there]


def marker() -> dict[str, str] | None:
    """Return which lab's node this is."""
    try:
        found = json.loads(read("/etc/labwright/lab"))
        return {name: str(found[name]) for name in ("lab", "owner", "node")}
    except (ValueError, KeyError, TypeError):
        return None


def reaches(us: list[Any] | None) -> bool:
    """Tell whether the computer that asks can be connected to."""
    if not us:
        return False
    try:
        socket.create_connection((us[0], us[1]), 3).close()
    except OSError:
        return False
    return True


def main(connection: str, question: str) -> None:
    """Print everything."""
    ask = json.loads(question)
    system = release()
    total, free, kind = disk("/var/lib")
    container = bool(run("systemd-detect-virt", "--container").strip())
    caps = re.search(r"(?m)^CapBnd:\s*(\S+)", read("/proc/self/status"))
    words = connection.split()
    swaps = [line.split()[0] for line in read("/proc/swaps").splitlines()[1:]]
    facts = {
        "hostname": socket.gethostname(),
        "machine_id": read("/etc/machine-id"),
        "product_id": read("/sys/class/dmi/id/product_uuid"),
        "os": system.get("ID", ""),
        "os_version": system.get("VERSION_ID", ""),
        "arch": os.uname().machine,
        "container": container,
        "cpus": len(os.sched_getaffinity(0)),
        "memory": memory(),
        "disk_total": total,
        "disk_free": free,
        "disk_kind": kind,
        "cards": cards(),
        "routes": routes(),
        "nameservers": nameservers(),
        "ssh_address": words[2] if len(words) == 4 and "." in words[2] else None,
        "cgroup": 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1,
        "caps": caps.group(1) if caps else "0",
        "conntrack_tunable": conntrack_tunable(container),
        "nfs": has_module("nfs", "nfs", "nfs4"),
        "overlay": has_module("overlay", "overlay"),
        "swaps": swaps,
        "listening": listening(),
        "leftovers": leftovers(),
        "runtimes": installed(ask["runtimes"]),
        "installed": installed(ask["packages"]),
        "marker": marker(),
        "reaches_us": reaches(ask["us"]),
        # Last, as the one who asks compares it with the end of this.
        "now": time.time(),
    }
    sys.stdout.write(json.dumps(facts) + "\n")


main(*sys.argv[1:])
