"""What a host lacks for a plan, and what is done about it with consent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labwright import lock, spec
from labwright.errors import HostError, SupplyError
from labwright.locate import save_plan
from labwright.lock import Locked, Stocked
from labwright.model import HostFacts, Plan, Tool
from labwright.phases.base import Run, Tools
from labwright.phases.fetch import stock
from labwright.phases.preflight import (
    DISK_COLD,
    DISK_WARM,
    GOALS,
    Lacking,
    _check_disk,
    _mend,
    _pinned,
    lacking,
    open_bundle,
    refuse_drift,
    roles_digest,
    to_build,
    with_kept_pins,
)
from labwright.plan import pinned
from labwright.recipes import HOST_PACKAGES
from labwright.render import ROOT
from labwright.tools.docker import Docker
from labwright.tools.shell import Shell
from labwright.tools.store import Store
from tests.fakes import DEBIAN, HOSTS, KEYED, answers, online, planned, run_of, upstream

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


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(Shell(), Store(tmp_path / "store"), StoppedDocker())


def keep(tools: Tools, plan: Plan, *names: str) -> None:
    for name in names or [goal for goal in GOALS if goal in plan.keys]:
        tools.store.ensure(plan.keys[name], lambda _work, out: (out / "x").touch())


def built(tools: Tools, plan: Plan) -> list[str]:
    return [a.id for a in to_build(plan, tools)]


def test_an_empty_store_lacks_everything_in_building_order(tools: Tools) -> None:
    assert built(tools, planned()) == ["kubernetes", "coredns", "base", "apt", "images"]


def test_a_full_store_lacks_nothing(tools: Tools) -> None:
    plan = planned()
    keep(tools, plan)
    assert built(tools, plan) == []


def test_what_only_a_finished_step_needed_is_not_made_again(tools: Tools) -> None:
    plan = planned()
    keep(tools, plan, "apt", "base")
    assert built(tools, plan) == ["kubernetes", "coredns", "images"]
    keep(tools, plan, "kubernetes", "coredns")
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
    assert set(missing.packages) == ALL_PACKAGES - DEBIAN.apt_installed
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
            ("libvirt-daemon-system", "qemu-system-x86", "vagrant-libvirt"),
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


def run(tools: Tools, root: Path, *, consent: bool) -> tuple[Run, list[str]]:
    asked: list[str] = []

    def answer(question: str) -> bool:
        asked.append(question)
        return consent

    return run_of(root, tools=tools, consent=answer), asked


def test_without_consent_nothing_is_started(tools: Tools, tmp_path: Path) -> None:
    here, asked = run(tools, tmp_path, consent=False)
    host = replace(DEBIAN, tools={"apt-get": Tool("/usr/bin/apt-get")})
    with pytest.raises(HostError) as caught:
        _mend(here, Lacking(("docker.io",), True), host)
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
    _mend(here, Lacking((), True), DEBIAN)
    _mend(here, Lacking((), True), DEBIAN)
    assert isinstance(tools.docker, StoppedDocker)
    assert tools.docker.started == 1


def test_a_host_without_apt_is_told_what_it_lacks(tools: Tools, tmp_path: Path) -> None:
    here, asked = run(tools, tmp_path, consent=True)
    with pytest.raises(HostError) as caught:
        _mend(here, Lacking(("qemu-system-x86",), False), replace(DEBIAN, tools={}))
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
    assert f"in {len(caught.value.details)} places" in finding.what
    assert "versions.kubernetes: 1.36.4 → 1.35.8" in caught.value.details
    assert [line for line in caught.value.details if line.startswith("nodes.w2: ")]


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
