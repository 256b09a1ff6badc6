"""What each supply says of itself: sources, packages, images, charts, and what a bundle holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from labwright.model import AptSource, Plan, Wanted
from labwright.software import Bundled
from labwright.supplies.base import ROLE_PACKAGES, collected
from labwright.supplies.packages import PARTS
from labwright.supplies.upstream import TOOLS
from tests.fakes import DEBIAN, HOSTS, VIRTUALBOX, manifest, online, planned, upstream


def wanted(raw: dict[str, Any] | None = None, provider: str = "libvirt") -> Wanted:
    asked = {"supply": "upstream", "provider": provider, **(raw or {})}
    return planned(asked, online(HOSTS[provider])).wanted


# With the runtime of the distribution itself.
OLD: dict[str, Any] = {"kubernetes": "1.33", "versions": {"containerd": "1.7.24"}}


def source(found: Wanted, name: str) -> AptSource:
    return next(s for s in found.apt if s.name == name)


# --- package sources


@pytest.mark.parametrize(
    ("guest", "names"),
    [
        ("debian-12", ["kubernetes", "debian", "debian-security", "docker"]),
        ("debian-13", ["kubernetes", "debian", "debian-security", "docker"]),
        ("ubuntu-24.04", ["kubernetes", "ubuntu", "docker"]),
    ],
)
def test_a_guest_has_its_own_archive_beside_the_vendors(guest: str, names: list[str]) -> None:
    assert [s.name for s in wanted({"guest": guest}).apt] == names


def test_the_vendors_places_are_filled_in() -> None:
    found = wanted({"guest": "debian-13", "kubernetes": "1.35"})
    assert source(found, "kubernetes") == AptSource(
        name="kubernetes",
        uri="https://pkgs.k8s.io/core:/stable:/v1.35/deb/",
        suites=("/",),
        key="https://pkgs.k8s.io/core:/stable:/v1.35/deb/Release.key",
        fingerprint="DE15B14486CD377B9E876E1A234654DA9A296436",
    )
    assert source(found, "docker") == AptSource(
        name="docker",
        uri="https://download.docker.com/linux/debian",
        suites=("trixie",),
        components=("stable",),
        key="https://download.docker.com/linux/debian/gpg",
        fingerprint="9DC858229FC7DD38854AE2D88D81803C0EBFCD88",
    )
    assert source(found, "debian-security").suites == ("trixie-security",)
    archive = source(found, "debian")
    assert archive.suites == ("trixie", "trixie-updates")
    assert (archive.key, archive.fingerprint) == ("", "")
    assert archive.keyring == "/usr/share/keyrings/debian-archive-keyring.gpg"


def test_ubuntu_has_sources_of_its_own() -> None:
    found = wanted({"guest": "ubuntu-24.04"})
    assert source(found, "ubuntu").suites == ("noble", "noble-updates", "noble-security")
    assert source(found, "docker").uri == "https://download.docker.com/linux/ubuntu"


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_mirror_replaces_the_base_and_nothing_else(slash: str) -> None:
    mirrors = {"apt": {"kubernetes": f"http://mirror.lan/k8s{slash}", "debian": "http://d.lan/x"}}
    found = wanted({"kubernetes": "1.35", "guest": "debian-12", "mirrors": mirrors})
    mirrored = source(found, "kubernetes")
    assert mirrored.uri == "http://mirror.lan/k8s/core:/stable:/v1.35/deb/"
    assert mirrored.key == "http://mirror.lan/k8s/core:/stable:/v1.35/deb/Release.key"
    # The mirror passes on what the vendor has signed.
    assert mirrored.fingerprint == "DE15B14486CD377B9E876E1A234654DA9A296436"
    assert source(found, "debian").uri == "http://d.lan/x/"
    assert source(found, "debian").keyring
    assert source(found, "docker") == source(wanted({"guest": "debian-12"}), "docker")


def test_a_mirror_s_own_key_is_trusted_for_being_named() -> None:
    own = {"url": "http://mirror.lan", "key": "https://mirror.lan/key.asc"}
    found = wanted({"guest": "debian-12", "mirrors": {"apt": {"kubernetes": own, "debian": own}}})
    for name in ("kubernetes", "debian"):
        mirrored = source(found, name)
        assert mirrored.key == "https://mirror.lan/key.asc"
        assert (mirrored.fingerprint, mirrored.keyring) == ("", "")


# --- packages


def test_nodes_get_kubernetes_of_the_very_version() -> None:
    found = wanted({"kubernetes": "1.35.2"})
    versions = {w.name: w.version for w in found.debs if w.sources == ("kubernetes",)}
    # With the dash, or 1.35.2 would also be 1.35.20.
    pinned = dict.fromkeys(("kubeadm", "kubelet", "kubectl"), "1.35.2-")
    assert versions == {**pinned, "cri-tools": "", "kubernetes-cni": ""}


def test_the_runtime_comes_from_where_the_catalog_says() -> None:
    docker = {w.name: w for w in wanted({"guest": "debian-12"}).debs}
    assert docker["containerd.io"].sources == ("docker",)
    assert "runc" not in docker
    own = {"guest": "debian-13", "kubernetes": "1.33", "versions": {"containerd": "1.7.24"}}
    debian = {w.name: w for w in wanted(own).debs}
    assert "containerd.io" not in debian
    assert debian["containerd"].sources == ("debian", "debian-security")
    assert debian["containerd"].version == "1.7.24"


def test_runc_of_the_guest_has_a_version_of_its_own() -> None:
    own = {"guest": "debian-13", "kubernetes": "1.33", "versions": {"containerd": "1.7.24"}}
    assert [w.version for w in wanted(own).debs if w.name == "runc"] == [""]


@pytest.mark.parametrize("guest", ["debian-12", "ubuntu-24.04"])
def test_nodes_beside_the_cluster_are_installed_from_the_guest(guest: str) -> None:
    found = wanted({"guest": guest, "tools": 1, "nas": 1})
    roles = {wish.name: (wish.role, wish.sources[0]) for wish in found.debs if wish.role}
    archive = guest.partition("-")[0]
    for role, names in ROLE_PACKAGES.items():
        assert {roles[name] for name in names} == {(role, archive)}
    # A package that all nodes have is no matter of one of them.
    assert len({wish.name for wish in found.debs}) == len(found.debs)
    assert not [wish for wish in wanted({"guest": guest}).debs if wish.role]


@pytest.mark.parametrize(
    ("more", "source", "names"),
    [
        ({**OLD, "guest": "debian-13"}, "debian", {"docker.io", "docker-compose", "docker-cli"}),
        ({}, "docker", {"docker-ce", "docker-ce-cli", "docker-compose-plugin"}),
    ],
)
def test_docker_comes_from_where_containerd_does(
    more: dict[str, Any], source: str, names: set[str]
) -> None:
    raw = {"tools": 1, **more}
    found = {wish.name: wish for wish in wanted(raw).debs if wish.name.startswith("docker")}
    assert set(found) == names
    assert {wish.sources[0] for wish in found.values()} == {source}
    # In Debian 12 it is a part of docker.io.
    assert [w.name for w in found.values() if not w.required] in ([], ["docker-cli"])


def test_their_packages_are_built_for_those_who_ask() -> None:
    ids = {a.id for a in planned({"tools": 1}).artifacts}
    assert "apt-tools" in ids
    assert "apt-nas" not in ids
    assert not {a.id for a in planned().artifacts} & {"apt-tools", "apt-nas"}


@pytest.mark.parametrize("made", [planned, upstream])
def test_a_bundle_holds_them_apart(made: Callable[..., Plan]) -> None:
    held = {a.id: a for a in collected(made({"tools": 1, "nas": 1}))}
    assert {"apt", "apt-tools", "apt-nas", "helm"} <= set(held)
    assert "apt" in held["apt-tools"].needs
    # What all nodes of a bundle's lab install is what its `apt` holds.
    assert "docker.io" not in held["apt"].params


def test_tools_come_from_the_guest() -> None:
    wishes = {w.name: w for w in wanted({"guest": "ubuntu-24.04"}).debs}
    assert all(wishes[name].sources == ("ubuntu",) for name in TOOLS)


def test_every_wish_names_sources_that_are_there() -> None:
    for guest in ("debian-12", "debian-13", "ubuntu-24.04"):
        found = wanted({"guest": guest})
        assert {s for w in found.debs for s in w.sources} <= {s.name for s in found.apt}


# --- images and charts


def test_images_are_named_by_the_versions() -> None:
    assert wanted({"kubernetes": "1.35.2"}).images == {
        "kube-apiserver": "registry.k8s.io/kube-apiserver:v1.35.2",
        "kube-controller-manager": "registry.k8s.io/kube-controller-manager:v1.35.2",
        "kube-scheduler": "registry.k8s.io/kube-scheduler:v1.35.2",
        "kube-proxy": "registry.k8s.io/kube-proxy:v1.35.2",
        "etcd": "registry.k8s.io/etcd:3.6.6-0",
        "coredns": "registry.k8s.io/coredns/coredns:v1.13.1",
        "pause": "registry.k8s.io/pause:3.10.1",
        "busybox": "registry.k8s.io/e2e-test-images/busybox:1.36.1-1",
        "kube-network-policies": "registry.k8s.io/networking/kube-network-policies:v1.1.1",
    }


def test_mirrors_of_registries_leave_the_references_as_they_are() -> None:
    registries = {"registry.k8s.io": "http://mirror.lan:5000"}
    found = wanted({"mirrors": {"registries": registries}})
    assert found.images == wanted().images
    assert found.registries == registries


def test_charts_are_those_that_lab_yaml_names() -> None:
    asked = {"rancher": "2.15", "cert-manager": "1.21", "traefik": "3.7.4", "etcd": "3.6"}
    found = wanted({"versions": asked, "mirrors": {"charts": {"rancher": "http://m.lan/charts"}}})
    assert found.charts == {
        "rancher": ("http://m.lan/charts", "2.15.1"),
        "cert-manager": ("https://charts.jetstack.io", "v1.21.2"),
        # Traefik's chart is numbered in its own way.
        "traefik": ("https://traefik.github.io/charts", "40.3.0"),
    }


def test_nothing_is_asked_of_vendors_for_what_is_built_here() -> None:
    registries = {"docker.io": "http://mirror.lan:5000"}
    plan = planned({"supply": "packages", "mirrors": {"registries": registries}})
    assert plan.wanted == Wanted(registries=registries)


# --- what a bundle holds


def ids(plan: Plan) -> list[str]:
    return [artifact.id for artifact in collected(plan)]


def test_a_bundle_of_packages_has_what_nodes_use_and_not_what_it_was_built_from() -> None:
    assert ids(planned()) == ["base", "apt", "images", "host", "helm"]


CHARTED: dict[str, Any] = {"versions": {"rancher": "2.15"}}


def test_a_bundle_of_an_upstream_lab_has_what_its_nodes_fetch() -> None:
    assert ids(upstream()) == ["base", "apt", "images", "host", "helm"]
    assert ids(upstream(CHARTED)) == ["base", "charts", "apt", "images", "host", "helm"]
    assert ids(upstream(CHARTED, VIRTUALBOX)) == ["charts", "apt", "images", "host", "helm"]


def test_what_is_collected_is_named_by_what_vendors_answered() -> None:
    plan = upstream()
    assert plan.pins
    by_id = {a.id: a for a in collected(plan)}
    assert by_id["apt"].recipe == "collect"
    assert by_id["apt"].needs == ("base",)
    kubelet, pause = plan.pins.packages["kubelet"], plan.pins.images["pause"]
    assert by_id["apt"].params["kubelet"] == f"{kubelet.version} {kubelet.sha256}"
    assert set(by_id["apt"].params) == set(plan.pins.packages)
    assert by_id["images"].recipe == "pull"
    assert by_id["images"].params["pause"] == f"{pause.ref}@{pause.digest}"
    assert set(by_id["images"].params) == set(plan.pins.images)


def test_a_machine_s_packages_are_collected_without_a_root() -> None:
    (apt,) = (a for a in collected(upstream({}, VIRTUALBOX)) if a.id == "apt")
    assert apt.needs == ()


@pytest.mark.parametrize("made", [planned(), upstream(CHARTED)], ids=["packages", "upstream"])
def test_collected_comes_after_what_it_needs(made: Plan) -> None:
    seen: set[str] = set()
    for artifact in collected(made):
        # The programs themselves stay at home: what needs them is in the store by then.
        assert set(artifact.needs) <= seen | {*PARTS, "coredns", "kube-network-policies"}
        seen.add(artifact.id)


def test_a_bundle_of_a_bundle_s_lab_holds_the_same() -> None:
    bundled = Bundled("/b", manifest(upstream(), ("base", "apt", "images", "host")))
    assert ids(planned({}, DEBIAN, bundled=bundled)) == ["base", "apt", "images", "host", "helm"]
