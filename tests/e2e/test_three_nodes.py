"""The life of a three-node lab on the Docker provider, by the commands a user types."""

from __future__ import annotations

import base64
import ipaddress
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from labwright import conformance
from tests.e2e.conftest import Folder, docker, gone, processes

pytestmark = pytest.mark.e2e

SERVICE = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: DoNotSchedule
          labelSelector: {matchLabels: {app: web}}
      containers:
        - name: web
          image: IMAGE
          command:
            - sh
            - -c
            - mkdir /tmp/w; hostname > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w
          readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""

# A word of the name of one test each, over what a lab is used for.
CONFORMANCE = (
    r"\[sig-api-machinery\] AdmissionWebhook .* should mutate configmap",
    r"\[sig-api-machinery\] Aggregator .* 1.17 Sample API Server",
    r"\[sig-api-machinery\] Garbage collector should delete pods created by rc when not",
    r"\[sig-apps\] Deployment deployment should support rollover",
    r"\[sig-apps\] Job should run a job to completion when tasks sometimes fail and are loc",
    r"\[sig-apps\] StatefulSet .* canary updates",
    r"\[sig-auth\] ServiceAccounts should mount projected service account token",
    r"\[sig-cli\] Kubectl logs logs should be able to retrieve",
    r"\[sig-network\] DNS should provide DNS for services",
    r"\[sig-network\] Ingress API",
    r"\[sig-network\] Networking .* intra-pod communication: http",
    r"\[sig-network\] Networking .* node-pod communication: udp",
    r"\[sig-network\] Services should be able to change the type from ExternalName to NodePort",
    r"\[sig-network\] Services should have session affinity work for NodePort",
    r"\[sig-node\] ConfigMap should be consumable via the environment",
    r"\[sig-node\] Container Lifecycle Hook .* prestop exec hook",
    r"\[sig-node\] InitContainer .* should invoke init containers on a RestartAlways pod",
    r"\[sig-node\] Probing container should be restarted with a exec",
    r"\[sig-storage\] EmptyDir volumes should support \(root,0666,default\)",
    r"\[sig-storage\] Secrets should be consumable from pods in volume with mappings \[",
    r"\[sig-storage\] Subpath .* with downward pod",
)


def lock(folder: Folder) -> dict[str, dict[str, dict[str, str]]]:
    content: dict[str, dict[str, dict[str, str]]] = yaml.safe_load(
        (folder.lab / "lab.lock").read_text("utf-8")
    )
    return content


def test_three_ready_nodes_with_addresses_in_the_labs_subnet(three: Folder) -> None:
    subnet = ipaddress.ip_network(str(lock(three)["network"]["subnet"]))
    items = json.loads(three.kubectl("get", "nodes", "-o", "json"))["items"]
    assert sorted(i["metadata"]["name"] for i in items) == ["cp1", "w1", "w2"]
    for item in items:
        ready = {c["type"]: c["status"] for c in item["status"]["conditions"]}["Ready"]
        (address,) = (
            a["address"] for a in item["status"]["addresses"] if a["type"] == "InternalIP"
        )
        assert (ready, ipaddress.ip_address(address) in subnet) == ("True", True)


def test_two_replicas_on_two_workers_answer_on_every_node(three: Folder) -> None:
    image = lock(three)["images"]["busybox"]["ref"]
    three.kubectl("apply", "-f", "-", stdin=SERVICE.replace("IMAGE", image))
    three.kubectl("rollout", "status", "deployment/web", "--timeout=90s")
    pods = json.loads(three.kubectl("get", "pods", "-l", "app=web", "-o", "json"))["items"]
    assert {p["spec"]["nodeName"] for p in pods} == {"w1", "w2"}
    address = three.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    ask = f"import urllib.request as u; print(u.urlopen('http://{address}/', timeout=5).read())"
    for node in ("cp1", "w1", "w2"):
        heard = {
            three.invoke("lab.ssh", node, "--command", f'python3 -c "{ask}"').out.strip()
            for _ in range(12)
        }
        assert len(heard) == 2, f"{node} heard only {heard}"
    three.kubectl("delete", "deployment/web", "service/web")


def test_a_second_up_changes_nothing(three: Folder) -> None:
    before = len(three.events())
    three.invoke("lab.up", "--yes")
    done = {e["phase"]: e.get("text") for e in three.events()[before:] if e["kind"] == "done"}
    assert done["converge"] == "nothing to change"
    assert done["boot"] == "all were running"


def test_kubernetes_own_tests_pass_and_leave_nothing(three: Folder) -> None:
    asked = ("namespaces,customresourcedefinitions,clusterroles,clusterrolebindings,apiservices,"
             "mutatingwebhookconfigurations,priorityclasses")  # fmt: skip
    ask_images = ("lab.ssh", "w1", "--command", "sudo crictl images -q 2>/dev/null")
    before = {*three.kubectl("get", asked, "-o", "name").split()}
    images = {*three.invoke(*ask_images).out.split()}
    three.invoke("lab.conformance", "--yes", "--focus", "|".join(CONFORMANCE))
    cases = conformance.read(three.lab / "report/conformance/junit.xml")
    assert conformance.count(cases) == {"passed": len(CONFORMANCE)}, cases
    table = (three.lab / "report/conformance/table.md").read_text("utf-8")
    assert f"| all | {len(CONFORMANCE)} | 0 |" in table
    assert {*three.kubectl("get", asked, "-o", "name").split()} <= before
    assert {*three.invoke(*ask_images).out.split()} == images


def test_a_stopped_kubelet_fails_verify_by_name_and_up_mends_it(three: Folder) -> None:
    three.invoke("lab.ssh", "w2", "--command", "sudo systemctl disable --now kubelet")
    failed = three.invoke("lab.verify", check=False)
    assert failed.code == 7
    first = next(line for line in failed.out.splitlines() if line.startswith("error:"))
    assert "w2" in first
    assert "kubelet" in first
    three.invoke("lab.up", "--yes")


def test_a_changed_verdict_is_in_the_report(three: Folder) -> None:
    three.invoke("lab.verify")
    report = (three.lab / "report" / "verify.xml").read_text("utf-8")
    assert 'failures="0"' in report
    assert 'errors="0"' in report


def test_status_says_what_is(three: Folder) -> None:
    state = json.loads(three.invoke("lab.status", "--json").out)
    assert {n: v["kubernetes"] for n, v in state["nodes"].items()} == dict.fromkeys(
        ("cp1", "w1", "w2"), "Ready"
    )
    assert {v["machine"] for v in state["nodes"].values()} == {"running"}


def test_a_second_command_at_once_is_refused_and_says_who_has_it(three: Folder) -> None:
    first = three.start("lab.verify")
    three.wait_for_event(30, lambda e: e.get("data", e).get("pid") is not None)
    deadline = time.monotonic() + 30
    while not (three.lab / "holder").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    second = three.invoke("lab.up", "--yes", check=False)
    out, _ = first.communicate(timeout=120)
    assert first.returncode == 0, out
    assert second.code == 3
    assert "in use by lab.verify" in second.out


def test_the_kubeconfig_is_merged(three: Folder) -> None:
    target = Path(three.env["KUBECONFIG"])
    target.parent.mkdir(exist_ok=True)
    other = {"clusters": [{"name": "mine", "cluster": {"server": "https://192.0.2.1"}}]}
    target.write_text(yaml.safe_dump(other))
    three.invoke("lab.kubeconfig", "--merge")
    merged = yaml.safe_load(target.read_text("utf-8"))
    assert [c["name"] for c in merged["clusters"]] == ["mine", f"labwright-{three.name}"]
    assert merged["current-context"] == f"labwright-{three.name}"


def test_tokens_are_short_lived_and_no_secret_is_written_down(three: Folder) -> None:
    user = yaml.safe_load((three.lab / "kubeconfig").read_text("utf-8"))["users"][0]["user"]
    secrets = {user["client-key-data"][:80]}
    words = ("get", "secrets", "-n", "kube-system", "-o", "json")
    for item in json.loads(three.kubectl(*words))["items"]:
        if item["type"] == "bootstrap.kubernetes.io/token":
            data = {k: base64.b64decode(v).decode() for k, v in item["data"].items()}
            secrets.add(data["token-secret"])
            left = datetime.fromisoformat(data["expiration"]) - datetime.now(UTC)
            assert left < timedelta(hours=1)
    for path in [three.lab / "journal.jsonl", *(three.lab / "ansible").rglob("*")]:
        if path.is_file():
            text = path.read_text("utf-8", errors="replace")
            assert not [secret for secret in secrets if secret in text], path


def test_a_worker_more_and_a_worker_less(three: Folder) -> None:
    text = (three.path / "lab.yaml").read_text("utf-8")
    (three.path / "lab.yaml").write_text(text + "workers: 3\n")
    three.invoke("lab.up", "--yes")
    assert "w3" in json.loads(three.invoke("lab.status", "--json").out)["nodes"]
    (three.path / "lab.yaml").write_text(text)
    three.invoke("lab.up", "--yes")
    names = three.kubectl("get", "nodes", "-o", "name").split()
    assert sorted(names) == ["node/cp1", "node/w1", "node/w2"]
    label = f"label=labwright.lab={three.name}"
    assert len(docker("ps", "-aq", "--filter", label).split()) == 3


ADDONS = ("cert-manager", "load-balancer", "local-path", "metrics-server", "registry", "traefik")
KINDS = (
    "namespaces,deployments,daemonsets,services,configmaps,serviceaccounts,roles,rolebindings,"
    "clusterroles,clusterrolebindings,storageclasses,ingressclasses,apiservices,crd,"
    "mutatingwebhookconfigurations,validatingwebhookconfigurations,secrets,"
    "persistentvolumes,persistentvolumeclaims"
)


def objects(three: Folder) -> set[str]:
    """Give every object that an add-on could leave behind; verify's own namespaces still end."""
    lines = three.kubectl("get", KINDS, "-A", "-o", "json")
    names = {
        f"{i['kind']} {i['metadata'].get('namespace', '')}/{i['metadata']['name']}"
        for i in json.loads(lines)["items"]
    }
    return {name for name in names if "lab-verify-" not in name}


def test_addons_come_are_used_and_go_without_a_trace(three: Folder) -> None:
    text = (three.path / "lab.yaml").read_text("utf-8")
    before = objects(three)
    (three.path / "lab.yaml").write_text(f"{text}addons: [dns, {', '.join(ADDONS)}]\n")
    three.invoke("lab.up", "--yes")
    report = (three.lab / "report" / "verify.xml").read_text("utf-8")
    assert "test_a_pod_reads_what_another_wrote_to_a_volume" in report
    assert "test_every_node_runs_an_image_that_one_of_them_pushed" in report
    table = three.invoke("lab.addons").out.splitlines()
    states = {line.split()[0]: line.split()[1] for line in table[1:]}
    off = dict.fromkeys(("network-policy", "rancher"), "off")
    assert states == {**dict.fromkeys(("dns", *ADDONS), "ready"), **off}
    (three.path / "lab.yaml").write_text(text)
    three.invoke("lab.up", "--yes")
    left = objects(three) - before
    assert not {name for name in left if "labwright-addons" not in name}


def test_what_a_cluster_keeps_for_life_cannot_change(three: Folder) -> None:
    text = (three.path / "lab.yaml").read_text("utf-8")
    (three.path / "lab.yaml").write_text(text + "network: {pods: 10.200.0.0/16}\n")
    refused = three.invoke("lab.up", "--yes", check=False)
    (three.path / "lab.yaml").write_text(text)
    assert refused.code == 2
    assert "the lab was made with 10.244.0.0/16" in refused.out


def test_a_halted_lab_comes_back(three: Folder) -> None:
    three.invoke("lab.down")
    state = json.loads(three.invoke("lab.status", "--json").out)
    assert "running" not in {v["machine"] for v in state["nodes"].values()}
    three.invoke("lab.up", "--yes")


def test_destroy_asks_and_leaves_nothing(three: Folder) -> None:
    refused = three.invoke("lab.destroy", check=False)
    assert refused.code == 3
    assert three.lab.is_dir()
    three.invoke("lab.kubeconfig", "--merge")
    mounts = [
        docker("inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", name).split()
        for name in docker("ps", "-aq", "--filter", f"label=labwright.lab={three.name}").split()
    ]
    volumes = {name for names in mounts for name in names}
    assert volumes
    three.invoke("lab.destroy", "--yes")
    assert not list(gone(three))
    assert not volumes & set(docker("volume", "ls", "-q").split())
    config = yaml.safe_load(Path(three.env["KUBECONFIG"]).read_text("utf-8"))
    assert [c["name"] for c in config["clusters"]] == ["mine"]
    assert not processes(str(three.lab))
