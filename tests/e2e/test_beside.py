"""A lab with nodes beside its cluster: they come, are used, stay as they are, and go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import Folder, docker, gone, make

pytestmark = pytest.mark.e2e

SMALL = {"workers": 0, "schedule_on_control_planes": True}


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Folder]:
    folder = make(tmp_path, {**SMALL, "tools": 1, "nas": 1})
    try:
        yield folder
    finally:
        folder.invoke("lab.destroy", "--yes", check=False)


def test_nodes_beside_the_cluster_come_and_go(beside: Folder) -> None:
    beside.invoke("lab.up", "--yes")
    assert beside.kubectl("get", "nodes", "-o", "name").split() == ["node/cp1"]
    state = json.loads(beside.invoke("lab.status", "--json").out)["nodes"]
    assert {n: v["kubernetes"] for n, v in state.items()} == {
        "cp1": "Ready",
        "tools1": "not in it",
        "nas1": "not in it",
    }
    for name in ("tools1", "nas1"):
        said = beside.invoke(
            "lab.ssh", name, "--command", "systemctl is-active kubelet || true"
        ).out
        assert said.split()[-1] == "inactive"

    again = beside.invoke("lab.up", "--yes").out
    assert "nothing to change" in again

    (beside.path / "lab.yaml").write_text(yaml.safe_dump({"name": beside.name, **SMALL}))
    assert "destroy tools1" in beside.invoke("lab.plan").out
    beside.invoke("lab.up", "--yes")
    label = f"label=labwright.lab={beside.name}"
    names = docker("ps", "-a", "--filter", label, "--format", "{{.Names}}").split()
    assert names == [f"labwright-{beside.name}-cp1"]
    assert "tools1" not in beside.invoke("lab.ssh", "cp1", "--command", "cat /etc/hosts").out

    beside.invoke("lab.destroy", "--yes")
    assert not list(gone(beside))
