"""Measures what the doctor's rules look at, beyond HostFacts: slower, and only for the doctor."""

from __future__ import annotations

import ctypes
import json
import locale
import os
import re
import resource
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from labwright.doctor.facts import (
    Checkup,
    Cpu,
    DockerFacts,
    Kernel,
    Kvm,
    Libvirt,
    Network,
    System,
    VirtualBox,
    Wish,
)
from labwright.errors import LabError
from labwright.model import HostFacts, Tool
from labwright.tools import host, kvmprobe, netprobe, workdir
from labwright.tools.shell import Shell

ROOT = Path("/")
QEMU = "qemu-system-x86_64"
VENDOR_FLAGS = ("vmx", "svm")
LIBVIRT_SOCKETS = ("run/libvirt/libvirt-sock", "run/libvirt/virtqemud-sock")
DEAD_SOURCES = re.compile(
    r"^[^#]*(?:apt\.kubernetes\.io|packages\.cloud\.google\.com/apt)", re.MULTILINE
)
FIREWALLS = ("firewalld", "ufw")
WRITES, WRITE_SIZE, WRITE_SECONDS = 200, 2300, 2.0
BULK = 32 * 2**20
# The return value of adjtimex for a clock that no server keeps (linux/timex.h).
TIME_ERROR = 5
LISTEN = "0A"
# macOS has no fdatasync.
SYNC = getattr(os, "fdatasync", os.fsync)
ANYWHERE = frozenset({"00000000", "0" * 32})


def measure(shell: Shell, found: HostFacts, wish: Wish, root: Path = ROOT) -> Checkup:
    """Measure; whatever waits is asked at the same time. ``root`` is another root for tests."""
    with ThreadPoolExecutor() as pool:
        kvm = pool.submit(_kvm, shell, found, root)
        docker = pool.submit(_docker, shell, found)
        network = pool.submit(_network, shell, found, root)
        tools = pool.submit(_tools, shell, found)
        system = pool.submit(_system, root)
        return Checkup(
            host=replace(found, tools=tools.result()),
            cpu=cpu(_text(root / "proc/cpuinfo")),
            kvm=kvm.result(),
            virtualbox=_virtualbox(found, root),
            libvirt=Libvirt(_libvirt(root)),
            docker=docker.result(),
            kernel=_kernel(root),
            network=network.result(),
            system=system.result(),
            wish=wish,
        )


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


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
    at_load = _text(root / "sys/module/kvm/parameters/enable_virt_at_load").strip()
    counts = [root / "sys/module" / name / "refcnt" for name in modules if name != "kvm"]
    users = sum(_number(path) or 0 for path in counts)
    boots, why = _boots(shell, found)
    known = {"Y": True, "1": True, "N": False, "0": False}
    return Kvm(modules, known.get(at_load), users, boots, why)


def _boots(shell: Shell, found: HostFacts) -> tuple[bool | None, str]:
    if not found.kvm:
        return None, "/dev/kvm does not open"
    if not shell.has(QEMU):
        return None, f"not tried: {QEMU} is not installed"
    return kvmprobe.boots(shell, QEMU)


def _virtualbox(found: HostFacts, root: Path) -> VirtualBox:
    secure = next(iter((root / "sys/firmware/efi/efivars").glob("SecureBoot-*")), None)
    return VirtualBox(
        driver=_text(root / "sys/module/vboxdrv/version").strip(),
        permitted=permitted(root / "etc/vbox/networks.conf"),
        secure_boot=_last_byte(secure) == 1 if secure else None,
        kernel_headers=(root / "lib/modules" / found.kernel / "build").exists(),
    )


def _last_byte(path: Path) -> int | None:
    try:
        return path.read_bytes()[-1]
    except (OSError, IndexError):
        return None


def permitted(path: Path) -> tuple[IPv4Network, ...] | None:
    """Read networks.conf: lines of ``* RANGE RANGE …``; ``None`` where there is none."""
    if not path.is_file():
        return None
    lines = [line.strip() for line in _text(path).splitlines()]
    return tuple(_networks(word for line in lines if line[:1] == "*" for word in line[1:].split()))


def _networks(words: Iterable[str]) -> Iterator[IPv4Network]:
    for word in words:
        try:
            yield IPv4Network(word, strict=False)
        except ValueError:
            continue


def _libvirt(root: Path) -> str:
    socket_ = next((root / s for s in LIBVIRT_SOCKETS if (root / s).exists()), None)
    if socket_ is None:
        return "absent"
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(socket_))
        except PermissionError:
            return "denied"
        except OSError:
            return "absent"
    return "answers"


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
        inotify_instances=_number(inotify / "max_user_instances"),
        inotify_watches=_number(inotify / "max_user_watches"),
        open_files=_open_files(),
        swap=(_meminfo(root).get("SwapTotal") or 0) // 1024,
        controllers=_controllers(root),
        overlay="overlay" in _text(root / "proc/filesystems").split(),
        bridge_netfilter=(root / "proc/sys/net/bridge/bridge-nf-call-iptables").exists(),
    )


def _open_files() -> int | None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def _controllers(root: Path) -> frozenset[str]:
    """Give the enabled controllers, of cgroup v2 or as /proc/cgroups says."""
    unified = _text(root / "sys/fs/cgroup/cgroup.controllers").split()
    rows = [line.split() for line in _text(root / "proc/cgroups").splitlines()[1:]]
    return frozenset(unified) or frozenset(r[0] for r in rows if len(r) > 3 and r[3] == "1")


def _meminfo(root: Path) -> dict[str, int]:
    rows = re.findall(r"^(\w+):\s+(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    return {name: int(value) for name, value in rows}


def _network(shell: Shell, found: HostFacts, root: Path) -> Network:
    resolv = _text(root / "etc/resolv.conf")
    search = re.findall(r"^(?:search|domain)\s+(.+)$", resolv, re.MULTILINE)
    policy, chain = _forward(shell)
    answering = [name for name, answer in found.upstream.items() if answer == "answers"]
    return Network(
        resolvers=tuple(re.findall(r"^nameserver\s+(\S+)", resolv, re.MULTILINE)),
        search=tuple(search[-1].split()) if search else (),
        made_up=netprobe.made_up(),
        strangers=netprobe.strangers(),
        untrusted=netprobe.untrusted(answering),
        proxies=netprobe.proxies(os.environ),
        listening=listening(_text(root / "proc/net/tcp") + _text(root / "proc/net/tcp6")),
        forward_policy=policy,
        docker_chain=chain,
        firewall=_firewall(shell),
    )


def listening(text: str) -> tuple[int, ...]:
    """Give the ports that /proc/net/tcp shows as taken on all addresses."""
    rows = [line.split() for line in text.splitlines()]
    ends = [row[1].split(":") for row in rows if len(row) > 3 and row[3] == LISTEN]
    return tuple(sorted({int(port, 16) for address, port in ends if address in ANYWHERE}))


def _forward(shell: Shell) -> tuple[str, bool]:
    """Give the FORWARD policy, and whether Docker's chain is there; empty where it is not told."""
    program = host.which("iptables")
    if program is None:
        return "", False
    try:
        said = shell.run([program, "-S"], check=False, timeout=10).out
    except LabError:
        return "", False
    policy = re.search(r"^-P FORWARD (\w+)$", said, re.MULTILINE)
    return policy[1] if policy else "", "-N DOCKER-USER" in said


def _firewall(shell: Shell) -> str:
    if not shell.has("systemctl"):
        return ""
    for name in FIREWALLS:
        words = ["systemctl", "is-active", "--quiet", name]
        try:
            if shell.run(words, check=False, timeout=5).code == 0:
                return name
        except LabError:
            return ""
    return ""


def _system(root: Path) -> System:
    available = _meminfo(root).get("MemAvailable")
    sync_ms, rate = _disk(_existing(workdir.cache()))
    named, utf8 = _locale()
    return System(
        memory_available=available // 1024 if available is not None else None,
        sync_ms=sync_ms,
        write_rate=rate,
        clock=_clock(),
        locale=named,
        utf8=utf8,
        wsl="microsoft" in _text(root / "proc/sys/kernel/osrelease").lower(),
        systemd=(root / "run/systemd/system").is_dir(),
        dead_sources=tuple(_dead_sources(root)),
        boxes=_boxes(),
    )


def _existing(path: Path) -> Path:
    while not path.is_dir():
        path = path.parent
    return path


def _disk(folder: Path) -> tuple[float | None, float | None]:
    """Write as etcd does, small and synced, for two seconds at most; then 32 MiB at once.

    Gives milliseconds of the slowest hundredth, and MB/s. Nothing stays behind.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            took = sorted(_synced_writes(file.fileno()))
            start = time.perf_counter()
            os.write(file.fileno(), bytes(BULK))
            SYNC(file.fileno())
            rate = BULK / 1e6 / max(time.perf_counter() - start, 1e-6)
    except OSError:
        return None, None
    return took[len(took) * 99 // 100] * 1000, rate


def _synced_writes(handle: int) -> Iterator[float]:
    data, end = bytes(WRITE_SIZE), time.perf_counter() + WRITE_SECONDS
    for _ in range(WRITES):
        start = time.perf_counter()
        os.write(handle, data)
        SYNC(handle)
        yield time.perf_counter() - start
        if time.perf_counter() > end:
            return


def _clock() -> bool | None:
    """Ask the kernel whether something keeps its clock; ``None`` where it has no adjtimex."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    # A zeroed struct timex asks and sets nothing; it is 208 bytes on 64-bit Linux.
    state = adjtimex(ctypes.create_string_buffer(256))
    return None if state < 0 else state != TIME_ERROR


def _locale() -> tuple[str, bool]:
    """Give the locale that Ansible will see, and whether it will take it."""
    named = next((v for n in ("LC_ALL", "LC_CTYPE", "LANG") if (v := os.environ.get(n))), "")
    encoding = named.partition(".")[2].partition("@")[0].lower().replace("-", "")
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "")
    except locale.Error:
        return f"{named} (not installed)", False
    finally:
        locale.setlocale(locale.LC_ALL, before)
    return named, encoding == "utf8"


def _dead_sources(root: Path) -> Iterator[str]:
    folder = root / "etc/apt"
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for path in files:
        if path.suffix in {".list", ".sources"} and DEAD_SOURCES.search(_text(path)):
            yield str(path)


def _boxes() -> tuple[str, ...]:
    home = Path(os.environ.get("VAGRANT_HOME", Path.home() / ".vagrant.d"))
    folders = (home / "boxes").glob("*")
    return tuple(sorted(p.name.replace("-VAGRANTSLASH-", "/") for p in folders if p.is_dir()))
