"""The add-ons' manifests as Ansible renders them, and the program that applies and removes them."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader  # type: ignore[import-untyped]
from ansible.template import Templar, trust_as_template  # type: ignore[import-untyped]

from labwright import catalog

ROLES = Path(__file__).resolve().parents[2] / "playbooks" / "roles"
ADDONS = {
    "cert-manager": "cert_manager",
    "load-balancer": "load_balancer",
    "local-path": "local_path",
    "metrics-server": "metrics_server",
    "registry": "registry",
    "traefik": "traefik",
}
# Kubernetes → the versions of the add-ons that go with it.
VERSIONS = {
    kubernetes: dict(zip(ADDONS, versions, strict=True))
    for kubernetes, versions in {
        "1.31.14": ("1.18.6", "0.16.2", "0.0.37", "0.8.1", "3.1.2", "3.6.7"),
        "1.36.3": ("1.21.2", "0.16.2", "0.0.30", "0.9.0", "3.1.2", "3.7.15"),
        "1.37.2": ("1.21.2", "0.16.2", "0.0.37", "0.9.0", "3.1.2", "3.7.15"),
    }.items()
}
# By MetalLB's controller.
MADE_LATER = {"memberlist"}
TLS: dict[str, str] = {}
# All of these are in every Kubernetes from 1.31 to 1.37: none needs a choice by version.
APIS = {
    "APIService": "apiregistration.k8s.io/v1",
    "ClusterRole": "rbac.authorization.k8s.io/v1",
    "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
    "ConfigMap": "v1",
    "CustomResourceDefinition": "apiextensions.k8s.io/v1",
    "DaemonSet": "apps/v1",
    "Deployment": "apps/v1",
    "IngressClass": "networking.k8s.io/v1",
    "MutatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
    "Namespace": "v1",
    "PersistentVolumeClaim": "v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "Secret": "v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "StorageClass": "storage.k8s.io/v1",
    "ValidatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
}
NODES = [
    {"name": "cp1", "address": "192.168.56.11", "role": "control_plane"},
    {"name": "w1", "address": "192.168.56.21", "role": "worker"},
]
EVERY = [(kubernetes, name) for kubernetes in VERSIONS for name in ADDONS]

Manifest = list[dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the registry's certificate and key where the lab's facts point to."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "registry.crt").write_text("the certificate\n")
    (folder / "registry.key").write_text("the key\n")
    TLS["lab_tls"] = str(folder)
    return folder


def facts(kubernetes: str = "1.36.3", **more: Any) -> dict[str, Any]:
    versions = VERSIONS[kubernetes]
    images = {
        image: f"labwright.local/{image}:v{version}"
        for name, version in versions.items()
        for image in catalog.load().addons[name].images or (name,)
    }
    return {
        "lab_addons": {n: {"enabled": True, "version": v} for n, v in versions.items()},
        "lab_image_refs": {**images, "busybox": "labwright.local/busybox:1.35.0"},
        "lab_cluster_nodes": NODES,
        "lab_load_balancer_range": "192.168.56.200-192.168.56.249",
        "lab_schedule_on_control_planes": False,
        "lab_registry_address": "registry.lab.internal:30500",
        **TLS,
        **more,
    }


def render(name: str, given: Mapping[str, Any]) -> Manifest:
    """Render the manifest as the role does: its defaults over the lab's facts."""
    role = ROLES / ADDONS[name]
    defaults = {
        name: value
        for kind in ("defaults", "vars")
        for path in role.glob(f"{kind}/main.yml")
        for name, value in yaml.safe_load(path.read_text("utf-8")).items()
    }
    trusted = {k: trust_as_template(v) if isinstance(v, str) else v for k, v in defaults.items()}
    templar = Templar(DataLoader(), {**given, **trusted})
    text = (role / "templates" / f"{name}.yaml.j2").read_text("utf-8")
    # As the template lookup does it (ansible/plugins/lookup/template.py).
    text = trust_as_template(f"#jinja2: trim_blocks: True, lstrip_blocks: False\n{text}")
    rendered = templar.copy_with_new_env().template(text)
    return list(yaml.safe_load_all(rendered))


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("addons", ROLES / "addons/files/addons.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def workloads(manifest: Manifest) -> Manifest:
    return [thing for thing in manifest if thing["kind"] in {"Deployment", "DaemonSet"}]


def workload(manifest: Manifest) -> dict[str, Any]:
    (found,) = workloads(manifest)
    return found


def names(manifest: Manifest, kind: str) -> set[str]:
    return {thing["metadata"]["name"] for thing in manifest if thing["kind"] == kind}


def rights(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Give each resource and verb that the roles of a manifest allow."""
    for thing in manifest:
        for rule in thing.get("rules", ()):
            yield from ((r, v) for r in rule["resources"] for v in rule["verbs"])


@pytest.mark.parametrize(("kubernetes", "name"), EVERY)
def test_every_object_is_of_an_api_that_kubernetes_has(kubernetes: str, name: str) -> None:
    manifest = render(name, facts(kubernetes))
    assert manifest
    # Or of one that the manifest itself brings.
    brought = {
        t["spec"]["names"]["kind"]: f"{t['spec']['group']}/{t['spec']['versions'][0]['name']}"
        for t in manifest
        if t["kind"] == "CustomResourceDefinition"
    }
    known = {**APIS, **brought}
    assert [t["kind"] for t in manifest if known.get(t["kind"]) != t["apiVersion"]] == []


@pytest.mark.parametrize(("kubernetes", "name"), EVERY)
def test_what_objects_refer_to_is_in_the_manifest(kubernetes: str, name: str) -> None:
    manifest = render(name, facts(kubernetes))
    pods = [thing["spec"]["template"]["spec"] for thing in workloads(manifest)]
    assert {p["serviceAccountName"] for p in pods} == names(manifest, "ServiceAccount")
    for volume in (v for p in pods for v in p.get("volumes", ())):
        if "configMap" in volume:
            assert volume["configMap"]["name"] in names(manifest, "ConfigMap")
        if "secret" in volume:
            # MetalLB's controller makes the key of its speakers.
            assert volume["secret"]["secretName"] in names(manifest, "Secret") | {"memberlist"}
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            assert claim in names(manifest, "PersistentVolumeClaim")
    own_roles = names(manifest, "ClusterRole") | names(manifest, "Role")
    # Roles that Kubernetes itself has for servers of further APIs.
    given = {"system:auth-delegator", "extension-apiserver-authentication-reader"}
    bound: set[str] = set()
    for thing in manifest:
        if thing["kind"].endswith("Binding"):
            assert thing["roleRef"]["name"] in own_roles | given
            bound |= {s["name"] for s in thing["subjects"]}
    # One that may do nothing has no binding at all.
    assert bound in (set(), names(manifest, "ServiceAccount"))
    namespaces = names(manifest, "Namespace") | {"kube-system"}
    assert {t["metadata"].get("namespace", "kube-system") for t in manifest} <= namespaces


@pytest.mark.parametrize(("kubernetes", "name"), EVERY)
def test_pods_bear_what_their_workload_selects_and_no_image_is_pulled(
    kubernetes: str, name: str
) -> None:
    given = facts(kubernetes)
    used = set()
    for spec in (thing["spec"] for thing in workloads(render(name, given))):
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        (container,) = spec["template"]["spec"]["containers"]
        used.add(container["image"])
        assert container["imagePullPolicy"] == "IfNotPresent"
    own = catalog.load().addons[name].images or (name,)
    assert used == {given["lab_image_refs"][image] for image in own}


def test_every_addon_of_the_catalog_has_a_role(program: ModuleType) -> None:
    known = yaml.safe_load((ROLES / "addons/vars/main.yml").read_text("utf-8"))["__addons_roles"]
    # What network-policy applies has a file of tests of its own.
    assert known == {**ADDONS, "network-policy": "network_policy"}
    # The name server and what comes as a chart have ways of their own.
    assert set(catalog.load().addons) - {"dns", "rancher"} == set(known)


def test_local_path_is_the_default_class_and_its_helper_uses_an_image_of_the_lab() -> None:
    manifest = render("local-path", facts())
    (storage_class,) = (t for t in manifest if t["kind"] == "StorageClass")
    annotations = storage_class["metadata"]["annotations"]
    assert annotations == {"storageclass.kubernetes.io/is-default-class": "true"}
    (config,) = (t["data"] for t in manifest if t["kind"] == "ConfigMap")
    (paths,) = json.loads(config["config.json"])["nodePathMap"]
    assert paths["paths"] == ["/var/lib/labwright/local-path"]
    (helper,) = yaml.safe_load(config["helperPod.yaml"])["spec"]["containers"]
    assert helper["image"] == "labwright.local/busybox:1.35.0"


def test_local_path_starts_anew_when_its_configuration_changes() -> None:
    before = workload(render("local-path", facts()))["spec"]["template"]["metadata"]
    given = facts()
    given["lab_image_refs"]["busybox"] = "labwright.local/busybox:1.36.1"
    assert workload(render("local-path", given))["spec"]["template"]["metadata"] != before


def test_the_metrics_api_is_deleted_before_its_server() -> None:
    assert render("metrics-server", facts())[-1]["kind"] == "APIService"


def test_metrics_server_asks_less_often_than_a_kubelet_may_take() -> None:
    # It does not start otherwise (cmd/metrics-server/app/options/options.go).
    (container,) = workload(render("metrics-server", facts()))["spec"]["template"]["spec"][
        "containers"
    ]
    (every,) = (a for a in container["args"] if a.startswith("--metric-resolution="))
    assert int(every.partition("=")[2].removesuffix("s")) * 9 / 10 >= 10


@pytest.mark.parametrize("name", ["load-balancer", "traefik"])
def test_who_reaches_pods_reads_endpoint_slices_and_no_endpoints(name: str) -> None:
    allowed = set(rights(render(name, facts())))
    assert ("endpointslices", "watch") in allowed
    assert "endpoints" not in {resource for resource, _verb in allowed}


def test_traefik_listens_at_the_nodes_lab_address_and_on_its_loopback_alone() -> None:
    pods = workload(render("traefik", facts()))["spec"]["template"]["spec"]
    (container,) = pods["containers"]
    listens = [a.split("=", 1)[1] for a in container["args"] if re.search(r"\.address=", a)]
    assert sorted(listens) == ["$(HOST_IP):443", "$(HOST_IP):80", "127.0.0.1:9180"]
    assert container["env"] == [
        {"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}
    ]
    assert container["readinessProbe"]["httpGet"]["host"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("nodes", "schedulable", "tolerates", "shown"),
    [
        (NODES, False, False, "192.168.56.21"),
        (NODES, True, False, "192.168.56.11"),
        (NODES[:1], False, True, "192.168.56.11"),
    ],
)
def test_traefik_runs_where_ordinary_pods_may(
    nodes: list[dict[str, str]], schedulable: bool, tolerates: bool, shown: str
) -> None:
    given = facts(lab_cluster_nodes=nodes, lab_schedule_on_control_planes=schedulable)
    pods = workload(render("traefik", given))["spec"]["template"]["spec"]
    assert ("tolerations" in pods) == tolerates
    told = f"--providers.kubernetesingress.ingressendpoint.ip={shown}"
    assert told in pods["containers"][0]["args"]


def test_metallb_is_told_the_range_and_announces_it() -> None:
    manifest = render("load-balancer", facts())
    (pool,) = (t for t in manifest if t["kind"] == "IPAddressPool")
    assert pool["spec"]["addresses"] == ["192.168.56.200-192.168.56.249"]
    (announced,) = (t["spec"] for t in manifest if t["kind"] == "L2Advertisement")
    assert announced["ipAddressPools"] == [pool["metadata"]["name"]]


def test_speakers_listen_at_the_nodes_lab_address() -> None:
    manifest = render("load-balancer", facts())
    (pods,) = (t["spec"]["template"]["spec"] for t in manifest if t["kind"] == "DaemonSet")
    (container,) = pods["containers"]
    host = {"fieldRef": {"fieldPath": "status.hostIP"}}
    bound = {e["name"] for e in container["env"] if e.get("valueFrom") == host}
    assert bound == {"METALLB_ML_BIND_ADDR"}
    # Metrics know no address: the port is the one that the role network guards.
    script = ROLES / "network/templates/usr/local/sbin/labwright-pod-routes.j2"
    assert "METRICS=9120\n" in script.read_text(encoding="utf-8")
    assert not [word for word in container["args"] if word.startswith("--port")]
    assert container["readinessProbe"]["httpGet"]["host"] == "127.0.0.1"


def test_cert_managers_webhook_is_set_up_last_and_no_key_is_in_the_manifest() -> None:
    manifest = render("cert-manager", facts())
    kinds = [thing["kind"] for thing in manifest]
    issuer = kinds.index("ClusterIssuer")
    assert {k for k in kinds[issuer + 1 :] if k.endswith("WebhookConfiguration")} == set(kinds[-2:])
    assert "Secret" not in kinds
    secret = manifest[issuer]["spec"]["ca"]["secretName"]
    (mutating,) = manifest[kinds.index("MutatingWebhookConfiguration")]["webhooks"]
    (rule,) = mutating["rules"]
    assert (rule["operations"], rule["resources"]) == (["CREATE"], ["certificaterequests"])
    given = yaml.safe_load((ROLES / "cert_manager/vars/main.yml").read_text("utf-8"))
    assert given["__cert_manager_authority"]["metadata"]["name"] == secret


def without_volumes() -> dict[str, Any]:
    given = facts()
    given["lab_addons"]["local-path"]["enabled"] = False
    return given


def test_the_registry_keeps_images_on_a_volume_where_there_are_volumes() -> None:
    manifest = render("registry", facts())
    (claim,) = (t for t in manifest if t["kind"] == "PersistentVolumeClaim")
    assert claim["spec"]["storageClassName"] == "local-path"
    pods = workload(manifest)["spec"]["template"]["spec"]
    assert not {"nodeSelector", "tolerations"} & set(pods)


def test_the_registry_keeps_images_on_the_first_control_plane_otherwise() -> None:
    manifest = render("registry", without_volumes())
    assert not names(manifest, "PersistentVolumeClaim")
    pods = workload(manifest)["spec"]["template"]["spec"]
    assert pods["nodeSelector"] == {"kubernetes.io/hostname": "cp1"}
    (folder,) = (v["hostPath"]["path"] for v in pods["volumes"] if "hostPath" in v)
    assert folder == "/var/lib/labwright/registry"
    assert {t["key"] for t in pods["tolerations"]} == {"node-role.kubernetes.io/control-plane"}


def test_the_registry_answers_at_its_address_and_deletes_images() -> None:
    manifest = render("registry", facts())
    (service,) = (t for t in manifest if t["kind"] == "Service")
    assert service["metadata"]["annotations"] == {
        "labwright.local/address": "registry.lab.internal:30500"
    }
    assert service["spec"]["ports"][0]["nodePort"] == 30500
    (text,) = (t["data"]["config.yml"] for t in manifest if t["kind"] == "ConfigMap")
    config = yaml.safe_load(text)
    assert config["storage"]["delete"] == {"enabled": True}
    (container,) = workload(manifest)["spec"]["template"]["spec"]["containers"]
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert config["storage"]["filesystem"]["rootdirectory"] == mounts["images"]
    assert config["http"]["tls"]["key"] == f"{mounts['tls']}/tls.key"


def test_another_certificate_is_another_pod(tls: Path, tmp_path: Path) -> None:
    before = render("registry", facts())
    for name in ("registry.crt", "registry.key"):
        (tmp_path / name).write_text(f"another {(tls / name).read_text()}")
    after = render("registry", facts(lab_tls=str(tmp_path)))
    assert (
        workload(before)["spec"]["template"]["metadata"]
        != (workload(after)["spec"]["template"]["metadata"])
    )


def secret(manifest: Manifest) -> dict[str, str]:
    (found,) = (t["data"] for t in manifest if t["kind"] == "Secret")
    return dict(found)


def test_what_a_secret_holds_is_applied_and_not_kept(program: ModuleType) -> None:
    manifest = render("registry", facts())
    held = secret(manifest)
    assert {k: base64.b64decode(v) for k, v in held.items()} == {
        "tls.crt": b"the certificate\n",
        "tls.key": b"the key\n",
    }
    kept = program.sealed(program.labelled("registry", manifest))
    assert all(value not in json.dumps(kept) for value in held.values())
    assert [program.identity(t) for t in kept] == [program.identity(t) for t in manifest]
    assert program.sealed(kept) == kept


def test_ansible_asks_with_the_secrets_that_the_program_would_keep(program: ModuleType) -> None:
    # The program's digest must not depend on who sealed the manifest.
    variables = yaml.safe_load((ROLES / "addons/vars/main.yml").read_text("utf-8"))
    text = re.sub(r"lookup\(.*?\.j2'\)", "rendered", variables["__addons_manifests"])
    manifest = render("registry", facts())
    told = {
        "__addons_roles": ADDONS,
        "__addons_enabled": ["registry"],
        "rendered": yaml.safe_dump_all(manifest),
    }
    found = Templar(DataLoader(), told).template(trust_as_template(text))
    assert found == {"registry": program.sealed(manifest)}


def test_another_key_is_another_digest(tmp_path: Path, tls: Path, program: ModuleType) -> None:
    shutil.copy(tls / "registry.crt", tmp_path)
    (tmp_path / "registry.key").write_text("another key\n")
    one, two = (render("registry", facts(lab_tls=str(f))) for f in (tls, tmp_path))
    assert program.digest("registry", one) == program.digest("registry", program.sealed(one))
    assert program.digest("registry", one) != program.digest("registry", two)


def test_an_error_of_kubectl_does_not_show_a_secret(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = render("registry", facts())
    key = secret(manifest)["tls.key"]

    def refuse(*words: str, stdin: dict[str, Any] | None = None) -> str:
        if words[0] == "apply":
            raise subprocess.CalledProcessError(1, words, stderr=f"applying {json.dumps(stdin)}")
        return ""

    monkeypatch.setattr(program, "kubectl", refuse)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        program.apply("registry", manifest)
    assert key not in caught.value.stderr
    assert "(secret)" in caught.value.stderr


def test_claims_go_before_the_provisioner_of_their_volumes(program: ModuleType) -> None:
    order = sorted(ADDONS, key=lambda name: program.turn(render(name, facts())))
    assert order == [
        "metrics-server",
        "registry",
        *(name for name in ADDONS if name not in {"metrics-server", "registry"}),
    ]


@pytest.mark.parametrize("name", ADDONS)
def test_what_is_applied_is_marked_kept_and_deleted_as_the_same_objects(
    name: str, program: ModuleType
) -> None:
    manifest = render(name, facts())
    marked = program.labelled(name, manifest)
    assert {t["metadata"]["labels"][program.LABEL] for t in marked} == {name}
    for thing in workloads(marked):
        assert thing["spec"]["template"]["metadata"]["labels"][program.LABEL] == name
    assert [program.identity(t) for t in marked] == [program.identity(t) for t in manifest]
    assert len({program.identity(t) for t in marked}) == len(marked)


def test_a_kind_is_served_before_objects_of_it_are_made(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, set[str]]] = []

    def kubectl(*words: str, stdin: dict[str, Any] | None = None) -> str:
        items = (stdin or {}).get("items", ())
        asked.append((words[0], {thing["kind"] for thing in items}))
        return ""

    monkeypatch.setattr(program, "kubectl", kubectl)
    program.apply("load-balancer", render("load-balancer", facts()))
    first, wait, second = [(word, kinds) for word, kinds in asked if kinds]
    assert first == ("apply", {"CustomResourceDefinition"})
    assert wait == ("wait", {"CustomResourceDefinition"})
    assert second[0] == "apply"
    assert "IPAddressPool" in second[1]
    assert "CustomResourceDefinition" not in second[1]


def test_a_digest_is_of_the_content_and_not_of_the_order_of_keys(program: ModuleType) -> None:
    manifest = render("traefik", facts())
    turned = [dict(reversed(thing.items())) for thing in manifest]
    assert program.digest("traefik", manifest) == program.digest("traefik", turned)
    other = render("traefik", facts("1.31.14"))
    assert program.digest("traefik", manifest) != program.digest("traefik", other)


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({"observedGeneration": 2, "updatedReplicas": 1, "readyReplicas": 1}, True),
        ({"observedGeneration": 1, "updatedReplicas": 1, "readyReplicas": 1}, False),
        ({"observedGeneration": 2, "readyReplicas": 1}, False),
        ({}, False),
    ],
)
def test_a_deployment_is_ready_with_its_newest_pods(
    program: ModuleType, status: dict[str, int], ready: bool
) -> None:
    thing = {"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 1}}
    assert program.ready({**thing, "status": status}) == ready


def test_a_daemon_set_without_a_node_is_not_ready(program: ModuleType) -> None:
    thing = {"kind": "DaemonSet", "metadata": {"generation": 1}, "spec": {}}
    status = {"observedGeneration": 1, "desiredNumberScheduled": 0, "numberReady": 0}
    assert not program.ready({**thing, "status": status})
    some = {"desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberReady": 2}
    assert program.ready({**thing, "status": {"observedGeneration": 1, **some}})
