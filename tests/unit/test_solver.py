"""What the solver gives is legal and the best; where it gives nothing there is nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations, product

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from labwright.catalog import Catalog, Component, Constraint, Kind, Release, load, matches
from labwright.solver import Problem, Solution, Unsolvable, fits, solve

REAL = load()
PARTS = ("kubernetes", "containerd", "etcd", "coredns", "pause", "busybox", "guest")
UPSTREAM = {"supply": "upstream", "provider": "docker", "guest": "debian-12", "cgroup": "2"}
PACKAGES = {**UPSTREAM, "supply": "packages"}


def refusal(
    wishes: Mapping[str, str],
    facts: Mapping[str, str] = UPSTREAM,
    wanted: tuple[str, ...] = PARTS,
) -> Unsolvable:
    with pytest.raises(Unsolvable) as caught:
        solve(REAL, Problem(wanted, facts, wishes))
    return caught.value


def solved(
    wishes: Mapping[str, str],
    facts: Mapping[str, str] = UPSTREAM,
    wanted: tuple[str, ...] = PARTS,
    kept: Mapping[str, str] | None = None,
) -> Solution:
    return solve(REAL, Problem(wanted, facts, wishes, kept or {}))


# --------------------------------------------------------------------------- the real catalog


def test_kubernetes_1_37_and_rancher_2_15_are_refused() -> None:
    error = refusal({"kubernetes": "1.37", "rancher": "2.15"})
    [finding] = error.findings
    assert finding.what == "Kubernetes 1.37 and Rancher 2.15 do not go together"
    assert "kubeVersion: < 1.37.0-0" in finding.why
    assert "chart/Chart.yaml" in finding.why
    assert finding.where == "kubernetes"
    assert [c.id for c in error.conflicts] == ["rancher-2-15-kubernetes"]
    first, second = error.nearest
    assert fits("1.36", first["kubernetes"])
    assert fits("2.15", first["rancher"])
    assert fits("1.37", second["kubernetes"])
    assert "rancher" not in second
    versions = f'versions: {{rancher: "{first["rancher"]}"}}'
    kept = f'kubernetes: "{first["kubernetes"]}", {versions} (keeps rancher)'
    dropped = f'kubernetes: "{second["kubernetes"]}" without rancher'
    assert finding.fix == f"{kept}, or {dropped}"
    # It can be copied into lab.yaml.
    copied = yaml.safe_load(f"{{{kept.removesuffix(' (keeps rancher)')}}}")
    asked = {"kubernetes": copied["kubernetes"], **copied["versions"]}
    assert solved(asked).versions["rancher"] == first["rancher"]
    assert error.exit_code == 2


def test_kubernetes_1_36_and_rancher_2_15_are_accepted() -> None:
    versions = solved({"kubernetes": "1.36", "rancher": "2.15"}).versions
    assert fits("1.36", versions["kubernetes"])
    assert fits("2.15", versions["rancher"])


def test_containerd_1_7_and_kubernetes_1_36_are_refused() -> None:
    error = refusal({"kubernetes": "1.36", "containerd": "1.7"})
    [finding] = error.findings
    assert finding.what == "Kubernetes 1.36 and containerd 1.7 do not go together"
    assert "RELEASES.md" in finding.why
    assert [c.id for c in error.conflicts] == ["kubernetes-1-36-containerd"]
    # Each of the two wishes can be given up; the one listed last goes first.
    assert [fits("1.36", n["kubernetes"]) for n in error.nearest] == [True, False]
    assert [fits("1.7", n["containerd"]) for n in error.nearest] == [False, True]


def test_the_packages_supply_has_one_set_of_parts() -> None:
    solution = solved({}, PACKAGES, (*PARTS, "runc", "cni-plugins"))
    assert solution.versions == {
        "kubernetes": "1.37.2",
        "containerd": "2.3.7",
        "etcd": "3.6.16",
        "coredns": "1.14.7",
        "pause": "3.10.2",
        "busybox": "1.35.0",
        "guest": "debian-12",
        "runc": "1.5.3",
        "cni-plugins": "1.10.0",
    }
    assert solution.reasons["etcd"] == "the only one in packages"


def test_a_mirror_that_may_hold_anything_gives_what_is_compiled_here_too() -> None:
    anywhere = {name: word for name, word in UPSTREAM.items() if name != "supply"}
    wishes = {name: solved({}, PACKAGES).versions[name] for name in ("kubernetes", "etcd")}
    found = solved(wishes, anywhere).versions
    assert wishes.items() <= found.items()


@pytest.mark.parametrize("guest", REAL.guests)
def test_by_default_rancher_decides_on_kubernetes(guest: str) -> None:
    solution = solved({}, {**UPSTREAM, "guest": guest}, (*PARTS, "rancher"))
    assert fits("1.36", solution.versions["kubernetes"])
    rancher = solution.versions["rancher"]
    why = f"the newest that rancher {rancher} allows (rancher-2-15-kubernetes)"
    assert solution.reasons["kubernetes"] == why
    needs = f"the newest that kubernetes {solution.versions['kubernetes']} allows"
    needs = f"{needs} (kubernetes-1-36-images)"
    assert solution.reasons["etcd"] == needs


def test_all_addons_go_together() -> None:
    addons = tuple(c.name for c in REAL.components.values() if c.kind == "addon")
    versions = solved({}, UPSTREAM, (*PARTS, *addons)).versions
    assert fits("1.36", versions["kubernetes"])
    assert set(versions) == {*PARTS, *addons}


def test_vagrant_caps_virtualbox() -> None:
    facts = {"provider": "virtualbox", "vagrant": "2.3.4", "virtualbox": "7.2.22"}
    error = refusal({}, facts, ("kubernetes",))
    assert [c.id for c in error.conflicts] == ["vagrant-2-3-virtualbox"]
    assert error.nearest == ()
    [finding] = error.findings
    assert finding.what.endswith("Vagrant 2.3.4 and VirtualBox 7.2.22 do not go together")
    assert finding.where == ""
    assert "another host" in finding.fix
    solved({}, {**facts, "vagrant": "2.4.9"}, ("kubernetes",))
    solved({}, {**facts, "provider": "docker"}, ("kubernetes",))


def test_a_version_that_nobody_knows() -> None:
    error = refusal({"kubernetes": "1.99"})
    [finding] = error.findings
    assert finding.id == "spec.unknown-version"
    assert finding.what == "the catalog has no Kubernetes 1.99"
    newest = REAL.components["kubernetes"].releases[-1].version
    assert "1.31.14, " in finding.why
    assert newest in finding.why
    assert finding.fix == f'kubernetes: "{newest}"'
    assert error.nearest[0]["kubernetes"] == newest


def test_a_version_that_the_supply_lacks() -> None:
    error = refusal({"kubernetes": "1.34"}, PACKAGES)
    [finding] = error.findings
    assert finding.what == "the packages supply has no Kubernetes 1.34"
    assert "1.36.3" in finding.why
    assert finding.fix == 'kubernetes: "1.35.4"'


def test_a_wish_for_what_is_settled_already() -> None:
    error = refusal({"guest": "ubuntu-24.04"})
    [finding] = error.findings
    assert finding.what == "lab.yaml asks for guest ubuntu-24.04, and here it is debian-12"
    assert finding.why
    assert finding.where == "guest"
    assert finding.fix == 'guest: "debian-12"'
    assert error.conflicts == ()


def test_what_no_supply_has() -> None:
    error = refusal({}, {"supply": "packages"}, ("kubernetes", "kube-vip"))
    [finding] = error.findings
    assert finding.what == "the packages supply has no kube-vip"
    assert finding.fix == 'kubernetes: "1.37.2" without kube-vip'
    assert finding.where == "addons"


def test_unknown_and_impossible_wishes_are_told_together() -> None:
    wishes = {"kubernetes": "1.37", "rancher": "2.15", "pause": "9", "marble": "1"}
    error = refusal(wishes)
    assert [f.where for f in error.findings] == ["versions.pause", "versions.marble", "kubernetes"]


def test_the_lock_is_kept_where_it_is_legal() -> None:
    kept = {"kubernetes": "1.35.6", "etcd": "3.6.6-0", "containerd": "1.7.29"}
    solution = solved({}, kept=kept)
    assert {name: solution.versions[name] for name in kept} == kept
    assert {solution.reasons[name] for name in kept} == {"as lab.lock has it"}
    moved = solved({"kubernetes": "1.36"}, kept=kept)
    assert fits("1.36", moved.versions["kubernetes"])
    assert moved.versions["etcd"] == "3.6.8-0"
    assert fits("2", moved.versions["containerd"])


def reached(component: Component, release: Release) -> bool:
    places = product(release.supplies or ("upstream",), release.guests or REAL.guests)
    for supply, guest in places:
        facts = {"supply": supply, "guest": guest, "provider": "libvirt", "cgroup": "2"}
        facts.pop(component.name, None)
        wanted = tuple(dict.fromkeys(("kubernetes", component.name)))
        try:
            solution = solve(REAL, Problem(wanted, facts, {component.name: release.version}))
        except Unsolvable:
            continue
        return solution.versions[component.name] == release.version
    return False


@pytest.mark.parametrize("component", REAL.components.values(), ids=lambda c: c.name)
def test_every_release_is_part_of_some_legal_set(component: Component) -> None:
    missed = [r.version for r in component.releases if not reached(component, r)]
    assert missed == []


ANNOUNCED = {"kubernetes-1-38-cgroup": ("1.38.0",)}


@pytest.mark.parametrize("cgroup", ["1", "2"])
def test_kubernetes_1_38_is_not_for_a_host_on_cgroup_v1(cgroup: str) -> None:
    kubernetes = REAL.components["kubernetes"]
    release = replace(kubernetes.releases[-1], version="1.38.0", supplies=("upstream",))
    releases = (*kubernetes.releases, release)
    # Its images are in no constraint yet, so that those of any other go with it.
    known = replace(
        REAL, components={**REAL.components, "kubernetes": replace(kubernetes, releases=releases)}
    )
    problem = Problem(PARTS, {**UPSTREAM, "cgroup": cgroup}, {"kubernetes": "1.38"})
    if cgroup == "2":
        assert solve(known, problem).versions["kubernetes"] == "1.38.0"
        return
    with pytest.raises(Unsolvable) as caught:
        solve(known, problem)
    assert "cgroup" in caught.value.findings[0].what + caught.value.findings[0].why
    assert fits("1.37", caught.value.nearest[0]["kubernetes"])


@pytest.mark.parametrize("constraint", REAL.constraints, ids=lambda c: c.id)
def test_every_constraint_forbids_something(constraint: Constraint) -> None:
    """What it is about holds for some version, and its need fails for some other."""
    for name, expression in [*constraint.when.items(), *constraint.needs.items()]:
        values = [r.version for r in REAL.components[name].releases]
        # What a project has announced is written down before its release is out.
        values += ANNOUNCED.get(constraint.id, ())
        assert any(matches(expression, value) for value in values), (name, expression)
    # A host may have any version of a tool, so that the catalog lists a few of them only.
    assert any(
        REAL.components[name].kind == "tool" or not matches(expression, release.version)
        for name, expression in constraint.needs.items()
        for release in REAL.components[name].releases
    )


# --------------------------------------------------------------------------- random catalogs

NAMES = ("a", "b", "c", "d")
SUPPLY = Component("supply", "supply", "word", (Release("s1", (), "-"), Release("s2", (), "-")))


@st.composite
def components(draw: st.DrawFn, name: str) -> Component:
    kind: Kind = draw(st.sampled_from(["cluster", "addon"]))
    places = st.sampled_from([(), (), ("s1",), ("s2",), ("s1", "s2")])
    count = draw(st.integers(1, 4))
    return Component(
        name, name, kind, tuple(Release(f"1.{n}", draw(places), "-") for n in range(count))
    )


@st.composite
def expressions(draw: st.DrawFn) -> str:
    n = draw(st.integers(0, 3))
    return draw(st.sampled_from([f">=1.{n}", f"<=1.{n}", f"1.{n}", f"1.{n} | 1.0", f"!=1.{n}"]))


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    parts = {name: draw(components(name)) for name in NAMES}
    sides = st.dictionaries(st.sampled_from(NAMES), expressions(), min_size=1, max_size=2)
    rules = [
        Constraint(f"r{n}", draw(sides), draw(sides), "why", "source")
        for n in range(draw(st.integers(0, 7)))
    ]
    return Catalog({"supply": SUPPLY, **parts}, tuple(rules), {}, {}, {}, {}, {})


values = st.integers(0, 4).map(lambda n: f"1.{n}")


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    wanted = tuple(draw(st.permutations(NAMES))[: draw(st.integers(1, 4))])
    facts = draw(st.dictionaries(st.sampled_from(NAMES), values, max_size=1))
    if draw(st.booleans()):
        facts["supply"] = draw(st.sampled_from(["s1", "s2"]))
    wishes = draw(st.dictionaries(st.sampled_from(NAMES), values, max_size=3))
    kept = draw(st.dictionaries(st.sampled_from(NAMES), values, max_size=3))
    return Problem(wanted, facts, wishes, kept)


def legal(of: Catalog, versions: Mapping[str, str]) -> bool:
    """The meaning of a catalog, said a second time and without any cleverness."""
    for rule in of.constraints:
        if all(n in versions and matches(e, versions[n]) for n, e in rule.when.items()) and any(
            n in versions and not matches(e, versions[n]) for n, e in rule.needs.items()
        ):
            return False
    for name, version in versions.items():
        release = of.components[name].release(version)
        supply = versions.get("supply")
        if release and supply and release.supplies and supply not in release.supplies:
            return False
    return True


def every_set(of: Catalog, problem: Problem, present: Sequence[str]) -> Iterator[dict[str, str]]:
    """All legal sets of the components that are there, wishes aside; the preferred ones first."""
    domains = []
    for name in present:
        known = [r.version for r in reversed(of.components[name].releases)]
        known.sort(key=lambda version: version != problem.kept.get(name))
        domains.append([problem.facts[name]] if name in problem.facts else known)
    for chosen in product(*domains):
        versions = dict(zip(present, chosen, strict=True))
        if legal(of, versions):
            yield versions


def least_given_up(of: Catalog, problem: Problem) -> int | None:
    """Try every set of add-ons to leave out, and every legal set of the rest."""
    names = problem.names
    addons = [n for n in problem.asked_for if of.components[n].kind == "addon"]
    addons = [n for n in addons if n not in problem.facts]
    subsets = chain.from_iterable(combinations(addons, n) for n in range(len(addons) + 1))
    costs = [
        given_up(problem, versions)
        for dropped in subsets
        for versions in every_set(of, problem, [n for n in names if n not in dropped])
    ]
    return min(costs, default=None)


def given_up(problem: Problem, versions: Mapping[str, str]) -> int:
    dropped = sum(name not in versions for name in problem.asked_for)
    return dropped + sum(not fits(w, versions.get(n, "")) for n, w in problem.wishes.items())


def wished(problem: Problem, versions: Mapping[str, str]) -> bool:
    return all(fits(wish, versions[name]) for name, wish in problem.wishes.items())


@settings(max_examples=200)
@given(catalogs(), problems())
def test_against_brute_force(of: Catalog, problem: Problem) -> None:
    sets = [v for v in every_set(of, problem, problem.names) if wished(problem, v)]
    try:
        solution = solve(of, problem)
    except Unsolvable as error:
        assert sets == []
        check_refusal(of, problem, error)
        return
    best = {name: sets[0][name] for name in problem.asked_for}
    assert solution.versions == best
    assert set(solution.reasons) == set(best)
    assert solve(of, problem) == solution


def check_refusal(of: Catalog, problem: Problem, error: Unsolvable) -> None:
    """The findings are told, the conflict is one, and the nearest sets are legal and near."""
    assert error.findings
    assert all(f.what and f.fix for f in error.findings)
    least = least_given_up(of, problem)
    first = given_up(problem, error.nearest[0]) if error.nearest else None
    assert first == least
    for near in error.nearest:
        assert legal(of, {**problem.facts, **near})
    if error.conflicts:
        assert any(is_conflict(of, problem, names, error.conflicts) for names in parts(problem))
    with pytest.raises(Unsolvable) as again:
        solve(of, problem)
    assert (again.value.findings, again.value.nearest) == (error.findings, error.nearest)


def possible(of: Catalog, problem: Problem, name: str) -> Sequence[str]:
    if name in problem.facts:
        return [problem.facts[name]]
    return [release.version for release in of.components[name].releases]


def parts(problem: Problem) -> Iterator[tuple[str, ...]]:
    names = problem.names
    return chain.from_iterable(combinations(names, n + 1) for n in range(len(names)))


def is_conflict(
    of: Catalog, problem: Problem, names: Sequence[str], rules: Sequence[Constraint]
) -> bool:
    """Whether these components have no set under these rules, and one without any of them."""
    without = [[other for other in rules if other != rule] for rule in rules]
    return not under(of, problem, names, rules) and all(
        under(of, problem, names, fewer) for fewer in without
    )


def under(of: Catalog, problem: Problem, names: Sequence[str], rules: Sequence[Constraint]) -> bool:
    """Whether some set obeys these rules alone, and the wishes that are possible but for rules."""
    known = {
        name: wish
        for name, wish in problem.wishes.items()
        if name in names and any(fits(wish, value) for value in possible(of, problem, name))
    }
    free = {
        name: replace(c, releases=tuple(replace(r, supplies=()) for r in c.releases))
        for name, c in of.components.items()
    }
    bare = Catalog(free, tuple(rules), {}, {}, {}, {}, {})
    return any(
        wished(replace(problem, wishes=known), versions)
        for versions in every_set(bare, problem, names)
    )
