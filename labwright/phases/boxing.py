"""Bring the lab's box into Vagrant's list where Vagrant could not find it by itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

from filelock import FileLock

from labwright.model import Box
from labwright.phases.base import Run
from labwright.supplies.base import OWN_BOXES
from labwright.tools import boxes, workdir
from labwright.tools.boxes import PACKAGE, Offer


def ensure_box(run: Run) -> None:
    """End with the plan's box in Vagrant's list, if it is our own or a plain file of a version.

    Vagrant gives a plain .box file no version (BoxAddDirectVersion), so one that lab.yaml names
    gets a catalogue of its own. Any other box is Vagrant's to get. Raises BootError.
    """
    plan, box = run.plan, run.plan.box
    if box is None or not (plan.own_box or _plain(box)):
        return
    locks = workdir.cache() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "vagrant-boxes"):
        version = box.version
        if any(
            (b.name, b.version, b.provider) == (box.name, version, plan.provider)
            for b in boxes.had()
        ):
            return
        run.say(f"add the box {box.name} {version} to Vagrant's list")
        offer = _offer(run, box)
        with tempfile.TemporaryDirectory(prefix="labwright-") as folder:
            path = Path(folder, "catalog.json")
            content = boxes.catalogue(box.name, f"box of lab {plan.name}", [offer])
            path.write_text(boxes.dump(content), encoding="utf-8")
            shell = run.tools.shell
            boxes.add(shell, str(path), plan.provider, run.tool, version=version)


def _plain(box: Box) -> bool:
    return bool(box.url and box.version) and not box.url.partition("?")[0].endswith(".json")


def _offer(run: Run, box: Box) -> Offer:
    plan = run.plan
    if not plan.own_box:
        url = box.url if "://" in box.url else Path(box.url).resolve().as_uri()
        sha256 = box.checksum.removeprefix("sha256:")
        return Offer(box.version, plan.provider, url, sha256)
    path = run.tools.store.path(plan.keys[OWN_BOXES[plan.provider]]) / PACKAGE
    return Offer(box.version, plan.provider, path.resolve().as_uri(), boxes.digest(path))
