"""The cluster: etcd, the control plane, and every node Ready at its lab address."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import Lab

PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
# A kubelet renews its lease every 10 s. `kubectl get` shows the old Ready for some 40 s after a
# node died; the lease is evidence.
LEASE_AGE = 25.0
SETTLE = 60.0


def test_etcd_is_healthy(lab: Lab) -> None:
    pod = f"etcd-{lab.planes[0]}"
    keys = "/etc/kubernetes/pki/etcd"
    out = lab.kubectl(
        f"-n kube-system exec {pod} -- etcdctl --endpoints=https://127.0.0.1:2379 "
        f"--cacert={keys}/ca.crt --cert={keys}/healthcheck-client.crt "
        f"--key={keys}/healthcheck-client.key endpoint health 2>&1"
    )
    assert "is healthy" in out


def test_control_plane_pods_are_ready(lab: Lab) -> None:
    wanted = {f"{part}-{plane}" for plane in lab.planes for part in PLANE}
    waiting = _wait_ready(lab, wanted, "", lambda pod: str(pod["metadata"]["name"]))
    assert not waiting, f"not ready: {', '.join(sorted(waiting))}"


def test_kube_proxy_is_ready_on_every_node(lab: Lab) -> None:
    nodes = set(lab.lock["nodes"])
    words = "-l k8s-app=kube-proxy"
    waiting = _wait_ready(lab, nodes, words, lambda pod: str(pod["spec"]["nodeName"]))
    assert not waiting, f"not ready on {', '.join(sorted(waiting))}"


def test_the_nodes_are_the_planned_ones(lab: Lab) -> None:
    assert {n["metadata"]["name"] for n in lab.get("nodes")["items"]} == set(lab.lock["nodes"])


def test_node_is_ready(lab: Lab, node: str) -> None:
    conditions = {c["type"]: c for c in lab.get(f"node {node}")["status"]["conditions"]}
    ready = conditions["Ready"]
    assert ready["status"] == "True", f"{node} is not Ready: {ready['message']}"


def test_node_renews_its_lease(lab: Lab, node: str) -> None:
    deadline = time.monotonic() + LEASE_AGE
    age = _lease_age(lab, node)
    while age > LEASE_AGE and time.monotonic() < deadline:
        time.sleep(2)
        age = _lease_age(lab, node)
    assert age <= LEASE_AGE, f"the kubelet of {node} was last heard {age:.0f} s ago"


def test_node_address_is_in_the_labs_subnet(lab: Lab, node: str) -> None:
    addresses = lab.get(f"node {node}")["status"]["addresses"]
    internal = [a["address"] for a in addresses if a["type"] == "InternalIP"]
    assert internal == [lab.address(node)]


def test_node_runs_the_planned_version(lab: Lab, node: str) -> None:
    info = lab.get(f"node {node}")["status"]["nodeInfo"]
    version = f"v{lab.lock['versions']['kubernetes']}"
    assert (info["kubeletVersion"], info["kubeProxyVersion"]) == (version, version)


def _wait_ready(lab: Lab, wanted: set[str], words: str, name: Callable[[Any], str]) -> set[str]:
    """Give what is not ready yet when the time is up; a kubelet reports up to 10 s late."""
    deadline = time.monotonic() + SETTLE
    while True:
        pods = lab.get(f"pods -n kube-system {words}")["items"]
        waiting = wanted - {name(pod) for pod in pods if _ready(pod)}
        if not waiting or time.monotonic() > deadline:
            return waiting
        time.sleep(1)


def _ready(pod: Any) -> bool:
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


def _lease_age(lab: Lab, node: str) -> float:
    lease = lab.get(f"lease {node} -n kube-node-lease")
    renewed = datetime.fromisoformat(lease["spec"]["renewTime"])
    now = float(lab.first.check_output("date +%s.%N"))
    return now - renewed.astimezone(UTC).timestamp()
