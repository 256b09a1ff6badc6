"""What goes when lab.yaml has it no more, and what cannot change at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labwright.errors import BootError, HostError, SpecError
from labwright.locate import save_plan
from labwright.model import Plan
from labwright.phases.base import Run, run_all
from labwright.phases.retire import Retire, leftover, refuse_changes
from tests.fakes import LIBVIRT, planned, run_of


def again(root: Path, wanted: Plan, *, answer: bool = False) -> tuple[Run, list[str]]:
    """A run on a lab that is here with two workers, and the questions that it asks."""
    asked: list[str] = []

    def consent(question: str) -> bool:
        asked.append(question)
        return answer

    run = run_of(root, wanted, consent=consent)
    save_plan(run.workdir, planned())
    run.workdir.write({"Vagrantfile": "# with w1 and w2"})
    return run, asked


def said(run: Run) -> list[str]:
    return run.sink.said()  # type: ignore[attr-defined,no-any-return]


def test_no_worker_goes_without_consent(tmp_path: Path) -> None:
    run, asked = again(tmp_path, planned({"workers": 1}))
    with pytest.raises(HostError) as caught:
        run_all([Retire()], run)
    (finding,) = caught.value.findings
    assert finding.id == "host.no-consent"
    assert "w2 would be destroyed" in finding.what
    assert "--yes" in finding.fix
    assert asked == ["lab.yaml has no w2 any more: drain, delete and destroy?"]
    assert said(run) == []


def test_all_that_would_go_is_in_one_question(tmp_path: Path) -> None:
    run, asked = again(tmp_path, planned({"workers": 0, "schedule_on_control_planes": True}))
    with pytest.raises(HostError):
        run_all([Retire()], run)
    assert asked == ["lab.yaml has no w1, w2 any more: drain, delete and destroy?"]


def test_a_worker_that_stays_in_the_cluster_keeps_its_machine(tmp_path: Path) -> None:
    # There is no machine for ssh to reach, so Kubernetes cannot be told.
    run, _ = again(tmp_path, planned({"workers": 1}), answer=True)
    with pytest.raises(BootError) as caught:
        run_all([Retire()], run)
    (finding,) = caught.value.findings
    assert finding.id == "boot.retire"
    assert "its machine is kept" in finding.what
    assert said(run) == ["drain w2"]
    assert (run.workdir.path / "Vagrantfile").read_text() == "# with w1 and w2"


@pytest.mark.parametrize("raw", [{}, {"workers": 3}, {"schedule_on_control_planes": True}])
def test_nothing_is_asked_where_nothing_goes(tmp_path: Path, raw: dict[str, Any]) -> None:
    run, asked = again(tmp_path, planned(raw))
    assert Retire().skip(run) == "no node has to go"
    run_all([Retire()], run)
    assert asked == []


def test_a_node_beside_the_cluster_is_not_drained(tmp_path: Path) -> None:
    run, asked = again(tmp_path, planned({"workers": 2}))
    save_plan(run.workdir, planned({"tools": 1, "nas": 1}))
    assert Retire().outline(run) == ["destroy tools1", "destroy nas1"]
    with pytest.raises(HostError):
        run_all([Retire()], run)
    assert asked == ["lab.yaml has no tools1, nas1 any more: destroy?"]


def test_both_ways_are_in_one_question(tmp_path: Path) -> None:
    run, asked = again(tmp_path, planned({"workers": 1}))
    save_plan(run.workdir, planned({"tools": 1}))
    with pytest.raises(HostError):
        run_all([Retire()], run)
    assert asked == [
        "lab.yaml has no w2, tools1 any more: drain, delete and destroy w2, destroy tools1?"
    ]


def test_what_users_put_into_an_addon_does_not_go_without_consent(tmp_path: Path) -> None:
    run, asked = again(tmp_path, planned({"workers": 2}))
    save_plan(run.workdir, planned({"addons": ["dns", "registry", "traefik"]}))
    assert Retire().outline(run) == ["remove registry and all images in it"]
    with pytest.raises(HostError) as caught:
        run_all([Retire()], run)
    assert [f.what for f in caught.value.findings] == [
        "registry would go, and with it all images in it"
    ]
    assert asked == ["lab.yaml has no registry any more: remove registry and all images in it?"]


def test_nodes_and_addons_that_would_go_are_in_one_question(tmp_path: Path) -> None:
    run, asked = again(tmp_path, planned({"workers": 1}))
    save_plan(run.workdir, planned({"addons": ["dns", "registry"]}))
    with pytest.raises(HostError):
        run_all([Retire()], run)
    todo = "drain, delete and destroy w2, remove registry and all images in it"
    assert asked == [f"lab.yaml has no w2, registry any more: {todo}?"]


def test_an_addon_that_is_agreed_to_go_keeps_every_machine(tmp_path: Path) -> None:
    run, _ = again(tmp_path, planned({"workers": 2}), answer=True)
    save_plan(run.workdir, planned({"addons": ["dns", "registry"]}))
    run_all([Retire()], run)
    assert run.summary["retire"] == "registry will go"
    assert (run.workdir.path / "Vagrantfile").read_text() == "# with w1 and w2"


def test_a_first_up_retires_nothing(tmp_path: Path) -> None:
    assert Retire().skip(run_of(tmp_path, planned())) == "there is none yet"
    assert leftover(None, planned()) == []


@pytest.mark.parametrize(
    ("change", "was", "now"),
    [
        ({"cpus": 4}, "1 CPU,", "4 CPU,"),
        ({"memory": "3GiB"}, "1536 MiB memory", "3072 MiB memory"),
        ({"disk": "30GiB"}, "20480 MiB disk", "30720 MiB disk"),
    ],
    ids=["cpus", "memory", "disk"],
)
def test_a_machine_keeps_its_size(
    tmp_path: Path, change: dict[str, Any], was: str, now: str
) -> None:
    made, wanted = planned(host=LIBVIRT), planned({"nodes": {"w1": change}}, LIBVIRT)
    for one, other, old, new in ((made, wanted, was, now), (wanted, made, now, was)):
        with pytest.raises(SpecError) as caught:
            refuse_changes(one, other)
        (finding,) = caught.value.findings
        assert (finding.id, finding.where) == ("spec.cannot-change", "nodes.w1")
        asked, _, before = finding.what.partition(" is asked for")
        assert new in asked
        assert old in before
        assert old in finding.fix


def test_a_new_machine_has_any_size() -> None:
    raw = {"workers": 3, "nodes": {"w3": {"memory": "3GiB"}}}
    refuse_changes(planned(), planned(raw))
    # And w3's size says nothing once it is gone.
    refuse_changes(planned(raw), planned())


def test_all_that_cannot_change_is_said_at_once() -> None:
    raw = {"nodes": {"w1": {"memory": "3GiB"}}, "network": {"services": "10.97.0.0/16"}}
    with pytest.raises(SpecError) as caught:
        refuse_changes(planned(), planned(raw))
    assert [f.where for f in caught.value.findings] == ["network.services", "nodes.w1"]
