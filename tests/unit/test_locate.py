"""Which lab a command means, and the plan that a made lab keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labwright import spec
from labwright.errors import HostError, SpecError, SupplyError
from labwright.locate import lock_of, name_of, read_lock, read_plan, read_spec, save_plan
from labwright.lock import Locked
from labwright.model import HostFacts
from labwright.tools.workdir import Workdir
from tests.fakes import DEBIAN, LIBVIRT, VIRTUALBOX, planned, upstream


def lab_yaml(path: Path, name: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"name: {name}\n")
    return str(path.resolve())


def made(root: Path, name: str, source: str) -> None:
    folder = Workdir(root, name)
    save_plan(folder, planned({"name": name}))
    folder.write({"source": source})


def test_nothing_named_is_lab_yaml(tmp_path: Path) -> None:
    source = lab_yaml(tmp_path / "lab.yaml", "here")
    assert read_spec(tmp_path, "").name == name_of(tmp_path, "") == "here"
    assert read_spec(tmp_path, "").source == source


def test_without_lab_yaml_the_defaults_serve(tmp_path: Path) -> None:
    found = read_spec(tmp_path, "")
    assert (found.name, found.source, len(found.nodes)) == ("lab", "", 3)


@pytest.mark.parametrize("given", ["other.yaml", "./other.yaml", "sub/other.yml", "sub/lab"])
def test_a_path_is_a_file(tmp_path: Path, given: str) -> None:
    lab_yaml(tmp_path / "lab.yaml", "here")
    source = lab_yaml(tmp_path / given, "other")
    assert read_spec(tmp_path, given).name == name_of(tmp_path, given) == "other"
    assert read_spec(tmp_path, given).source == source


def test_an_absolute_path_is_a_file(tmp_path: Path) -> None:
    source = lab_yaml(tmp_path / "far" / "x.yaml", "far")
    assert name_of(tmp_path / "here", source) == "far"


def test_a_file_without_an_ending_is_a_file(tmp_path: Path) -> None:
    lab_yaml(tmp_path / "mylab", "named-inside")
    assert name_of(tmp_path, "mylab") == "named-inside"


def test_the_name_in_lab_yaml_is_a_lab(tmp_path: Path) -> None:
    lab_yaml(tmp_path / "lab.yaml", "here")
    assert read_spec(tmp_path, "here").name == "here"


def test_a_lab_made_here_is_found_by_its_name(tmp_path: Path) -> None:
    lab_yaml(tmp_path / "lab.yaml", "here")
    made(tmp_path, "other", lab_yaml(tmp_path / "other.yaml", "other"))
    assert read_spec(tmp_path, "other").name == name_of(tmp_path, "other") == "other"


def test_a_lab_made_from_the_defaults_is_found_by_its_name(tmp_path: Path) -> None:
    made(tmp_path, "lab", "")
    assert read_spec(tmp_path, "lab").source == ""


def test_a_name_that_nobody_has_is_said_with_those_there_are(tmp_path: Path) -> None:
    made(tmp_path, "one", "")
    made(tmp_path, "two", "")
    with pytest.raises(SpecError) as caught:
        read_spec(tmp_path, "three")
    (finding,) = caught.value.findings
    assert finding.id == "spec.no-lab"
    assert "'three'" in finding.what
    assert "one, two" in finding.why


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        read_spec(tmp_path, "nowhere.yaml")


def test_a_made_lab_is_found_though_its_lab_yaml_is_broken(tmp_path: Path) -> None:
    source = tmp_path / "lab.yaml"
    made(tmp_path, "here", str(source))
    source.write_text("workers: [")
    assert name_of(tmp_path, "here") == "here"
    with pytest.raises(SpecError):
        read_spec(tmp_path, "here")


def test_a_made_lab_is_found_though_its_lab_yaml_is_gone(tmp_path: Path) -> None:
    made(tmp_path, "other", str(tmp_path / "gone.yaml"))
    assert name_of(tmp_path, "other") == "other"


def test_a_broken_lab_yaml_is_in_the_way_of_no_other_lab(tmp_path: Path) -> None:
    made(tmp_path, "other", lab_yaml(tmp_path / "other.yaml", "other"))
    (tmp_path / "lab.yaml").write_text("workers: [")
    assert read_spec(tmp_path, "other").name == "other"


@pytest.mark.parametrize("name", ["..", "."])
def test_a_name_does_not_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    save_plan(Workdir(root, "lab"), planned())
    (root / "plan.json").write_text("{}")
    (root / ".lab" / "plan.json").write_text("{}")
    with pytest.raises(SpecError):
        name_of(root, name)


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        ({}, DEBIAN),
        ({"workers": 0, "schedule_on_control_planes": True, "addons": []}, DEBIAN),
        ({"workers": 9, "network": {"subnet": "172.20.0.0/16"}}, replace(DEBIAN, memory=1024)),
        (
            {"box": {"name": "x/y", "url": "http://b.test/b", "checksum": "sha256:" + "0" * 64}},
            VIRTUALBOX,
        ),
        ({"nodes": {"w1": {"cpus": 4, "memory": "3GiB", "disk": "30GiB"}}}, LIBVIRT),
    ],
)
def test_a_plan_reads_back_as_it_was(tmp_path: Path, raw: dict[str, Any], host: HostFacts) -> None:
    plan = planned(raw, host)
    folder = Workdir(tmp_path, plan.name)
    save_plan(folder, plan)
    assert folder.exists
    again = read_plan(folder)
    assert again == plan
    assert (again.endpoint, again.nodes[0].address) == (plan.endpoint, plan.nodes[0].address)


def test_a_lab_never_made_is_said_with_those_there_are(tmp_path: Path) -> None:
    made(tmp_path, "one", "")
    with pytest.raises(HostError) as caught:
        read_plan(Workdir(tmp_path, "two"))
    (finding,) = caught.value.findings
    assert (finding.id, finding.why) == ("host.no-lab", "labs made here: one")


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"\xff\xfe"])
def test_a_damaged_plan_is_said(tmp_path: Path, content: bytes) -> None:
    folder = Workdir(tmp_path, "lab")
    save_plan(folder, planned())
    (folder.path / "plan.json").write_bytes(content)
    with pytest.raises(HostError) as caught:
        read_plan(folder)
    assert caught.value.findings[0].id == "host.plan-unreadable"


def test_a_plan_with_a_field_that_is_gone_is_read(tmp_path: Path) -> None:
    folder = Workdir(tmp_path, "lab")
    plan = planned()
    save_plan(folder, plan)
    content = json.loads((folder.path / "plan.json").read_text())
    del content["kube_proxy"]
    (folder.path / "plan.json").write_text(json.dumps({**content, "kubeadm_api": "v1beta2"}))
    assert read_plan(folder) == plan


def test_a_plan_of_an_older_labwright_is_said(tmp_path: Path) -> None:
    folder = Workdir(tmp_path, "lab")
    save_plan(folder, planned())
    content = json.loads((folder.path / "plan.json").read_text())
    del content["host_cpus"]
    (folder.path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(HostError, match="cannot be read"):
        read_plan(folder)


@pytest.mark.parametrize("raw", [{}, {"versions": {"rancher": "2.15"}, "provider": "libvirt"}])
def test_a_plan_with_its_pins_reads_back_as_it_was(tmp_path: Path, raw: dict[str, Any]) -> None:
    plan = upstream(raw, LIBVIRT)
    folder = Workdir(tmp_path, plan.name)
    save_plan(folder, plan)
    assert read_plan(folder) == plan


# --- lab.lock


@pytest.mark.parametrize(
    ("source", "lock"),
    [
        ("/class/lab.yaml", "/class/lab.lock"),
        ("/class/demo.yml", "/class/demo.lock"),
        ("/class/one.two.yaml", "/class/one.two.lock"),
    ],
)
def test_a_lock_is_beside_its_lab_yaml(tmp_path: Path, source: str, lock: str) -> None:
    assert lock_of(tmp_path, spec.build({}, source)) == Path(lock)


def test_without_lab_yaml_the_lock_is_where_it_would_be(tmp_path: Path) -> None:
    assert lock_of(tmp_path, spec.load(None)) == tmp_path / "lab.lock"


def test_a_lock_is_read(tmp_path: Path) -> None:
    (tmp_path / "lab.lock").write_text("network:\n  subnet: 192.168.56.0/24\n")
    assert str(read_lock(tmp_path / "lab.lock").network("subnet")) == "192.168.56.0/24"
    assert read_lock(tmp_path / "nowhere.lock") == Locked()


@pytest.mark.parametrize("content", [b"a: [", b"- a\n", b""])
def test_a_damaged_lock_is_said(tmp_path: Path, content: bytes) -> None:
    # In silence a lab would move to other versions and addresses.
    (tmp_path / "lab.lock").write_bytes(content)
    with pytest.raises(SupplyError) as caught:
        read_lock(tmp_path / "lab.lock")
    finding = caught.value.findings[0]
    assert (finding.id, finding.where) == ("supply.lock-unreadable", str(tmp_path / "lab.lock"))


@pytest.mark.parametrize("content", [b"\xff\xfe", None], ids=["no text", "a folder"])
def test_a_lock_that_cannot_be_read_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "lab.lock"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(HostError) as caught:
        read_lock(path)
    assert caught.value.findings[0].id == "host.lock-unreadable"
