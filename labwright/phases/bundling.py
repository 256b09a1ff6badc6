"""Make a bundle of a lab: collect what its nodes would fetch, and put it all into one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labwright import catalog, keys
from labwright.model import Artifact
from labwright.phases.base import Run
from labwright.phases.fetch import ensure
from labwright.phases.preflight import with_host_packages
from labwright.supplies.base import OWN_BOXES, ROOTS, collected, own_box
from labwright.tools import bundles, host


@dataclass(frozen=True, slots=True)
class Collect:
    """Ends with every entry of the bundle in the store."""

    name: str = "collect"

    def title(self, run: Run) -> str:
        """Name the lab."""
        return f"Collect what lab {run.plan.name} is made of"

    def skip(self, run: Run) -> str | None:
        """Skip when the store has it all."""
        missing = [a for a, key in entries(run).values() if not run.tools.store.has(key)]
        return None if missing else "the store has it all"

    def outline(self, run: Run) -> list[str]:
        """Name what would be fetched."""
        return [f"fetch {artifact.title}" for artifact, _key in entries(run).values()]

    def execute(self, run: Run) -> None:
        """Fetch what is missing. Raises SupplyError, HostError."""
        found = entries(run)
        lacking = [a for a, key in found.values() if not run.tools.store.has(key)]
        places = {name: key for name, (_artifact, key) in found.items()}
        places = {**run.plan.keys, **places, **keys.keys(_box(run))}
        # What a box and its packages are made from is no part of the bundle.
        needs = {need for artifact in lacking for need in artifact.needs}
        roots = {a.id: a for a in (*run.plan.artifacts, *_box(run)) if a.id in needs & {*ROOTS}}
        gone = [a for a in roots.values() if not run.tools.store.has(places[a.id])]
        lacking = [*(a for a in gone if a not in lacking), *lacking]
        with_host_packages(run, lacking)
        for artifact in lacking:
            ensure(run, artifact, places=places)
        run.conclude(", ".join(a.id for a in lacking))


@dataclass(frozen=True, slots=True)
class Pack:
    """Ends with a bundle at ``target``, a folder or a file whose name ends in .tar.zst."""

    target: Path
    name: str = "pack"

    def title(self, run: Run) -> str:
        """Name the target."""
        return f"Write {self.target}"

    def skip(self, run: Run) -> str | None:
        """Never: making it again finds what is there."""
        return None

    def outline(self, run: Run) -> list[str]:
        """Name the target."""
        return [f"write {self.target}"]

    def execute(self, run: Run) -> None:
        """Copy the entries and write the manifest. Raises SupplyError."""
        plan, store = run.plan, run.tools.store
        facts = {
            "provider": plan.provider,
            "guest": plan.guest,
            "arch": run.arch,
            "supply": plan.origin,
            "addons": ",".join(plan.addons),
        }
        shown = [-1]

        def progress(done: int, total: int) -> None:
            percent = done * 100 // max(total, 1)
            if percent // 10 != shown[0]:
                shown[0] = percent // 10
                run.step(f"{done / 1e6:.0f} of {total / 1e6:.0f} MB")

        manifest = bundles.make(
            {name: (key, store.path(key)) for name, (_artifact, key) in entries(run).items()},
            self.target,
            lab=plan.name,
            versions=plan.versions,
            facts=facts,
            lock=(run.workdir.path / "lab.lock").read_text("utf-8"),
            say=run.say,
            progress=progress,
        )
        size = f"{manifest.size / 1e6:.0f} MB in {len(manifest.files)} files"
        run.conclude(f"{size}, sha256 {manifest.digest}")


def entries(run: Run) -> Mapping[str, tuple[Artifact, str]]:
    """Give id → artifact and store key for all that a bundle of this lab holds."""
    places = dict(run.plan.keys)
    found: dict[str, tuple[Artifact, str]] = {}
    for artifact in _box(run):
        places.setdefault(artifact.id, keys.keys(_box(run))[artifact.id])
    boxes = [a for a in _box(run) if a.id in OWN_BOXES.values()]
    for artifact in (*collected(run.plan), *boxes):
        if artifact.id not in places:
            needs = {need: places[need] for need in artifact.needs}
            places[artifact.id] = keys.key(artifact, needs, keys.REVISION[artifact.recipe])
        found[artifact.id] = (artifact, places[artifact.id])
    return found


def _box(run: Run) -> tuple[Artifact, ...]:
    """Give our own box, after its root, for a lab whose machines start from another.

    Where the bundle is used, that other one may not be to be had. Nothing where none can be built.
    """
    plan = run.plan
    if plan.own_box or plan.provider not in OWN_BOXES or plan.supply == "bundle":
        return ()
    made = own_box(catalog.load().guests[plan.guest], plan.provider)
    there = run.tools.store.has(keys.keys(made)[OWN_BOXES[plan.provider]])
    return made if there or host.is_debian_12() else ()
