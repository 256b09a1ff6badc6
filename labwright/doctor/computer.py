"""Rules about the computer as such: system, memory, disk, clock, locale."""

from __future__ import annotations

from labwright.doctor.facts import Checkup
from labwright.doctor.rule import ALL, VMS, Hit, Rule, rule

BOTH = ("linux", "darwin")
DISK_LEAST, DISK_FIRST_BUILD = 4 * 1024, 14 * 1024
MEMORY_LEAST = 2 * 1024
# etcd's own advice for the 99th percentile of a write to its log.
SYNC_MS = 10.0


@rule(
    "system.wsl",
    "Windows Subsystem for Linux",
    "error",
    VMS,
    "https://developer.hashicorp.com/vagrant/docs/other/wsl",
    pains=(16,),
)
def wsl(c: Checkup) -> Hit | None:
    """Host-only networks of VirtualBox on Windows do not reach into WSL."""
    if not c.system.wsl:
        return None
    return Hit(
        "inside WSL there is no VirtualBox and no libvirt to run machines with",
        f"kernel {c.host.kernel}",
        "provider: docker, with Docker inside WSL",
    )


@rule(
    "vagrant.missing",
    "Vagrant is not here, and nothing that `lab.up` could install it with",
    "error",
    ALL,
    "https://developer.hashicorp.com/vagrant/install",
    systems=BOTH,
)
def no_vagrant(c: Checkup) -> Hit | None:
    """Where there is apt, `lab.up` installs it, after asking."""
    if "vagrant" in c.host.tools or "apt-get" in c.host.tools:
        return None
    return Hit(
        "Vagrant is not installed",
        "neither vagrant nor apt-get is on the PATH",
        "install Vagrant 2.3.4 or later",
    )


@rule(
    "memory.low",
    "little memory is available",
    "warning",
    ALL,
    "https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/install-kubeadm/",
)
def memory_low(c: Checkup) -> Hit | None:
    """Compared with the sum of the nodes' limits, which idle nodes stay far below."""
    free, wanted = c.system.memory_available, max(c.wish.memory, MEMORY_LEAST)
    if free is None or free >= wanted:
        return None
    return Hit(
        f"{free} MiB of memory are available, and the lab may take {wanted} MiB",
        f"MemAvailable in /proc/meminfo; {c.host.memory} MiB in all",
        "close programs, or give nodes less: nodes.memory and workers in lab.yaml",
    )


@rule(
    "disk.low",
    "little space for supplies",
    "warning",
    ALL,
    "https://github.com/kubernetes/kubernetes/issues/7815",
    systems=BOTH,
)
def disk_low(c: Checkup) -> Hit | None:
    """The first build takes most."""
    free = c.host.disk_free
    if free >= DISK_FIRST_BUILD:
        return None
    enough = "labs whose software is in the store still fit" if free >= DISK_LEAST else "too little"
    return Hit(
        f"{free} MiB are free in the cache folder",
        f"a first build takes {DISK_FIRST_BUILD} MiB, later labs {DISK_LEAST} MiB: {enough}",
        "free some space, or set XDG_CACHE_HOME to a folder on a larger disk",
    )


@rule(
    "disk.slow",
    "a disk too slow for etcd",
    "warning",
    ALL,
    "https://github.com/etcd-io/etcd/issues/14181",
    systems=BOTH,
    pains=(25,),
)
def disk_slow(c: Checkup) -> Hit | None:
    """Etcd waits for the disk at each write; what it waits longest for matters."""
    took = c.system.sync_ms
    if took is None or took <= SYNC_MS:
        return None
    rate = f", {c.system.write_rate:.0f} MB/s" if c.system.write_rate else ""
    return Hit(
        "the disk is slow for etcd: leaders may change and requests time out under load",
        f"the slowest hundredth of small synced writes took {took:.1f} ms{rate}; "
        f"etcd wants {SYNC_MS:.0f} ms or less",
        "put the lab on an SSD, and do not build or copy beside it",
    )


@rule(
    "clock.unsynchronized",
    "no server keeps the clock",
    "warning",
    ALL,
    "https://github.com/kubernetes-sigs/kind/issues/2166",
    pains=(24,),
)
def clock(c: Checkup) -> Hit | None:
    """Certificates and package lists are valid from a moment on: a clock behind refuses them."""
    if c.system.clock is not False:
        return None
    return Hit(
        "the clock is not kept by a time server",
        "the kernel says that it is not synchronized (adjtimex)",
        "sudo timedatectl set-ntp true; without systemd install chrony. A virtual machine whose "
        "host keeps its clock may ignore this",
    )


@rule(
    "locale.not-utf8",
    "a locale that is not UTF-8",
    "error",
    ALL,
    "https://github.com/ansible/ansible/issues/77658",
    systems=BOTH,
)
def locale(c: Checkup) -> Hit | None:
    """Ansible refuses to start."""
    if c.system.utf8:
        return None
    return Hit(
        "Ansible does not start with this locale",
        f"LC_ALL, LC_CTYPE or LANG: {c.system.locale or 'not set'}",
        "export LC_ALL=C.UTF-8",
    )


RULES: tuple[Rule, ...] = (
    wsl,
    no_vagrant,
    memory_low,
    disk_low,
    disk_slow,
    clock,
    locale,
)
