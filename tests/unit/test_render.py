"""What is rendered says what the plan says, and nothing in lab.yaml becomes code."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
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

from labwright import lock, render
from labwright.events import mask
from labwright.locate import read_lock
from labwright.lock import Stocked
from labwright.model import Bastion, Box, Machine, Plan, ProviderName, SupplyName
from labwright.phases.fetch import stock
from labwright.recipes.base import DATA
from labwright.supplies import SUPPLIES
from labwright.supplies.base import ROLE_PACKAGES
from labwright.tools import workdir
from labwright.tools.shell import Shell
from labwright.tools.vagrant import parse_ssh_config
from tests.fakes import BESIDE, HOSTS, STOCK, armour, planned, run_of, upstream

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
    # Only its name and its path may be any text; none of the three is trusted to be anything.
    made = planned({"provider": "virtualbox", "box": {"name": text}}, HOSTS["virtualbox"])
    plan = replace(made, box=Box(text, text, text))
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


@pytest.mark.parametrize("provider", [name for name in HOSTS if name != "hosts"])
def test_every_node_is_defined_once(provider: ProviderName) -> None:
    text = render.vagrantfile(planned({"provider": provider, "workers": 4}, HOSTS[provider]))
    assert re.findall(r'config\.vm\.define "(\w+)"(, primary: true)?', text) == [
        ("cp1", ", primary: true"),
        *((f"w{i}", "") for i in range(1, 5)),
    ]
    assert re.findall(r'\bip: "([\d.]+)"', text) == [
        "192.168.56.11",
        *(f"192.168.56.{20 + i}" for i in range(1, 5)),
    ]


def test_a_box_s_checksum_goes_in_without_its_kind() -> None:
    digest = "ab" * 32
    box = {"name": "x/y", "url": "http://b.test/y.box", "checksum": f"sha256:{digest}"}
    raw = {"provider": "libvirt", "box": box}
    text = render.vagrantfile(planned(raw, HOSTS["libvirt"]))
    assert f'box_download_checksum = "{digest}"' in text
    assert 'box_download_checksum_type = "sha256"' in text


def test_an_emulated_machine_says_so_where_our_boot_loader_looks() -> None:
    fast, slow = (
        render.vagrantfile(
            planned({"provider": "libvirt"}, replace(HOSTS["libvirt"], kvm_boots=it))
        )
        for it in (True, False)
    )
    found = re.search(r'domain\.sysinfo = \{ "oem strings" => \["(.+)"\] \}', slow)
    assert found
    assert 'domain.driver = "qemu"' in slow
    assert "sysinfo" not in fast
    assert 'domain.driver = "kvm"' in fast
    loader = (DATA / "machine/boot/grub/grub.cfg").read_text("utf-8")
    assert f'[ "$said" = "{found[1]}" ]' in loader


def test_the_cpus_of_a_container_weigh_and_do_not_bound() -> None:
    text = render.vagrantfile(planned({"defaults": {"cpus": 64}}))
    assert f"--cpu-shares={64 * 1024}" in text
    assert "--cpus=" not in text


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
        "tools": {"hosts": {}},
        "nas": {"hosts": {}},
    }
    shared = nodes["vars"]
    expected = {
        "lab_name": "lab",
        "lab_kubernetes_version": "1.36.3",
        "lab_subnet": "192.168.56.0/24",
        "lab_pod_cidr": "10.244.0.0/16",
        "lab_service_cidr": "10.96.0.0/16",
        "lab_dns_service_ip": "10.96.0.10",
        "lab_dns_enabled": True,
        "lab_control_plane_endpoint": "192.168.56.11:6443",
        "lab_schedule_on_control_planes": True,
        "lab_packages": {"kubeadm": "1.36.3-1", "containerd.io": "2.3.7-1"},
        "lab_image_repository": "labwright.local",
        "lab_containerd_config_version": 3,
        "lab_cgroup_driver": "systemd",
        "lab_own_kernel": False,
        "lab_restrict_oom_score_adj": False,
        "lab_conntrack_tunable": False,
        "lab_kube_proxy_mode": "iptables",
        "lab_upstream_dns": ["10.0.0.2"],
    }
    assert {name: shared.get(name) for name in expected} == expected
    assert shared["lab_apt_sources"][0]["uris"] == ["http://192.168.56.1:8750/apt/"]
    assert shared["lab_images"][0] == {
        "name": "pause",
        "ref": "labwright.local/pause:3.10.2",
        "digest": "sha256:" + "5e" * 32,
        "archive_url": "http://192.168.56.1:8750/images/pause.tar",
    }
    assert shared["lab_image_refs"]["coredns"] == "labwright.local/coredns:v1.14.7"
    assert [n["name"] for n in shared["lab_cluster_nodes"]] == ["cp1", "w1", "w2"]


def test_nodes_beside_the_cluster_are_told_what_their_roles_need() -> None:
    plan = planned({"workers": 1, "tools": 1, "nas": 1})
    tree = yaml.safe_load(render.inventory(plan, BESIDE))["nodes"]
    assert list(tree["hosts"]) == ["cp1", "w1", "tools1", "nas1"]
    assert tree["children"]["tools"] == {"hosts": {"tools1": None}}
    assert tree["children"]["nas"] == {"hosts": {"nas1": None}}
    # They have names and are no members: no pod's route leads there, and nobody waits for them.
    assert [n["name"] for n in tree["vars"]["lab_cluster_nodes"]] == ["cp1", "w1"]
    assert {"address": "192.168.56.101", "names": ["tools1"]} in tree["vars"]["lab_names"]
    tools, nas = tree["hosts"]["tools1"], tree["hosts"]["nas1"]
    assert tools["lab_node_address"] == "192.168.56.101"
    assert tools["lab_container_network"] == "172.29.0.0/16"
    assert "lab_node_pod_cidr" not in {**tools, **nas}
    assert [s["uris"] for s in tools["lab_apt_sources"]] == [
        ["http://192.168.56.1:8750/apt/"],
        ["http://192.168.56.1:8750/apt-tools/"],
    ]
    # What a tool needs itself is apt's to know, and no fact.
    assert tools["lab_role_packages"]["docker.io"] == "20.10.24+dfsg1-1"
    assert "tini" not in tools["lab_role_packages"]
    assert nas["lab_role_packages"]["nfs-ganesha"] == "4.3-2"
    assert "docker.io" not in tree["vars"]["lab_packages"]


def test_vendors_serve_nodes_beside_the_cluster_too() -> None:
    plan = upstream({"tools": 1, "nas": 1})
    tree = yaml.safe_load(render.inventory(plan, stock(run_of(Path("nowhere"), plan))))["nodes"]
    assert "lab_apt_sources" not in tree["hosts"]["tools1"]
    told = {role: tree["hosts"][f"{role}1"]["lab_role_packages"] for role in ROLE_PACKAGES}
    assert set(ROLE_PACKAGES["tools"]) < set(told["tools"])
    assert set(ROLE_PACKAGES["nas"]) == set(told["nas"])
    assert all(version for found in told.values() for version in found.values())
    # These are installed on every node of the cluster.
    assert not set(tree["vars"]["lab_packages"]) & {*told["tools"], *told["nas"]}


def test_the_lock_names_what_only_one_node_has() -> None:
    content = yaml.safe_load(
        render.files(planned({"workers": 1, "tools": 1, "nas": 1}), BESIDE)["lab.lock"]
    )
    assert content["nodes"]["tools1"]["role"] == "tools"
    assert "pods" not in content["nodes"]["nas1"]
    assert content["role_packages"]["tools"]["tini"] == "0.19.0-1"
    assert "tini" not in content["packages"]


@pytest.mark.parametrize("provider", HOSTS)
@pytest.mark.parametrize("made", [planned, upstream], ids=["packages", "upstream"])
def test_no_provider_and_no_supply_is_named_to_the_roles(
    provider: ProviderName, made: Callable[..., Plan]
) -> None:
    tree = yaml.safe_load(render.inventory(made({"provider": provider}, HOSTS[provider]), STOCK))
    # docker is also the name of the company whose package source has containerd.
    sources = tree["nodes"]["vars"].pop("lab_apt_sources")
    text = yaml.safe_dump([tree, [set(source) for source in sources]])
    words = r"virtualbox|libvirt|docker|\b(supply|upstream|packages)\b"
    assert not re.search(words, text, re.IGNORECASE)


def facts(plan: Plan, url: str = "http://host.lan:1", stock: Stocked = STOCK) -> dict[str, Any]:
    return render.supply_facts(plan, stock, url)


def test_what_was_built_is_the_one_source_and_needs_no_signature() -> None:
    (source,) = facts(planned())["lab_apt_sources"]
    assert source == {
        "name": "labwright",
        "uris": ["http://host.lan:1/apt/"],
        "suites": ["./"],
        "components": [],
        "trusted": True,
        "key": "",
        "keyring": "",
    }


def test_the_vendors_sources_are_signed_by_their_own_keys() -> None:
    sources = {s["name"]: s for s in facts(upstream())["lab_apt_sources"]}
    assert list(sources) == ["kubernetes", "debian", "debian-security", "docker"]
    assert not any(source["trusted"] for source in sources.values())
    assert all(bool(source["key"]) != bool(source["keyring"]) for source in sources.values())
    assert sources["kubernetes"] == {
        "name": "kubernetes",
        "uris": ["https://pkgs.k8s.io/core:/stable:/v1.36/deb/"],
        "suites": ["/"],
        "components": [],
        "trusted": False,
        "key": armour("kubernetes"),
        "keyring": "",
    }
    assert sources["debian"]["keyring"] == "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert sources["debian"]["suites"] == ["bookworm", "bookworm-updates"]


def test_nobody_s_key_is_made_up_before_anyone_was_asked() -> None:
    plan = planned({"supply": "upstream"})
    assert plan.pins is None
    assert {s["key"] for s in facts(plan)["lab_apt_sources"]} == {""}


def test_a_bundle_of_an_upstream_lab_is_served_like_what_was_built() -> None:
    plan = replace(upstream(), keys={"apt": "apt-0", "images": "images-0"}, pins=None)
    assert [s["name"] for s in facts(plan)["lab_apt_sources"]] == ["labwright"]


def test_nodes_are_told_of_mirrors_and_where_the_vendors_are() -> None:
    registries = {
        "docker.io": "http://10.0.0.9:5000",
        "registry.k8s.io": "https://mirror.lan",
        "quay.io": "http://10.0.0.9:5001",
    }
    mirrors = facts(planned({"mirrors": {"registries": registries}}))["lab_registry_mirrors"]
    assert {m["registry"]: m["url"] for m in mirrors} == registries
    assert {m["registry"]: m["server"] for m in mirrors} == {
        # Docker Hub's API is not under the name that its images have.
        "docker.io": "https://registry-1.docker.io",
        "registry.k8s.io": "https://registry.k8s.io",
        "quay.io": "https://quay.io",
    }


@pytest.mark.parametrize(
    ("raw", "containerd", "config"),
    [
        ({}, "2.3.7", 3),
        ({"kubernetes": "1.34", "versions": {"containerd": "1.7"}}, "1.7.29", 2),
        ({"kubernetes": "1.34"}, "2.3.4", 3),
    ],
)
def test_containerd_is_configured_in_the_version_that_it_reads(
    raw: dict[str, Any], containerd: str, config: int
) -> None:
    plan = planned(raw)
    assert plan.versions["containerd"] == containerd
    assert facts(plan)["lab_containerd_config_version"] == config


def test_only_an_image_that_the_host_has_is_fetched_from_it() -> None:
    plan = upstream()
    assert plan.pins
    image = plan.pins.images["pause"]
    pulled = {"pause": {"ref": image.ref, "digest": image.digest, "size": image.size}}
    (fact,) = facts(plan, stock=Stocked(images=pulled))["lab_images"]
    assert fact == {
        "name": "pause",
        "ref": "registry.k8s.io/pause:3.10.2",
        "digest": image.digest,
        "archive_url": "",
    }


@pytest.mark.parametrize("version", [1, 2])
def test_roles_are_told_the_version_of_cgroups(version: int) -> None:
    host = replace(HOSTS["docker"], cgroup=version)  # type: ignore[arg-type]
    assert facts(planned(host=host))["lab_cgroup"] == version


@pytest.mark.parametrize("provider", HOSTS)
def test_the_lock_says_all_that_the_plan_resolved(provider: ProviderName) -> None:
    plan = planned({"provider": provider, "workers": 3}, HOSTS[provider])
    kept = yaml.safe_load(render.files(plan, STOCK)["lab.lock"])
    assert (kept["name"], kept["provider"], kept["supply"]) == (plan.name, provider, plan.supply)
    assert kept["guest"] == plan.guest
    assert kept["versions"] == plan.versions
    network = {name: IPv4Network(text) for name, text in kept["network"].items()}
    assert network == {"subnet": plan.subnet, "pods": plan.pods, "services": plan.services}
    # Ours goes by its name alone: another Labwright builds another one.
    own = replace(plan.box, version="") if plan.box else None
    assert (Box(**kept["box"]) if "box" in kept else None) == own
    assert kept["addons"] == list(plan.addons)
    assert kept["node_image"] == plan.node_image
    assert kept["store"] == plan.keys
    assert kept["packages"] == STOCK.packages
    assert kept["images"]["pause"]["digest"] == STOCK.images["pause"]["digest"]
    assert list(kept["nodes"]) == [n.name for n in plan.nodes]
    for node in plan.nodes:
        place = kept["nodes"][node.name]
        assert IPv4Interface(place["address"]) == node.address
        assert IPv4Network(place["pods"]) == node.pods
        assert (place["role"], place["mac"]) == (node.role, node.mac)
        sizes = (place["cpus"], place["memory"], place["disk"])
        assert sizes == (node.size.cpus, node.size.memory, node.size.disk)


def test_a_lock_keeps_a_lab_where_it_was(tmp_path: Path) -> None:
    plan = planned({"network": {"subnet": "192.168.60.0/24"}})
    lab = workdir.Workdir(tmp_path, plan.name)
    lab.write(render.files(plan, STOCK))
    assert planned(locked=read_lock(lab.path / "lab.lock")).nodes == plan.nodes


@pytest.mark.parametrize("supply", SUPPLIES)
@pytest.mark.parametrize("provider", HOSTS)
def test_files_hold_no_secret_and_no_path_of_this_host(
    provider: ProviderName, supply: SupplyName
) -> None:
    box = {"name": "x/y", "version": "1", "url": "https://boxes.lan/y.box"}
    raw = {"provider": provider, "supply": supply, "box": box}
    plan = (upstream if supply == "upstream" else planned)(raw, HOSTS[provider])
    files = render.files(plan, STOCK)
    # Nothing boots where the machines are there already.
    boots = set() if provider == "hosts" else {"Vagrantfile"}
    assert set(files) == {"inventory/hosts.yml", "lab.lock"} | boots
    assert files["lab.lock"] == lock.text(lock.content(plan, STOCK))
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
        "ansible_ssh_common_args": "-o IdentitiesOnly=yes",
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


def behind(bastion: Bastion | None) -> dict[str, Machine]:
    return {
        "cp1": Machine("cp1", "10.0.0.11", 2201, "admin", "/k y", bastion),
        "w1": Machine("w1", "w1.lan", 22, "", "", bastion),
    }


@pytest.mark.skipif(not shutil.which("ssh"), reason="ssh is not on PATH")
def test_machines_behind_a_bastion_are_reached_through_it(tmp_path: Path) -> None:
    config = tmp_path / "ssh_config"
    known = tmp_path / "known hosts"
    config.write_text(render.existing_config(behind(Bastion("gate", 2022, "jo", "/g")), known))

    def said(name: str) -> dict[str, str]:
        out = Shell().run(["ssh", "-G", "-F", config, name]).out
        return dict(line.partition(" ")[::2] for line in out.splitlines())

    assert (said("cp1")["proxyjump"], said("w1")["proxyjump"]) == ("bastion1", "bastion1")
    gate = said("bastion1")
    assert (gate["hostname"], gate["port"], gate["user"]) == ("gate", "2022", "jo")
    for name in ("cp1", "w1", "bastion1"):
        assert said(name)["hostkeyalias"] == name
        assert said(name)["stricthostkeychecking"] == "true"
        assert said(name)["userknownhostsfile"] == str(known)
    # Without a key it is ssh's own choice, the agent's keys among it.
    assert (said("cp1")["identitiesonly"], said("w1")["identitiesonly"]) == ("yes", "no")


@pytest.mark.parametrize("bastion", [None, Bastion("gate")])
def test_a_bastion_is_none_of_the_machines(bastion: Bastion | None, tmp_path: Path) -> None:
    text = render.existing_config(behind(bastion), tmp_path / "known")
    assert parse_ssh_config(text) == behind(None)


def test_ansible_reaches_machines_as_ssh_does() -> None:
    tree = yaml.safe_load(render.existing_machines({"w1": "jo"}, Path("/a lab/ssh_config")))
    assert tree["nodes"]["hosts"]["w1"] == {
        "ansible_host": "w1",
        "ansible_user": "jo",
        "ansible_ssh_common_args": "-F '/a lab/ssh_config'",
    }
