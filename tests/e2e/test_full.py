"""examples/full.yaml, word for word: all comes up, is used, stays as it is, and goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from tests.e2e.conftest import ROOT, Folder, docker, gone, make

pytestmark = pytest.mark.e2e

# One check of each thing that verify proves by using it.
CHECKS = {
    "test_a_certificate_is_issued_in_the_name_of_the_labs_authority",
    "test_its_address_answers_on_every_node_and_here",
    "test_a_pod_reads_what_another_wrote_to_a_volume",
    "test_metrics_of_every_node",
    "test_every_node_runs_an_image_that_one_of_them_pushed",
    "test_an_ingress_answers_on_every_node_with_traefik",
    "test_pod_resolves_names",
    "test_a_container_finds_another_by_name",
    "test_compose_services_reach_each_other",
    "test_a_system_container_runs",
    "test_the_cluster_runs_an_image_that_was_pushed_here",
    "test_what_is_written_by_nfs_is_read_by_nfs",
}


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Folder]:
    raw = yaml.safe_load((ROOT / "examples/full.yaml").read_text("utf-8"))
    folder = make(tmp_path, {key: value for key, value in raw.items() if key != "name"})
    try:
        yield folder
    finally:
        folder.invoke("lab.destroy", "--yes", check=False)


def proved(report: Path) -> set[str]:
    """Give the checks that ran and held."""
    cases = ET.parse(report).iter("testcase")  # noqa: S314 - written by pytest here
    return {case.attrib["name"].partition("[")[0] for case in cases if not len(case)}


def test_all_that_a_lab_can_have(full: Folder) -> None:
    wanted = yaml.safe_load((full.path / "lab.yaml").read_text("utf-8"))
    full.invoke("lab.up", "--yes")
    assert proved(full.lab / "report" / "verify.xml") >= CHECKS
    table = [line.split() for line in full.invoke("lab.addons").out.splitlines()[1:]]
    states = {line[0]: line[1] for line in table if line[0] in wanted["addons"]}
    assert states == dict.fromkeys(wanted["addons"], "ready")
    assert full.kubectl("get", "nodes", "-o", "name").split() == ["node/cp1", "node/w1", "node/w2"]
    state = json.loads(full.invoke("lab.status", "--json").out)["nodes"]
    assert {n: v["kubernetes"] for n, v in state.items()} == {
        **dict.fromkeys(("cp1", "w1", "w2"), "Ready"),
        **dict.fromkeys(("tools1", "nas1"), "not in it"),
    }
    for name in ("tools1", "nas1"):
        ask = ("--command", "systemctl is-active kubelet || true")
        assert full.invoke("lab.ssh", name, *ask).out.split()[-1] == "inactive"

    assert "nothing to change" in full.invoke("lab.up", "--yes").out

    fewer = {key: value for key, value in wanted.items() if key not in {"tools", "nas"}}
    (full.path / "lab.yaml").write_text(yaml.safe_dump(fewer))
    assert "destroy tools1" in full.invoke("lab.plan").out
    full.invoke("lab.up", "--yes")
    label = f"label=labwright.lab={full.name}"
    names = docker("ps", "-a", "--filter", label, "--format", "{{.Names}}").split()
    assert sorted(names) == [f"labwright-{full.name}-{node}" for node in ("cp1", "w1", "w2")]
    assert "tools1" not in full.invoke("lab.ssh", "cp1", "--command", "cat /etc/hosts").out

    full.invoke("lab.destroy", "--yes")
    assert not list(gone(full))
