"""The cluster: etcd, the control plane, and every node Ready at its lab address."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from tests.nodes.conftest import Lab

pytestmark = pytest.mark.cluster

Seen = TypeVar("Seen")

PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
# A kubelet renews its lease every 10 s. `kubectl get` shows the old Ready for some 40 s after a
# node died; the lease is evidence.
LEASE_AGE = 25.0
SETTLE = 60.0


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Mapping[str, str]:
    return lab.cluster()


@pytest.fixture(scope="module")
def nodes(cluster: Mapping[str, str]) -> Mapping[str, Any]:
    """The nodes as the API has them, by name."""
    return {item["metadata"]["name"]: item for item in json.loads(cluster["nodes"])["items"]}


def test_api_server_is_ready(cluster: Mapping[str, str]) -> None:
    assert cluster["readyz"] == "ok"


def test_etcd_is_healthy(cluster: Mapping[str, str]) -> None:
    assert "is healthy" in cluster["etcd"]


@pytest.mark.parametrize("part", ["kube-controller-manager", "kube-scheduler"])
def test_control_plane_part_is_healthy(lab: Lab, part: str) -> None:
    def ill(seen: Mapping[str, Mapping[str, str]]) -> set[str]:
        return {plane for plane in lab.planes if seen[plane].get(part) != "ok"}

    # One that ends, as for a lease that it could not renew in time, is started again.
    waiting = _wait(lab, lab.seen, ill, SETTLE, lab.ask)
    assert not waiting, f"{part} on {', '.join(sorted(waiting))} does not say ok"


def test_control_plane_pods_are_ready(lab: Lab, cluster: Mapping[str, str]) -> None:
    wanted = {f"{part}-{plane}" for plane in lab.planes for part in PLANE}

    def missing(answers: Mapping[str, str]) -> set[str]:
        pods = json.loads(answers["pods"])["items"]
        return wanted - {p["metadata"]["name"] for p in pods if _ready(p)}

    waiting = _wait(lab, cluster, missing, SETTLE, lab.cluster)
    assert not waiting, f"not ready: {', '.join(sorted(waiting))}"


def test_kube_proxy_is_ready_on_every_node(lab: Lab, cluster: Mapping[str, str]) -> None:
    def missing(answers: Mapping[str, str]) -> set[str]:
        pods = json.loads(answers["pods"])["items"]
        proxies = [p for p in pods if p["metadata"]["labels"].get("k8s-app") == "kube-proxy"]
        return set(lab.members) - {p["spec"]["nodeName"] for p in proxies if _ready(p)}

    waiting = _wait(lab, cluster, missing, SETTLE, lab.cluster)
    assert not waiting, f"not ready on {', '.join(sorted(waiting))}"


def test_the_nodes_are_the_planned_ones(lab: Lab, nodes: Mapping[str, Any]) -> None:
    assert set(nodes) == set(lab.members)


def test_nodes_renew_their_leases(lab: Lab, cluster: Mapping[str, str]) -> None:
    silent = _wait(lab, cluster, lambda answers: _silent(lab, answers), LEASE_AGE, lab.cluster)
    assert not silent, "; ".join(sorted(silent))


def test_node_is_ready(nodes: Mapping[str, Any], node: str) -> None:
    conditions = {c["type"]: c for c in nodes[node]["status"]["conditions"]}
    ready = conditions["Ready"]
    assert ready["status"] == "True", f"{node} is not Ready: {ready['message']}"


def test_node_takes_the_pods_it_should(lab: Lab, nodes: Mapping[str, Any], node: str) -> None:
    taints = {taint["key"] for taint in nodes[node]["spec"].get("taints", [])}
    dedicated = node in lab.planes and not lab.facts["schedule_on_control_planes"]
    tainted = "node-role.kubernetes.io/control-plane" in taints
    assert tainted is dedicated, f"{node} has the taints {sorted(taints)}"


def test_node_address_is_in_the_labs_subnet(lab: Lab, nodes: Mapping[str, Any], node: str) -> None:
    addresses = nodes[node]["status"]["addresses"]
    internal = [a["address"] for a in addresses if a["type"] == "InternalIP"]
    assert internal == [lab.address(node)]


# Nodes tell kube-proxy's version no more; its image is one of those that were compared.
def test_node_runs_the_planned_version(lab: Lab, nodes: Mapping[str, Any], node: str) -> None:
    info = nodes[node]["status"]["nodeInfo"]
    version = f"v{lab.lock['versions']['kubernetes']}"
    assert info["kubeletVersion"] == version


def _wait(
    lab: Lab,
    answers: Seen,
    missing: Callable[[Seen], set[str]],
    patience: float,
    again: Callable[[], Seen],
) -> set[str]:
    """Give what is still missing when the time, in seconds, is up; ask anew until then."""
    deadline = time.monotonic() + patience * lab.patience
    while (waiting := missing(answers)) and time.monotonic() < deadline:
        time.sleep(1)
        answers = again()
    return waiting


def _ready(pod: Any) -> bool:
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


def _silent(lab: Lab, answers: Mapping[str, str]) -> set[str]:
    renewed = {
        lease["metadata"]["name"]: datetime.fromisoformat(lease["spec"]["renewTime"]).timestamp()
        for lease in json.loads(answers["leases"])["items"]
    }
    ages = {name: float(answers["now"]) - renewed.get(name, 0.0) for name in lab.members}
    return {
        f"the kubelet of {name} was last heard {age:.0f} s ago"
        for name, age in ages.items()
        if age > LEASE_AGE
    }
