"""Build or fetch what the supply is made of, into the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labwright.lock import Stocked
from labwright.model import Artifact
from labwright.phases.base import Run
from labwright.phases.preflight import GOALS, to_build
from labwright.recipes import Job, build
from labwright.supplies.base import ROLE_ARTIFACTS

SERVED = ("apt", *ROLE_ARTIFACTS.values(), "images", "helm")


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ends with every goal of the supply in the store."""

    name: str = "fetch"

    def title(self, run: Run) -> str:
        """Name the supply."""
        return f"Get software from the {run.plan.supply} supply"

    def skip(self, run: Run) -> str | None:
        """Skip when the store has it all."""
        return None if to_build(run.plan, run.tools) else "the store has it all"

    def outline(self, run: Run) -> list[str]:
        """Name what would be built."""
        return [f"build {a.title}" for a in to_build(run.plan, run.tools)]

    def execute(self, run: Run) -> None:
        """Build what is missing, each after what it needs. Raises SupplyError."""
        missing = to_build(run.plan, run.tools)
        for artifact in missing:
            ensure(run, artifact)
        run.conclude(", ".join(a.id for a in missing))


def ensure(
    run: Run,
    artifact: Artifact,
    *,
    verify: bool = False,
    places: Mapping[str, str] | None = None,
) -> Path:
    """Give an artifact's entry, making it when the store has none. Raises SupplyError.

    ``places`` gives store keys where they are others than the plan's.
    """
    plan, store = run.plan, run.tools.store
    places = places or plan.keys
    inputs = {n: store.path(places[n]) for n in artifact.needs if n in places}

    def make(work: Path, out: Path) -> None:
        run.say(artifact.title or artifact.id)
        shared = store.root.parent / "go"
        build(Job(artifact, work, out, inputs, run.tools.shell, run.say, plan, shared))

    return store.ensure(places[artifact.id], make, verify=verify)


def recheck(run: Run) -> None:
    """Hash every goal before it is installed anywhere; make again what is damaged."""
    for artifact in run.plan.artifacts:
        if artifact.id in GOALS and run.tools.store.verify(run.plan.keys[artifact.id]):
            for need in to_build(run.plan, run.tools):
                ensure(run, need)
            for part in run.plan.artifacts:
                if part.id in artifact.needs:
                    ensure(run, part)
            ensure(run, artifact, verify=True)


def stock(run: Run) -> Stocked:
    """Give what the supply holds: its pins, or what was built; empty where it is not built yet."""
    plan, store = run.plan, run.tools.store
    if plan.pins is not None:
        pins = plan.pins
        role = {wish.name: wish.role for wish in plan.wanted.debs}
        had = {name: pin.version for name, pin in pins.packages.items()}
        return Stocked(
            packages={n: v for n, v in had.items() if not role.get(n)},
            role_packages={
                of: {n: v for n, v in had.items() if role.get(n) == of}
                for of in ROLE_ARTIFACTS
                if of in role.values()
            },
            images={
                name: {"ref": pin.ref, "digest": pin.digest, "size": pin.size}
                for name, pin in pins.images.items()
            },
        )

    def read(goal: str, name: str) -> dict[str, object]:
        path = store.path(plan.keys[goal]) / name if goal in plan.keys else None
        if path is None or not path.exists():
            return {}
        content: dict[str, object] = json.loads(path.read_text("utf-8"))
        return content

    def versions(goal: str) -> dict[str, str]:
        return {name: str(version) for name, version in read(goal, "versions.json").items()}

    return Stocked(
        packages=versions("apt"),
        role_packages={
            role: versions(goal)
            for role, goal in ROLE_ARTIFACTS.items()
            if goal in plan.keys and plan.having(role)
        },
        images=read("images", "images.json"),  # type: ignore[arg-type]
    )


def folders(run: Run) -> dict[str, Path]:
    """Give the folders that nodes fetch from, by the name they have in the URL."""
    plan = run.plan
    return {goal: run.tools.store.path(plan.keys[goal]) for goal in SERVED if goal in plan.keys}
