"""What the doctor can mend by itself: commands, what undoes them, and nothing that grants rights.

Adding a user to the group docker or libvirt is not here: who is in it is as good as root.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network

from labwright.doctor.containers import INSTANCES, WATCHES
from labwright.doctor.facts import Checkup
from labwright.errors import Finding

NETWORKS_CONF = "/etc/vbox/networks.conf"
SYSCTLS = "/etc/sysctl.d/90-labwright.conf"
VENDOR_MODULES = ("kvm_intel", "kvm_amd")


@dataclass(frozen=True, slots=True)
class Command:
    """One command, run as root; ``text`` goes to its standard input.

    A ``daemon`` is started and left running.
    """

    argv: tuple[str, ...]
    text: str = ""
    daemon: bool = False

    def shown(self) -> str:
        """Give it as one would type it."""
        line = shlex.join(self.argv) + (" &" if self.daemon else "")
        words = self.text.replace("\\", r"\\").replace("%", "%%").replace("\n", r"\n")
        return f"printf {shlex.quote(words)} | {line}" if words else line


@dataclass(frozen=True, slots=True)
class Remedy:
    """What mends a finding; ``undo`` says how it is taken back, or that it is not."""

    finding: str
    title: str
    commands: tuple[Command, ...]
    undo: str


def _networks_conf(c: Checkup) -> Remedy:
    wanted = c.wish.subnet or IPv4Network("192.168.56.0/24")
    # Once the file exists, the default is permitted only if it is named.
    default = () if c.virtualbox.permitted is not None else ("* 192.168.56.0/21",)
    lines = "".join(f"{line}\n" for line in (*default, f"* {wanted}"))
    return Remedy(
        "doctor.virtualbox.networks-conf",
        f"permit {wanted} for VirtualBox's host-only networks",
        (
            Command(("mkdir", "-p", "/etc/vbox")),
            Command(("tee", "-a", NETWORKS_CONF), lines),
        ),
        f"remove the line `* {wanted}` from {NETWORKS_CONF}",
    )


def _inotify(c: Checkup) -> Remedy:
    watches = max(c.kernel.inotify_watches or 0, WATCHES)
    instances = max(c.kernel.inotify_instances or 0, INSTANCES)
    names = ("fs.inotify.max_user_instances", "fs.inotify.max_user_watches")
    values = tuple(zip(names, (instances, watches), strict=True))
    before = f"{c.kernel.inotify_instances} and {c.kernel.inotify_watches}"
    return Remedy(
        "doctor.docker.inotify",
        "raise the limits of inotify, now and at each boot",
        (
            Command(("tee", SYSCTLS), "".join(f"{name} = {value}\n" for name, value in values)),
            *(Command(("sysctl", "-w", f"{name}={value}")) for name, value in values),
        ),
        f"rm {SYSCTLS}; the values before were {before}",
    )


def _start_docker(c: Checkup) -> Remedy:
    """Start it; without systemd by itself, as Debian's script fails where limits are fixed."""
    by_systemd = Command(("systemctl", "start", "docker"))
    by_itself = Command(("dockerd",), daemon=True)
    return Remedy(
        "doctor.docker.stopped",
        "start Docker",
        (by_systemd if c.system.systemd else by_itself,),
        "systemctl stop docker" if c.system.systemd else "end the process dockerd",
    )


def _unload_kvm(c: Checkup) -> Remedy | None:
    """Unload KVM for now; never where something uses it."""
    module = next((name for name in VENDOR_MODULES if name in c.kvm.modules), "")
    if not module or c.kvm.users:
        return None
    return Remedy(
        "doctor.virtualbox.kvm-holds-cpu",
        "unload KVM until the next boot, so that VirtualBox has the processor",
        (Command(("modprobe", "-r", module)),),
        f"modprobe {module}",
    )


def _load(finding: str, module: str) -> Callable[[Checkup], Remedy]:
    return lambda _c: Remedy(
        finding,
        f"load the kernel module {module} until the next boot",
        (Command(("modprobe", module)),),
        f"modprobe -r {module}",
    )


def _keep_time(c: Checkup) -> Remedy | None:
    if not c.system.systemd:
        return None
    return Remedy(
        "doctor.clock.unsynchronized",
        "let a time server keep the clock",
        (Command(("timedatectl", "set-ntp", "true")),),
        "timedatectl set-ntp false; a clock that was set right stays so",
    )


MENDERS: dict[str, Callable[[Checkup], Remedy | None]] = {
    "doctor.virtualbox.networks-conf": _networks_conf,
    "doctor.docker.inotify": _inotify,
    "doctor.docker.stopped": _start_docker,
    "doctor.virtualbox.kvm-holds-cpu": _unload_kvm,
    "doctor.docker.overlay": _load("doctor.docker.overlay", "overlay"),
    "doctor.docker.bridge-netfilter": _load("doctor.docker.bridge-netfilter", "br_netfilter"),
    "host.virtualbox.no-driver": _load("host.virtualbox.no-driver", "vboxdrv"),
    "doctor.clock.unsynchronized": _keep_time,
}


def remedies(checkup: Checkup, findings: Iterable[Finding]) -> tuple[Remedy, ...]:
    """Give what can be mended of some findings, each once."""
    ids = dict.fromkeys(finding.id for finding in findings)
    made = (MENDERS[id_](checkup) for id_ in ids if id_ in MENDERS)
    return tuple(remedy for remedy in made if remedy)
