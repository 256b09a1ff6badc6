"""Which supply a lab uses and which versions it gets. Pure: the solver's caller."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from labwright import boxes, keys, solver
from labwright.bundle import Manifest
from labwright.catalog import Catalog, Component, Constraint, Guest, Release, asked, minor
from labwright.catalog.ranges import within
from labwright.errors import Finding, HostError, LabError, SpecError, errors
from labwright.lock import Locked
from labwright.model import (
    Artifact,
    Box,
    Chart,
    Choice,
    HostFacts,
    Place,
    Spec,
    SupplyName,
    Survey,
    Wanted,
)
from labwright.providers.base import Provider
from labwright.supplies import SUPPLIES, packages
from labwright.supplies.base import BY_CHART, OWN_BOXES, ROLE_ARTIFACTS, Chosen, Supply
from labwright.supplies.packages import FROM_GO, built, toolchain

PARTS: Mapping[str, tuple[str, ...]] = {
    "upstream": ("containerd", "etcd", "coredns", "pause", "busybox"),
    # What upstream apt brings along is compiled here, at a version of its own.
    "packages": (*packages.PARTS[1:], "coredns", "pause", "busybox"),
}
# What a default lab should be able to run, though nobody asked: it keeps Kubernetes from being
# newer than they allow, and gives way to a version that lab.yaml asks for.
# The same in each supply, whether that has them or not: one default Kubernetes for all.
DEFAULTS = ("rancher",)
POLICY = "network-policy"
NO_PROXY = "the Go module proxy does not answer"
ASKED, FOUND = "lab.yaml asks for it", "answers"


@dataclass(frozen=True, slots=True)
class Bundled:
    """A bundle that was opened: its folder, and entry id → store key of the same content."""

    folder: str
    manifest: Manifest
    stored: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that decides a plan.

    ``roles_digest`` is the digest of what a node is baked with; ``locked`` is an earlier
    lab.lock, kept to where it is still possible; ``stored`` are the keys that the store has.
    ``labs`` are the user's other labs, ``before`` what this one had when it was last planned, and
    ``made`` whether it is there: what a machine or a cluster has from then on stays.
    ``survey`` is what machines are like that are there already, and ``owner`` the id by which
    they know the lab.
    """

    spec: Spec
    host: HostFacts
    catalog: Catalog
    roles_digest: str
    locked: Locked = field(default_factory=Locked)
    stored: frozenset[str] = field(default_factory=frozenset)
    bundled: Bundled | None = None
    chart: Chart | None = None
    labs: tuple[Place, ...] = ()
    before: Place | None = None
    made: bool = False
    survey: Survey | None = None
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Software:
    """What was chosen; ``origin`` is the supply that a bundle's software came from."""

    supply: SupplyName
    origin: SupplyName
    guest: Guest
    versions: Mapping[str, str]
    addons: tuple[str, ...]
    artifacts: tuple[Artifact, ...]
    keys: Mapping[str, str]
    wanted: Wanted
    choices: tuple[Choice, ...]
    warnings: tuple[Finding, ...] = ()
    box: Box | None = None
    own_box: bool = False

    @property
    def image_repository(self) -> str:
        """The registry name in the control plane's image references."""
        return SUPPLIES[self.origin].image_repository


def choose(given: Inputs, provider: Provider) -> Software:
    """Choose supply and versions.

    Raises SpecError for what lab.yaml must change (solver.Unsolvable where versions do not go
    together), HostError for what the host must.
    """
    if given.bundled:
        return _from_bundle(given, given.bundled, provider)
    passed: list[str] = []
    failures: dict[SupplyName, LabError] = {}
    for name in _order(given):
        try:
            return _from_supply(given, provider, SUPPLIES[name], passed)
        except (HostError, SpecError) as error:
            failures[name] = error
            passed.append(f"{name}: {error.findings[0].what}")
    unsolvable = {n: f for n, f in failures.items() if isinstance(f, solver.Unsolvable)}
    # What no supply can do is said best by the one that has the most versions.
    raise unsolvable.get("upstream") or next(iter((unsolvable or failures).values()))


def _order(given: Inputs) -> Sequence[SupplyName]:
    if given.spec.supply and given.spec.supply != "bundle":
        return (given.spec.supply,)
    order: list[SupplyName] = ["upstream", "packages"]
    if not _reachable(given):
        order.reverse()
    before = given.locked.word("supply")
    return sorted(order, key=lambda name: name != before)


def _reachable(given: Inputs) -> bool:
    mirrors = given.spec.mirrors
    named = {*mirrors.registries, *(["pkgs.k8s.io"] if "kubernetes" in mirrors.apt else [])}
    return all(vendor in named or answer == FOUND for vendor, answer in given.host.upstream.items())


def _from_supply(
    given: Inputs, provider: Provider, supply: Supply, passed: Sequence[str]
) -> Software:
    given = _with_own_chart(given)
    spec, catalog = given.spec, given.catalog
    if found := errors(supply.probe(given.host, provider.name)):
        raise HostError(found)
    if missing := [*_not_in_supply(given, supply)]:
        raise SpecError(missing)
    solution, more = _solve(given, provider, supply)
    versions = dict(solution.versions)
    guest = catalog.guests[versions.pop("guest")]
    addons, told = _addons(given, provider, supply, versions)
    picked = _box(given, provider, guest, supply.name)
    chosen = Chosen(
        catalog=catalog,
        provider=provider.name,
        guest=guest,
        versions=versions,
        addons=addons,
        charts=tuple(_charts(given)),
        mirrors=spec.mirrors,
        roles=frozenset(node.role for node in spec.nodes),
        helm="rancher" in addons or any(node.role == "tools" for node in spec.nodes),
        own_box=picked.own,
    )
    artifacts = supply.artifacts(chosen)
    places = keys.keys(artifacts)
    return Software(
        supply=supply.name,
        origin=supply.name,
        guest=guest,
        versions=versions,
        addons=addons,
        artifacts=artifacts,
        keys=places,
        wanted=supply.wanted(chosen),
        choices=(
            _why_supply(given, supply, passed),
            *(Choice(name, v, solution.reasons[name]) for name, v in solution.versions.items()),
            *more,
            *told,
            *picked.choices,
        ),
        warnings=(*_warnings(given, provider, supply, solution.versions), *picked.warnings),
        box=boxes.own(guest, provider.name, places) if picked.own else picked.box,
        own_box=picked.own,
    )


def _box(given: Inputs, provider: Provider, guest: Guest, supply: SupplyName) -> boxes.Picked:
    name = OWN_BOXES.get(provider.name, "")
    if given.bundled:
        had = name in given.bundled.manifest.entries
    else:
        had = bool(name) and boxes.own_keys(guest, provider.name)[name] in given.stored
    before = given.locked.content.get("box")
    named = str(before.get("name")) if isinstance(before, dict) else ""
    return boxes.pick(boxes.Wish(given.spec, given.host, guest, provider.name, supply, had, named))


def _solve(
    given: Inputs, provider: Provider, supply: Supply
) -> tuple[solver.Solution, tuple[Choice, ...]]:
    """Solve with the supply's versions, or with all that a mirror may hold where that is asked."""
    problem = _problem(given, provider, supply)
    try:
        return _solve_with_defaults(given, problem)
    except solver.Unsolvable:
        if supply.name != "upstream" or "kubernetes" not in given.spec.mirrors.apt:
            raise
    # A mirror holds what its owner put there: a version of another supply may be in it.
    facts = {name: fact for name, fact in problem.facts.items() if name != "supply"}
    return _solve_with_defaults(given, replace(problem, facts=facts))


def _solve_with_defaults(
    given: Inputs, problem: solver.Problem
) -> tuple[solver.Solution, tuple[Choice, ...]]:
    """Solve with the default add-ons, or without them where they are in the way."""
    soft = [name for name in DEFAULTS if name not in problem.asked_for]
    wanted = (problem.wanted[0], *soft, *problem.wanted[1:])
    try:
        solution = solver.solve(_anywhere(given.catalog, soft), replace(problem, wanted=wanted))
    except solver.Unsolvable as error:
        why = error.findings[0].what
        left = tuple(Choice(name, "none", why) for name in soft)
        return solver.solve(given.catalog, problem), left
    had = {name: v for name, v in solution.versions.items() if _had(given, problem, name)}
    return replace(solution, versions=had), ()


def _had(given: Inputs, problem: solver.Problem, name: str) -> bool:
    """Whether the supply has a component at all: a default only holds Kubernetes back there."""
    supply = problem.facts.get("supply", "")
    return not supply or _in_supply(given.catalog.components[name], supply)


def _in_supply(component: Component, supply: str) -> bool:
    """Whether a supply has any version of a component."""
    return any(supply in r.supplies or not r.supplies for r in component.releases)


def _anywhere(catalog: Catalog, names: Collection[str]) -> Catalog:
    """Return the catalog as if every supply had these components."""
    open_ones = {
        name: replace(known, releases=tuple(replace(r, supplies=()) for r in known.releases))
        for name, known in catalog.components.items()
        if name in names
    }
    return replace(catalog, components={**catalog.components, **open_ones})


def _problem(given: Inputs, provider: Provider, supply: Supply) -> solver.Problem:
    spec, host = given.spec, given.host
    facts: dict[str, str] = {"provider": provider.name, "supply": supply.name}
    if provider.name == "docker" or supply.name == "packages":
        facts["guest"] = "debian-12"
    elif given.survey and given.survey.guest in given.catalog.guests:
        facts["guest"] = given.survey.guest
    facts["cgroup"] = str(host.cgroup) if not provider.caps.own_kernel else "2"
    if given.survey and given.survey.machines:
        facts["cgroup"] = str(min(m.cgroup for m in given.survey.machines.values()))
    for component, tool in {"vagrant": "vagrant", "virtualbox": "VBoxManage"}.items():
        if tool in host.tools and host.tools[tool].version:
            facts[component] = host.tools[tool].version
    wishes = dict(spec.versions)
    if spec.kubernetes:
        wishes = {"kubernetes": spec.kubernetes, **wishes}
    if spec.guest:
        wishes["guest"] = spec.guest
    addons = [given.catalog.addons[name].component for name in spec.addons]
    wanted = dict.fromkeys(("kubernetes", *spec.versions, *PARTS[supply.name], *addons, "guest"))
    kept = {**given.locked.versions, "guest": given.locked.word("guest")}
    return solver.Problem(tuple(wanted), facts, wishes, {k: v for k, v in kept.items() if v})


def _with_own_chart(given: Inputs) -> Inputs:
    """Let the catalog have Rancher as lab.yaml's own chart is it, with the chart's own limits."""
    chart = given.chart
    if chart is None:
        return given
    known = given.catalog.components["rancher"]
    own = Component(known.name, known.title, known.kind, (Release(chart.version, (), chart.path),))
    fit = [
        release.version
        for release in given.catalog.components["kubernetes"].releases
        if within(chart.kube_version, release.version)
    ]
    limit = Constraint(
        id="rancher-chart",
        when={"rancher": chart.version},
        needs={"kubernetes": " | ".join(fit) or "none"},
        why=f"{chart.path} asks for kubeVersion: {chart.kube_version}",
        source=f"{chart.path}, Chart.yaml",
    )
    catalog = replace(
        given.catalog,
        components={**given.catalog.components, "rancher": own},
        constraints=(*given.catalog.constraints, limit),
    )
    return replace(given, catalog=catalog)


def _not_in_supply(given: Inputs, supply: Supply) -> Iterator[Finding]:
    """Find the add-ons of which the supply has no version at all."""
    for index, name in enumerate(given.spec.addons):
        component = given.catalog.components[given.catalog.addons[name].component]
        if not _in_supply(component, supply.name):
            fix = f"supply: upstream, or leave {name} out"
            if name == "rancher":
                fix = "supply: upstream, or rancher: {chart: PATH} with a chart of your own"
            yield Finding(
                "spec.not-in-supply",
                "error",
                f"{component.title} is not in this supply",
                f"the {supply.name} supply has no version of it",
                fix,
                f"addons.{index}",
            )


def _charts(given: Inputs) -> Iterator[str]:
    """Give the components whose charts the lab needs from their repositories."""
    for name in given.catalog.charts:
        own = name == "rancher" and given.chart is not None
        by_addon = name in BY_CHART and name in given.spec.addons
        if not own and (by_addon or name in given.spec.versions):
            yield name


def _why_supply(given: Inputs, supply: Supply, passed: Sequence[str]) -> Choice:
    if given.spec.supply:
        return Choice("supply", supply.name, ASKED)
    if supply.name == given.locked.word("supply"):
        return Choice("supply", supply.name, "as lab.lock has it")
    answers = [f"{vendor}: {answer}" for vendor, answer in given.host.upstream.items()]
    return Choice("supply", supply.name, "; ".join([*passed, *answers]))


def _addons(
    given: Inputs, provider: Provider, supply: Supply, versions: Mapping[str, str]
) -> tuple[tuple[str, ...], list[Choice]]:
    """Leave out what can be neither built nor taken from the store; say where each comes from."""
    have: list[str] = []
    told: list[Choice] = []
    for addon in given.catalog.addons.values():
        if addon.name not in given.spec.addons:
            why = "lab.yaml leaves it out" if addon.name == "dns" else ""
            told += [Choice("cluster DNS", "none", why)] if why else []
            continue
        what = "cluster DNS" if addon.name == "dns" else f"add-on {addon.name}"
        name = f"{given.catalog.components[addon.component].title} {versions[addon.component]}"
        why = _origin(given, supply, addon.component, versions[addon.component])
        lacking = "" if why else NO_PROXY
        if addon.name == POLICY:
            lacking = _no_queue(given, provider, supply.name) or lacking
        if not lacking:
            have.append(addon.name)
        told.append(Choice(what, "none" if lacking else name, lacking or why))
    return tuple(have), told


def _no_queue(given: Inputs, provider: Provider, origin: SupplyName) -> str:
    """Say why NetworkPolicy cannot be enforced on nodes that share this host's kernel.

    What a default may not risk, an add-on that lab.yaml names may: where nothing is known, the
    add-on finds out when it starts, and says so.
    """
    queues = given.host.queues
    if provider.caps.own_kernel or not provider.caps.boots:
        return ""
    if queues is None:
        why = "whether this host's kernel has CONFIG_NFT_QUEUE cannot be told"
        return why if POLICY in given.spec.unasked else ""
    if "nft" in queues or ("xt" in queues and origin == "packages"):
        return ""
    if queues:
        return "this host's kernel has no CONFIG_NFT_QUEUE, which the project's own image needs"
    return "this host's kernel has neither CONFIG_NFT_QUEUE nor what stands in for it"


def _unenforced(given: Inputs, provider: Provider, origin: SupplyName) -> Iterator[Finding]:
    why = _no_queue(given, provider, origin) if POLICY in given.spec.addons else ""
    if why:
        ways = ["addons: without network-policy, if that does not matter"]
        ways += ["supply: packages"] if given.host.queues else []
        ways += ["a provider of virtual machines"]
        if given.host.queues is None:
            ways = ["name network-policy in addons, to try it", *ways]
        what = "NetworkPolicy is not enforced in this lab"
        yield Finding("host.no-network-policy", "warning", what, why, "; or ".join(ways), "addons")


def _origin(given: Inputs, supply: Supply, component: str, version: str) -> str:
    """Say where an add-on's program comes from; nothing where it cannot be had."""
    if component == "rancher" and given.chart:
        return f"from the chart {given.chart.path} ({given.chart.app_version or 'no appVersion'})"
    if supply.name != "packages":
        return "from its registry"
    if built_key(component, version) in given.stored:
        return "built before"
    if component not in FROM_GO:
        return "from the Python package index"
    return "" if given.host.go_modules is False else "from the Go module proxy"


def _warnings(
    given: Inputs, provider: Provider, supply: Supply, versions: Mapping[str, str]
) -> Iterator[Finding]:
    yield from _unenforced(given, provider, supply.name)
    if supply.name == "upstream" and not _reachable(given):
        said = "; ".join(f"{v}: {a}" for v, a in given.host.upstream.items() if a != FOUND)
        # What keeps the lab from the supply that needs no vendor, where that is an add-on.
        passed = () if given.spec.supply else _not_in_supply(given, SUPPLIES["packages"])
        ways = [finding.fix.removeprefix("supply: upstream, or ") for finding in passed]
        yield Finding(
            "host.upstream-unreachable",
            "warning",
            "the upstream supply is out of reach of this host",
            said,
            "; or ".join(
                ["go online, name mirrors in lab.yaml, or lab.up --supply bundle:PATH", *ways]
            ),
            "mirrors",
        )
    old = not provider.caps.own_kernel and given.host.cgroup == 1
    if old and minor(versions["kubernetes"]) >= (1, 35):
        yield Finding(
            "host.cgroup-v1",
            "warning",
            f"kubelet {versions['kubernetes']} runs on this host's cgroup v1 against its advice",
            "from 1.35 on it refuses cgroup v1 unless failCgroupV1 is false, which the lab sets",
            "boot the host with systemd.unified_cgroup_hierarchy=1",
            docs="https://kubernetes.io/docs/concepts/architecture/cgroups/",
        )


def _from_bundle(given: Inputs, bundled: Bundled, provider: Provider) -> Software:
    spec, manifest = given.spec, bundled.manifest
    problems = list(_unmet(spec, given.host, manifest, provider))
    if problems:
        raise SpecError(problems)
    artifacts = tuple(
        Artifact(entry.id, "bundle", entry.content, title=f"{entry.id} from the bundle")
        for entry in manifest.entries.values()
    )
    places = {
        entry.id: bundled.stored.get(entry.id, f"{entry.id}-{entry.content[:16]}")
        for entry in manifest.entries.values()
    }
    origin: SupplyName = "upstream" if manifest.facts["supply"] == "upstream" else "packages"
    why = f"the bundle of lab {manifest.lab} has it"
    guest = given.catalog.guests[manifest.facts["guest"]]
    picked = _box(given, provider, guest, "bundle")
    made = {entry.id: entry.key for entry in manifest.entries.values()}
    queue = _no_queue(given, provider, origin)
    lacking = queue or ("" if POLICY in _bundled_addons(manifest) else "the bundle has none")
    left_out = {POLICY: lacking} if lacking and POLICY in spec.addons else {}
    return Software(
        supply="bundle",
        origin=origin,
        guest=guest,
        versions=manifest.versions,
        addons=tuple(name for name in spec.addons if name not in left_out),
        artifacts=artifacts,
        keys=places,
        wanted=Wanted(registries=spec.mirrors.registries),
        choices=(
            Choice("supply", f"bundle:{bundled.folder}", f"{origin} of lab {manifest.lab}"),
            *(Choice(name, version, why) for name, version in manifest.versions.items()),
            _bundled_dns(spec, manifest, why),
            *(Choice(f"add-on {name}", "none", lacks) for name, lacks in left_out.items()),
            *picked.choices,
        ),
        warnings=(*_unenforced(given, provider, origin), *picked.warnings),
        # As it was where the bundle was made: what bundle.serve offers has that version too.
        box=boxes.own(guest, provider.name, made) if picked.own else picked.box,
        own_box=picked.own,
    )


def _bundled_dns(spec: Spec, manifest: Manifest, why: str) -> Choice:
    if "dns" not in spec.addons:
        return Choice("cluster DNS", "none", "lab.yaml leaves it out")
    return Choice("cluster DNS", f"CoreDNS {manifest.versions['coredns']}", why)


def _unmet(
    spec: Spec, host: HostFacts, manifest: Manifest, provider: Provider
) -> Iterator[Finding]:
    has, facts = manifest.versions, manifest.facts
    wishes = {"kubernetes": spec.kubernetes, "guest": spec.guest, **spec.versions}
    has = {**has, "guest": facts["guest"]}
    for name, wish in wishes.items():
        if wish and not asked(wish, has.get(name, "")):
            yield Finding(
                "spec.not-in-bundle",
                "error",
                f"lab.yaml asks for {name} {wish}, and the bundle has {has.get(name, 'none')}",
                "a bundle holds one set of versions",
                "take that wish back, or make a bundle of a lab that has it: bundle.make",
                name if name in {"kubernetes", "guest"} else f"versions.{name}",
            )
    have = _bundled_addons(manifest)
    for addon in spec.addons:
        # A bundle may be older than the default.
        if addon not in have and not (addon == POLICY and addon in spec.unasked):
            said = f"the bundle has no {addon}"
            fix = f"addons: [{', '.join(have)}]"
            yield Finding("spec.not-in-bundle", "error", said, "", fix, "addons")
    for role in dict.fromkeys(node.role for node in spec.nodes):
        if role in ROLE_ARTIFACTS and ROLE_ARTIFACTS[role] not in manifest.entries:
            said = f"the bundle has no packages for a {role} node"
            fix = f"{role}: 0, or make a bundle of a lab with {role}: 1"
            yield Finding("spec.not-in-bundle", "error", said, "", fix, role)
    if (provider.name == "docker") != (facts["provider"] == "docker"):
        said = f"the bundle is of a lab on {facts['provider']}, and this one is on {provider.name}"
        why = "its packages are what is missing in the root or box of those nodes"
        fix = f"provider: {facts['provider']}, or make a bundle of a lab on {provider.name}"
        yield Finding("spec.not-in-bundle", "error", said, why, fix, "provider")
    if facts["arch"] != host.arch:
        said = f"the bundle is for {facts['arch']}, and this host is {host.arch}"
        yield Finding("spec.not-in-bundle", "error", said, fix="make a bundle on such a host")


def _bundled_addons(manifest: Manifest) -> list[str]:
    return [word for word in manifest.facts.get("addons", "").split(",") if word]


def built_key(component: str, version: str) -> str:
    """Name the store's entry of an add-on's program that the packages supply has built."""
    artifact = built(component, version)
    return keys.keys((toolchain(), artifact))[artifact.id]
