"""What settle.py, which runs on a control plane, changes of a node: pod addresses and taints."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import pytest

from labwright.render import ROOT

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
PODS = "10.244.0.0/24"
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


def loaded() -> ModuleType:
    """Import the file from its role: it is no part of the package."""
    path = ROOT / "playbooks/roles/control_plane/files/settle.py"
    found = importlib.util.spec_from_file_location("settle", path)
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


SETTLE = loaded()


TAINT = {"key": CONTROL_PLANE, "effect": "NoSchedule"}


def node(*taints: dict[str, str], pods: str = PODS) -> Any:
    """A node as the API gives it: what it has nothing of is not there."""
    spec = {**({"podCIDR": pods} if pods else {}), **({"taints": [*taints]} if taints else {})}
    return {"metadata": {"name": "n"}, "spec": spec}


def patch(found: Any, *, schedulable: bool, role: str = "control_plane") -> Any:
    return SETTLE.patch_for({"name": "n", "role": role, "pod_cidr": PODS}, found, schedulable)


def test_a_schedulable_control_plane_loses_its_taint_and_no_other() -> None:
    assert patch(node(TAINT), schedulable=True) == {"taints": []}
    assert patch(node(NOT_READY, TAINT), schedulable=True) == {"taints": [NOT_READY]}


def test_a_dedicated_control_plane_gets_its_taint_back() -> None:
    assert patch(node(), schedulable=False) == {"taints": [TAINT]}
    assert patch(node(NOT_READY), schedulable=False) == {"taints": [NOT_READY, TAINT]}


@pytest.mark.parametrize("schedulable", [True, False])
@pytest.mark.parametrize("tainted", [True, False])
def test_a_node_that_was_patched_needs_no_other_patch(schedulable: bool, tainted: bool) -> None:
    found = node(*([TAINT] if tainted else []), pods="")
    first = patch(found, schedulable=schedulable)
    assert ("taints" in first) is (schedulable is tainted)
    found["spec"] |= first
    assert patch(found, schedulable=schedulable) == {}


@pytest.mark.parametrize("schedulable", [True, False])
def test_a_worker_gets_no_taint(schedulable: bool) -> None:
    assert patch(node(NOT_READY), schedulable=schedulable, role="worker") == {}


@pytest.mark.parametrize("schedulable", [True, False])
def test_a_node_without_pod_addresses_gets_the_planned_ones(schedulable: bool) -> None:
    found = patch(node(pods=""), schedulable=schedulable, role="worker")
    assert found == {"podCIDR": PODS, "podCIDRs": [PODS]}
