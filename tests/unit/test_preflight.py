"""What a host lacks for a plan, and what is done about it with consent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labwright import lock, spec
from labwright.errors import BootError, HostError, SupplyError
from labwright.lab import Lab, Options
from labwright.locate import save_plan
from labwright.lock import Locked, Stocked
from labwright.model import HostFacts, Plan, Tool
from labwright.names import network_name
from labwright.phases import preflight
from labwright.phases.base import Run, Tools, run_all
from labwright.phases.fetch import stock
from labwright.phases.preflight import (
    DISK_COLD,
    DISK_WARM,
    GOALS,
    Lacking,
    Preflight,
    _check_disk,
    _mend,
    _pinned,
    _refuse_taken_name,
    lacking,
    open_bundle,
    peek_bundle,
    refuse_drift,
    roles_digest,
    to_build,
    wake,
    with_kept_pins,
)
from labwright.plan import pinned
from labwright.providers import PROVIDERS
from labwright.recipes import HOST_PACKAGES, pins
from labwright.render import ROOT
from labwright.supplies.packages import IN_IMAGES, PARTS
from labwright.tools import bundle_fetch, bundles, checkup, kvmprobe, libvirt, programs
from labwright.tools import host as measuring
from labwright.tools.bundle_bytes import ignore
from labwright.tools.bundle_serve import serving_bundle
from labwright.tools.docker import Docker, forget_dead_containerd
from labwright.tools.download import Http
from labwright.tools.shell import Shell
from labwright.tools.store import Store
from tests.checkups import HEALTHY
from tests.fakes import DEBIAN, HOSTS, KEYED, answers, online, planned, run_of, upstream
from tests.vendors import Faulty

ALL_PACKAGES = frozenset(package for packages in HOST_PACKAGES.values() for package in packages)
READY = replace(DEBIAN, apt_installed=DEBIAN.apt_installed | ALL_PACKAGES)


class StoppedDocker(Docker):
    """A daemon that does not answer until it was started, with the images that it is given."""

    def __init__(self, *images: str) -> None:
        super().__init__(Shell())
        self.started = 0
        self.images = images

    def api(self) -> tuple[str | None, str]:
        return ("1.41", "") if self.started else (None, "no daemon")

    def start(self, log: Path) -> None:
        self.started += 1

    def has_image(self, name: str) -> bool:
        return name in self.images

    def network(self, _name: str) -> tuple[str, str] | None:
        return None


# Of the add-ons that a lab has by default.
PROGRAMS = ("coredns", "kube-network-policies")


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(Shell(), Store(tmp_path / "store"), StoppedDocker())


def keep(tools: Tools, plan: Plan, *names: str) -> None:
    for name in names or [goal for goal in GOALS if goal in plan.keys]:
        tools.store.ensure(plan.keys[name], lambda _work, out: (out / "x").touch())


def built(tools: Tools, plan: Plan) -> list[str]:
    return [a.id for a in to_build(plan, tools)]


def test_an_empty_store_lacks_everything_in_building_order(tools: Tools) -> None:
    assert built(tools, planned()) == ["go", *PARTS, *PROGRAMS, "base", "apt", "images"]


def test_a_full_store_lacks_nothing(tools: Tools) -> None:
    plan = planned()
    keep(tools, plan)
    assert built(tools, plan) == []


def test_what_only_a_finished_step_needed_is_not_made_again(tools: Tools) -> None:
    plan = planned()
    keep(tools, plan, "apt", "base")
    assert built(tools, plan) == ["go", "kubernetes", "etcd", *PROGRAMS, "images"]
    keep(tools, plan, *IN_IMAGES, *PROGRAMS)
    assert built(tools, plan) == ["images"]


CHARTED = {"versions": {"rancher": "2.15"}}


def test_an_upstream_lab_has_little_to_build(tools: Tools) -> None:
    assert built(tools, upstream()) == ["base"]
    assert built(tools, upstream(CHARTED)) == ["base", "charts"]
    assert built(tools, upstream({"provider": "virtualbox"}, HOSTS["virtualbox"])) == []
    plan = upstream(CHARTED)
    keep(tools, plan, "base")
    assert built(tools, plan) == ["charts"]


def test_without_dns_no_coredns_is_built(tools: Tools) -> None:
    assert "coredns" not in built(tools, planned({"addons": []}))


def test_a_ready_host_lacks_nothing(tools: Tools) -> None:
    missing = lacking(planned(), READY, tools)
    assert not missing
    assert missing.sentences() == []


def test_the_recipes_packages_are_asked_for(tools: Tools) -> None:
    plan = planned()
    missing = lacking(plan, DEBIAN, tools)
    recipes = {artifact.recipe for artifact in plan.artifacts}
    needed = {package for recipe in recipes for package in HOST_PACKAGES[recipe]}
    assert set(missing.packages) == needed - DEBIAN.apt_installed
    machines = lacking(planned({"provider": "libvirt"}, HOSTS["libvirt"]), HOSTS["libvirt"], tools)
    assert set(machines.packages) > set(HOST_PACKAGES["box"])
    root = lacking(upstream(), DEBIAN, tools)
    assert set(root.packages) == set(HOST_PACKAGES["base"])
    keep(tools, plan)
    assert not lacking(plan, DEBIAN, tools)


FRESH: Mapping[str, Any] = {
    "tools": {"apt-get": Tool("/usr/bin/apt-get")},
    "docker_api": None,
    "apt_installed": ALL_PACKAGES - {"vagrant", "docker.io"},
}


@pytest.mark.parametrize(
    ("provider", "change", "packages", "stopped"),
    [
        ("docker", FRESH, ("docker.io", "vagrant"), True),
        ("docker", {**FRESH, "docker_api": "1.41"}, ("vagrant",), False),
        ("docker", {"docker_api": None}, (), True),
        ("docker", {"tools": {}, "docker_api": None}, (), True),
        ("virtualbox", {"docker_api": None}, (), False),
        (
            "libvirt",
            {"tools": HOSTS["libvirt"].tools},
            (
                *("dnsmasq-base", "libvirt-clients", "libvirt-daemon-system"),
                *("qemu-system-x86", "qemu-utils", "vagrant-libvirt"),
            ),
            False,
        ),
    ],
)
def test_what_a_provider_lacks(
    tools: Tools,
    provider: str,
    change: Mapping[str, Any],
    packages: tuple[str, ...],
    stopped: bool,
) -> None:
    plan = planned({"provider": provider}, HOSTS[provider])
    keep(tools, plan)
    host: HostFacts = replace(HOSTS[provider], **change)
    assert lacking(plan, host, tools) == Lacking(packages, stopped)


def test_what_would_be_done_is_said() -> None:
    assert Lacking(("a", "b"), True).sentences() == ["install on this host: a b", "start Docker"]
    assert not Lacking((), False)
    assert Lacking((), False, libvirt_stopped=True).sentences() == ["start libvirt"]
    (said,) = Lacking((), False, libvirt_stopped=True, own_settings=True).sentences()
    assert "as root" in said
    assert "/etc/libvirt stays as it is" in said


def test_libvirt_is_started_where_it_does_not_run(tools: Tools) -> None:
    plan = planned({"provider": "libvirt"}, HOSTS["libvirt"])
    keep(tools, plan)
    there = ALL_PACKAGES | {*PROVIDERS["libvirt"].packages, "libvirt-daemon-system-sysv"}
    host = replace(HOSTS["libvirt"], apt_installed=there)
    assert not lacking(plan, host, tools)
    assert lacking(plan, replace(host, libvirt="absent"), tools).libvirt_stopped
    with pytest.raises(HostError) as caught:
        lacking(plan, replace(host, libvirt="denied"), tools)
    assert caught.value.findings[0].id == "host.libvirt.denied"
    # Without systemd apt is kept from installing one that would run nothing.
    bare = replace(host, systemd=False, apt_installed=there - {"libvirt-daemon-system-sysv"})
    assert lacking(plan, bare, tools).packages == ("libvirt-daemon-system-sysv",)


@pytest.mark.parametrize(
    ("provider", "host", "tried"),
    [
        ("libvirt", HOSTS["libvirt"], True),
        ("libvirt", DEBIAN, False),
        ("docker", HOSTS["libvirt"], False),
        ("auto", HOSTS["libvirt"], True),
        # VirtualBox comes first, and nobody makes machines of libvirt then.
        ("auto", replace(HOSTS["virtualbox"], kvm=True), False),
        ("auto", replace(DEBIAN, kvm=True), False),
    ],
)
def test_kvm_is_tried_only_where_machines_may_be_made_on_it(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, provider: str, host: HostFacts, tried: bool
) -> None:
    asked: list[Path] = []

    def remembered(_shell: Shell, memory: Path) -> bool:
        asked.append(memory)
        return False

    monkeypatch.setattr(measuring, "facts", lambda _shell: host)
    monkeypatch.setattr(kvmprobe, "remembered", remembered)
    facts = preflight.measure(tools, spec.build({"provider": provider, "supply": "bundle:/b"}))
    assert bool(asked) is tried
    assert facts.kvm_boots is (False if tried else None)


def run(tools: Tools, root: Path, *, consent: bool) -> tuple[Run, list[str]]:
    asked: list[str] = []

    def answer(question: str) -> bool:
        asked.append(question)
        return consent

    return run_of(root, tools=tools, consent=answer), asked


def test_without_consent_nothing_is_started(tools: Tools, tmp_path: Path) -> None:
    here, asked = run(tools, tmp_path, consent=False)
    with pytest.raises(HostError) as caught:
        _mend(here, Lacking(("docker.io",), True), apt_here=True)
    (finding,) = caught.value.findings
    assert finding.id == "host.no-consent"
    assert "docker.io" in finding.fix
    assert "start docker" in finding.fix
    (question,) = asked
    assert "docker.io" in question
    assert "start Docker" in question
    assert tools.docker.api() == (None, "no daemon")


def test_with_consent_docker_is_started_once(tools: Tools, tmp_path: Path) -> None:
    here, _ = run(tools, tmp_path, consent=True)
    _mend(here, Lacking((), True), apt_here=True)
    _mend(here, Lacking((), True), apt_here=True)
    assert isinstance(tools.docker, StoppedDocker)
    assert tools.docker.started == 1


@pytest.mark.parametrize("provider", ["docker", "libvirt"])
def test_what_a_lab_s_machines_live_in_is_started_before_they_go(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    state = {"libvirt": "absent"}
    started: list[Path] = []

    def start(_libvirt: libvirt.Libvirt, folder: Path) -> None:
        started.append(folder)
        state["libvirt"] = "answers"

    monkeypatch.setattr(programs, "which", str)
    monkeypatch.setattr(libvirt, "reached", lambda: state["libvirt"])
    monkeypatch.setattr(libvirt.Libvirt, "start", start)
    no, asked = run(tools, tmp_path, consent=False)
    with pytest.raises(HostError) as caught:
        wake(no, provider)
    assert caught.value.findings[0].id == "host.no-consent"
    yes, again = run(tools, tmp_path, consent=True)
    wake(yes, provider)
    wake(yes, provider)
    assert len(asked) == len(again) == 1
    assert f"start {provider.replace('d', 'D')}" in again[0]
    assert isinstance(tools.docker, StoppedDocker)
    assert (tools.docker.started, len(started)) == ((1, 0) if provider == "docker" else (0, 1))


@pytest.mark.parametrize(
    ("comm", "kept"), [("containerd\n", True), ("VirtualBoxVM\n", False), (None, False)]
)
def test_the_containerd_of_before_the_computer_went_off_is_not_waited_for(
    tmp_path: Path, comm: str | None, kept: bool
) -> None:
    forget_dead_containerd(tmp_path)
    file = tmp_path / "run/docker/containerd/containerd.pid"
    file.parent.mkdir(parents=True)
    file.write_text("25424")
    if comm:
        (tmp_path / "proc/25424").mkdir(parents=True)
        (tmp_path / "proc/25424/comm").write_text(comm)
    forget_dead_containerd(tmp_path)
    assert file.exists() is kept


def test_a_docker_that_refuses_this_user_is_not_started(tools: Tools, tmp_path: Path) -> None:
    class Denied(StoppedDocker):
        def api(self) -> tuple[str | None, str]:
            return None, "permission denied while trying to connect to the Docker daemon socket"

    docker = Denied()
    here, asked = run(replace(tools, docker=docker), tmp_path, consent=True)
    with pytest.raises(HostError) as caught:
        wake(here, "docker")
    assert "docker" in caught.value.findings[0].id
    assert (asked, docker.started) == ([], 0)


def test_a_host_without_apt_is_told_what_it_lacks(tools: Tools, tmp_path: Path) -> None:
    here, asked = run(tools, tmp_path, consent=True)
    with pytest.raises(HostError) as caught:
        _mend(here, Lacking(("qemu-system-x86",), False), apt_here=False)
    assert "qemu-system-x86" in caught.value.findings[0].what
    assert asked == []


@pytest.mark.parametrize(("stored", "needed"), [(False, DISK_COLD), (True, DISK_WARM)])
def test_a_disk_too_small_is_said_before_it_is_full(
    tools: Tools, stored: bool, needed: int
) -> None:
    plan = planned()
    if stored:
        keep(tools, plan)
    _check_disk(plan, replace(DEBIAN, disk_free=needed), tools)
    with pytest.raises(HostError) as caught:
        _check_disk(plan, replace(DEBIAN, disk_free=needed - 1), tools)
    (finding,) = caught.value.findings
    assert finding.id == "host.disk"
    assert f"{needed} are needed" in finding.what


def test_a_changed_role_is_another_node_image(tmp_path: Path) -> None:
    role = tmp_path / "playbooks" / "roles" / "base"
    (role / "tasks").mkdir(parents=True)
    (tmp_path / "playbooks" / "bake.yml").write_text("x")
    (role / "tasks" / "main.yml").write_text("one")
    first = roles_digest(tmp_path)
    (role / "README.md").write_text("words")
    assert roles_digest(tmp_path) == first
    (role / "tasks" / "main.yml").write_text("two")
    second = roles_digest(tmp_path)
    (role / "tasks" / "main.yml").rename(role / "tasks" / "other.yml")
    assert len({first, second, roles_digest(tmp_path)}) == 3


# --- what vendors answered before


def locked_by(plan: Plan, root: Path) -> Locked:
    return lock.read(lock.text(lock.content(plan, stock(run_of(root, plan)))))


def test_the_pins_of_the_lock_are_kept(tools: Tools, tmp_path: Path) -> None:
    raw = {"supply": "upstream", "mirrors": KEYED, **CHARTED}
    first = upstream(raw)
    run = run_of(tmp_path, tools=tools, locked=locked_by(first, tmp_path))
    made = planned(raw, online(DEBIAN))
    kept = with_kept_pins(run, made)
    assert kept.pins == first.pins
    assert kept == pinned(made, answers(made.wanted), roles_digest(ROOT))


@pytest.mark.parametrize("change", [{"kubernetes": "1.34"}, CHARTED, {"guest": "debian-13"}])
def test_pins_that_answer_another_question_are_not(
    tools: Tools, tmp_path: Path, change: dict[str, Any]
) -> None:
    host = online(HOSTS["virtualbox"])
    raw = {"supply": "upstream", "mirrors": KEYED}
    run = run_of(tmp_path, tools=tools, locked=locked_by(upstream(raw, host), tmp_path))
    assert with_kept_pins(run, planned(raw, host)).pins
    made = planned({**raw, **change}, host)
    assert with_kept_pins(run, made) is made


def test_a_lab_of_packages_has_no_use_for_pins(tools: Tools, tmp_path: Path) -> None:
    run = run_of(tmp_path, tools=tools, locked=locked_by(upstream(), tmp_path))
    made = planned({"supply": "packages"})
    assert with_kept_pins(run, made) is made
    assert _pinned(run, made, DEBIAN) is made


# Where nothing listens: whoever asks there finds out.
NOWHERE = "http://127.0.0.1:9"
OFF = {
    "supply": "upstream",
    "mirrors": {
        "apt": {name: {"url": NOWHERE, "key": "mirror.asc"} for name in ("kubernetes", "docker")}
    },
}


@pytest.mark.parametrize("there", ["the lab", "its node image"])
def test_nobody_is_asked_where_nothing_is_to_be_installed(tmp_path: Path, there: str) -> None:
    first = upstream(OFF)
    made = planned(OFF, online(DEBIAN))
    locked = locked_by(first, tmp_path)
    image = with_kept_pins(run_of(tmp_path, locked=locked), made).node_image
    docker = StoppedDocker(*([image] if there == "its node image" else []))
    tools = Tools(Shell(), Store(tmp_path / "store"), docker)
    run = run_of(tmp_path, tools=tools, locked=locked)
    if there == "the lab":
        save_plan(run.workdir, first)
    plan = _pinned(run, made, DEBIAN)
    assert (plan.pins, plan.node_image) == (first.pins, image)
    assert run.sink.said() == []  # type: ignore[attr-defined]


# --- holding to lab.lock


def strict(tmp_path: Path, locked: Locked) -> Run:
    return run_of(tmp_path, locked=locked, strict=True, lock_file=tmp_path / "class.lock")


def test_a_strict_run_needs_a_lock(tmp_path: Path) -> None:
    plan = planned()
    with pytest.raises(SupplyError) as caught:
        refuse_drift(strict(tmp_path, Locked()), lock.content(plan, Stocked()))
    (finding,) = caught.value.findings
    assert finding.id == "supply.no-lock"
    assert "class.lock" in finding.what
    assert "without --locked" in finding.fix


def test_a_strict_run_refuses_each_difference(tmp_path: Path) -> None:
    locked = locked_by(upstream(), tmp_path)
    refuse_drift(strict(tmp_path, locked), lock.content(upstream(), Stocked()))
    other = lock.content(upstream({"kubernetes": "1.35", "workers": 1}), Stocked())
    with pytest.raises(SupplyError) as caught:
        refuse_drift(strict(tmp_path, locked), other)
    (finding,) = caught.value.findings
    assert finding.id == "supply.drift"
    assert finding.what == "the lab would differ from class.lock"
    lines = finding.why.splitlines()
    assert lines == lock.drift(locked.content, other)
    assert "versions.kubernetes: 1.36.4 → 1.35.8" in lines
    assert [line for line in lines if line.startswith("nodes.w2: ")]
    assert caught.value.details == ()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"schedule_on_control_planes": True}, "schedule_on_control_planes: False → True"),
        (
            {"mirrors": {"registries": {"quay.io": "http://m.lan:5000"}}},
            "mirrors.quay.io: none → http://m.lan:5000",
        ),
    ],
    ids=["schedule_on_control_planes", "mirrors"],
)
def test_a_strict_run_holds_to_what_was_asked_for(
    tmp_path: Path, change: dict[str, Any], line: str
) -> None:
    run = strict(tmp_path, locked_by(upstream(), tmp_path))
    with pytest.raises(SupplyError) as caught:
        refuse_drift(run, lock.content(upstream(change), Stocked()))
    assert caught.value.findings[0].why == line


def on(monkeypatch: pytest.MonkeyPatch, host: HostFacts) -> None:
    """Have every command measure this host."""
    monkeypatch.setattr(preflight, "measure", lambda _tools, _spec: host)


def mirrored(url: str) -> dict[str, Any]:
    """A lab that takes its packages from one place."""
    apt = {name: {"url": url, "key": "mirror.asc"} for name in ("kubernetes", "docker")}
    return {"supply": "upstream", "mirrors": {"apt": apt}}


def test_a_strict_run_that_differs_asks_nobody(
    tmp_path: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, online(READY))
    with Faulty(tmp_path) as vendor:
        raw = mirrored(vendor.url)
        run = strict(tmp_path, locked_by(upstream(raw), tmp_path))
        run.tools = tools
        run.wanted = spec.build({**raw, "workers": 1})
        with pytest.raises(SupplyError) as caught:
            run_all([Preflight()], run)
        assert vendor.seen == []
    assert caught.value.findings[0].id == "supply.drift"
    assert caught.value.findings[0].why.startswith("nodes.w2: ")


def test_a_strict_run_refuses_other_answers_before_it_fetches(
    tmp_path: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, online(READY))
    was = upstream(OFF)
    assert was.pins
    kubelet = replace(was.pins.packages["kubelet"], sha256="0" * 64)
    now = replace(was.pins, packages={**was.pins.packages, "kubelet": kubelet})
    monkeypatch.setattr(pins, "resolve", lambda *_asked: now)
    run = strict(tmp_path, locked_by(was, tmp_path))
    run.tools = tools
    run.wanted = spec.build(OFF)
    with pytest.raises(SupplyError) as caught:
        run_all([Preflight()], run)
    (finding,) = caught.value.findings
    assert finding.id == "supply.drift"
    assert finding.why.startswith("checksums.kubelet.sha256: ")


# --- names


class OneNetwork(StoppedDocker):
    """A daemon with one network, made for a lab in some folder."""

    def __init__(self, name: str, owner: Path | str) -> None:
        super().__init__()
        self.there = {name: ("10.9.0.0/24", str(owner))}

    def network(self, name: str) -> tuple[str, str] | None:
        return self.there.get(name)


@pytest.mark.parametrize("owner", ["/home/other/.lab/lab", ""])
def test_a_name_that_is_taken_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    bare = replace(DEBIAN, **{**FRESH, "docker_api": "1.41"})
    on(monkeypatch, bare)
    docker = OneNetwork(network_name("lab"), owner)
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    run = run_of(
        tmp_path,
        tools=Tools(Shell(), Store(tmp_path / "store"), docker),
        wanted=spec.build({"supply": "packages"}),
        consent=no,
    )
    with pytest.raises(BootError) as caught:
        run_all([Preflight()], run)
    (finding,) = caught.value.findings
    assert (finding.id, finding.where) == ("boot.name-taken", "name")
    assert (owner or "something else") in finding.what
    assert asked == []
    # The question about what this host lacks comes after.
    free = replace(run, wanted=spec.build({"name": "free", "supply": "packages"}))
    with pytest.raises(HostError):
        run_all([Preflight()], free)
    assert len(asked) == 1


def test_a_name_is_a_folder_s_own(tmp_path: Path) -> None:
    run = run_of(tmp_path, planned())
    name = network_name("lab")
    for owner, host, provider in (
        (run.workdir.path, DEBIAN, "docker"),  # this lab's
        ("/other", HOSTS["virtualbox"], "virtualbox"),  # which has no network of Docker's
        ("/other", replace(DEBIAN, docker_api=None), "docker"),  # nobody to ask
    ):
        run.tools = replace(run.tools, docker=OneNetwork(name, owner))
        _refuse_taken_name(run, planned({"provider": provider}, host), host)
    with pytest.raises(BootError, match="belongs to /other"):
        _refuse_taken_name(run, planned(), DEBIAN)


def test_an_ordinary_run_may_differ(tmp_path: Path) -> None:
    run = run_of(tmp_path, locked=locked_by(upstream(), tmp_path))
    refuse_drift(run, lock.content(planned(), Stocked()))


# --- bundles


def test_a_lab_without_a_bundle_opens_none(tmp_path: Path) -> None:
    assert open_bundle(run_of(tmp_path, wanted=spec.build({}))) is None
    run = run_of(tmp_path, wanted=spec.build({}))
    save_plan(run.workdir, planned())
    assert open_bundle(run) is None


def test_a_bundle_that_is_not_there_is_said(tmp_path: Path) -> None:
    run = run_of(tmp_path, wanted=spec.build({"supply": f"bundle:{tmp_path / 'gone'}"}))
    with pytest.raises(SupplyError) as caught:
        open_bundle(run)
    assert str(tmp_path / "gone") in caught.value.findings[0].what


def test_a_lab_goes_on_with_the_bundle_that_it_was_made_from(tmp_path: Path) -> None:
    run = run_of(tmp_path, wanted=spec.build({}))
    save_plan(run.workdir, replace(planned(), bundle=str(tmp_path / "gone")))
    with pytest.raises(SupplyError) as caught:
        open_bundle(run)
    assert str(tmp_path / "gone") in caught.value.findings[0].what
    named = run_of(tmp_path, wanted=spec.build({"supply": "packages"}))
    assert open_bundle(named) is None


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where bundles are unpacked and fetched to; it is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/labwright/bundles"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The bundle of an upstream lab, as a folder and beside it as one file."""
    made = upstream()
    store = Store(tmp_path / "far")
    entries = {}
    for id_ in ("base", "apt", "images", "host"):
        key = f"{id_}-0123456789ab"
        folder = store.ensure(key, content)
        entries[id_] = (key, folder)
    for target in (tmp_path / "bundle", tmp_path / "bundle.tar.zst"):
        bundles.make(
            entries,
            target,
            lab=made.name,
            versions=made.versions,
            facts={
                "provider": made.provider,
                "guest": made.guest,
                "arch": "x86_64",
                "supply": made.origin,
                "addons": ",".join(made.addons),
            },
            lock=lock.text(lock.content(made, Stocked())),
        )
    return tmp_path / "bundle"


def content(_work: Path, out: Path) -> None:
    """Fill an entry of a store."""
    (out / "x").write_text("x" * 1000)


def asking(root: Path, where: object) -> Run:
    return run_of(root, wanted=spec.build({"supply": f"bundle:{where}"}))


def test_a_look_at_a_bundle_elsewhere_gets_its_manifest_only(
    tmp_path: Path, bundle: Path, cache: Path
) -> None:
    with Faulty(bundle) as server:
        run = asking(tmp_path, server.url)
        peeked = peek_bundle(run)
        assert [seen.path for seen in server.seen] == ["/bundle.json"]
        assert not cache.exists()
        opened = open_bundle(run)
        assert len(server.seen) > 2
    assert peeked
    assert opened
    assert peeked.folder == server.url
    assert replace(peeked, folder=opened.folder) == opened
    assert opened.folder == str(cache / opened.manifest.digest)


@pytest.mark.parametrize("form", ["bundle", "bundle.tar.zst"])
def test_a_look_at_a_bundle_here_unpacks_nothing(
    tmp_path: Path, bundle: Path, cache: Path, form: str
) -> None:
    run = asking(tmp_path, bundle.with_name(form))
    peeked = peek_bundle(run)
    assert not cache.exists()
    opened = open_bundle(run)
    assert peeked
    assert opened
    assert replace(peeked, folder=opened.folder) == opened
    assert cache.exists() is (form != "bundle")


def test_a_look_says_what_the_store_has_of_a_bundle(tmp_path: Path, bundle: Path) -> None:
    run = asking(tmp_path, bundle)
    run.tools.store.ensure("apt-0123456789ab", content)
    peeked = peek_bundle(run)
    assert peeked
    assert peeked.stored == {"apt": "apt-0123456789ab"}


def test_a_lab_without_a_bundle_has_none_to_look_at(tmp_path: Path) -> None:
    run = run_of(tmp_path, wanted=spec.build({}))
    assert peek_bundle(run) is None
    save_plan(run.workdir, replace(planned(), bundle=str(tmp_path / "gone")))
    with pytest.raises(SupplyError) as caught:
        peek_bundle(run)
    assert str(tmp_path / "gone") in caught.value.findings[0].what
    assert peek_bundle(run_of(tmp_path, wanted=spec.build({"supply": "packages"}))) is None


@pytest.mark.parametrize("form", ["address", "bundle.tar.zst", "bundle"])
def test_questions_about_a_lab_fetch_and_unpack_nothing(
    tmp_path: Path, bundle: Path, cache: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, READY)
    # What the doctor asks of the network around is not this test's matter.
    monkeypatch.setattr(checkup, "measure", lambda *_given: HEALTHY)
    told: list[str] = []
    (tmp_path / "class").mkdir()
    with serving_bundle(bundle, "127.0.0.1", 0, lambda _who, path, _size: told.append(path)) as url:
        where = url if form == "address" else str(bundle.with_name(form))
        it = Lab(Options(root=tmp_path / "class", supply=f"bundle:{where}"))
        it.tools = replace(it.tools, docker=StoppedDocker())
        made, outlines, files = it.plan()
        assert made.bundle == where
        assert dict(outlines)["Get software from the bundle supply"]
        assert "Vagrantfile" in files
        _known, planned_too, error = it.versions()
        assert error is None
        assert planned_too
        assert planned_too.versions == made.versions
        assert [f for f in it.doctor().lab if f.level == "error"] == []
    assert {path.lstrip("/") for path in told} == ({"bundle.json"} if form == "address" else set())
    assert not cache.exists()
    assert [*(tmp_path / "class").iterdir()] == []


def test_a_pinned_bundle_is_asked_for_once(tmp_path: Path, bundle: Path, cache: Path) -> None:
    made = bundles.manifest(bundle)
    with Faulty(bundle) as server, Http() as http:
        pinned_to = f"{server.url}#sha256={made.digest}"
        assert bundle_fetch.manifest_at(pinned_to, cache, http) == made
        bundle_fetch.fetch(pinned_to, cache, http, print, ignore)
        server.seen.clear()
        assert bundle_fetch.manifest_at(pinned_to, cache, http) == made
        assert server.seen == []
        with pytest.raises(SupplyError) as caught:
            bundle_fetch.manifest_at(f"{server.url}#sha256={'0' * 64}", cache, http)
    (finding,) = caught.value.findings
    assert finding.id == "bundle.another"
    assert made.digest in finding.why


def test_a_look_where_no_bundle_is_says_so(tmp_path: Path, cache: Path) -> None:
    with Faulty(tmp_path) as server, pytest.raises(SupplyError) as caught:
        peek_bundle(asking(tmp_path, server.url))
    assert caught.value.findings[0].id == "bundle.none"
    assert not cache.exists()
