"""Measures this computer: what HostFacts says, and nothing else looks at the host."""

from __future__ import annotations

import concurrent.futures
import gzip
import ipaddress
import os
import platform
import re
import shutil
import socket
import tempfile
import zlib
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

from labwright.errors import LabError
from labwright.model import HostFacts, Tool
from labwright.tools import libvirt, networks, procfs, programs, workdir
from labwright.tools.docker import Docker
from labwright.tools.shell import Shell

which = programs.which

TOOLS = ("vagrant", "VBoxManage", "virsh", "docker", "dockerd", "apt-get", "ip", "go")
VENDORS = ("pkgs.k8s.io", "registry.k8s.io")
VENDOR_DEADLINE = 0.8
# Options of the kernel, and the modules that they make where they are not built in.
MODULES = {
    "NF_TABLES": "nf_tables",
    "NETFILTER_NETLINK_QUEUE": "nfnetlink_queue",
    "NFT_QUEUE": "nft_queue",
    "NFT_COMPAT": "nft_compat",
    "NETFILTER_XT_TARGET_NFQUEUE": "xt_NFQUEUE",
}
QUEUE = ("NF_TABLES", "NETFILTER_NETLINK_QUEUE")
QUEUE_WAYS = {"nft": ("NFT_QUEUE",), "xt": ("NFT_COMPAT", "NETFILTER_XT_TARGET_NFQUEUE")}


def facts(shell: Shell) -> HostFacts:
    """Measure the host; everything that waits is asked at the same time."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        docker = Docker(shell)
        api = pool.submit(docker.api)
        nets = pool.submit(networks.networks, shell, docker)
        way = pool.submit(networks.way_out, shell)
        ports = pool.submit(networks.listening, Path("/"))
        installed = pool.submit(_installed, shell)
        vendors = {name: pool.submit(_answers, name) for name in VENDORS}
        version, why = api.result()
        release = _os_release()
        way_out, mtu = way.result()
        return HostFacts(
            os_kind=platform.system().lower(),
            os=release.get("ID", platform.system().lower()),
            os_version=release.get("VERSION_ID", platform.release()),
            kernel=platform.release(),
            arch=platform.machine(),
            cpus=os.cpu_count() or 1,
            memory=_memory(),
            disk_free=_disk_free(workdir.cache()),
            root=os.geteuid() == 0,
            tools=_tools(shell),
            docker_api=version,
            docker_why=why,
            cgroup=2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1,
            caps=_caps(),
            networks=nets.result(),
            nameservers=_nameservers(),
            vboxdrv=Path("/dev/vboxdrv").exists(),
            kvm=_opens("/dev/kvm"),
            apt_installed=installed.result(),
            nfs=mounts_nfs(Path("/")),
            libvirt=libvirt.reached(),
            systemd=procfs.systemd(),
            upstream={name: job.result() for name, job in vendors.items()},
            permitted=networks.permitted(Path("/etc/vbox/networks.conf")),
            mtu=mtu,
            way_out=way_out,
            listening=ports.result(),
            nf_tables=has_nf_tables(Path("/"), platform.release()),
            queues=packet_queues(Path("/"), platform.release()),
            inotify=procfs.number(Path("/proc/sys/fs/inotify/max_user_instances")),
        )


def is_debian_12() -> bool:
    """Whether the recipes can be made here: what they drive are Debian 12's own programs."""
    release = _os_release()
    there = (release.get("ID"), release.get("VERSION_ID"), platform.machine())
    return there == ("debian", "12", "x86_64")


def go_modules(shell: Shell, module: str, own: Path) -> bool | None:
    """Ask the Go module proxy for a module; ``None`` where no Go is here to ask with.

    ``module`` is ``path@version``, ``own`` the toolchain that compiles for a lab, which need not
    be there yet. The proxy is whichever Go is set up to use.
    """
    go = str(own / "bin/go") if (own / "bin/go").exists() else which("go")
    if go is None:
        return None
    # With a module cache of its own: what a user's cache remembers says nothing of the proxy.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        env = {"GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOMODCACHE": folder}
        try:
            result = shell.run(
                [go, "list", "-m", module], cwd=Path("/"), env=env, timeout=20, check=False
            )
        except LabError:
            return False
    return result.code == 0


def mounts_nfs(root: Path) -> bool:
    """Whether the kernel has an NFS client, or a module of one that can be loaded."""
    known = root / "proc/filesystems"
    if known.is_file() and {"nfs", "nfs4"} & set(known.read_text("utf-8").split()):
        return True
    modules = root / "lib/modules" / platform.release() / "kernel/fs/nfs"
    return modules.is_dir() and any(modules.glob("nfs.ko*"))


def has_nf_tables(root: Path, release: str) -> bool | None:
    """Whether the kernel has nftables, or a module of it that can be loaded.

    ``None`` where nothing here tells: neither the kernel's configuration nor its modules.
    """
    if (root / "sys/module/nf_tables").exists():
        return True
    text = _kernel_config(root, release)
    return None if text is None else _has(text, "NF_TABLES", root, release)


def packet_queues(root: Path, release: str) -> frozenset[str] | None:
    """Return the ways in which the kernel asks a program about a packet: ``nft`` and ``xt``.

    ``None`` where nothing here tells of one. Trying would need root and would load modules.
    """
    text = _kernel_config(root, release)
    if text is None:
        return None
    known = {
        way: [_has(text, option, root, release) for option in (*QUEUE, *options)]
        for way, options in QUEUE_WAYS.items()
    }
    ways = frozenset(way for way, parts in known.items() if all(parts))
    untold = any(None in parts and False not in parts for parts in known.values())
    return ways or (None if untold else ways)


def _has(config: str, option: str, root: Path, release: str) -> bool | None:
    match = re.search(rf"^CONFIG_{option}=([ym])$", config, re.MULTILINE)
    if match and match[1] == "m":
        # A container's file system, or that of a host after an upgrade, need not have the module.
        modules = root / "lib/modules" / release
        return True if any(modules.rglob(f"{MODULES[option]}.ko*")) else None
    return match is not None


def _kernel_config(root: Path, release: str) -> str | None:
    """Return the configuration of the running kernel; ``None`` where it is not readable."""
    try:
        return gzip.decompress((root / "proc/config.gz").read_bytes()).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        pass
    for path in (f"boot/config-{release}", f"lib/modules/{release}/config"):
        try:
            return (root / path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
    return None


def _tools(shell: Shell) -> dict[str, Tool]:
    """Find programs; versions only where VirtualBox is: Vagrant takes half a second to say its."""
    found = {name: Tool(path) for name in TOOLS if (path := which(name))}
    if "VBoxManage" in found:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            asked = [name for name in ("VBoxManage", "vagrant") if name in found]
            said = pool.map(lambda name: version(shell, found[name].path), asked)
            found |= {n: Tool(found[n].path, v) for n, v in zip(asked, said, strict=True)}
    return found


def version(shell: Shell, program: str) -> str:
    """Give the number in a program's ``--version``; Debian's VBoxManage warns before it."""
    try:
        out = shell.run([program, "--version"], check=False, timeout=10).out
    except LabError:
        return ""
    numbers = re.findall(r"^(?:Vagrant )?(\d+\.\d+\.\d+)", out, re.MULTILINE)
    return str(numbers[-1]) if numbers else ""


def _os_release() -> Mapping[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def _disk_free(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free // 2**20


# Bit numbers of linux/capability.h, in order.
CAPS = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
""".split()  # noqa: SIM905 - forty-one quoted words would hide the order


def caps_of(mask: int) -> frozenset[str]:
    """Give the names in a capability mask, as in CapBnd of /proc/self/status."""
    return frozenset(f"CAP_{name}" for bit, name in enumerate(CAPS) if mask >> bit & 1)


def _caps() -> frozenset[str]:
    """Give the bounding set: what a container can be given at most."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    match = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return caps_of(int(match[1], 16)) if match else frozenset()


def _nameservers() -> tuple[IPv4Address, ...]:
    """Give the name servers a node could ask: none on the host's own loopback.

    systemd-resolved's stub is 127.0.0.53; the servers behind it are in a file of its own
    (https://github.com/coredns/coredns/issues/2087).
    """
    for file in ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"):
        try:
            text = Path(file).read_text(encoding="utf-8")
        except OSError:
            continue
        addresses = [
            _address(word) for word in re.findall(r"^nameserver\s+(\S+)", text, re.MULTILINE)
        ]
        usable = tuple(a for a in addresses if a and not a.is_loopback)
        if usable:
            return usable
    return ()


def _address(text: str) -> IPv4Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return address if isinstance(address, IPv4Address) else None


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError:
        return False
    return True


def _installed(shell: Shell) -> frozenset[str]:
    if not shutil.which("dpkg-query"):
        return frozenset()
    words = ["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n"]
    lines = shell.run(words, check=False).out.splitlines()
    return frozenset(line.split()[1] for line in lines if line.startswith("ii "))


def _answers(name: str) -> str:
    try:
        socket.create_connection((name, 443), timeout=VENDOR_DEADLINE).close()
    except OSError:
        return "does not answer"
    return "answers"
