"""Whether guests boot under KVM: by booting one of a few instructions, with a deadline.

A /dev/kvm that opens, makes a machine and a processor proves nothing: a firmware must run on it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from labwright.tools.shell import Shell, ToolError

DEADLINE = 8.0
SECTOR = 512
# mov dx, 0xf4; mov al, 0x10; out dx, al; hlt; jmp back to hlt
CODE = bytes([0xBA, 0xF4, 0x00, 0xB0, 0x10, 0xEE, 0xF4, 0xEB, 0xFD])
# qemu's isa-debug-exit ends the emulator with twice the byte that was written, plus one.
CAME_UP = (0x10 << 1) | 1


def boot_sector() -> bytes:
    """Give a disk's first sector: what a PC's firmware loads and starts."""
    return CODE.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def boots(shell: Shell, qemu: str, accelerator: str = "kvm") -> tuple[bool, str]:
    """Boot the guest; give whether it came up, and what was seen instead."""
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
            return False, f"{error.findings[0].what}: nothing came from the guest"
    if result.code == CAME_UP:
        return True, ""
    return False, (result.tail(1) or (f"qemu ended with {result.code}",))[0]
