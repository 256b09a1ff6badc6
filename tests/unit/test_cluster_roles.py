"""What the roles that make the cluster write for kubeadm and containerd."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader  # type: ignore[import-untyped]
from ansible.template import Templar, trust_as_template  # type: ignore[import-untyped]

ROLES = Path(__file__).resolve().parents[2] / "playbooks" / "roles"
KUBEADM = "etc/labwright/kubeadm.yaml.j2"
PLANE = {"name": "cp1", "address": "192.168.56.11", "role": "control_plane"}
FACTS: Mapping[str, Any] = {
    "inventory_hostname": "cp1",
    "lab_name": "lab",
    "lab_kubernetes_version": "1.36.3",
    "lab_node_address": "192.168.56.11",
    "lab_control_plane_endpoint": "192.168.56.11:6443",
    "lab_image_repository": "labwright.local",
    "lab_image_refs": {
        "etcd": "labwright.local/etcd:3.6.16",
        "pause": "labwright.local/pause:3.10",
    },
    "lab_images": [],
    "lab_packages": {"containerd": "2.3.7", "containernetworking-plugins": "1.10.0"},
    "lab_subnet": "192.168.56.0/24",
    "lab_pod_cidr": "10.244.0.0/16",
    "lab_service_cidr": "10.96.0.0/16",
    "lab_dns_service_ip": "10.96.0.10",
    "lab_cgroup": 2,
    "lab_cgroup_driver": "systemd",
    "lab_own_kernel": True,
    "lab_conntrack_tunable": True,
    "lab_restrict_oom_score_adj": False,
    "lab_kube_proxy_mode": "iptables",
    "lab_schedule_on_control_planes": False,
    "lab_cluster_nodes": [PLANE, {"name": "w1", "address": "192.168.56.21", "role": "worker"}],
    "lab_containerd_config_version": 3,
    "lab_registry_mirrors": [],
    "lab_registries": [],
    "lab_patience": 1,
    "groups": {"control_planes": ["cp1"]},
    "__worker_token": "abcdef.0123456789abcdef",
    "__worker_ca_hash": "sha256:00",
}
CONTAINER = {"lab_own_kernel": False, "lab_cgroup": 1, "lab_cgroup_driver": "cgroupfs"}


def templar(role: str, **facts: Any) -> Templar:
    """Return what evaluates a role's templates: its defaults and variables over the lab's facts."""
    words = {
        name: trust_as_template(value) if isinstance(value, str) else value
        for kind in ("defaults", "vars")
        for path in (ROLES / role).glob(f"{kind}/main.yml")
        for name, value in yaml.safe_load(path.read_text("utf-8")).items()
    }
    return Templar(DataLoader(), {**words, **FACTS, **facts})


def rendered(role: str, path: str, **facts: Any) -> str:
    text = (ROLES / role / "templates" / path).read_text("utf-8")
    trusted = trust_as_template(f"#jinja2: trim_blocks: True, lstrip_blocks: False\n{text}")
    return str(templar(role, **facts).copy_with_new_env().template(trusted))


def documents(**facts: Any) -> dict[str, Any]:
    """Return the parts of kubeadm's configuration by kind."""
    parts = list(yaml.safe_load_all(rendered("control_plane", KUBEADM, **facts)))
    return {part["kind"]: part for part in parts}


def arguments(**facts: Any) -> dict[str, dict[str, str]]:
    """Return the extra arguments of each part of the control plane."""
    cluster = documents(**facts)["ClusterConfiguration"]
    return {
        part: {pair["name"]: pair["value"] for pair in cluster.get(part, {}).get("extraArgs", [])}
        for part in ("apiServer", "controllerManager", "scheduler")
    }


def value(role: str, word: str, **facts: Any) -> Any:
    return templar(role, **facts).template(trust_as_template("{{ " + word + " }}"))


def test_kubeadm_takes_the_images_that_the_node_has() -> None:
    parts = documents()
    assert parts["InitConfiguration"]["nodeRegistration"] == {
        "name": "cp1",
        "criSocket": "unix:///run/containerd/containerd.sock",
        "imagePullPolicy": "Never",
    }
    assert parts["ClusterConfiguration"]["etcd"]["local"] == {
        "imageRepository": "labwright.local",
        "imageTag": "3.6.16",
    }
    join = yaml.safe_load(rendered("worker", "join.yaml.j2"))
    assert join["nodeRegistration"]["imagePullPolicy"] == "Never"
    apis = {p["apiVersion"] for p in (*parts.values(), join) if "kubeadm" in p["apiVersion"]}
    assert apis == {"kubeadm.k8s.io/v1beta4"}


@pytest.mark.parametrize("role", ["control_plane", "worker"])
def test_only_what_a_container_cannot_change_is_ignored_by_preflight(role: str) -> None:
    assert value(role, f"{role}_ignored_preflight_errors") == []
    shared = value(role, f"{role}_ignored_preflight_errors", **CONTAINER)
    assert shared == ["SystemVerification", "Swap"]


def test_a_single_control_plane_elects_no_leader() -> None:
    slow = arguments(lab_patience=4)
    assert slow == arguments()
    assert slow["scheduler"] == {"leader-elect": "false"}
    assert slow["controllerManager"] == {
        "allocate-node-cidrs": "false",
        "kube-api-qps": "200",
        "kube-api-burst": "400",
        "leader-elect": "false",
    }


@pytest.mark.parametrize(
    ("patience", "election"),
    [
        (1, {}),
        (
            4,
            {
                "leader-elect-lease-duration": "60s",
                "leader-elect-renew-deadline": "40s",
                "leader-elect-retry-period": "8s",
            },
        ),
    ],
)
def test_several_control_planes_elect_one_and_have_time_for_it(
    patience: int, election: dict[str, str]
) -> None:
    nodes = [PLANE, {**PLANE, "name": "cp2"}, {**PLANE, "name": "cp3"}]
    found = arguments(lab_cluster_nodes=nodes, lab_patience=patience)
    assert found["scheduler"] == election
    assert "leader-elect" not in found["controllerManager"]
    assert found["controllerManager"].items() >= election.items()


@pytest.mark.parametrize("cgroup", [1, 2])
def test_kubelet_is_told_to_run_on_cgroup_1(cgroup: int) -> None:
    kubelet = documents(lab_cgroup=cgroup)["KubeletConfiguration"]
    assert kubelet.get("failCgroupV1") is (False if cgroup == 1 else None)


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_kube_proxy_has_the_mode_of_the_plan(mode: str) -> None:
    assert documents(lab_kube_proxy_mode=mode)["KubeProxyConfiguration"]["mode"] == mode
    specs = yaml.safe_load((ROLES / "control_plane/meta/argument_specs.yml").read_text("utf-8"))
    options = specs["argument_specs"]["main"]["options"]
    assert mode in options["control_plane_kube_proxy_mode"]["choices"]


@pytest.mark.parametrize(
    ("version", "key", "folders"),
    [(3, "bin_dirs", ["/opt/cni/bin"]), (2, "bin_dir", "/opt/cni/bin")],
)
def test_containerd_finds_the_cni_plugins_in_the_words_of_its_format(
    version: int, key: str, folders: object
) -> None:
    facts = {"lab_containerd_config_version": version}
    config = tomllib.loads(rendered("containerd", "etc/containerd/config.toml.j2", **facts))
    assert config["version"] == version
    runtime = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}[version]
    assert config["plugins"][runtime]["cni"] == {key: folders, "conf_dir": "/etc/cni/net.d"}
