"""Keeps what Rancher is installed with below ``.lab/<name>/``: its chart and its first password."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from labwright.errors import Finding, SpecError, SupplyError
from labwright.model import Plan
from labwright.phases.base import Run
from labwright.tools import chartfile
from labwright.tools.workdir import write

NAME = "rancher"
CHART = "rancher/chart.tgz"
PASSWORD = "rancher-password"  # noqa: S105 - a file's name
# Rancher's own default, the setting password-min-length (rancher/rancher, pkg/settings/setting.go).
SHORTEST = 12
RANDOM_BYTES = 24


def ensure(run: Run) -> list[str]:
    """Write chart and password where the lab has Rancher; give the files that changed.

    The password is made up once, and stays. Raises SpecError, SupplyError, HostError.
    """
    if run.plan.rancher is None:
        return []
    changed = [CHART] if write(run.workdir.path / CHART, _chart(run)) else []
    own = run.plan.rancher.password_file
    if own:
        _check(Path(own))
    elif not (run.workdir.path / PASSWORD).exists():
        write(run.workdir.path / PASSWORD, secrets.token_urlsafe(RANDOM_BYTES) + "\n", 0o600)
        changed.append(PASSWORD)
    return changed


@dataclass(frozen=True, slots=True)
class Access:
    """How a person gets to Rancher: never the password, but where it is.

    ``hosts`` is the line of a hosts file that finds the name; ``trust`` says what to trust.
    """

    url: str
    state: str
    user: str
    password_file: Path
    trust: str
    hosts: str


def access(plan: Plan, folder: Path, state: str) -> Access:
    """Say how to get to Rancher; the plan is of a lab that has it."""
    if plan.rancher is None:
        raise ValueError("the lab has no Rancher")
    host = plan.rancher.hostname
    address = next(s.address for s in plan.services_at if s.name == NAME)
    own = plan.rancher.password_file
    in_cluster = "ca.crt of the secret tls-rancher-ingress in cattle-system"
    return Access(
        url=plan.rancher.url,
        state=state,
        user="admin",
        password_file=Path(own) if own else folder / PASSWORD,
        trust=str(folder / "tls/ca.crt") if plan.rancher.tls == "lab" else in_cluster,
        hosts=f"{address} {host}",
    )


def _chart(run: Run) -> bytes:
    own = run.plan.rancher.chart if run.plan.rancher else None
    if own is None:
        folder = run.tools.store.path(run.plan.keys["charts"])
        return next(folder.glob("rancher-*.tgz")).read_bytes()
    try:
        archive = chartfile.packed(Path(own.path))
    except OSError as error:
        raise SupplyError(Finding("supply.chart-gone", "error", str(error))) from error
    if hashlib.sha256(archive).hexdigest() != own.sha256:
        what, fix = f"{own.path} changed while it was read", "run the same command again"
        raise SupplyError(Finding("supply.chart-changed", "error", what, fix=fix))
    return archive


def _check(path: Path) -> None:
    try:
        found = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        what = f"{path} cannot be read"
        where = "rancher.password_file"
        raise SpecError(
            Finding("spec.unreadable", "error", what, str(error), where=where)
        ) from error
    if len(found) < SHORTEST or len(found.splitlines()) != 1:
        what = f"{path} does not hold one line of {SHORTEST} characters or more"
        why = "Rancher takes no shorter password"
        raise SpecError(Finding("spec.password", "error", what, why, where="rancher.password_file"))
