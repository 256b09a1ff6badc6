"""The network as pods and nodes use it: pod to pod, service, names."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Lab

PORT = 8080
DEADLINE = 90


@dataclass(frozen=True)
class Probes:
    """One pod on each node that serves its node's name: node → pod name and address."""

    namespace: str
    pods: Mapping[str, str]
    addresses: Mapping[str, str]
    service: str


@pytest.fixture(scope="module")
def probes(lab: Lab) -> Iterator[Probes]:
    namespace = f"lab-verify-{secrets.token_hex(3)}"
    lab.kubectl("apply -f -", json.dumps(_manifest(namespace, lab.facts["image_refs"]["busybox"])))
    try:
        lab.kubectl(f"-n {namespace} rollout status daemonset/probe --timeout={DEADLINE}s")
        items = lab.get(f"pods -n {namespace}")["items"]
        yield Probes(
            namespace,
            {p["spec"]["nodeName"]: p["metadata"]["name"] for p in items},
            {p["spec"]["nodeName"]: p["status"]["podIP"] for p in items},
            lab.get(f"service probe -n {namespace}")["spec"]["clusterIP"],
        )
    finally:
        lab.kubectl(f"delete namespace {namespace} --wait=false")


def test_a_pod_runs_on_every_node(lab: Lab, probes: Probes) -> None:
    assert set(probes.pods) == set(lab.lock["nodes"])


def test_pod_address_is_in_its_nodes_range(lab: Lab, probes: Probes, node: str) -> None:
    start = lab.lock["nodes"][node]["pods"].rsplit(".", 1)[0]
    assert probes.addresses[node].rsplit(".", 1)[0] == start


def test_pod_reaches_the_pods_of_all_nodes(lab: Lab, probes: Probes, node: str) -> None:
    wanted = {name: name for name in probes.addresses}
    script = "; ".join(_ask(address) for address in probes.addresses.values())
    heard = dict(zip(wanted, _in_pod(lab, probes, node, script).split("\n"), strict=False))
    silent = [name for name, said in heard.items() if said != name]
    assert not silent, f"a pod on {node} does not reach the pod on {', '.join(silent)}"


def test_pod_reaches_a_service(lab: Lab, probes: Probes, node: str) -> None:
    said = _in_pod(lab, probes, node, _ask(probes.service)).strip()
    assert said in lab.lock["nodes"], f"a pod on {node} does not reach {probes.service}"


def test_node_reaches_a_service(host: Any, lab: Lab, probes: Probes, node: str) -> None:
    said = host.run(
        f"python3 -c \"import urllib.request as u; print(u.urlopen('http://{probes.service}:"
        f"{PORT}/', timeout=5).read().decode())\""
    )
    assert said.stdout.strip() in lab.lock["nodes"], f"{node}: {said.stderr.strip()[-200:]}"


def test_pod_resolves_names(lab: Lab, probes: Probes, node: str) -> None:
    if not lab.facts["dns_enabled"]:
        pytest.skip("this lab has no cluster DNS")
    name = f"probe.{probes.namespace}.svc.cluster.local"
    out = _in_pod(lab, probes, node, f"nslookup {name} 2>&1")
    assert probes.service in out, f"a pod on {node} cannot resolve {name}: {out.strip()[-200:]}"


def _ask(address: str) -> str:
    # Debian's busybox 1.35 ends in a segmentation fault at `wget -T`.
    return f"timeout 5 wget -q -O - http://{address}:{PORT}/ || echo no answer from {address}"


def _in_pod(lab: Lab, probes: Probes, node: str, script: str) -> str:
    return lab.kubectl(
        f"-n {probes.namespace} exec {probes.pods[node]} -- sh -c '{script}' || true"
    )


def _manifest(namespace: str, image: str) -> dict[str, Any]:
    meta = {"name": "probe", "namespace": namespace}
    serve = (
        f"mkdir -p /tmp/www && echo $NODE > /tmp/www/index.html && "
        f"exec httpd -f -p {PORT} -h /tmp/www"
    )
    container = {
        "name": "probe",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", serve],
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    pods = {
        "metadata": {"labels": {"app": "probe"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": meta,
                "spec": {"selector": {"matchLabels": {"app": "probe"}}, "template": pods},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": meta,
                "spec": {"selector": {"app": "probe"}, "ports": [{"port": PORT}]},
            },
        ],
    }
