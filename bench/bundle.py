"""How fast bundles are made and verified, as a ratio to `sha256sum` and `cp` on the same files.

    .venv/bin/python -m bench.bundle [rounds]

A bundle of 480 MB: one large file, some images, many packages, none of which can be compressed.
All are timed in turn in one run, because the same machine is half as fast an hour later. The
files are in the page cache, so that it is the programs that are compared and not the disk.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from labwright.tools import bundles
from labwright.tools.store import Store

MB = 1 << 20
SIZES = {"base": [200 * MB], "images": [25 * MB] * 8, "apt": [2 * MB] * 40}
Entries = dict[str, tuple[str, Path]]


def stocked(root: Path) -> Entries:
    store, entries = Store(root), {}
    for id_, sizes in SIZES.items():

        def build(_work: Path, out: Path, sizes: list[int] = sizes) -> None:
            for number, size in enumerate(sizes):
                (out / str(number)).write_bytes(os.urandom(size))

        entries[id_] = (f"{id_}-0", store.ensure(f"{id_}-0", build))
    return entries


def sha256sum(folder: Path) -> None:
    files = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    subprocess.run(["sha256sum", *files], capture_output=True, check=True)


def main(rounds: int) -> None:
    figures: dict[str, list[float]] = {}

    def timed(name: str, act: Callable[[], object]) -> None:
        start = time.monotonic()
        act()
        figures.setdefault(name, []).append(time.monotonic() - start)

    with tempfile.TemporaryDirectory(prefix="labwright-bench-") as folder:
        root = Path(folder)
        entries = stocked(root / "store")
        target, second, packed = root / "x/demo", root / "x/second", root / "y/demo.tar.zst"

        def make(where: Path) -> None:
            where.parent.mkdir(exist_ok=True)
            bundles.make(entries, where, lab="bench", versions={}, facts={}, lock="")

        for _ in range(rounds):
            for left in (root / "x", root / "y", root / "copy"):
                shutil.rmtree(left, ignore_errors=True)
            timed("cp", lambda: shutil.copytree(root / "store", root / "copy"))
            timed("make", lambda: make(target))
            timed("make, nothing new", lambda: make(target))
            timed("make, shared with another", lambda: make(second))
            timed("make .tar.zst", lambda: make(packed))
            timed("sha256sum", lambda: sha256sum(target))
            timed("verify", lambda: bundles.verify(target))
            timed("verify .tar.zst", lambda: bundles.verify(packed))
    size = sum(map(sum, SIZES.values())) / 1e6
    middle = {name: statistics.median(seconds) for name, seconds in figures.items()}
    print(f"median of {rounds}, {size:.0f} MB; speed as a ratio to cp and to sha256sum:")
    for name, seconds in middle.items():
        to = [middle[floor] / seconds for floor in ("cp", "sha256sum")]
        speed = f"{size / seconds:8.0f} MB/s" if "nothing" not in name else " " * 13
        print(f"{name:<28}{seconds:7.2f} s{speed}{to[0]:8.2f}{to[1]:8.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
