"""Whether guests boot under KVM: by booting one of a few instructions, with a deadline.

A /dev/kvm that opens, makes a machine and a processor proves nothing: a firmware must run on it,
and faster than under emulation.
"""

from __future__ import annotations

import platform
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labwright.tools import procfs
from labwright.tools.shell import Shell, ToolError
from labwright.tools.workdir import write

QEMU = "qemu-system-x86_64"
DEADLINE = 8.0
GUESTS = 4
# Under a KVM that is the processor's a guest comes up in a third of a second, and under emulation
# in as much. Beyond the first it is asked whether KVM is any help; the second says that it is not.
SURELY_FAST = 1.5
NO_HELP = 4.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
YES, NO = "guests boot", "guests do not boot"
SECTOR = 512
# mov dx, 0xf4; mov al, 0x10; out dx, al; hlt; jmp back to hlt
CODE = bytes([0xBA, 0xF4, 0x00, 0xB0, 0x10, 0xEE, 0xF4, 0xEB, 0xFD])
# qemu's isa-debug-exit ends the emulator with twice the byte that was written, plus one.
CAME_UP = (0x10 << 1) | 1


def boot_sector() -> bytes:
    """Give a disk's first sector: what a PC's firmware loads and starts."""
    return CODE.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def boots(shell: Shell, qemu: str, accelerator: str = "kvm") -> tuple[bool, str]:
    """Boot a few guests at once; give whether all came up in time, and what was seen instead.

    One is not enough: where KVM is not the processor's, one in a dozen does come up, or all do
    while the computer is idle, twenty times slower than under emulation.
    """
    with ThreadPoolExecutor(GUESTS) as pool:
        seen = list(pool.map(lambda _: _boot(shell, qemu, accelerator), range(GUESTS)))
    missed = [why for why, _seconds in seen if why]
    if missed:
        return False, f"{GUESTS - len(missed)} of {GUESTS} came up; {missed[0]}"
    slowest = max(seconds for _why, seconds in seen)
    if slowest > SURELY_FAST:
        _why, emulated = _boot(shell, qemu, "tcg")
        if slowest > NO_HELP * emulated:
            return False, f"they took {slowest:.1f} s, and {emulated:.1f} s under emulation"
    return True, ""


def remembered(shell: Shell, memory: Path) -> bool | None:
    """Say whether guests boot, tried once for each boot of this computer; ``None`` without a qemu.

    ``memory`` is the file that keeps the answer.
    """
    if not shell.has(QEMU):
        return None
    since = f"{platform.release()} {procfs.text(BOOT_ID).strip()}"
    known = procfs.text(memory).splitlines()
    if known[:1] == [since] and known[1:2] in ([YES], [NO]):
        return known[1] == YES
    answer, _why = boots(shell, QEMU)
    write(memory, f"{since}\n{YES if answer else NO}\n")
    return answer


def _boot(shell: Shell, qemu: str, accelerator: str) -> tuple[str, float]:
    """Boot one guest; give why it did not come up, empty where it did, and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder, "disk.img")
        disk.write_bytes(boot_sector())
        words = [
            *(qemu, "-accel", accelerator, "-machine", "pc", "-m", "16"),
            *("-display", "none", "-nodefaults", "-no-reboot"),
            *("-drive", f"file={disk},format=raw,if=ide"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"),
        ]
        try:
            result = shell.run(words, timeout=DEADLINE, check=False)
        except ToolError as error:
            return f"{error.findings[0].what}: nothing came from the guest", DEADLINE
    if result.code == CAME_UP:
        return "", result.seconds
    return (result.tail(1) or (f"qemu ended with {result.code}",))[0], result.seconds
