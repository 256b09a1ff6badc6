"""Which supply a lab uses and which versions it gets, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from labwright.errors import HostError, LabError, SpecError
from labwright.lock import Locked
from labwright.model import HostFacts, ProviderName
from labwright.providers import PROVIDERS
from labwright.software import Bundled, Software, choose
from labwright.solver import Unsolvable
from tests.fakes import DEBIAN, LIBVIRT, VIRTUALBOX, given, manifest, online, planned, upstream

ONLINE = online(DEBIAN)
UBUNTU = {"os": "ubuntu", "os_version": "24.04"}
MIRRORED = {
    "apt": {"kubernetes": "http://mirror.lan/k8s"},
    "registries": {"registry.k8s.io": "http://mirror.lan:5000"},
}


def chosen(
    raw: dict[str, Any] | None = None,
    host: HostFacts = ONLINE,
    provider: ProviderName = "docker",
    **more: Any,
) -> Software:
    return choose(given(raw, host, **more), PROVIDERS[provider])


def refused(kind: type[LabError], raw: dict[str, Any], host: HostFacts, **more: Any) -> LabError:
    with pytest.raises(kind) as caught:
        chosen(raw, host, **more)
    return caught.value


def why(software: Software, what: str) -> str:
    return next(c.why for c in software.choices if c.what == what)


# --- the supply


@pytest.mark.parametrize(
    ("answers", "supply"),
    [
        ({"pkgs.k8s.io": "answers", "registry.k8s.io": "answers"}, "upstream"),
        ({"pkgs.k8s.io": "answers", "registry.k8s.io": "does not answer"}, "packages"),
        ({"pkgs.k8s.io": "does not answer", "registry.k8s.io": "answers"}, "packages"),
    ],
)
def test_upstream_is_taken_where_all_vendors_answer(
    answers: Mapping[str, str], supply: str
) -> None:
    software = chosen(host=replace(DEBIAN, upstream=answers))
    assert (software.supply, software.origin) == (supply, supply)
    assert why(software, "supply") == "; ".join(f"{v}: {a}" for v, a in answers.items())
    assert software.warnings == ()


def test_vendors_that_are_mirrored_need_not_answer() -> None:
    assert chosen({"mirrors": MIRRORED}, DEBIAN).supply == "upstream"
    assert chosen({"mirrors": MIRRORED}, DEBIAN).warnings == ()


@pytest.mark.parametrize("part", ["apt", "registries"])
def test_half_a_mirror_is_not_enough(part: str) -> None:
    assert chosen({"mirrors": {part: MIRRORED[part]}}, DEBIAN).supply == "packages"


@pytest.mark.parametrize("supply", ["upstream", "packages"])
@pytest.mark.parametrize("host", [ONLINE, DEBIAN], ids=["online", "offline"])
def test_a_lab_stays_with_the_supply_of_its_lock(supply: str, host: HostFacts) -> None:
    software = chosen(host=host, locked=Locked({"supply": supply}))
    assert software.supply == supply
    assert why(software, "supply") == "as lab.lock has it"


def test_lab_yaml_goes_before_the_lock() -> None:
    software = chosen({"supply": "packages"}, locked=Locked({"supply": "upstream"}))
    assert (software.supply, why(software, "supply")) == ("packages", "lab.yaml asks for it")


def test_what_only_upstream_has_is_upstream_s_even_out_of_reach() -> None:
    software = chosen({"kubernetes": "1.34"}, DEBIAN)
    assert software.supply == "upstream"
    assert why(software, "supply").startswith("packages: the packages supply has no Kubernetes")
    (warning,) = software.warnings
    assert (warning.id, warning.level) == ("host.upstream-unreachable", "warning")
    assert warning.why == "pkgs.k8s.io: does not answer; registry.k8s.io: does not answer"
    assert "bundle" in warning.fix
    assert "chart" not in warning.fix


def test_rancher_out_of_reach_may_come_from_a_chart_of_one_s_own() -> None:
    addons = ["dns", "traefik", "rancher"]
    (warning,) = chosen({"addons": addons}, DEBIAN).warnings
    assert warning.id == "host.upstream-unreachable"
    assert "rancher: {chart: PATH}" in warning.fix
    assert "supply: upstream" not in warning.fix
    (warning,) = chosen({"addons": addons, "supply": "upstream"}, DEBIAN).warnings
    assert "chart" not in warning.fix


def test_what_only_packages_has_is_taken_from_there() -> None:
    software = chosen({"versions": {"runc": "1.5"}})
    assert software.supply == "packages"
    assert why(software, "supply").startswith("upstream: the upstream supply has no runc")


def test_a_supply_that_is_asked_for_is_not_left() -> None:
    error = refused(Unsolvable, {"supply": "packages", "kubernetes": "1.34"}, ONLINE)
    assert error.findings[0].what == "the packages supply has no Kubernetes 1.34"
    error = refused(HostError, {"supply": "packages"}, replace(ONLINE, **UBUNTU))  # type: ignore[arg-type]
    assert [f.id for f in error.findings] == ["host.packages.not-debian"]


@pytest.mark.parametrize("provider", ["virtualbox", "libvirt"])
def test_machines_of_their_own_need_no_debian_on_the_host(provider: ProviderName) -> None:
    host = replace(VIRTUALBOX if provider == "virtualbox" else LIBVIRT, **UBUNTU)  # type: ignore[arg-type]
    software = chosen({}, host, provider)
    assert software.supply == "upstream"
    assert software.artifacts == ()
    assert "packages: the packages supply is built on Debian 12" in why(software, "supply")


def test_a_host_that_no_supply_serves_hears_why() -> None:
    error = refused(HostError, {}, replace(ONLINE, arch="aarch64"))
    assert error.findings[0].id == "host.packages.arch"


# --- versions


def test_default_kubernetes_is_the_newest_that_rancher_allows() -> None:
    software = chosen()
    assert software.versions["kubernetes"].startswith("1.36.")
    assert software.versions["rancher"].startswith("2.15.")
    assert "rancher" in why(software, "kubernetes")
    # Nobody asked for it: its version is known, its chart is not fetched.
    assert software.wanted.charts == {}


def test_rancher_gives_way_where_nobody_asked_for_it() -> None:
    software = chosen({"kubernetes": "1.37"})
    assert software.versions["kubernetes"].startswith("1.37.")
    assert "rancher" not in software.versions
    left = next(c for c in software.choices if c.what == "rancher")
    assert (left.chosen, left.why) == ("none", "Kubernetes 1.37 and Rancher do not go together")


def test_rancher_that_is_asked_for_gives_way_to_nothing() -> None:
    raw = {"kubernetes": "1.37", "versions": {"rancher": "2.15"}}
    error = refused(Unsolvable, raw, ONLINE)
    assert isinstance(error, Unsolvable)
    assert [rule.id for rule in error.conflicts] == ["rancher-2-15-kubernetes"]
    (finding,) = error.findings
    assert "rancher/rancher" in finding.why
    assert 'kubernetes: "1.36' in finding.fix
    assert 'versions: {rancher: "2.15' in finding.fix


def test_an_add_on_moves_the_default_of_kubernetes() -> None:
    assert chosen({"versions": {"rancher": "2.13"}}).versions["kubernetes"].startswith("1.34.")


def test_the_packages_supply_knows_no_rancher() -> None:
    software = chosen({"supply": "packages"})
    assert "rancher" not in {*software.versions, *(c.what for c in software.choices)}


def test_a_conflict_is_told_by_the_supply_with_the_most_versions() -> None:
    raw = {"kubernetes": "1.36", "versions": {"containerd": "1.7"}}
    for host in (ONLINE, DEBIAN):
        error = refused(Unsolvable, raw, host)
        assert [rule.id for rule in error.conflicts] == ["kubernetes-1-36-containerd"]  # type: ignore[attr-defined]


def test_a_mirror_of_kubernetes_may_hold_what_we_know() -> None:
    raw = {"supply": "upstream", "kubernetes": "1.36.3", "versions": {"etcd": "3.6.16"}}
    assert refused(Unsolvable, raw, ONLINE).findings[0].what == (
        "the upstream supply has no etcd 3.6.16"
    )
    software = chosen({**raw, "mirrors": MIRRORED})
    assert (software.supply, software.versions["etcd"]) == ("upstream", "3.6.16")
    assert software.wanted.images["etcd"] == "registry.k8s.io/etcd:3.6.16"
    # What nobody asked for is the vendor's, as a mirror's owner most likely has it.
    plain = chosen({"supply": "upstream", "kubernetes": "1.36.3", "mirrors": MIRRORED})
    assert plain.versions["etcd"] == "3.6.8-0"
    assert software.image_repository == "registry.k8s.io"


def test_a_lock_keeps_versions_until_lab_yaml_asks_for_others() -> None:
    locked = Locked({"versions": {"kubernetes": "1.35.2", "rancher": "2.14.4"}})
    kept = chosen(locked=locked)
    assert (kept.versions["kubernetes"], kept.versions["rancher"]) == ("1.35.2", "2.14.4")
    assert why(kept, "kubernetes") == "as lab.lock has it"
    moved = chosen({"kubernetes": "1.36"}, locked=locked)
    assert moved.versions["kubernetes"].startswith("1.36.")
    assert moved.versions["rancher"].startswith("2.15.")


@pytest.mark.parametrize(
    ("provider", "guest"),
    [("docker", "debian-12"), ("virtualbox", "ubuntu-24.04"), ("libvirt", "ubuntu-24.04")],
)
def test_the_guest_of_a_provider(provider: ProviderName, guest: str) -> None:
    software = chosen({}, ONLINE, provider)
    assert software.guest.name == guest
    assert next(c.chosen for c in software.choices if c.what == "guest") == guest
    assert "guest" not in software.versions


def test_a_lab_stays_with_the_guest_of_its_lock() -> None:
    software = chosen({}, ONLINE, "libvirt", locked=Locked({"guest": "debian-13"}))
    assert (software.guest.name, why(software, "guest")) == ("debian-13", "as lab.lock has it")


def test_the_guest_asked_for_decides_where_containerd_comes_from() -> None:
    trixie = chosen({"guest": "debian-13", "versions": {"containerd": "2.2.1"}}, ONLINE, "libvirt")
    assert trixie.guest.codename == "trixie"
    assert [s.name for s in trixie.wanted.apt] == [
        "kubernetes",
        "debian",
        "debian-security",
        "docker",
    ]
    own = {"guest": "debian-13", "kubernetes": "1.33", "versions": {"containerd": "1.7.24"}}
    assert "docker" not in [s.name for s in chosen(own, ONLINE, "libvirt").wanted.apt]


def test_every_choice_has_its_reason() -> None:
    for software in (chosen(), chosen({"supply": "packages"}), chosen({"kubernetes": "1.37"})):
        told = {c.what for c in software.choices}
        assert {"supply", "cluster DNS", *software.versions} <= told
        assert all(c.chosen and c.why for c in software.choices)


@pytest.mark.parametrize(
    ("cgroup", "provider", "kubernetes", "warned"),
    [
        (1, "docker", "1.36", True),
        (1, "docker", "1.35", True),
        (1, "docker", "1.34", False),
        (2, "docker", "1.36", False),
        (1, "virtualbox", "1.36", False),
    ],
)
def test_an_old_cgroup_is_worth_a_warning(
    cgroup: int, provider: ProviderName, kubernetes: str, warned: bool
) -> None:
    host = replace(ONLINE, cgroup=cgroup)  # type: ignore[arg-type]
    software = chosen({"kubernetes": kubernetes}, host, provider)
    assert software.versions["kubernetes"].startswith(f"{kubernetes}.")
    assert [w.id for w in software.warnings] == (["host.cgroup-v1"] if warned else [])


def test_dns_of_upstream_comes_from_its_registry() -> None:
    software = chosen(host=replace(ONLINE, go_modules=False))
    assert software.addons == ("dns", "network-policy")
    assert why(software, "cluster DNS") == "from its registry"
    assert "coredns" in software.wanted.images
    assert "coredns" not in chosen({"addons": []}).wanted.images


# --- bundles

MADE = upstream({"versions": {"rancher": "2.15"}})
BUNDLE = Bundled("/media/class", manifest(MADE, ("base", "apt", "images", "charts", "host")))


def test_a_bundle_gives_the_versions_that_it_has() -> None:
    far = replace(DEBIAN, upstream={}, go_modules=False, **UBUNTU)  # type: ignore[arg-type]
    software = chosen({}, far, bundled=BUNDLE)
    assert (software.supply, software.origin) == ("bundle", "upstream")
    assert software.versions == MADE.versions
    assert software.guest.name == MADE.guest
    assert software.image_repository == "registry.k8s.io"
    assert (software.wanted.apt, software.wanted.images) == ((), {})
    assert {a.recipe for a in software.artifacts} == {"bundle"}
    assert [a.id for a in software.artifacts] == list(software.keys) == [*BUNDLE.manifest.entries]
    assert why(software, "kubernetes") == "the bundle of lab lab has it"


def test_a_bundle_of_packages_keeps_their_image_names() -> None:
    software = chosen(bundled=Bundled("/b", manifest(planned())))
    assert (software.origin, software.image_repository) == ("packages", "labwright.local")


def test_what_a_bundle_and_the_store_both_have_is_not_copied() -> None:
    software = chosen(bundled=replace(BUNDLE, stored={"apt": "apt-fedcba"}))
    assert software.keys["apt"] == "apt-fedcba"
    assert software.keys["base"].startswith("base-")
    assert software.keys["base"] != "base-fedcba"


def test_another_bundle_s_entries_have_other_keys() -> None:
    entries = dict(BUNDLE.manifest.entries)
    entries["apt"] = replace(entries["apt"], files=entries["images"].files)
    other = Bundled("/c", replace(BUNDLE.manifest, entries=entries))
    one, two = chosen(bundled=BUNDLE).keys, chosen(bundled=other).keys
    assert {name for name in one if one[name] != two[name]} == {"apt"}


@pytest.mark.parametrize(
    ("raw", "where", "words"),
    [
        ({"kubernetes": "1.35"}, "kubernetes", "kubernetes 1.35, and the bundle has 1.36.4"),
        ({"guest": "debian-13"}, "guest", "guest debian-13, and the bundle has debian-12"),
        ({"versions": {"etcd": "3.5"}}, "versions.etcd", "etcd 3.5, and the bundle has 3.6.8-0"),
        ({"versions": {"traefik": "3.7"}}, "versions.traefik", "and the bundle has none"),
    ],
)
def test_a_wish_that_a_bundle_does_not_fulfil_is_refused(
    raw: dict[str, Any], where: str, words: str
) -> None:
    error = refused(SpecError, raw, ONLINE, bundled=BUNDLE)
    (finding,) = error.findings
    assert (finding.id, finding.where) == ("spec.not-in-bundle", where)
    assert words in finding.what
    assert finding.fix


@pytest.mark.parametrize(
    "raw", [{"kubernetes": "1.36"}, {"versions": {"rancher": "2.15.1"}}, {"guest": "debian-12"}]
)
def test_a_wish_that_a_bundle_fulfils_is_no_trouble(raw: dict[str, Any]) -> None:
    assert chosen(raw, bundled=BUNDLE).versions == MADE.versions


def test_a_bundle_serves_a_tools_node_where_it_has_the_packages() -> None:
    (finding,) = refused(SpecError, {"tools": 1}, ONLINE, bundled=BUNDLE).findings
    assert (finding.id, finding.where) == ("spec.not-in-bundle", "tools")
    ids = ("base", "apt", "apt-tools", "images", "host")
    whole = manifest(upstream({"tools": 1}), ids)
    assert "apt-tools" in chosen({"tools": 1}, ONLINE, bundled=Bundled("/b", whole)).keys


def test_a_bundle_is_for_one_architecture() -> None:
    error = refused(SpecError, {}, replace(ONLINE, arch="aarch64"), bundled=BUNDLE)
    assert error.findings[0].what == "the bundle is for x86_64, and this host is aarch64"


def test_a_bundle_without_dns_says_what_to_ask_for() -> None:
    bundle = Bundled("/b", manifest(planned({"addons": []})))
    (finding,) = refused(SpecError, {}, ONLINE, bundled=bundle).findings
    assert (finding.where, finding.fix) == ("addons", "addons: []")
    software = chosen({"addons": []}, bundled=bundle)
    assert (software.addons, why(software, "cluster DNS")) == ((), "lab.yaml leaves it out")


def test_all_that_a_bundle_lacks_is_said_at_once() -> None:
    raw = {"kubernetes": "1.35", "guest": "debian-13", "versions": {"etcd": "3.5"}}
    error = refused(SpecError, raw, replace(ONLINE, arch="aarch64"), bundled=BUNDLE)
    assert len(error.findings) == 4


def test_mirrors_of_registries_serve_a_bundle_s_lab_too() -> None:
    software = chosen({"mirrors": MIRRORED}, bundled=BUNDLE)
    assert software.wanted.registries == MIRRORED["registries"]
