"""The cluster: etcd, the control plane, and every node Ready at its lab address."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.nodes.conftest import Lab

PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
# A kubelet renews its lease every 10 s. `kubectl get` shows the old Ready for some 40 s after a
# node died; the lease is evidence.
LEASE_AGE = 25.0
SETTLE = 60.0


@pytest.fixture(scope="module")
def nodes(lab: Lab) -> Mapping[str, Any]:
    """The nodes as the API has them, by name."""
    return {item["metadata"]["name"]: item for item in lab.get("nodes")["items"]}


def test_etcd_is_healthy(lab: Lab) -> None:
    keys = "/etc/kubernetes/pki/etcd"
    for plane in lab.planes:
        out = lab.kubectl(
            f"-n kube-system exec etcd-{plane} -- etcdctl --endpoints=https://127.0.0.1:2379 "
            f"--cacert={keys}/ca.crt --cert={keys}/healthcheck-client.crt "
            f"--key={keys}/healthcheck-client.key endpoint health 2>&1"
        )
        assert "is healthy" in out, f"etcd on {plane}: {out.strip()}"


def test_api_server_is_ready(lab: Lab) -> None:
    assert lab.kubectl("get --raw /readyz") == "ok"


@pytest.mark.parametrize("part", ["kube-controller-manager", "kube-scheduler"])
def test_control_plane_part_is_healthy(lab: Lab, part: str) -> None:
    for plane in lab.planes:
        assert lab.seen[plane].get(part) == "ok", f"{part} on {plane} does not say ok"


def test_control_plane_pods_run(lab: Lab) -> None:
    # Not `Ready`: a kubelet brings a static pod's condition up to date a minute late.
    wanted = {f"{part}-{plane}" for plane in lab.planes for part in PLANE}
    waiting = _wait(lab, wanted, "", lambda pod: str(pod["metadata"]["name"]), _running)
    assert not waiting, f"not running: {', '.join(sorted(waiting))}"


def test_kube_proxy_is_ready_on_every_node(lab: Lab) -> None:
    words = "-l k8s-app=kube-proxy"
    wanted = set(lab.lock["nodes"])
    waiting = _wait(lab, wanted, words, lambda pod: str(pod["spec"]["nodeName"]), _ready)
    assert not waiting, f"not ready on {', '.join(sorted(waiting))}"


def test_the_nodes_are_the_planned_ones(lab: Lab, nodes: Mapping[str, Any]) -> None:
    assert set(nodes) == set(lab.lock["nodes"])


def test_nodes_renew_their_leases(lab: Lab) -> None:
    deadline = time.monotonic() + LEASE_AGE
    while True:
        old = {name: age for name, age in _lease_ages(lab).items() if age > LEASE_AGE}
        if not old or time.monotonic() > deadline:
            break
        time.sleep(2)
    said = ", ".join(f"the kubelet of {name} {age:.0f} s ago" for name, age in old.items())
    assert not old, f"last heard: {said}"


def test_node_is_ready(nodes: Mapping[str, Any], node: str) -> None:
    conditions = {c["type"]: c for c in nodes[node]["status"]["conditions"]}
    ready = conditions["Ready"]
    assert ready["status"] == "True", f"{node} is not Ready: {ready['message']}"


def test_node_address_is_in_the_labs_subnet(lab: Lab, nodes: Mapping[str, Any], node: str) -> None:
    addresses = nodes[node]["status"]["addresses"]
    internal = [a["address"] for a in addresses if a["type"] == "InternalIP"]
    assert internal == [lab.address(node)]


def test_node_runs_the_planned_version(lab: Lab, nodes: Mapping[str, Any], node: str) -> None:
    info = nodes[node]["status"]["nodeInfo"]
    version = f"v{lab.lock['versions']['kubernetes']}"
    assert (info["kubeletVersion"], info["kubeProxyVersion"]) == (version, version)


def _wait(
    lab: Lab,
    wanted: set[str],
    words: str,
    name: Callable[[Any], str],
    good: Callable[[Any], bool],
) -> set[str]:
    """Give which pods are not good yet when the time is up."""
    deadline = time.monotonic() + SETTLE
    while True:
        pods = lab.get(f"pods -n kube-system {words}")["items"]
        waiting = wanted - {name(pod) for pod in pods if good(pod)}
        if not waiting or time.monotonic() > deadline:
            return waiting
        time.sleep(1)


def _running(pod: Any) -> bool:
    return bool(pod["status"].get("phase") == "Running")


def _ready(pod: Any) -> bool:
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


def _lease_ages(lab: Lab) -> dict[str, float]:
    # The control plane's clock: this computer's may be off by more than a lease.
    words = "get leases -n kube-node-lease -o json"
    text, _, now = lab.kubectl(f"{words}; date +%s.%N").rstrip().rpartition("\n")
    renewed = {
        lease["metadata"]["name"]: datetime.fromisoformat(lease["spec"]["renewTime"]).timestamp()
        for lease in json.loads(text)["items"]
    }
    return {name: float(now) - renewed.get(name, 0.0) for name in lab.lock["nodes"]}
