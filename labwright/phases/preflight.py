"""Measure the host, mend what it lacks with the user's consent, and settle the plan."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labwright import catalog, keys, lock, plan
from labwright.errors import Finding, HostError, SpecError, SupplyError
from labwright.locate import made_by
from labwright.lock import Stocked
from labwright.model import Artifact, Chart, HostFacts, Plan, Spec
from labwright.names import network_name
from labwright.phases import existing
from labwright.phases.base import Run, Tools
from labwright.providers import PROVIDERS
from labwright.recipes import HOST_PACKAGES, pins
from labwright.render import ROOT
from labwright.software import Bundled, Inputs, built_key
from labwright.supplies.base import OWN_BOXES, ROLE_ARTIFACTS
from labwright.supplies.packages import FROM_GO, toolchain
from labwright.tools import (
    apt,
    boxes,
    bundle_fetch,
    bundles,
    chartfile,
    host,
    kvmprobe,
    labs,
    libvirt,
    procfs,
    programs,
    workdir,
)
from labwright.tools.bundle_files import manifest_of
from labwright.tools.docker import DENIED, denied
from labwright.tools.download import Http

# Cold: Kubernetes' tree and objects, the roots and images. Warm: three nodes' /var and logs.
DISK_COLD, DISK_WARM = 14 * 1024, 4 * 1024
# A plan is asked for now; in seconds.
PATIENCE = 5.0
COREDNS_MODULE = "github.com/coredns/coredns"


@dataclass(frozen=True, slots=True)
class Lacking:
    """What a host lacks for a plan: Debian packages, and a running Docker or libvirt.

    ``own_settings`` says that libvirt is to be started by itself, with settings of ours.
    """

    packages: tuple[str, ...]
    docker_stopped: bool
    libvirt_stopped: bool = False
    own_settings: bool = False

    def __bool__(self) -> bool:
        """Whether anything is lacking."""
        return bool(self.packages or self.docker_stopped or self.libvirt_stopped)

    def sentences(self) -> list[str]:
        """Say what would be done about it."""
        said = []
        if self.packages:
            said.append(f"install on this host: {' '.join(self.packages)}")
        if self.docker_stopped:
            said.append("start Docker")
        if self.libvirt_stopped and self.own_settings:
            said.append(
                "start libvirt without systemd, its guests as root (the settings are "
                f"{_libvirt_folder() / 'qemu.conf'}; /etc/libvirt stays as it is)"
            )
        elif self.libvirt_stopped:
            said.append("start libvirt")
        return said


def _libvirt_folder() -> Path:
    return workdir.cache() / "libvirt"


@dataclass(frozen=True, slots=True)
class Preflight:
    """Ends with a plan that this host can carry out.

    One that ``claims`` has the plan's networks and ports written down, so that no other lab of
    this user is planned with them.
    """

    name: str = "preflight"
    claims: bool = False

    def title(self, run: Run) -> str:
        """Say what is checked."""
        return "Check this host and plan the lab"

    def skip(self, run: Run) -> str | None:
        """Never: the plan comes from here."""
        return None

    def outline(self, run: Run) -> list[str]:
        """Say what would be installed and started."""
        facts = measure(run.tools, run.spec)
        said = lacking(run.plan, facts, run.tools).sentences() or ["the host lacks nothing"]
        asks = run.plan.supply == "upstream" and run.plan.pins is None
        return [*said, *(["ask package sources and registries for digests"] if asks else [])]

    def execute(self, run: Run) -> None:
        """Measure, mend with consent, measure again, ask vendors, settle.

        Raises HostError, SpecError, SupplyError.
        """
        bundled = open_bundle(run)
        facts = measure(run.tools, run.spec)
        existing.begin(run)
        made = make(run, facts, bundled)
        refuse_drift(run, lock.content(made, Stocked()))
        _refuse_taken_name(run, made, facts)
        missing = lacking(made, facts, run.tools)
        if missing:
            _mend(run, missing, apt_here="apt-get" in facts.tools)
            facts = measure(run.tools, run.spec)
            made = make(run, facts, bundled)
        made = _pinned(run, made, facts)
        _check_disk(made, facts, run.tools)
        if self.claims:
            made = claim(run, made, facts, bundled)
        refuse_drift(run, lock.content(made, Stocked()))
        run.settle(made)
        for warning in made.warnings:
            run.finding(warning)
        told = {"provider", "supply", "kubernetes", "subnet"}
        run.conclude(", ".join(f"{c.what} {c.chosen}" for c in made.choices if c.what in told))


def measure(tools: Tools, spec: Spec) -> HostFacts:
    """Measure the host.

    The Go module proxy is asked only when something must still be built, and KVM is tried only
    where machines may be made on it.
    """
    facts = host.facts(tools.shell)
    if facts.kvm and _may_use_kvm(spec, facts):
        boots = kvmprobe.remembered(tools.shell, workdir.cache() / "kvm")
        facts = replace(facts, kvm_boots=boots)
    facts = replace(facts, boxes=boxes.had(), box_sources=_box_sources(spec, facts))
    known = catalog.load()
    components = [known.addons[name].component for name in spec.addons]
    wanted = [name for name in components if name in FROM_GO]
    if spec.supply in {"upstream", "bundle"} or all(_is_built(tools, name) for name in wanted):
        return facts
    version = _packaged(known.components["coredns"])
    own = tools.store.path(keys.keys((toolchain(),))["go"]) / "go"
    answer = host.go_modules(tools.shell, f"{COREDNS_MODULE}@v{version}", own)
    return replace(facts, go_modules=answer)


def _may_use_kvm(spec: Spec, facts: HostFacts) -> bool:
    if spec.provider:
        return spec.provider == "libvirt"
    return not PROVIDERS["libvirt"].probe(facts) and bool(PROVIDERS["virtualbox"].probe(facts))


def _box_sources(spec: Spec, facts: HostFacts) -> dict[str, str]:
    """Ask where a box would come from, if machines may start from one at all."""
    may = spec.provider in OWN_BOXES or (
        spec.provider is None and not {"VBoxManage", "virsh"}.isdisjoint(facts.tools)
    )
    url = spec.box.url if spec.box else ""
    return {url: boxes.source(url)} if may else {}


def _is_built(tools: Tools, component: str) -> bool:
    version = _packaged(catalog.load().components[component])
    return tools.store.has(built_key(component, version))


def _packaged(component: catalog.Component) -> str:
    """Give the version that the packages supply has of a component."""
    return next(r.version for r in component.releases if "packages" in r.supplies)


def claim(run: Run, made: Plan, facts: HostFacts, bundled: Bundled | None) -> Plan:
    """Write down what the lab takes; give the plan, moved where another lab was a moment faster.

    Planning takes its time, and the register is held for the last look alone. Raises HostError.
    """
    with labs.held():
        again = make(run, facts, bundled)
        if made.pins:
            again = plan.pinned(again, made.pins, roles_digest(ROOT))
        refuse_drift(run, lock.content(again, Stocked()))
        labs.record(again.place(str(run.workdir.path)))
    return again


def make(run: Run, facts: HostFacts, bundled: Bundled | None = None) -> Plan:
    """Plan a lab on a measured host. Raises SpecError or HostError."""
    own = str(run.workdir.path)
    known = labs.known()
    made = made_by(run.workdir)
    planned = next((place for place in known if place.folder == own), None)
    return plan.build(
        Inputs(
            spec=run.spec,
            host=facts,
            catalog=catalog.load(),
            roles_digest=roles_digest(ROOT),
            locked=run.locked,
            stored=frozenset(p.name for p in _entries(run.tools.store.root)),
            bundled=bundled,
            chart=_own_chart(run.spec),
            labs=tuple(place for place in known if place.folder != own),
            before=made.place(own) if made else planned,
            made=made is not None,
            survey=existing.survey(run),
            owner=existing.owner(run),
        )
    )


def _own_chart(spec: Spec) -> Chart | None:
    """Read the chart of Rancher that lab.yaml names. Raises SpecError."""
    if "rancher" not in spec.addons or not spec.rancher.chart:
        return None
    chart = chartfile.read(Path(spec.rancher.chart), "rancher.chart")
    if chart.name != "rancher":
        what = f"{chart.path} is the chart {chart.name!r}, not 'rancher'"
        raise SpecError(Finding("spec.no-rancher-chart", "error", what, where="rancher.chart"))
    return chart


def peek_bundle(run: Run) -> Bundled | None:
    """Read what :func:`open_bundle` would open, without fetching or unpacking it."""
    where = _bundle_of(run)
    if not where:
        return None
    if "://" in where:
        with Http(PATIENCE) as http:
            manifest = bundle_fetch.manifest_at(where, workdir.cache() / "bundles", http)
    else:
        manifest = bundles.manifest(Path(where))
    return Bundled(where, manifest, run.tools.store.same(manifest.entries))


def _bundle_of(run: Run) -> str:
    return run.spec.bundle or (_made_from(run) if run.spec.supply is None else "")


def open_bundle(run: Run) -> Bundled | None:
    """Open the bundle that lab.yaml names, or that the lab was made from. Raises SupplyError."""
    where = _bundle_of(run)
    if not where:
        return None
    with Http() as http:
        folder = bundles.opened(where, workdir.cache() / "bundles", http, run.say)
    manifest = manifest_of(folder)
    if manifest is None:
        what = f"{folder} holds no bundle any more"
        raise SupplyError(Finding("supply.bundle-gone", "error", what, fix="open it again"))
    return Bundled(str(folder.resolve()), manifest, run.tools.store.same(manifest.entries))


def _made_from(run: Run) -> str:
    made = made_by(run.workdir)
    return made.bundle if made else ""


def with_kept_pins(run: Run, made: Plan) -> Plan:
    """Take the pins of lab.lock where they answer all that is wanted; else leave them open."""
    before = run.locked.pins
    if made.supply != "upstream" or before is None or not pins.covers(before, made.wanted):
        return made
    return plan.pinned(made, before, roles_digest(ROOT))


def _pinned(run: Run, made: Plan, facts: HostFacts) -> Plan:
    """Ask the vendors, unless lab.lock has their answers and nothing is to be installed."""
    if made.supply != "upstream":
        return made
    kept = with_kept_pins(run, made)
    if kept.pins is not None and (
        run.workdir.exists or (facts.docker_api and run.tools.docker.has_image(kept.node_image))
    ):
        return kept
    found = pins.resolve(made.wanted, facts.arch, run.locked.pins, run.say)
    return plan.pinned(made, found, roles_digest(ROOT))


def resolved(run: Run, facts: HostFacts) -> Plan:
    """Plan a lab on a host of any facts, with what vendors answer. Raises LabError."""
    return _pinned(run, make(run, facts, open_bundle(run)), facts)


def _refuse_taken_name(run: Run, made: Plan, facts: HostFacts) -> None:
    """Raise BootError before anything is done where another folder's lab has the name."""
    if PROVIDERS[made.provider].caps.own_network and facts.docker_api:
        run.tools.docker.refuse_taken(network_name(made.name), run.workdir.path)


def refuse_drift(run: Run, content: Mapping[str, Any]) -> None:
    """In a strict run, raise SupplyError for each way in which a lab differs from its lab.lock."""
    if not run.strict:
        return
    name = run.lock_file.name if run.lock_file else "lab.lock"
    if not run.locked.content:
        what = f"there is no {name} to hold to"
        fix = "bring it here, or run lab.up without --locked once: that writes it"
        raise SupplyError(Finding("supply.no-lock", "error", what, fix=fix))
    lines = lock.drift(run.locked.content, content)
    if lines:
        what = f"the lab would differ from {name}"
        fix = "take the change back, or move on: ./invokew lab.lock, or lab.lock --upgrade"
        raise SupplyError(Finding("supply.drift", "error", what, "\n".join(lines), fix))


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
    provider = PROVIDERS[made.provider]
    more = () if facts.systemd else provider.caps.without_systemd
    for package in (*provider.packages, *more):
        program = {"docker.io": "dockerd"}.get(package, package)
        satisfied = program in facts.tools or package in facts.apt_installed
        if not satisfied and not (package == "docker.io" and facts.docker_api):
            wanted.add(package)
    wanted |= _recipes_lack(to_build(made, tools), facts)
    stopped = made.provider == "docker" and not facts.docker_api
    if stopped and DENIED in facts.docker_why.lower():
        raise HostError(denied(facts.docker_why))
    if made.provider == "libvirt" and facts.libvirt == "denied":
        raise HostError(libvirt.denied())
    libvirt_stopped = made.provider == "libvirt" and facts.libvirt == "absent"
    return Lacking(tuple(sorted(wanted)), stopped, libvirt_stopped, not facts.systemd)


def wake(run: Run, daemon: str) -> None:
    """Have ``docker`` or ``libvirt`` run, with the user's consent; nothing for another word.

    Where no systemd runs neither comes back with the computer. Raises HostError.
    """
    shell = run.tools.shell
    version, why = run.tools.docker.api() if daemon == "docker" else ("", "")
    if version is None and DENIED in why.lower():
        raise HostError(denied(why))
    missing = Lacking(
        packages=("docker.io",) if version is None and not programs.which("dockerd") else (),
        docker_stopped=version is None,
        libvirt_stopped=daemon == "libvirt" and libvirt.reached() == "absent",
        own_settings=not procfs.systemd(),
    )
    if missing:
        _mend(run, missing, apt_here=shell.has("apt-get"))


def with_host_packages(run: Run, artifacts: Iterable[Artifact]) -> None:
    """Install, with the user's consent, what making these needs on the host. Raises HostError."""
    facts = host.facts(run.tools.shell)
    missing = Lacking(tuple(sorted(_recipes_lack(artifacts, facts))), docker_stopped=False)
    if missing:
        _mend(run, missing, apt_here="apt-get" in facts.tools)


def _recipes_lack(artifacts: Iterable[Artifact], facts: HostFacts) -> set[str]:
    needed = {package for a in artifacts for package in HOST_PACKAGES[a.recipe]}
    return needed - facts.apt_installed


GOALS = (
    *("base", *OWN_BOXES.values(), "apt", *ROLE_ARTIFACTS.values()),
    *("images", "charts", "helm", "host"),
)


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


def _mend(run: Run, missing: Lacking, *, apt_here: bool) -> None:
    if missing.packages and not apt_here:
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
    if missing.libvirt_stopped and libvirt.reached() != "answers":
        run.say("start libvirt")
        run.tools.libvirt.start(_libvirt_folder())


def _by_hand(missing: Lacking) -> Iterable[str]:
    if missing.packages:
        yield " ".join(apt.command(missing.packages))
    if missing.docker_stopped:
        yield "sudo systemctl start docker (without systemd: sudo dockerd &)"
    if missing.libvirt_stopped:
        yield "sudo systemctl start libvirtd (without systemd: sudo virtlogd -d; sudo libvirtd -d)"


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
