"""What runs on each node: containerd, then kubelet, at the versions of the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import Lab


def test_containerd_runs(host: Any, node: str) -> None:
    _runs(host, node, "containerd")


def test_containerd_answers(host: Any) -> None:
    with host.sudo():
        assert host.run("ctr version").rc == 0


def test_kubelet_runs(host: Any, node: str) -> None:
    _runs(host, node, "kubelet")


def test_package_versions_are_the_planned_ones(host: Any, lab: Lab) -> None:
    planned = lab.lock["packages"]
    out = host.check_output("dpkg-query -W -f '${Package} ${Version}\\n'")
    installed = dict(line.split() for line in out.splitlines())
    names = ("containerd", "runc", "kubeadm", "kubelet", "kubectl", "containernetworking-plugins")
    assert {n: installed.get(n) for n in names} == {n: planned.get(n) for n in names}


def test_images_are_the_planned_ones(host: Any, lab: Lab) -> None:
    with host.sudo():
        out = host.check_output("ctr -n k8s.io images ls")
    there = {line.split()[0]: line.split()[2] for line in out.splitlines()[1:]}
    planned = {image["ref"]: image["digest"] for image in lab.lock["images"].values()}
    assert {ref: there.get(ref) for ref in planned} == planned


def _runs(host: Any, node: str, name: str) -> None:
    state = host.run(f"systemctl is-active {name}; systemctl is-enabled {name}").stdout.split()
    assert state == ["active", "enabled"], f"{name} on {node} is {' and '.join(state)}"
