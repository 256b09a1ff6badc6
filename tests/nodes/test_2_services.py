"""What runs on each node: containerd, then kubelet, at the versions of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.nodes.conftest import Lab

pytestmark = pytest.mark.cluster

# The runtime has another name in Debian than in Docker's repository, where its runc is part of it.
PACKAGES = ("kubeadm", "kubelet", "kubectl", "cri-tools", "kubernetes-cni", "containerd.io")
DEBIAN = ("containerd", "runc", "containernetworking-plugins")

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def test_containerd_runs(seen: Mapping[str, str], node: str) -> None:
    _runs(seen, node, "containerd")


def test_containerd_answers(seen: Mapping[str, str]) -> None:
    assert seen["ctr"] == "answers"


def test_kubelet_runs(seen: Mapping[str, str], node: str) -> None:
    _runs(seen, node, "kubelet")


def test_package_versions_are_the_planned_ones(seen: Mapping[str, str], lab: Lab) -> None:
    planned = lab.lock["packages"]
    lines = [line.split() for line in seen["packages"].splitlines()]
    installed = {words[0]: words[1] for words in lines if len(words) == 2}
    asked = [name for name in (*PACKAGES, *DEBIAN) if name in planned]
    assert {"kubelet", "kubeadm", "kubectl"} < {*asked}
    assert {n: installed.get(n) for n in asked} == {n: planned[n] for n in asked}


def test_images_are_the_planned_ones(seen: Mapping[str, str], lab: Lab, node: str) -> None:
    lines = [line.split() for line in seen["images"].splitlines()[1:]]
    there = {words[0]: words[2] for words in lines}
    planned = {
        image["ref"]: image["digest"]
        for name, image in lab.lock["images"].items()
        # A worker has those of a control plane only if its image was baked for both.
        if name not in CONTROL_PLANE or node in lab.planes or image["ref"] in there
    }
    assert planned
    assert {ref: there.get(ref) for ref in planned} == planned


def _runs(seen: Mapping[str, str], node: str, name: str) -> None:
    state = seen[name].split()
    assert state == ["active", "enabled"], f"{name} on {node} is {' and '.join(state)}"
