"""Rules about VirtualBox and Vagrant."""

from __future__ import annotations

import re
from ipaddress import IPv4Network

from packaging.version import Version

from labwright.doctor.facts import NONE, Checkup
from labwright.doctor.rule import VMS, Hit, Rule, rule

DEFAULT_RANGE = IPv4Network("192.168.56.0/21")
# VirtualBox's series and the first Vagrant that knows it.
VAGRANT_FOR = ((Version("7.2"), Version("2.4.9")), (Version("7.1"), Version("2.4.2")))


@rule(
    "virtualbox.driver-mismatch",
    "the loaded VirtualBox driver is of another version than VirtualBox",
    "error",
    ("virtualbox",),
    "https://github.com/myspaghetti/macos-virtualbox/issues/191",
)
def driver_mismatch(c: Checkup) -> Hit | None:
    """After an update the old driver stays loaded until it is replaced."""
    ours, loaded = c.version("VBoxManage"), re.split(r"[ _r]", c.virtualbox.driver)[0]
    if ours == NONE or not loaded or loaded == str(ours):
        return None
    return Hit(
        "VirtualBox and its kernel driver are of different versions",
        f"VBoxManage {ours}, vboxdrv {c.virtualbox.driver}",
        "sudo /sbin/vboxconfig, and restart if the old driver is still in use",
    )


@rule(
    "virtualbox.secure-boot",
    "Secure Boot is on and VirtualBox's driver is not loaded",
    "warning",
    ("virtualbox",),
    "https://github.com/linux-surface/linux-surface/issues/906",
)
def secure_boot(c: Checkup) -> Hit | None:
    """The kernel then lets signed modules in only."""
    if "VBoxManage" not in c.host.tools or c.host.vboxdrv or not c.virtualbox.secure_boot:
        return None
    return Hit(
        "Secure Boot may be why VirtualBox's driver is not loaded",
        "the firmware says SecureBoot=1, and /dev/vboxdrv is not there",
        "sign the module with an enrolled key (mokutil --import), or turn Secure Boot off",
    )


@rule(
    "virtualbox.no-headers",
    "VirtualBox's driver is not loaded and cannot be built: no kernel headers",
    "warning",
    ("virtualbox",),
    "https://github.com/frontendbr/forum/issues/367",
)
def no_headers(c: Checkup) -> Hit | None:
    """Vboxconfig builds the driver for this kernel, from its headers."""
    if "VBoxManage" not in c.host.tools or c.host.vboxdrv or c.virtualbox.kernel_headers:
        return None
    return Hit(
        "the headers of the running kernel are not installed",
        f"/lib/modules/{c.host.kernel}/build is not there",
        f"sudo apt-get install linux-headers-{c.host.kernel}, then sudo /sbin/vboxconfig",
    )


@rule(
    "virtualbox.networks-conf",
    "/etc/vbox/networks.conf does not permit the lab's addresses",
    "error",
    ("virtualbox",),
    "https://github.com/techiescamp/vagrant-kubeadm-kubernetes/pull/27",
    systems=("linux", "darwin"),
    pains=(1,),
)
def networks_conf(c: Checkup) -> Hit | None:
    """Once the file exists, only what it names is permitted."""
    if "VBoxManage" not in c.host.tools:
        return None
    permitted = c.virtualbox.permitted
    ranges = (DEFAULT_RANGE,) if permitted is None else permitted
    wanted = c.wish.subnet or IPv4Network("192.168.56.0/24")
    if any(wanted.subnet_of(network) for network in ranges):
        return None
    where = "VirtualBox's default" if permitted is None else "/etc/vbox/networks.conf"
    return Hit(
        f"VirtualBox will refuse the lab's network {wanted}",
        f"{where} permits {', '.join(map(str, ranges)) or 'nothing'}",
        f"add a line `* {wanted}` to /etc/vbox/networks.conf, or set network.subnet in lab.yaml",
    )


@rule(
    "virtualbox.vagrant-too-old",
    "this Vagrant does not know this VirtualBox",
    "error",
    ("virtualbox",),
    "https://github.com/hashicorp/vagrant/pull/13709",
    systems=("linux", "darwin"),
)
def vagrant_too_old(c: Checkup) -> Hit | None:
    """Vagrant refuses a series of VirtualBox that came after it."""
    ours, vagrant = c.version("VBoxManage"), c.version("vagrant")
    needed = next((v for series, v in VAGRANT_FOR if ours >= series), None)
    if needed is None or vagrant in {NONE, needed} or vagrant > needed:
        return None
    return Hit(
        "this Vagrant is too old for this VirtualBox",
        f"Vagrant {vagrant}, VirtualBox {ours}, which needs Vagrant {needed}",
        "bring Vagrant up to date, or take VirtualBox 7.0",
    )


@rule(
    "virtualbox.too-old",
    "VirtualBox before 7.0",
    "warning",
    ("virtualbox",),
    "https://www.virtualbox.org/wiki/Download_Old_Builds",
    systems=("linux", "darwin"),
)
def virtualbox_too_old(c: Checkup) -> Hit | None:
    """The rendered Vagrantfile is written for 7.0 and later."""
    ours = c.version("VBoxManage")
    if ours == NONE or ours >= Version("7.0"):
        return None
    return Hit(
        "VirtualBox is older than what the lab's Vagrantfile is written for",
        f"VirtualBox {ours}",
        "install VirtualBox 7.0 or later",
    )


@rule(
    "virtualbox.arm",
    "VirtualBox before 7.1 on an arm64 Mac",
    "error",
    ("virtualbox",),
    "https://github.com/Varying-Vagrant-Vagrants/VVV/issues/2747",
    systems=("darwin",),
    pains=(14,),
)
def arm_mac(c: Checkup) -> Hit | None:
    """Virtual machines on Apple silicon came with 7.1, and with arm64 boxes only."""
    ours = c.version("VBoxManage")
    if c.host.arch != "arm64" or ours == NONE or ours >= Version("7.1"):
        return None
    return Hit(
        "this VirtualBox cannot run machines on Apple silicon",
        f"VirtualBox {ours} on arm64",
        "install VirtualBox 7.1 or later, and name an arm64 box under box: in lab.yaml",
    )


@rule(
    "vagrant.catalogue",
    "no Vagrant box is here, and the public catalogue is being closed",
    "note",
    VMS,
    "https://github.com/hashicorp/vagrant/issues/13836",
    systems=("linux", "darwin"),
    pains=(5,),
)
def catalogue(c: Checkup) -> Hit | None:
    """Machines start from a box; the public catalogue ends on 2026-12-31."""
    machines = c.host.vboxdrv or c.host.kvm or c.host.os_kind == "darwin"
    if "vagrant" not in c.host.tools or not machines or c.system.boxes:
        return None
    return Hit(
        "a lab of virtual machines would have to fetch its box from a catalogue that closes",
        "~/.vagrant.d/boxes is empty",
        "keep a copy: ./invokew box.build, then box.add; or name a box with url: and checksum:",
    )


RULES: tuple[Rule, ...] = (
    driver_mismatch,
    secure_boot,
    no_headers,
    networks_conf,
    vagrant_too_old,
    virtualbox_too_old,
    arm_mac,
    catalogue,
)
