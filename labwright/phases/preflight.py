"""Measure the host, mend what it lacks with the user's consent, and settle the plan."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from labwright import catalog, keys, plan
from labwright.errors import Finding, HostError
from labwright.model import Artifact, HostFacts, Plan, Spec
from labwright.phases.base import Run, Tools
from labwright.providers import PROVIDERS
from labwright.recipes import HOST_PACKAGES
from labwright.render import ROOT
from labwright.supplies import SUPPLIES
from labwright.tools import apt, host, workdir
from labwright.tools.docker import DENIED, denied
from labwright.tools.workdir import Workdir

# Cold: Kubernetes' tree and objects, the roots and images. Warm: three nodes' /var and logs.
DISK_COLD, DISK_WARM = 14 * 1024, 4 * 1024
COREDNS_MODULE = "github.com/coredns/coredns"


@dataclass(frozen=True, slots=True)
class Lacking:
    """What a host lacks for a plan: Debian packages, and a running Docker."""

    packages: tuple[str, ...]
    docker_stopped: bool

    def __bool__(self) -> bool:
        """Whether anything is lacking."""
        return bool(self.packages or self.docker_stopped)

    def sentences(self) -> list[str]:
        """Say what would be done about it."""
        said = []
        if self.packages:
            said.append(f"install on this host: {' '.join(self.packages)}")
        if self.docker_stopped:
            said.append("start Docker")
        return said


@dataclass(frozen=True, slots=True)
class Preflight:
    """Ends with a plan that this host can carry out."""

    name: str = "preflight"

    def title(self, run: Run) -> str:
        """Say what is checked."""
        return "Check this host and plan the lab"

    def skip(self, run: Run) -> str | None:
        """Never: the plan comes from here."""
        return None

    def outline(self, run: Run) -> list[str]:
        """Say what would be installed and started."""
        facts = measure(run.tools, run.spec)
        return lacking(run.plan, facts, run.tools).sentences() or ["the host lacks nothing"]

    def execute(self, run: Run) -> None:
        """Measure, mend with consent, measure again, settle. Raises HostError, SpecError."""
        facts = measure(run.tools, run.spec)
        made = make(run.spec, facts, run.workdir, run.tools)
        missing = lacking(made, facts, run.tools)
        if missing:
            _mend(run, missing, facts)
            facts = measure(run.tools, run.spec)
            made = make(run.spec, facts, run.workdir, run.tools)
        _check_disk(made, facts, run.tools)
        run.settle(made)
        for warning in made.warnings:
            run.finding(warning)
        run.conclude(", ".join(f"{c.what} {c.chosen}" for c in made.choices))


def measure(tools: Tools, spec: Spec) -> HostFacts:
    """Measure the host; the Go module proxy is asked only when CoreDNS must still be built."""
    facts = host.facts(tools.shell)
    if "dns" not in spec.addons:
        return facts
    release = catalog.load().releases[-1]
    version = release.components["coredns"]
    wanted = keys.keys(SUPPLIES["packages"].artifacts(release))["coredns"]
    if tools.store.has(wanted):
        return facts
    answer = host.go_modules(tools.shell, f"{COREDNS_MODULE}@v{version}")
    return replace(facts, go_modules=answer)


def make(spec: Spec, facts: HostFacts, folder: Workdir, tools: Tools) -> Plan:
    """Plan a lab on a measured host. Raises SpecError or HostError."""
    kept = folder.kept().get("subnet")
    return plan.build(
        plan.Inputs(
            spec=spec,
            host=facts,
            catalog=catalog.load(),
            roles_digest=roles_digest(ROOT),
            kept_subnet=str(kept) if kept else None,
            stored=frozenset(p.name for p in _entries(tools.store.root)),
        )
    )


def roles_digest(root: Path) -> str:
    """Digest what a node is baked with: a changed role makes a new node image."""
    digest = hashlib.sha256()
    baked = [root / "playbooks" / "bake.yml"]
    for role in ("base", "containerd", "kube_packages"):
        baked.extend(p for p in (root / "playbooks" / "roles" / role).rglob("*") if p.is_file())
    for path in sorted(baked):
        words_only = path.suffix == ".md" or any(
            p.startswith(".") for p in path.relative_to(root).parts
        )
        if not words_only:
            digest.update(f"{path.relative_to(root)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def lacking(made: Plan, facts: HostFacts, tools: Tools) -> Lacking:
    """Find what the host lacks for a plan: nothing that only a finished step needed.

    Raises HostError where Docker runs and refuses this user.
    """
    wanted: set[str] = set()
    for package in PROVIDERS[made.provider].packages:
        program = {"docker.io": "dockerd"}.get(package, package)
        satisfied = program in facts.tools or package in facts.apt_installed
        if not satisfied and not (package == "docker.io" and facts.docker_api):
            wanted.add(package)
    for artifact in to_build(made, tools):
        wanted |= set(HOST_PACKAGES[artifact.recipe]) - facts.apt_installed
    stopped = made.provider == "docker" and not facts.docker_api
    if stopped and DENIED in facts.docker_why.lower():
        raise HostError(denied(facts.docker_why))
    return Lacking(tuple(sorted(wanted)), stopped)


GOALS = ("base", "apt", "images")


def to_build(made: Plan, tools: Tools) -> list[Artifact]:
    """Give the artifacts that the store lacks for the goals, in building order."""
    by_id = {a.id: a for a in made.artifacts}
    wanted: set[str] = set()

    def want(name: str) -> None:
        if name in by_id and name not in wanted and not tools.store.has(made.keys[name]):
            wanted.add(name)
            for need in by_id[name].needs:
                want(need)

    for goal in GOALS:
        want(goal)
    return [a for a in made.artifacts if a.id in wanted]


def _mend(run: Run, missing: Lacking, facts: HostFacts) -> None:
    if missing.packages and "apt-get" not in facts.tools:
        words = " ".join(apt.command(missing.packages))
        what = f"this host lacks {', '.join(missing.packages)}"
        raise HostError(Finding("host.packages", "error", what, fix=words))
    question = "This host needs: " + "; ".join(missing.sentences()) + ". Go ahead?"
    if not run.consent(question):
        fix = "answer yes, give --yes, or do it yourself: " + "; ".join(_by_hand(missing))
        raise HostError(
            Finding(
                "host.no-consent",
                "error",
                "this host lacks what the lab needs",
                "; ".join(missing.sentences()),
                fix,
            )
        )
    if missing.packages:
        run.say(f"install {' '.join(missing.packages)}")
        apt.install(run.tools.shell, missing.packages, run.tool)
    if missing.docker_stopped and not run.tools.docker.api()[0]:
        run.say("start Docker")
        run.tools.docker.start(workdir.cache() / "dockerd.log")


def _by_hand(missing: Lacking) -> Iterable[str]:
    if missing.packages:
        yield " ".join(apt.command(missing.packages))
    if missing.docker_stopped:
        yield "sudo systemctl start docker (without systemd: sudo dockerd &)"


def _check_disk(made: Plan, facts: HostFacts, tools: Tools) -> None:
    needed = DISK_COLD if to_build(made, tools) else DISK_WARM
    if facts.disk_free < needed:
        raise HostError(
            Finding(
                "host.disk",
                "error",
                f"{facts.disk_free} MiB are free in the cache folder, and {needed} are needed",
                f"the cache is {workdir.cache()}",
                "free some space, or set XDG_CACHE_HOME to a folder on a larger disk",
            )
        )


def _entries(root: Path) -> list[Path]:
    return [p for p in root.glob("*") if p.is_dir() and not p.name.startswith(".")]
