"""Runs on a machine that was there before the lab: note what it was like, before and after.

claim LAB OWNER NODE JSON   makes the machine this lab's node. JSON has ``paths`` that the lab may
                            write, ``sysctls`` that it may set. Prints "claimed" the first time.
settle                      notes which packages the lab has installed. Prints those that are new.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HOME = Path("/etc/labwright")
MARKER = HOME / "lab"
BEFORE = HOME / "before.json"
# The packages that were there when a run of the lab began: until it has ended.
BEGUN = HOME / "packages-begun"
OURS = HOME / "packages"


def run(*words: str) -> str:
    """Return what a program prints, also where it fails."""
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def read(path: Path) -> str | None:
    """Return a file's text; None where there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else None


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def packages() -> set[str]:
    """Return the names of all packages that are installed."""
    lines = run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n").splitlines()
    return {line.split()[1] for line in lines if line.startswith("installed ")}


def masked() -> list[str]:
    """Return the units that are masked."""
    lines = run("systemctl", "list-unit-files", "--state=masked", "--no-legend").splitlines()
    return sorted(line.split()[0] for line in lines if line.split())


def before(paths: list[str], sysctls: list[str]) -> dict[str, object]:
    """Return what is to be put back one day."""
    values = {name: read(Path("/proc/sys", *name.split("."))) for name in sysctls}
    return {
        "hostname": run("hostname").strip(),
        "files": {name: read(Path(name)) for name in ("/etc/hostname", "/etc/hosts", "/etc/fstab")},
        "swaps": [line.split()[0] for line in (read(Path("/proc/swaps")) or "").splitlines()[1:]],
        "sysctls": {name: value.strip() for name, value in values.items() if value is not None},
        # What is there already is not the lab's to remove.
        "ours": [path for path in paths if not os.path.lexists(path)],
        "masked": masked(),
        "held": run("apt-mark", "showhold").split(),
    }


def claim(lab: str, owner: str, node: str, given: str) -> None:
    """Make the machine a node, or see that it is."""
    marker = {"lab": lab, "owner": owner, "node": node}
    found = read(MARKER)
    if found is not None:
        there = json.loads(found)
        if {name: there.get(name) for name in marker} != marker:
            sys.exit(f"this machine is {there.get('node')} of lab {there.get('lab')} already")
    if not BEGUN.exists():
        HOME.mkdir(mode=0o755, exist_ok=True)
        write(BEGUN, "\n".join(sorted(packages())) + "\n")
    if found is None:
        asked = json.loads(given)
        write(BEFORE, json.dumps(before(asked["paths"], asked["sysctls"]), indent=1) + "\n")
        # Last: without it nobody takes the rest for a node's.
        write(MARKER, json.dumps(marker) + "\n")
        sys.stdout.write("claimed\n")


def settle() -> None:
    """Note what this run has installed; a user's own packages of later are not among it."""
    begun = read(BEGUN)
    if begun is None:
        return
    ours = set((read(OURS) or "").split())
    new = packages() - set(begun.split()) - ours
    if new:
        write(OURS, "\n".join(sorted(ours | new)) + "\n")
        sys.stdout.write("\n".join(sorted(new)) + "\n")
    BEGUN.unlink()


if __name__ == "__main__":
    {"claim": claim, "settle": settle}[sys.argv[1]](*sys.argv[2:])
