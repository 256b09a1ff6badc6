"""What is rendered says what the plan says, and nothing in lab.yaml becomes code."""

from __future__ import annotations

import random
import re
import shutil
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from labwright import render
from labwright.events import mask
from labwright.model import Machine, ProviderName
from labwright.tools import workdir
from labwright.tools.shell import Shell
from labwright.tools.vagrant import parse_ssh_config
from tests.fakes import HOSTS, STOCK, planned

NASTY = (
    "",
    "plain",
    'say "hi"',
    "it's",
    "#{exit 3}",
    "\\#{exit 3}",
    "\\\\#{exit 3}",
    "#$0 #@x #@@y",
    '"; exit 3; "',
    "`exit 3` %x(exit 3) <%= 3 %> {{ 3 }}",
    "back\\slash\\",
    "line\nend\r\ttab \b\f\v\x00\x07\x1b\x7f",
    "/slashes/ äöü ☃ 😀 \u2028\u2029 \ufeff",
)


def random_texts(count: int) -> list[str]:
    choose = random.Random(20).choice  # noqa: S311 - the same texts every time
    letters = "#{}\"'\\$@`\n\0ä😀 ax1e"
    return ["".join(choose(letters) for _ in range(12)) for _ in range(count)]


@pytest.mark.skipif(not shutil.which("ruby"), reason="ruby is not on PATH; vagrant brings it")
def test_ruby_reads_back_every_text() -> None:
    texts = [*NASTY, *random_texts(400)]
    literals = ",\n".join(render.ruby(text) for text in texts)
    script = f"# encoding: utf-8\n[{literals}].each {{ |text| puts text.unpack1('H*') }}\n"
    out = Shell().run(["ruby", "-"], input=script).out
    assert [bytes.fromhex(line).decode() for line in out.splitlines()] == texts


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_starts_an_interpolation_or_ends_its_quotes(text: str) -> None:
    literal = render.ruby(text)
    assert re.fullmatch(r'"(\\.|[^"\\#])*"', literal, re.DOTALL)
    assert "\n" not in literal


@pytest.mark.skipif(not shutil.which("ruby"), reason="ruby is not on PATH; vagrant brings it")
@pytest.mark.parametrize("text", ['"; exit 3; "#{exit 3}', "line\n`exit 3`\\", "%x(exit 3)"])
def test_a_box_of_any_name_stays_a_word(text: str) -> None:
    plan = planned(
        {"provider": "virtualbox", "box": {"name": text, "version": text, "url": text}},
        HOSTS["virtualbox"],
    )
    said = """
        module Vagrant
          def self.configure(_version) = yield(Anything.new)
        end
        class Anything
          def method_missing(name, *words)
            puts words[0].unpack1("H*") if name.to_s.start_with?("box=", "box_version=", "box_url=")
            yield Anything.new if block_given?
            self
          end
        end
        eval(STDIN.read)
    """
    out = Shell().run(["ruby", "-e", said], input=render.vagrantfile(plan)).out
    assert [bytes.fromhex(line).decode() for line in out.splitlines()] == [text] * 3


def test_a_template_that_names_what_is_not_there_fails() -> None:
    plan = planned({"provider": "virtualbox"}, HOSTS["virtualbox"])
    no_version: Any = SimpleNamespace(name="x/y")
    with pytest.raises(UndefinedError, match="version"):
        render.vagrantfile(replace(plan, box=no_version))


@pytest.mark.parametrize("provider", HOSTS)
def test_every_node_is_defined_once(provider: ProviderName) -> None:
    text = render.vagrantfile(planned({"provider": provider, "workers": 4}, HOSTS[provider]))
    assert re.findall(r'config\.vm\.define "(\w+)"(, primary: true)?', text) == [
        ("cp1", ", primary: true"),
        *((f"w{i}", "") for i in range(1, 5)),
    ]
    assert re.findall(r'ip: "([\d.]+)"', text) == [
        "192.168.56.11",
        *(f"192.168.56.{20 + i}" for i in range(1, 5)),
    ]


def test_a_box_s_checksum_goes_in_without_its_kind() -> None:
    digest = "ab" * 32
    raw = {"provider": "libvirt", "box": {"name": "x/y", "checksum": f"sha256:{digest}"}}
    text = render.vagrantfile(planned(raw, HOSTS["libvirt"]))
    assert f'box_download_checksum = "{digest}"' in text
    assert 'box_download_checksum_type = "sha256"' in text


def test_containers_are_given_no_more_cpus_than_the_host_has() -> None:
    text = render.vagrantfile(planned({"defaults": {"cpus": 64}}))
    assert "--cpus=4" in text
    assert "--cpus=64" not in text


def test_the_inventory_has_the_facts() -> None:
    plan = planned({"schedule_on_control_planes": True})
    tree = yaml.safe_load(render.inventory(plan, STOCK))
    assert list(tree) == ["nodes"]
    nodes = tree["nodes"]
    assert nodes["hosts"]["w1"] == {
        "lab_node_address": "192.168.56.21",
        "lab_node_pod_cidr": "10.244.1.0/24",
        "lab_node_role": "worker",
    }
    assert list(nodes["hosts"]) == ["cp1", "w1", "w2"]
    assert nodes["children"] == {
        "control_planes": {"hosts": {"cp1": None}},
        "workers": {"hosts": {"w1": None, "w2": None}},
    }
    facts = nodes["vars"]
    expected = {
        "lab_name": "lab",
        "lab_kubernetes_version": "1.20.2",
        "lab_kubeadm_api": "v1beta2",
        "lab_subnet": "192.168.56.0/24",
        "lab_pod_cidr": "10.244.0.0/16",
        "lab_service_cidr": "10.96.0.0/16",
        "lab_dns_service_ip": "10.96.0.10",
        "lab_dns_enabled": True,
        "lab_control_plane_endpoint": "192.168.56.11:6443",
        "lab_schedule_on_control_planes": True,
        "lab_packages": {"kubeadm": "1.20.2-00", "containerd": "1.6.20~ds1-1"},
        "lab_image_repository": "labwright.local",
        "lab_containerd_config_version": 2,
        "lab_cgroup_driver": "systemd",
        "lab_own_kernel": False,
        "lab_restrict_oom_score_adj": False,
        "lab_conntrack_tunable": False,
        "lab_upstream_dns": ["10.0.0.2"],
    }
    assert {name: facts.get(name) for name in expected} == expected
    assert facts["lab_apt_sources"][0]["uris"] == ["http://192.168.56.1:8750/apt/"]
    assert facts["lab_images"][0] == {
        "name": "pause",
        "ref": "labwright.local/pause:3.2",
        "digest": "sha256:" + "5e" * 32,
        "archive_url": "http://192.168.56.1:8750/images/pause.tar",
    }
    assert facts["lab_image_refs"]["coredns"] == "labwright.local/coredns:1.10.1"
    assert [n["name"] for n in facts["lab_cluster_nodes"]] == ["cp1", "w1", "w2"]


@pytest.mark.parametrize("provider", HOSTS)
def test_no_provider_and_no_supply_is_named_to_the_roles(provider: ProviderName) -> None:
    text = render.inventory(planned({"provider": provider}, HOSTS[provider]), STOCK)
    assert not re.search(r"virtualbox|libvirt|docker|\bsupply\b", text, re.IGNORECASE)


@pytest.mark.parametrize("provider", HOSTS)
def test_the_lock_says_all_that_the_plan_resolved(provider: ProviderName) -> None:
    plan = planned({"provider": provider, "workers": 3}, HOSTS[provider])
    lock = yaml.safe_load(render.lock(plan, STOCK))
    assert (lock["name"], lock["provider"], lock["supply"]) == (plan.name, provider, plan.supply)
    assert lock["versions"] == plan.versions
    assert IPv4Network(lock["subnet"]) == plan.subnet
    assert IPv4Network(lock["pods"]) == plan.pods
    assert IPv4Network(lock["services"]) == plan.services
    assert lock["addons"] == list(plan.addons)
    assert lock["node_image"] == plan.node_image
    assert lock["store"] == plan.keys
    assert lock["packages"] == STOCK.packages
    assert lock["images"]["pause"]["digest"] == STOCK.images["pause"]["digest"]
    assert list(lock["nodes"]) == [n.name for n in plan.nodes]
    for node in plan.nodes:
        kept = lock["nodes"][node.name]
        assert IPv4Interface(kept["address"]) == node.address
        assert IPv4Network(kept["pods"]) == node.pods
        assert (kept["role"], kept["mac"]) == (node.role, node.mac)
        sizes = (kept["cpus"], kept["memory"], kept["disk"])
        assert sizes == (node.size.cpus, node.size.memory, node.size.disk)


def test_a_lock_keeps_a_lab_where_it_was(tmp_path: Path) -> None:
    plan = planned({"network": {"subnet": "192.168.60.0/24"}})
    lab = workdir.Workdir(tmp_path, plan.name)
    lab.write(render.files(plan, STOCK))
    assert planned(kept_subnet=str(lab.kept()["subnet"])).nodes == plan.nodes


@pytest.mark.parametrize("provider", HOSTS)
def test_files_hold_no_secret_and_no_path_of_this_host(provider: ProviderName) -> None:
    box = {"name": "x/y", "version": "1", "url": "https://boxes.lan/y.box"}
    files = render.files(planned({"provider": provider, "box": box}, HOSTS[provider]), STOCK)
    assert set(files) == {"Vagrantfile", "inventory/hosts.yml", "lab.lock"}
    for name, text in files.items():
        assert mask(text) == text, name
        for path in (render.ROOT, Path.home(), Path.cwd(), workdir.cache()):
            assert str(path) not in text, name
        assert text.endswith("\n")
        assert "Written by Labwright" in text


@pytest.mark.parametrize("provider", HOSTS)
def test_the_same_plan_gives_the_same_bytes(provider: ProviderName) -> None:
    one, two = (
        render.files(planned({"provider": provider}, HOSTS[provider]), STOCK) for _ in range(2)
    )
    assert one == two


REACHED = {
    "cp1": Machine("cp1", "127.0.0.1", 2222, "vagrant", "/home/some one/.lab/ssh/id"),
    "w1": Machine("w1", "172.17.0.3", 22, "vagrant", "/k"),
}


def test_machines_are_the_other_half_of_the_inventory() -> None:
    tree = yaml.safe_load(render.machines(REACHED))
    assert tree["nodes"]["hosts"]["cp1"] == {
        "ansible_host": "127.0.0.1",
        "ansible_port": 2222,
        "ansible_user": "vagrant",
        "ansible_ssh_private_key_file": "/home/some one/.lab/ssh/id",
    }


def test_ssh_s_configuration_reads_back(tmp_path: Path) -> None:
    text = render.ssh_config(REACHED, tmp_path / "known hosts")
    assert parse_ssh_config(text) == REACHED


@pytest.mark.skipif(not shutil.which("ssh"), reason="ssh is not on PATH")
def test_ssh_itself_understands_its_configuration(tmp_path: Path) -> None:
    config = tmp_path / "ssh_config"
    config.write_text(render.ssh_config(REACHED, tmp_path / "known hosts"))
    out = Shell().run(["ssh", "-G", "-F", config, "cp1"]).out
    said = dict(line.partition(" ")[::2] for line in out.splitlines())
    assert (said["hostname"], said["port"], said["user"]) == ("127.0.0.1", "2222", "vagrant")
    assert said["identityfile"] == "/home/some one/.lab/ssh/id"
    assert said["userknownhostsfile"] == str(tmp_path / "known hosts")
    assert said["stricthostkeychecking"] == "true"
    assert said["passwordauthentication"] == "no"
