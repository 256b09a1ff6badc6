"""Reads small files of /proc, /sys and /etc; what cannot be read is empty."""

from __future__ import annotations

import re
from pathlib import Path


def text(path: Path) -> str:
    """Give a file's text."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def number(path: Path) -> int | None:
    """Give the number that is all a file has."""
    found = text(path).strip()
    return int(found) if found.isdigit() else None


def systemd(root: Path = Path("/")) -> bool:
    """Whether systemd runs, as sd_booted(3) tells it."""
    return (root / "run/systemd/system").is_dir()


def meminfo(root: Path) -> dict[str, int]:
    """Give /proc/meminfo in kB."""
    rows = re.findall(r"^(\w+):\s+(\d+) kB$", text(root / "proc/meminfo"), re.MULTILINE)
    return {name: int(value) for name, value in rows}
