"""Measures what the doctor's rules look at, beyond HostFacts: slower, and only for the doctor."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from labwright.doctor.facts import (
    Checkup,
    Cpu,
    DockerFacts,
    Kernel,
    Kvm,
    Libvirt,
    VirtualBox,
    Wish,
)
from labwright.errors import LabError
from labwright.model import HostFacts, Tool
from labwright.tools import host, kvmprobe, libvirt, netprobe, networks, procfs, sysprobe
from labwright.tools.shell import Shell

ROOT = Path("/")
VENDOR_FLAGS = ("vmx", "svm")


def measure(shell: Shell, found: HostFacts, wish: Wish, root: Path = ROOT) -> Checkup:
    """Measure; whatever waits is asked at the same time. ``root`` is another root for tests."""
    with ThreadPoolExecutor() as pool:
        kvm = pool.submit(_kvm, shell, found, root)
        docker = pool.submit(_docker, shell, found)
        network = pool.submit(netprobe.measure, shell, found, root)
        tools = pool.submit(_tools, shell, found)
        system = pool.submit(sysprobe.measure, root)
        return Checkup(
            host=replace(found, tools=tools.result(), kvm_boots=kvm.result().boots),
            cpu=cpu(procfs.text(root / "proc/cpuinfo")),
            kvm=kvm.result(),
            virtualbox=_virtualbox(found, root),
            libvirt=Libvirt(libvirt.reached(root)),
            docker=docker.result(),
            kernel=_kernel(root),
            network=network.result(),
            system=system.result(),
            wish=wish,
        )


def _tools(shell: Shell, found: HostFacts) -> Mapping[str, Tool]:
    """Ask for the versions that HostFacts leaves out, as they cost half a second each."""
    vagrant = found.tools.get("vagrant")
    if vagrant is None or vagrant.version:
        return found.tools
    version = host.version(shell, vagrant.path)
    return {**found.tools, "vagrant": Tool(vagrant.path, version)}


def cpu(text: str) -> Cpu:
    """Read /proc/cpuinfo."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        values.setdefault(name.strip(), value.strip())
    flags = set(values.get("flags", "").split())
    return Cpu(
        values.get("vendor_id", ""),
        values.get("model name", ""),
        next((flag for flag in VENDOR_FLAGS if flag in flags), ""),
        "hypervisor" in flags,
    )


def _kvm(shell: Shell, found: HostFacts, root: Path) -> Kvm:
    modules = tuple(sorted(p.name for p in (root / "sys/module").glob("kvm*") if p.is_dir()))
    at_load = procfs.text(root / "sys/module/kvm/parameters/enable_virt_at_load").strip()
    counts = [root / "sys/module" / name / "refcnt" for name in modules if name != "kvm"]
    users = sum(procfs.number(path) or 0 for path in counts)
    boots, why = _boots(shell, found)
    known = {"Y": True, "1": True, "N": False, "0": False}
    return Kvm(modules, known.get(at_load), users, boots, why)


def _boots(shell: Shell, found: HostFacts) -> tuple[bool | None, str]:
    if not found.kvm:
        return None, "/dev/kvm does not open"
    if not shell.has(kvmprobe.QEMU):
        return None, f"not tried: {kvmprobe.QEMU} is not installed"
    return kvmprobe.boots(shell, kvmprobe.QEMU)


def _virtualbox(found: HostFacts, root: Path) -> VirtualBox:
    secure = next(iter((root / "sys/firmware/efi/efivars").glob("SecureBoot-*")), None)
    return VirtualBox(
        driver=procfs.text(root / "sys/module/vboxdrv/version").strip(),
        permitted=networks.permitted(root / "etc/vbox/networks.conf"),
        secure_boot=_last_byte(secure) == 1 if secure else None,
        kernel_headers=(root / "lib/modules" / found.kernel / "build").exists(),
    )


def _last_byte(path: Path) -> int | None:
    try:
        return path.read_bytes()[-1]
    except (OSError, IndexError):
        return None


def _docker(shell: Shell, found: HostFacts) -> DockerFacts:
    if not found.docker_api:
        return DockerFacts()
    try:
        words = ["docker", "info", "--format", "{{json .}}"]
        said: dict[str, Any] = json.loads(shell.run(words, timeout=15).out)
    except (LabError, ValueError):
        return DockerFacts()
    root = said.get("DockerRootDir", "")
    return DockerFacts(
        version=said.get("ServerVersion", ""),
        driver=said.get("Driver", ""),
        root=root,
        root_free=_free(Path(root)) if root else None,
        rootless=any("name=rootless" in option for option in said.get("SecurityOptions") or ()),
    )


def _free(path: Path) -> int | None:
    """Give the free MiB of a folder that may be closed to us: statvfs needs no right to read."""
    while True:
        try:
            state = os.statvfs(path)
        except PermissionError:
            path = path.parent
            continue
        except OSError:
            return None
        return state.f_bavail * state.f_frsize // 2**20


def _kernel(root: Path) -> Kernel:
    inotify = root / "proc/sys/fs/inotify"
    return Kernel(
        inotify_instances=procfs.number(inotify / "max_user_instances"),
        inotify_watches=procfs.number(inotify / "max_user_watches"),
        open_files=_open_files(),
        swap=(procfs.meminfo(root).get("SwapTotal") or 0) // 1024,
        controllers=_controllers(root),
        overlay="overlay" in procfs.text(root / "proc/filesystems").split(),
        bridge_netfilter=(root / "proc/sys/net/bridge/bridge-nf-call-iptables").exists(),
    )


def _open_files() -> int | None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def _controllers(root: Path) -> frozenset[str]:
    """Give the enabled controllers, of cgroup v2 or as /proc/cgroups says."""
    unified = procfs.text(root / "sys/fs/cgroup/cgroup.controllers").split()
    rows = [line.split() for line in procfs.text(root / "proc/cgroups").splitlines()[1:]]
    return frozenset(unified) or frozenset(r[0] for r in rows if len(r) > 3 and r[3] == "1")
