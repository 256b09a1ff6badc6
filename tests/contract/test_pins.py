"""What vendors answer, asked of real software: signed repositories, a registry, a chart repo."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labwright import lock, oci
from labwright.errors import SupplyError
from labwright.locate import read_lock, save_plan
from labwright.model import AptSource, DebPin, Pins, Plan, Wanted
from labwright.oci import File, Image
from labwright.phases.preflight import _pinned
from labwright.phases.render_files import write_lock
from labwright.plan import pinned
from labwright.recipes import Job, build
from labwright.recipes.pins import covers, resolve
from labwright.supplies.base import DOCKER, ROLE_PACKAGES, collected
from labwright.supplies.upstream import TOOLS
from labwright.tools.shell import Shell
from tests.fakes import DEBIAN, ROLES, online, planned, run_of
from tests.vendors import (
    AptRepos,
    ChartRepo,
    Faulty,
    Registry,
    SigningKey,
    make_deb,
    needs,
    run,
)

KUBERNETES = ("kubeadm", "kubelet", "kubectl")
REGISTRY = "registry.k8s.io"


@pytest.fixture(scope="module")
def key() -> Iterator[SigningKey]:
    with SigningKey() as made:
        yield made


@pytest.fixture(scope="module")
def stranger() -> Iterator[SigningKey]:
    with SigningKey("A stranger") as made:
        yield made


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of debs: Kubernetes' own, and the guest's."""
    folder = tmp_path_factory.mktemp("debs")
    for name in KUBERNETES:
        make_deb(folder / "kubernetes", name, "1.36.4-1")
        make_deb(folder / "kubernetes", name, "1.36.40-1")
    make_deb(folder / "kubernetes", "cri-tools", "1.36.0-1.1")
    make_deb(folder / "kubernetes", "kubernetes-cni", "1.8.0-1.1")
    make_deb(folder / "docker", "containerd.io", "2.3.4-1~debian.12~bookworm")
    for name in DOCKER["docker"]:
        needed = {"docker-ce": "containerd.io, libslirp0"}.get(name, "")
        make_deb(folder / "docker", name, "5:29.0.0-1", depends=needed)
    for name in TOOLS:
        make_deb(folder / "debian", name, "1.1.5+ds1-1")
    for name in (*ROLE_PACKAGES["tools"], *ROLE_PACKAGES["nas"]):
        make_deb(folder / "debian", name, "2.0-1")
    make_deb(folder / "debian", "libslirp0", "4.7.0-1")
    make_deb(folder / "security", "socat", "1.1.5+ds1-1+deb12u1")
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    (folder / "program").write_bytes(b"program")
    archive = folder / "image.tar"
    content = {"bin/program": File(folder / "program")}
    oci.write(Image("x/y:1", content, ("/bin/program",)), archive)
    return archive


class Vendors:
    """All that an upstream lab asks, on this machine."""

    def __init__(self, key: SigningKey, debs: Path, image: Path, folder: Path) -> None:
        self.debs = folder / "debs"
        shutil.copytree(debs, self.debs)
        self.repos = AptRepos(key, folder / "www")
        self.registry = Registry(folder / "registry")
        self.door = Faulty(self.registry.url)
        self.charts = ChartRepo(folder / "charts")
        self.image = image
        self.folder = folder
        self.index()

    def index(self) -> None:
        """Publish what is in the folders of debs."""
        for old in self.repos.folder.iterdir():
            shutil.rmtree(old)
        self.repos.kubernetes("v1.36", self.debs / "kubernetes")
        for suite in ("bookworm", "bookworm-updates"):
            self.repos.archive("debian", self.debs / "debian", suite=suite)
        self.repos.archive("security", self.debs / "security", suite="bookworm-security")
        self.repos.archive("docker/linux/debian", self.debs / "docker", component="stable")

    def raw(self, **more: Any) -> dict[str, Any]:
        """A lab.yaml that names the mirrors."""
        signed = f"{self.repos.url}/core:/stable:/v1.36/deb/Release.key"
        return {
            "supply": "upstream",
            "kubernetes": "1.36.4",
            "mirrors": {
                "apt": {
                    "kubernetes": {"url": self.repos.url, "key": signed},
                    "debian": {"url": f"{self.repos.url}/debian", "key": signed},
                    "debian-security": {"url": f"{self.repos.url}/security", "key": signed},
                    "docker": {"url": f"{self.repos.url}/docker", "key": signed},
                },
                "registries": {REGISTRY: self.door.url},
            },
            **more,
        }

    def wanted(self) -> Wanted:
        return planned(self.raw(), online(DEBIAN)).wanted


@pytest.fixture(scope="module")
def running(
    key: SigningKey, debs: Path, image: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Vendors]:
    made = Vendors(key, debs, image, tmp_path_factory.mktemp("vendors"))
    with made.repos, made.registry, made.door, made.charts:
        for ref in made.wanted().images.values():
            made.registry.push(image, ref.removeprefix(f"{REGISTRY}/"))
        made.charts.add("rancher", "2.15.1", {"a.yaml": "a: b\n"})
        yield made


@pytest.fixture
def vendors(running: Vendors) -> Iterator[Vendors]:
    """The vendors, sound; what a test puts among the debs is taken away after it."""
    before = set(running.debs.rglob("*.deb"))
    running.door.seen.clear()
    running.repos.server.seen.clear()
    yield running
    running.door.mend()
    running.repos.server.mend()
    if added := set(running.debs.rglob("*.deb")) - before:
        for path in added:
            path.unlink()
        running.index()


def asked(wanted: Wanted, before: Pins | None = None) -> Pins:
    return resolve(wanted, "x86_64", before, say=lambda _text: None)


def refusal(wanted: Wanted, before: Pins | None = None) -> SupplyError:
    with pytest.raises(SupplyError) as caught:
        asked(wanted, before)
    return caught.value


def with_source(wanted: Wanted, name: str, **change: Any) -> Wanted:
    def changed(source: AptSource) -> AptSource:
        return replace(source, **change) if source.name == name else source

    return replace(wanted, apt=tuple(map(changed, wanted.apt)))


# --- what is there


def test_vendors_say_what_a_lab_gets(vendors: Vendors, key: SigningKey) -> None:
    wanted = replace(vendors.wanted(), charts={"rancher": (vendors.charts.url, "2.15.1")})
    pins = asked(wanted)
    assert set(pins.keys) == {"kubernetes", "debian", "debian-security", "docker"}
    assert pins.keys["kubernetes"].encode().split() == key.armoured.split()
    versions = {name: (pin.version, pin.source) for name, pin in pins.packages.items()}
    # 1.36.4, though 1.36.40 is newer and begins alike.
    assert {versions[name] for name in KUBERNETES} == {("1.36.4-1", "kubernetes")}
    assert versions["containerd.io"] == ("2.3.4-1~debian.12~bookworm", "docker")
    assert versions["socat"] == ("1.1.5+ds1-1+deb12u1", "debian-security")
    assert versions["cri-tools"] == ("1.36.0-1.1", "kubernetes")
    assert versions["kubernetes-cni"] == ("1.8.0-1.1", "kubernetes")
    assert {name: pin.ref for name, pin in pins.images.items()} == wanted.images
    for pin in pins.images.values():
        assert pin.digest == vendors.registry.digest(pin.ref.removeprefix(f"{REGISTRY}/"))
        assert pin.size > 0
    chart = pins.charts["rancher"]
    assert (chart.version, chart.url) == ("2.15.1", f"{vendors.charts.url}/rancher-2.15.1.tgz")
    assert covers(pins, wanted)


def test_the_same_question_has_the_same_answer(vendors: Vendors) -> None:
    first = asked(vendors.wanted())
    assert asked(vendors.wanted()) == first == asked(vendors.wanted(), first)


def test_a_registry_that_recovers_is_waited_for(vendors: Vendors) -> None:
    vendors.door.answer(500, "manifests", times=2)
    assert len(asked(vendors.wanted()).images) == len(vendors.wanted().images)


# --- what was there before


def test_a_package_stays_as_it_was_while_it_is_there(vendors: Vendors) -> None:
    before = asked(vendors.wanted())
    make_deb(vendors.debs / "kubernetes", "kubelet", "1.36.4-2")
    make_deb(vendors.debs / "debian", "socat", "1.8.0-1")
    vendors.index()
    assert asked(vendors.wanted(), before).packages == before.packages
    fresh = asked(vendors.wanted()).packages
    assert (fresh["kubelet"].version, fresh["socat"].version) == ("1.36.4-2", "1.8.0-1")


def test_a_package_that_is_gone_gives_way_to_the_newest(vendors: Vendors) -> None:
    before = asked(vendors.wanted())
    older = DebPin("1.36.4-0", "0" * 64, "kubernetes")
    rebuilt = replace(before.packages["kubectl"], sha256="0" * 64)
    packages = {**before.packages, "kubelet": older, "kubectl": rebuilt}
    after = asked(vendors.wanted(), replace(before, packages=packages))
    # The same version with other bytes is another package.
    assert after.packages == before.packages


def test_an_earlier_pin_of_another_version_is_forgotten(vendors: Vendors) -> None:
    newer = DebPin("1.36.40-1", "0" * 64, "kubernetes")
    before = Pins(packages={"kubelet": newer})
    assert asked(vendors.wanted(), before).packages["kubelet"].version == "1.36.4-1"


def test_an_image_stays_as_it_was_while_it_is_there(vendors: Vendors, tmp_path: Path) -> None:
    before = asked(vendors.wanted())
    (tmp_path / "other").write_bytes(b"another program")
    archive = tmp_path / "other.tar"
    oci.write(Image("x/y:1", {"o": File(tmp_path / "other")}, ("/o",)), archive)
    vendors.registry.push(archive, "pause:3.10.2")
    try:
        assert asked(vendors.wanted(), before).images == before.images
        fresh = asked(vendors.wanted()).images
        assert {n for n in fresh if fresh[n] != before.images[n]} == {"pause"}
    finally:
        vendors.registry.push(vendors.image, "pause:3.10.2")


def test_an_image_that_is_gone_is_said(vendors: Vendors) -> None:
    before = asked(vendors.wanted())
    gone = replace(before.images["pause"], digest="sha256:" + "0" * 64)
    error = refusal(vendors.wanted(), replace(before, images={**before.images, "pause": gone}))
    (finding,) = error.findings
    assert f"registry.k8s.io/pause:3.10.2@{gone.digest}" in finding.what


# --- what is not there, or not to be trusted


def test_a_missing_package_is_named_with_where_it_was_looked_for(vendors: Vendors) -> None:
    wanted = vendors.wanted()
    debs = [replace(w, version="1.36.5-") if w.name == "kubeadm" else w for w in wanted.debs]
    error = refusal(replace(wanted, debs=tuple(debs)))
    (finding,) = error.findings
    assert (finding.id, finding.where) == ("supply.no-package", "mirrors.apt.kubernetes")
    assert finding.what == "there is no package kubeadm 1.36.5 in kubernetes"
    assert vendors.repos.url in finding.why


def test_every_missing_image_is_named(vendors: Vendors) -> None:
    vendors.door.missing("kube-proxy")
    vendors.door.missing("coredns")
    error = refusal(vendors.wanted())
    said = "\n".join(line for finding in error.findings for line in finding.lines())
    assert len(error.findings) == 2
    assert "registry.k8s.io/kube-proxy:v1.36.4" in said
    assert "registry.k8s.io/coredns/coredns:v1.14.2" in said


def test_an_image_for_another_architecture_is_none(vendors: Vendors) -> None:
    wanted = replace(vendors.wanted(), debs=(), apt=())
    with pytest.raises(SupplyError) as caught:
        resolve(wanted, "aarch64", say=lambda _text: None)
    assert len(caught.value.findings) == len(wanted.images)
    assert all("arm64" in "".join(f.lines()) for f in caught.value.findings)


def test_a_key_that_is_not_the_known_one_is_refused(
    vendors: Vendors, key: SigningKey, stranger: SigningKey
) -> None:
    known = with_source(vendors.wanted(), "kubernetes", fingerprint=key.fingerprint)
    assert asked(known).keys["kubernetes"]
    other = with_source(vendors.wanted(), "kubernetes", fingerprint=stranger.fingerprint)
    (finding,) = refusal(other).findings
    assert (finding.id, finding.where) == ("supply.key-untrusted", "mirrors.apt.kubernetes")
    assert key.fingerprint in finding.why
    assert stranger.fingerprint in finding.why
    assert "mirrors.apt.kubernetes.key" in finding.fix


@pytest.mark.parametrize("content", [b"", b"<html>no such key</html>", b"\x99\x01\x0d"])
def test_what_is_no_armoured_key_is_refused(
    vendors: Vendors, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "key").write_bytes(content)
    wanted = with_source(vendors.wanted(), "kubernetes", key=str(tmp_path / "key"))
    (finding,) = refusal(wanted).findings
    assert (finding.id, finding.where) == ("supply.key-format", "mirrors.apt.kubernetes")


def test_a_repository_that_a_stranger_signed_is_refused(
    vendors: Vendors, stranger: SigningKey, tmp_path: Path
) -> None:
    (tmp_path / "stranger.asc").write_bytes(stranger.armoured)
    wanted = with_source(
        vendors.wanted(),
        "kubernetes",
        key=str(tmp_path / "stranger.asc"),
        fingerprint=stranger.fingerprint,
    )
    (finding,) = refusal(wanted).findings
    assert finding.id == "supply.apt"
    assert "core:/stable:/v1.36/deb" in finding.what


@pytest.mark.parametrize("path", ["deb/InRelease", "deb/Packages"])
def test_one_flipped_bit_of_a_repository_is_refused(vendors: Vendors, path: str) -> None:
    vendors.repos.server.flip(path, at=200)
    (finding,) = refusal(vendors.wanted()).findings
    assert finding.id == "supply.apt"


def test_a_chart_that_is_not_there_is_named(vendors: Vendors) -> None:
    charts: Mapping[str, tuple[str, str]] = {"rancher": (vendors.charts.url, "2.15.9")}
    (finding,) = refusal(replace(vendors.wanted(), charts=charts)).findings
    assert finding.what.startswith("chart rancher 2.15.9 is not in ")


# --- what is pinned is what is collected


def job(plan: Plan, folder: Path, name: str, **inputs: Path) -> Job:
    """A job for one of the things that a bundle of a plan holds."""
    for part in ("work", "out"):
        (folder / part).mkdir(parents=True)
    (artifact,) = (a for a in collected(plan) if a.id == name)
    work, out = folder / "work", folder / "out"
    return Job(artifact, work, out, inputs, Shell(), lambda _text: None, plan)


def pinned_plan(vendors: Vendors, **more: Any) -> Plan:
    made = planned(vendors.raw(**more), online(DEBIAN))
    charts = {"rancher": (vendors.charts.url, "2.15.1")}
    return pinned(made, asked(replace(made.wanted, charts=charts)), ROLES)


def test_images_are_pulled_as_they_are_pinned(vendors: Vendors, tmp_path: Path) -> None:
    plan = pinned_plan(vendors)
    assert plan.pins
    made = job(plan, tmp_path, "images")
    build(made)
    listed = json.loads((made.out / "images.json").read_text())
    for name, pin in plan.pins.images.items():
        assert (listed[name]["ref"], listed[name]["digest"]) == (pin.ref, pin.digest)
        said = run("skopeo", "inspect", f"oci-archive:{made.out / listed[name]['archive']}")
        assert json.loads(said)["Digest"] == pin.digest


def test_charts_are_fetched_as_they_are_pinned(vendors: Vendors, tmp_path: Path) -> None:
    plan = pinned_plan(vendors)
    assert plan.pins
    made = job(plan, tmp_path, "charts")
    build(made)
    content = (made.out / "rancher-2.15.1.tgz").read_bytes()
    assert hashlib.sha256(content).hexdigest() == plan.pins.charts["rancher"].sha256


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of a container node that has curl already."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "status").write_text(
        "Package: curl\nStatus: install ok installed\nVersion: 1.1.5+ds1-1\nArchitecture: amd64\n\n"
    )
    return folder


def test_apt_collects_what_is_pinned(vendors: Vendors, root: Path, tmp_path: Path) -> None:
    needs("apt-get")
    plan = pinned_plan(vendors)
    assert plan.pins
    # A newer one has come since: what was pinned is taken.
    make_deb(vendors.debs / "kubernetes", "kubelet", "1.36.4-2")
    vendors.index()
    made = job(plan, tmp_path / "apt", "apt", base=root)
    build(made)
    have = json.loads((made.out / "versions.json").read_text())
    new = {name: pin for name, pin in plan.pins.packages.items() if name != "curl"}
    assert have == {name: pin.version for name, pin in new.items()}
    for name, pin in new.items():
        (deb,) = made.out.glob(f"{name}_*.deb")
        assert hashlib.sha256(deb.read_bytes()).hexdigest() == pin.sha256


def test_what_only_one_node_has_is_collected_apart(
    vendors: Vendors, root: Path, tmp_path: Path
) -> None:
    needs("apt-get")
    plan = pinned_plan(vendors, tools=1)
    common = job(plan, tmp_path / "apt", "apt", base=root)
    build(common)
    made = job(plan, tmp_path / "tools", "apt-tools", base=root, apt=common.out)
    build(made)
    have = json.loads((made.out / "versions.json").read_text())
    # With what it depends on, less what all nodes have: containerd is not held twice.
    assert set(have) == {*ROLE_PACKAGES["tools"], *DOCKER["docker"], "libslirp0"}
    assert not set(have) & set(json.loads((common.out / "versions.json").read_text()))


def test_apt_itself_refuses_what_a_stranger_signed(
    vendors: Vendors, root: Path, stranger: SigningKey, tmp_path: Path
) -> None:
    needs("apt-get")
    plan = pinned_plan(vendors)
    assert plan.pins
    keys = {**plan.pins.keys, "kubernetes": stranger.armoured.decode()}
    other = replace(plan, pins=replace(plan.pins, keys=keys))
    with pytest.raises(SupplyError) as caught:
        build(job(other, tmp_path / "apt", "apt", base=root))
    assert "apt-get failed" in caught.value.findings[0].what
    log = (tmp_path / "apt/work/log").read_text()
    assert "the public key is not available" in log


def test_other_bytes_under_a_pinned_version_are_refused(
    vendors: Vendors, root: Path, tmp_path: Path
) -> None:
    needs("apt-get")
    plan = pinned_plan(vendors)
    assert plan.pins
    before = replace(plan.pins.packages["kubelet"], sha256="0" * 64)
    packages = {**plan.pins.packages, "kubelet": before}
    other = replace(plan, pins=replace(plan.pins, packages=packages))
    with pytest.raises(SupplyError) as caught:
        build(job(other, tmp_path / "apt", "apt", base=root))
    (finding,) = caught.value.findings
    assert finding.id == "supply.package-changed"
    assert "kubelet 1.36.4-1" in finding.what


def test_a_package_that_its_source_dropped_is_said(
    vendors: Vendors, root: Path, tmp_path: Path
) -> None:
    needs("apt-get")
    plan = pinned_plan(vendors)
    assert plan.pins
    gone = replace(plan.pins.packages["kubelet"], version="1.36.4-0")
    packages = {**plan.pins.packages, "kubelet": gone}
    other = replace(plan, pins=replace(plan.pins, packages=packages))
    with pytest.raises(SupplyError) as caught:
        build(job(other, tmp_path / "apt", "apt", base=root))
    assert "1.36.4-0" in "".join((str(caught.value), *caught.value.details))


# --- a run


def test_a_lock_spares_the_next_run_the_questions(vendors: Vendors, tmp_path: Path) -> None:
    path = tmp_path / "lab.lock"
    made = planned(vendors.raw(), online(DEBIAN))
    first = run_of(tmp_path, locked=read_lock(path), lock_file=path)
    first.settle(_pinned(first, made, DEBIAN))
    assert write_lock(first) == ([str(path)], [])
    assert first.plan.pins
    save_plan(first.workdir, first.plan)
    vendors.repos.server.seen.clear()
    vendors.door.seen.clear()

    second = run_of(tmp_path, locked=read_lock(path), lock_file=path, strict=True)
    again = planned(vendors.raw(), online(DEBIAN), locked=second.locked)
    second.settle(_pinned(second, again, DEBIAN))
    assert vendors.repos.server.seen == vendors.door.seen == []
    assert write_lock(second) == ([], [])
    assert (second.plan.pins, second.plan.node_image) == (first.plan.pins, first.plan.node_image)


def test_the_same_lock_gives_the_same_lab_elsewhere(vendors: Vendors, tmp_path: Path) -> None:
    path = tmp_path / "lab.lock"
    here = run_of(tmp_path / "here", lock_file=path)
    here.settle(_pinned(here, planned(vendors.raw(), online(DEBIAN)), DEBIAN))
    write_lock(here)
    make_deb(vendors.debs / "kubernetes", "kubelet", "1.36.4-2")
    vendors.index()

    there = run_of(tmp_path / "there", locked=read_lock(path), lock_file=path, strict=True)
    made = planned(vendors.raw(), online(DEBIAN), locked=there.locked)
    there.settle(_pinned(there, made, DEBIAN))
    assert vendors.repos.server.requests("InRelease")
    assert write_lock(there) == ([], [])
    assert lock.content(there.plan, lock.Stocked()) == lock.content(here.plan, lock.Stocked())


def test_a_strict_run_refuses_what_vendors_have_replaced(vendors: Vendors, tmp_path: Path) -> None:
    path = tmp_path / "lab.lock"
    here = run_of(tmp_path / "here", lock_file=path)
    here.settle(_pinned(here, planned(vendors.raw(), online(DEBIAN)), DEBIAN))
    write_lock(here)
    old = vendors.debs / "kubernetes/kubelet_1.36.4-1_amd64.deb"
    old.rename(vendors.folder / old.name)
    make_deb(vendors.debs / "kubernetes", "kubelet", "1.36.4-2")
    try:
        vendors.index()
        there = run_of(tmp_path / "there", locked=read_lock(path), lock_file=path, strict=True)
        made = planned(vendors.raw(), online(DEBIAN), locked=there.locked)
        there.settle(_pinned(there, made, DEBIAN))
        with pytest.raises(SupplyError) as caught:
            write_lock(there)
        assert caught.value.findings[0].id == "supply.drift"
        assert "packages.kubelet: 1.36.4-1 → 1.36.4-2" in caught.value.findings[0].why
    finally:
        (vendors.folder / old.name).rename(old)
