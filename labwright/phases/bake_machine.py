"""Bake a machine's root: the roles run in a container of it, and its files become a box."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from labwright.model import Artifact
from labwright.phases import preflight
from labwright.phases.bake import ENTRYPOINT, converge
from labwright.phases.base import Run
from labwright.phases.fetch import recheck
from labwright.providers import PROVIDERS
from labwright.recipes import Job
from labwright.recipes import build as make
from labwright.recipes.base import DATA, stanzas
from labwright.supplies.base import OWN_BOXES
from labwright.tools import host, workdir
from labwright.tools.boxes import PACKAGE

STATUS = "var/lib/dpkg/status"
# Docker mounts its own over these; what a machine has there is in the recipe's files.
MOUNTED = {"etc/hosts": DATA / "machine/etc/hosts"}
LEFT_OUT = frozenset({".dockerenv", "etc/hostname", "etc/resolv.conf", ENTRYPOINT[1:]})
# The container's card is Docker's to configure, and its disk is no machine's.
MASKED = ("networking", "ifupdown-pre", "labwright-grow-root", "systemd-timesyncd")


def identity(run: Run) -> str:
    """Name what is baked: the digest of all that goes in, as of a baked image."""
    return run.plan.node_image.rpartition(":")[2]


def bake_machine(run: Run) -> Path:
    """Give a store's entry with the baked box of the plan's provider, made if it is not there.

    Needs Docker, and starts it after asking. Raises HostError, SupplyError, ConvergeError.
    """
    plan, store = run.plan, run.tools.store
    name = OWN_BOXES[plan.provider]
    place = f"{name}-baked-{identity(run)}"
    if not store.has(place):
        preflight.wake(run, "docker")

    def build(work: Path, out: Path) -> None:
        root = work / "baked"
        root.mkdir(exist_ok=True)
        if not (root / "rootfs.tar").exists():
            _bake(run, root / "rootfs.tar", work / "exported.tar")
        versions = json.dumps(_packages(root / "rootfs.tar"), indent=1, sort_keys=True)
        (root / "packages.json").write_text(versions + "\n", encoding="utf-8")
        params = {"provider": plan.provider, "baked": plan.node_image}
        artifact = Artifact(name, "box", plan.guest, ("machine-root",), params, "the baked box")
        make(Job(artifact, work, out, {"machine-root": root}, run.tools.shell, run.say, plan))

    return store.ensure(place, build) / PACKAGE


def _bake(run: Run, root: Path, exported: Path) -> None:
    docker, key = run.tools.docker, run.plan.keys["machine-root"]
    name = f"labwright-bake-machine-{identity(run)}"
    image = f"labwright/machine:{key.removeprefix('machine-root-')}"
    locks = workdir.cache() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / name):
        run.say("check what goes in")
        recheck(run)
        if not docker.has_image(image):
            run.say("import the machine's root")
            docker.import_image(run.tools.store.path(key) / "rootfs.tar", image)
        entrypoint = DATA / "rootfs" / ENTRYPOINT[1:]
        args = (
            *PROVIDERS["docker"].node_args(host.facts(run.tools.shell)),
            f"--volume={entrypoint}:{ENTRYPOINT}:ro",
        )
        # systemd reads these from its own command line where it runs in a container.
        command = [ENTRYPOINT, *(f"systemd.mask={unit}.service" for unit in MASKED)]
        try:
            converge(run, name, image, args, command)
            run.say("take its files")
            docker.export(name, exported)
        finally:
            docker.remove_container(name)
    settled = root.with_suffix(".part")
    _settle(exported, settled)
    settled.rename(root)
    exported.unlink()


def _settle(exported: Path, root: Path) -> None:
    """Leave out what is Docker's, and put back what it hid."""
    with tarfile.open(exported) as old, tarfile.open(root, "w", format=tarfile.PAX_FORMAT) as new:
        for member in old:
            path = member.name.removeprefix("./").rstrip("/")
            if path in LEFT_OUT:
                continue
            content: io.BufferedReader | io.BytesIO | None = None
            if path in MOUNTED:
                words = MOUNTED[path].read_bytes()
                member.size, member.mode, content = len(words), 0o644, io.BytesIO(words)
            elif member.isreg():
                content = old.extractfile(member)  # type: ignore[assignment]
            new.addfile(member, content)


def _packages(root: Path) -> dict[str, str]:
    with tarfile.open(root) as tar:
        names: Iterable[tarfile.TarInfo] = (m for m in tar if m.name.endswith(STATUS))
        for member in names:
            file = tar.extractfile(member)
            if file is not None:
                return {p["Package"]: p["Version"] for p in stanzas(file.read().decode())}
    return {}
