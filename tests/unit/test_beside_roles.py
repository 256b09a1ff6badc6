"""What the roles of nodes beside the cluster write, as Ansible renders it."""

from __future__ import annotations

import json
import shlex
import subprocess
import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader  # type: ignore[import-untyped]
from ansible.template import Templar, trust_as_template  # type: ignore[import-untyped]

ROLES = Path(__file__).resolve().parents[2] / "playbooks" / "roles"
RANGE = IPv4Network("10.57.0.0/16")
FACTS: Mapping[str, Any] = {
    "lab_addons": {"registry": {"enabled": True}},
    "lab_cgroup_driver": "cgroupfs",
    "lab_container_network": str(RANGE),
    "lab_node_address": "192.168.56.111",
    "lab_packages": {"kubectl": "1.20.2-1"},
    "lab_registry_address": "registry.lab.internal:30500",
    "lab_role_packages": {"docker.io": "20.10"},
    "lab_subnet": "192.168.56.0/24",
    "groups": {"control_planes": ["cp1"]},
}


def templar(role: str, **facts: Any) -> Templar:
    """Give what evaluates a role's words: its defaults and variables over the lab's facts."""
    words: dict[str, Any] = {}
    for kind in ("defaults", "vars"):
        words |= yaml.safe_load((ROLES / role / kind / "main.yml").read_text("utf-8"))
    return Templar(DataLoader(), {**FACTS, **facts, **trusted(words)})


def trusted(words: Any) -> Any:
    """Mark each text as a template, as Ansible does with what it reads from a role."""
    if isinstance(words, dict):
        return {name: trusted(word) for name, word in words.items()}
    if isinstance(words, list):
        return [trusted(word) for word in words]
    return trust_as_template(words) if isinstance(words, str) else words


def rendered(role: str, path: str, **facts: Any) -> str:
    text = (ROLES / role / "templates" / f"{path}.j2").read_text("utf-8")
    text = trust_as_template(f"#jinja2: trim_blocks: True, lstrip_blocks: False\n{text}")
    return str(templar(role, **facts).copy_with_new_env().template(text))


def value(role: str, word: str, **facts: Any) -> Any:
    return templar(role, **facts).template(trust_as_template("{{ " + word + " }}"))


def test_the_ranges_of_docker_podman_and_lxc_lie_in_the_planned_one_and_apart() -> None:
    docker = json.loads(rendered("tools", "etc/docker/daemon.json"))
    podman = tomllib.loads(rendered("tools", "etc/containers/containers.conf"))
    lxc = dict(word.split("=") for word in shlex.split(rendered("tools", "etc/default/lxc-net")))
    ranges = [
        IPv4Interface(docker["bip"]).network,
        IPv4Network(docker["default-address-pools"][0]["base"]),
        IPv4Network(podman["network"]["default_subnet"]),
        IPv4Network(podman["network"]["default_subnet_pools"][0]["base"]),
        IPv4Network(lxc["LXC_NETWORK"]),
    ]
    assert all(found.subnet_of(RANGE) for found in ranges)
    assert not [(a, b) for a in ranges for b in ranges if a != b and a.overlaps(b)]
    assert len(set(ranges)) == len(ranges)
    for address in (lxc["LXC_ADDR"], *lxc["LXC_DHCP_RANGE"].split(",")):
        assert IPv4Address(address) in IPv4Network(lxc["LXC_NETWORK"])
    assert podman["engine"]["cgroup_manager"] == "cgroupfs"


@pytest.mark.parametrize(
    ("addons", "folders"),
    [
        (
            {"registry": {"enabled": True}},
            [
                "/etc/docker/certs.d/registry.lab.internal:30500",
                "/etc/containers/certs.d/registry.lab.internal:30500",
            ],
        ),
        ({"registry": {"enabled": False}}, []),
        ({}, []),
    ],
)
def test_a_registry_is_trusted_where_there_is_one(
    addons: Mapping[str, Any], folders: list[str]
) -> None:
    assert list(value("tools", "__tools_registry_folders", lab_addons=addons)) == folders


def test_kubectl_is_of_the_labs_version() -> None:
    assert value("tools", "tools_packages") == {"docker.io": "20.10", "kubectl": "1.20.2-1"}


def test_the_nas_serves_the_labs_subnet_at_its_address() -> None:
    text = rendered("nas", "etc/ganesha/ganesha.conf")
    assert text.count("{") == text.count("}")
    lines = [line.strip() for line in text.splitlines()]
    assert "Bind_addr = 192.168.56.111;" in lines
    assert "Clients = 192.168.56.0/24;" in lines
    # Nobody else: what no client block names has no access.
    assert "Access_Type = NONE;" in lines


def test_the_example_volume_is_on_the_nas_and_its_claim_is_for_it() -> None:
    volume, claim = yaml.safe_load_all(rendered("nas", "usr/share/doc/labwright/nas-volume.yaml"))
    assert volume["spec"]["nfs"] == {"server": "192.168.56.111", "path": "/srv/nfs"}
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert (volume["spec"]["storageClassName"], claim["spec"]["storageClassName"]) == ("", "")
    assert volume["spec"]["accessModes"] == claim["spec"]["accessModes"]


def test_what_stops_kubelet_is_a_script_of_a_plain_shell() -> None:
    tasks = yaml.safe_load((ROLES / "idle/tasks/main.yml").read_text("utf-8"))
    words = trust_as_template(tasks[0]["ansible.builtin.command"]["stdin"])
    script = str(templar_of_idle().template(words))
    assert "kubelet.service" in script
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def templar_of_idle() -> Templar:
    words = yaml.safe_load((ROLES / "idle/defaults/main.yml").read_text("utf-8"))
    return Templar(DataLoader(), words)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_registry_that_went_is_forgotten_and_no_other(tmp_path: Path, enabled: bool) -> None:
    text = (ROLES / "tools/templates/lacks.sh.j2").read_text("utf-8")
    part = text[text.index("for link in") : text.index("{% for unit in")]
    facts = {"lab_addons": {"registry": {"enabled": enabled}}}
    part = trust_as_template(f"#jinja2: trim_blocks: True, lstrip_blocks: False\n{part}")
    script = str(templar("tools", **facts).copy_with_new_env().template(part))
    now, old = "registry.lab.internal:30500", "registry.old.internal:30500"
    folders = [tmp_path / "docker/certs.d", tmp_path / "containers/certs.d"]
    for folder in folders:
        for name, target in {now: "labwright/ca.crt", old: "labwright/ca.crt", "own": "x"}.items():
            (folder / name).mkdir(parents=True)
            (folder / name / "ca.crt").symlink_to(tmp_path / target)
    done = subprocess.run(
        ["sh", "-eu"],
        input=script.replace("/etc/", f"{tmp_path}/"),
        capture_output=True,
        text=True,
        check=True,
    )
    gone = [old] if enabled else [now, old]
    said = sorted(done.stdout.splitlines())
    assert said == sorted(f"stale {folder / name}" for folder in folders for name in gone)
