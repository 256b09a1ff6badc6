"""The network as pods and nodes use it: pod to pod, service, names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

import pytest

from tests.nodes.probes import PORT, Deployment

if TYPE_CHECKING:
    from tests.nodes.conftest import Lab

pytestmark = pytest.mark.cluster

DEADLINE = 90
MARK = "=labwright="


@dataclass(frozen=True)
class Probes:
    """One pod on each node that serves its node's name, and what it hears of the others.

    ``heard``: node → what was asked (a node's name, ``service``, ``name`` or ``nobody``) → the
    answer. ``outside`` is what each node itself hears of the service, and ``nobody`` of an address
    in the services' range that no service has.
    """

    pods: Mapping[str, str]
    addresses: Mapping[str, str]
    service: str
    heard: Mapping[str, Mapping[str, str]]
    outside: Mapping[str, str]
    nobody: Mapping[str, str]


def _is_probe(pod: Mapping[str, Any]) -> bool:
    """Tell the probes from the pods that use add-ons, which are in the namespace too."""
    return bool(pod["metadata"].get("labels", {}).get("app") == "probe")


@pytest.fixture(scope="module")
def probes(lab: Lab, deployment: Deployment) -> Probes:
    """Wait for the pods, then let each of them and each node ask for all that is checked."""
    namespace = deployment.namespace
    deployment.wait(DEADLINE * lab.patience)
    items = lab.get(f"pods,services -n {namespace}")["items"]
    pods = {i["spec"]["nodeName"]: i for i in items if i["kind"] == "Pod" and _is_probe(i)}
    services = {i["metadata"]["name"]: i["spec"] for i in items if i["kind"] == "Service"}
    service = services["probe"]["clusterIP"]
    names = {node: pod["metadata"]["name"] for node, pod in pods.items()}
    addresses = {node: pod["status"]["podIP"] for node, pod in pods.items()}
    asked = {node: _ask(address) for node, address in addresses.items()}
    asked["service"] = _ask(service)
    free = _free(lab)
    asked["nobody"] = f"timeout 5 wget -q -O - http://{free}:{PORT}/ 2>&1"
    if lab.facts["dns_enabled"]:
        asked["name"] = f"nslookup probe.{namespace}.svc.cluster.local 2>&1"
    script = "; ".join(f"echo {MARK}{what}; {ask}" for what, ask in asked.items())

    def listen(node: str) -> dict[str, str]:
        words = f'-n {namespace} exec {names[node]} -- sh -c "{script}; true"'
        parts = [part.partition("\n") for part in lab.kubectl(words).split(MARK)[1:]]
        return {head.strip(): body.strip() for head, _, body in parts}

    return Probes(
        names,
        addresses,
        service,
        lab.on_every_member(listen),
        lab.on_every_member(lambda node: _from_node(lab, node, service)),
        lab.on_every_member(lambda node: _from_node(lab, node, free)),
    )


def test_a_pod_runs_on_every_node(lab: Lab, probes: Probes) -> None:
    assert set(probes.pods) == set(lab.members)


def test_pod_address_is_in_its_nodes_range(lab: Lab, probes: Probes, node: str) -> None:
    start = lab.lock["nodes"][node]["pods"].rsplit(".", 1)[0]
    assert probes.addresses[node].rsplit(".", 1)[0] == start


def test_pod_reaches_the_pods_of_all_nodes(lab: Lab, probes: Probes, node: str) -> None:
    silent = [name for name in lab.members if probes.heard[node].get(name) != name]
    assert not silent, f"a pod on {node} does not reach the pod on {', '.join(silent)}"


def test_pod_reaches_a_service(lab: Lab, probes: Probes, node: str) -> None:
    said = probes.heard[node].get("service", "")
    assert said in lab.members, f"a pod on {node} hears of {probes.service}: {said or 'nothing'}"


def test_node_reaches_a_service(lab: Lab, probes: Probes, node: str) -> None:
    said = probes.outside[node]
    assert said in lab.members, f"{node} hears of {probes.service}: {said}"


def test_what_is_no_service_is_not_looked_for_outside(probes: Probes, node: str) -> None:
    assert "refused" in probes.nobody[node], f"{node} hears {probes.nobody[node]}"
    said = probes.heard[node].get("nobody", "")
    assert "refused" in said, f"a pod on {node} hears {said or 'nothing'}"


def test_pod_resolves_names(lab: Lab, probes: Probes, node: str) -> None:
    if not lab.facts["dns_enabled"]:
        pytest.skip("this lab has no cluster DNS")
    said = probes.heard[node].get("name", "")
    assert probes.service in said, f"a pod on {node} cannot resolve the service: {said[-200:]}"


def _free(lab: Lab) -> str:
    taken = {i["spec"]["clusterIP"] for i in lab.get("services -A")["items"]}
    services = IPv4Network(lab.lock["network"]["services"])
    return next(
        str(a) for a in map(services.__getitem__, range(-2, -99, -1)) if str(a) not in taken
    )


def _ask(address: str) -> str:
    # A node's kube-proxy learns of a new service a moment after its pods are ready. `timeout`,
    # as Debian's busybox 1.35 ends in a segmentation fault at `wget -T`.
    ask = f"timeout 5 wget -q -O - http://{address}:{PORT}/"
    return f"for attempt in 1 2 3 4 5; do {ask} && break; sleep 1; done"


def _from_node(lab: Lab, node: str, address: str) -> str:
    code = (
        f"import urllib.request as u; "
        f"print(u.urlopen('http://{address}:{PORT}/', timeout=5).read().decode().strip())"
    )
    result = lab.hosts[node].run("python3 -c %s 2>&1", code)
    return (str(result.stdout).strip().splitlines() or ["nothing"])[-1][-200:]
