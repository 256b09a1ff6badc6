"""Whether guests boot under KVM: by booting one of a few instructions, with a deadline.

A /dev/kvm that opens, makes a machine and a processor proves nothing: a firmware must run on it.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labwright.tools.shell import Shell, ToolError

DEADLINE = 8.0
GUESTS = 3
SECTOR = 512
# mov dx, 0xf4; mov al, 0x10; out dx, al; hlt; jmp back to hlt
CODE = bytes([0xBA, 0xF4, 0x00, 0xB0, 0x10, 0xEE, 0xF4, 0xEB, 0xFD])
# qemu's isa-debug-exit ends the emulator with twice the byte that was written, plus one.
CAME_UP = (0x10 << 1) | 1


def boot_sector() -> bytes:
    """Give a disk's first sector: what a PC's firmware loads and starts."""
    return CODE.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def boots(shell: Shell, qemu: str, accelerator: str = "kvm") -> tuple[bool, str]:
    """Boot a few guests at once; give whether all came up, and what was seen instead.

    One is not enough: where KVM is not the processor's, one in a dozen does come up.
    """
    with ThreadPoolExecutor(GUESTS) as pool:
        seen = list(pool.map(lambda _: _boot(shell, qemu, accelerator), range(GUESTS)))
    missed = [why for why in seen if why]
    if not missed:
        return True, ""
    return False, f"{GUESTS - len(missed)} of {GUESTS} came up; {missed[0]}"


def _boot(shell: Shell, qemu: str, accelerator: str) -> str:
    """Boot one guest; give why it did not come up, empty where it did."""
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
            return f"{error.findings[0].what}: nothing came from the guest"
    if result.code == CAME_UP:
        return ""
    return (result.tail(1) or (f"qemu ended with {result.code}",))[0]
