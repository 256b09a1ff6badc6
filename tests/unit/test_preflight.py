"""What a host lacks for a plan, and what is done about it with consent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labwright.errors import HostError
from labwright.model import HostFacts, Plan, Tool
from labwright.phases.base import Run, Tools
from labwright.phases.preflight import (
    DISK_COLD,
    DISK_WARM,
    GOALS,
    Lacking,
    _check_disk,
    _mend,
    lacking,
    roles_digest,
    to_build,
)
from labwright.recipes import HOST_PACKAGES
from labwright.tools.docker import Docker
from labwright.tools.shell import Shell
from labwright.tools.store import Store
from labwright.tools.workdir import Workdir
from tests.fakes import DEBIAN, HOSTS, Recorder, planned

ALL_PACKAGES = frozenset(package for packages in HOST_PACKAGES.values() for package in packages)
READY = replace(DEBIAN, apt_installed=DEBIAN.apt_installed | ALL_PACKAGES)


class StoppedDocker(Docker):
    """A daemon that does not answer until it was started."""

    def __init__(self) -> None:
        super().__init__(Shell())
        self.started = 0

    def api(self) -> tuple[str | None, str]:
        return ("1.41", "") if self.started else (None, "no daemon")

    def start(self, log: Path) -> None:
        self.started += 1


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(Shell(), Store(tmp_path / "store"), StoppedDocker())


def keep(tools: Tools, plan: Plan, *names: str) -> None:
    for name in names:
        tools.store.ensure(plan.keys[name], lambda _work, out: (out / "x").touch())


def built(tools: Tools, plan: Plan) -> list[str]:
    return [a.id for a in to_build(plan, tools)]


def test_an_empty_store_lacks_everything_in_building_order(tools: Tools) -> None:
    assert built(tools, planned()) == ["kubernetes", "coredns", "base", "apt", "images"]


def test_a_full_store_lacks_nothing(tools: Tools) -> None:
    plan = planned()
    keep(tools, plan, *GOALS)
    assert built(tools, plan) == []


def test_what_only_a_finished_step_needed_is_not_made_again(tools: Tools) -> None:
    plan = planned()
    keep(tools, plan, "apt", "base")
    assert built(tools, plan) == ["kubernetes", "coredns", "images"]
    keep(tools, plan, "kubernetes", "coredns")
    assert built(tools, plan) == ["images"]


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
    keep(tools, plan, *GOALS)
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
    keep(tools, plan, *GOALS)
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

    return Run(Workdir(root, "lab"), tools, Recorder(), answer), asked


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
        keep(tools, plan, *GOALS)
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
