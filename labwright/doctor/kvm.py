"""Rules about hardware virtualization, KVM and libvirt.

The advice about KVM beside VirtualBox reversed: it depends on three versions (docs/doctor.md).
"""

from __future__ import annotations

from packaging.version import Version

from labwright.doctor.facts import NONE, Checkup
from labwright.doctor.rule import Hit, Rule, lab_up_starts, rule

# From here on KVM takes the processor's virtualization when its module is loaded.
HOLDS_AT_LOAD = Version("6.12")
# From here on VirtualBox uses KVM's interface to turn virtualization on.
USES_KVM = Version("7.2.10")
VENDOR_MODULES = frozenset({"kvm_intel", "kvm_amd"})
# What is left without the processor's help.
EMULATE = "set provider: docker, or provider: libvirt for machines that are emulated, and slow"
X86 = frozenset({"x86_64", "AMD64", "amd64"})


def _loaded(c: Checkup) -> str:
    """Say which vendor module of KVM is loaded, empty where none is."""
    return next((name for name in c.kvm.modules if name in VENDOR_MODULES), "")


def _versions(c: Checkup) -> str:
    value = {True: "1", False: "0", None: "not there"}[c.kvm.at_load]
    return (
        f"VirtualBox {c.version('VBoxManage')}, kernel {c.host.kernel}, {c.cpu.vendor or 'CPU'}: "
        f"{_loaded(c)} is loaded, kvm.enable_virt_at_load is {value}"
    )


@rule(
    "virtualbox.kvm-holds-cpu",
    "KVM takes the processor first: kernel 6.12 or later, VirtualBox before 7.2.10",
    "error",
    ("virtualbox",),
    "https://github.com/VirtualBox/virtualbox/issues/81",
    pains=(4,),
)
def kvm_holds_cpu(c: Checkup) -> Hit | None:
    """An older VirtualBox on a newer kernel: KVM must not take VT-x when it is loaded."""
    older = NONE < c.version("VBoxManage") < USES_KVM
    if not (older and c.kernel_version >= HOLDS_AT_LOAD and _loaded(c) and c.kvm.at_load):
        return None
    return Hit(
        "KVM holds the processor's virtualization; VirtualBox's machines will not start",
        _versions(c),
        f"now: sudo modprobe -r {_loaded(c)}; for good: put `options kvm enable_virt_at_load=0` "
        "into /etc/modprobe.d/labwright.conf and restart, or take VirtualBox 7.2.10 or later, "
        "which then must NOT have that option",
    )


@rule(
    "virtualbox.kvm-must-enable",
    "kvm.enable_virt_at_load=0 breaks VirtualBox 7.2.10 and later",
    "error",
    ("virtualbox",),
    "https://github.com/VirtualBox/virtualbox/issues/711",
    pains=(4,),
)
def kvm_must_enable(c: Checkup) -> Hit | None:
    """A newer VirtualBox on a newer kernel: the older remedy is now the trouble."""
    newer = c.version("VBoxManage") >= USES_KVM
    if not (newer and _after_6_12(c) and _loaded(c) and c.kvm.at_load is False):
        return None
    return Hit(
        "the remedy for older VirtualBox, kvm.enable_virt_at_load=0, keeps this one from working",
        _versions(c),
        "take that option out of /etc/modprobe.d and of the kernel's command line, then restart; "
        f"until then: sudo modprobe -r {_loaded(c)}",
    )


@rule(
    "virtualbox.kvm-6.12",
    "VirtualBox 7.2.10 and later on kernel 6.12 with KVM loaded",
    "warning",
    ("virtualbox",),
    "https://github.com/void-linux/void-packages/pull/61332",
    pains=(4,),
)
def kvm_on_6_12(c: Checkup) -> Hit | None:
    """On 6.12 itself 7.2.14 was seen to need what 7.2.10 breaks on: no KVM is what both take."""
    newer = c.version("VBoxManage") >= USES_KVM
    if not (newer and c.kernel_version.release[:2] == HOLDS_AT_LOAD.release and _loaded(c)):
        return None
    return Hit(
        "VirtualBox 7.2.10 and later disagree on kernel 6.12 about kvm.enable_virt_at_load",
        _versions(c),
        f"unload KVM before the lab starts: sudo modprobe -r {_loaded(c)}; or a kernel after 6.12",
    )


def _after_6_12(c: Checkup) -> bool:
    return c.kernel_version.release[:2] > HOLDS_AT_LOAD.release


@rule(
    "vm.no-virtualization",
    "the processor shows neither VT-x nor AMD-V",
    "error",
    ("virtualbox",),
    "https://github.com/hashicorp/vagrant/issues/10056",
    pains=(4,),
)
def no_virtualization(c: Checkup) -> Hit | None:
    """VirtualBox starts nothing without vmx or svm among the processor's flags."""
    return _no_virtualization(c, "set provider: docker")


@rule(
    "libvirt.no-virtualization",
    "the processor shows neither VT-x nor AMD-V: libvirt's machines are emulated",
    "warning",
    ("libvirt",),
    "https://www.qemu.org/docs/master/devel/index-tcg.html",
    pains=(4,),
)
def emulated(c: Checkup) -> Hit | None:
    """Qemu needs no help of the processor's, and is several times slower without it."""
    return _no_virtualization(c, EMULATE)


def _no_virtualization(c: Checkup, instead: str) -> Hit | None:
    if c.host.arch not in X86 or c.cpu.virtualization or not c.cpu.vendor:
        return None
    inside = c.cpu.under_hypervisor
    return Hit(
        "this processor offers no hardware virtualization",
        f"{c.cpu.vendor} {c.cpu.model}: neither vmx nor svm in /proc/cpuinfo"
        + (", and this computer is itself a virtual machine" if inside else ""),
        f"turn nested virtualization on in the outer hypervisor, or {instead}"
        if inside
        else f"turn VT-x or AMD-V on in the firmware, or {instead}",
    )


@rule(
    "libvirt.kvm-not-hardware",
    "/dev/kvm opens, and no module of the processor's vendor is behind it",
    "warning",
    ("libvirt",),
    "https://github.com/cocoonstack/pvm",
)
def kvm_not_hardware(c: Checkup) -> Hit | None:
    """A device that opens proves nothing: what counts is which module made it."""
    if not c.host.kvm or _loaded(c) or c.host.arch not in X86 or not c.kvm.modules:
        return None
    return Hit(
        "KVM is here without the processor's help: ordinary kernels do not boot on it",
        f"/dev/kvm opens; loaded: {', '.join(c.kvm.modules)}; neither kvm_intel nor kvm_amd",
        f"use a computer whose processor virtualizes, or {EMULATE}",
    )


@rule(
    "libvirt.kvm-does-not-boot",
    "a tiny guest did not come up under KVM",
    "warning",
    ("libvirt",),
    "https://www.qemu.org/docs/master/system/invocation.html",
)
def kvm_does_not_boot(c: Checkup) -> Hit | None:
    """The only proof that guests boot is a guest that boots."""
    if c.kvm.boots is not False:
        return None
    return Hit(
        "guests of a few instructions do not all come up under KVM",
        c.kvm.why,
        f"look at dmesg for kvm; {EMULATE}",
    )


@rule(
    "libvirt.denied",
    "libvirt runs and refuses this user",
    "error",
    ("libvirt",),
    "https://github.com/tylert/packer-build/issues/18",
)
def libvirt_denied(c: Checkup) -> Hit | None:
    """Vagrant-libvirt speaks through libvirt's socket."""
    if "virsh" not in c.host.tools or c.libvirt.socket != "denied":
        return None
    return Hit(
        "this user may not use libvirt",
        "its socket is there and refuses: it belongs to a group",
        "run as root, or, knowing that the group is as good as root: "
        "sudo usermod -aG libvirt $USER, then log in again",
    )


@rule(
    "libvirt.not-running",
    "libvirt's daemon does not run",
    "warning",
    ("libvirt",),
    "https://libvirt.org/manpages/libvirtd.html",
)
def libvirt_not_running(c: Checkup) -> Hit | None:
    """`lab.up` starts it, where lab.yaml asks for libvirt."""
    if "virsh" not in c.host.tools or c.libvirt.socket != "absent":
        return None
    return Hit(
        "libvirt's daemon does not run",
        "nothing answers at its socket below /run/libvirt",
        lab_up_starts(c, "libvirtd"),
    )


RULES: tuple[Rule, ...] = (
    kvm_holds_cpu,
    kvm_must_enable,
    kvm_on_6_12,
    no_virtualization,
    emulated,
    kvm_not_hardware,
    kvm_does_not_boot,
    libvirt_denied,
    libvirt_not_running,
)
