"""Finds the lab that a command means: a lab.yaml, or a lab that was made here before."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from labwright import lock, spec
from labwright.errors import Finding, HostError, SpecError
from labwright.lock import Locked
from labwright.model import Plan, Spec
from labwright.tools import workdir
from labwright.tools.workdir import Workdir

DEFAULT = "lab.yaml"
_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)


def read_spec(root: Path, lab: str) -> Spec:
    """Read a lab's spec: ``lab`` is a file, the name of a lab made here, or empty for lab.yaml.

    Raises SpecError.
    """
    if not lab:
        default = root / DEFAULT
        return spec.load(default if default.is_file() else None)
    if _is_file(root, lab):
        return spec.load(root / lab)
    source = Workdir(root, lab).source() if _is_name(lab) else None
    if source is not None:
        return spec.load(Path(source) if source else None)
    if (root / DEFAULT).is_file() and (here := spec.load(root / DEFAULT)).name == lab:
        return here
    known = ", ".join(workdir.labs(root)) or "none"
    what = f"there is no lab {lab!r} here, and no file of that name"
    fix = "give the path of a lab.yaml, or the name of a lab that was made here"
    raise SpecError(Finding("spec.no-lab", "error", what, f"labs made here: {known}", fix))


def name_of(root: Path, lab: str, *, lenient: bool = False) -> str:
    """Give the name of the lab meant; one made here is found even if its lab.yaml is broken.

    Where no lab was made here ``lenient`` takes a broken lab.yaml for the default one.
    Raises SpecError.
    """
    if _is_name(lab) and not _is_file(root, lab) and Workdir(root, lab).exists:
        return lab
    try:
        return read_spec(root, lab).name
    except SpecError:
        source = str((root / DEFAULT).resolve())
        made = [name for name in workdir.labs(root) if Workdir(root, name).source() == source]
        if not lab and len(made) == 1:
            return made[0]
        if lenient and not lab and not workdir.labs(root):
            return spec.build({}).name
        raise


def lock_of(root: Path, spec: Spec) -> Path:
    """Give where a lab's lock is: beside its lab.yaml, named after it."""
    return Path(spec.source).with_suffix(".lock") if spec.source else root / "lab.lock"


def read_lock(path: Path) -> Locked:
    """Read a lab.lock; an empty one where there is none. Raises SupplyError, HostError."""
    try:
        return lock.read(path.read_text("utf-8"), str(path))
    except FileNotFoundError:
        return Locked()
    except (OSError, UnicodeDecodeError) as error:
        what = f"{path} cannot be read"
        raise HostError(Finding("host.lock-unreadable", "error", what, str(error))) from error


def save_plan(folder: Workdir, plan: Plan) -> None:
    """Keep the plan a lab was made by: later commands act on that, not on a changed lab.yaml."""
    folder.write({"plan.json": _PLAN.dump_json(plan, indent=1).decode() + "\n"})


def read_plan(folder: Workdir) -> Plan:
    """Give the plan a lab was made by. Raises HostError when there is no such lab."""
    try:
        return _PLAN.validate_json((folder.path / "plan.json").read_bytes())
    except FileNotFoundError:
        what = f"there is no lab {folder.name} here"
        known = ", ".join(workdir.labs(folder.root)) or "none"
        fix = "./invokew lab.up, or name another with --lab"
        finding = Finding("host.no-lab", "error", what, f"labs made here: {known}", fix)
    except (OSError, ValidationError) as error:
        what = f"{folder.path / 'plan.json'} cannot be read"
        fix = "./invokew lab.up writes it anew"
        finding = Finding("host.plan-unreadable", "error", what, str(error).splitlines()[0], fix)
    raise HostError(finding)


def made_by(folder: Workdir) -> Plan | None:
    """Give the plan that a lab was made by, if it is there and of this version."""
    try:
        return read_plan(folder)
    except HostError:
        return None


def _is_name(lab: str) -> bool:
    return lab not in {"", ".", ".."} and "/" not in lab


def _is_file(root: Path, lab: str) -> bool:
    return Path(lab).suffix in {".yaml", ".yml"} or "/" in lab or (root / lab).is_file()
