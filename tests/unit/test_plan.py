"""Spec and host in, plan out: what is chosen, why, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from labwright import addresses, boxes, catalog, lock, render
from labwright.bundle import Entry, FileFact, Manifest
from labwright.errors import HostError, LabError, SpecError
from labwright.lock import Locked, Stocked
from labwright.model import (
    NUMBERS,
    SUPPLY_PORT,
    Box,
    Choice,
    HadBox,
    HostFacts,
    HostNetwork,
    Pins,
    Place,
    Plan,
    ProviderName,
    Tool,
)
from labwright.names import management_name, network_name
from labwright.plan import pinned
from labwright.software import Bundled, built_key
from labwright.spec.file import MAX_WORKERS
from labwright.supplies.base import collected
from labwright.supplies.packages import AS_DEBS
from tests.fakes import (
    DEBIAN,
    HOSTS,
    LIBVIRT,
    ROLES,
    VIRTUALBOX,
    answers,
    online,
    planned,
    upstream,
)

COREDNS = built_key("coredns", "1.14.7")


def choice(plan: Plan, what: str) -> tuple[str, str]:
    return next((c.chosen, c.why) for c in plan.choices if c.what == what)


def refused(kind: type[LabError], raw: dict[str, Any], host: HostFacts = DEBIAN) -> LabError:
    with pytest.raises(kind) as caught:
        planned(raw, host)
    return caught.value


EMULATED = "machines of libvirt are emulated here: five to eight times slower"


@pytest.mark.parametrize(
    ("host", "provider", "why"),
    [
        (VIRTUALBOX, "virtualbox", "the first choice, and it works here"),
        (LIBVIRT, "libvirt", "virtualbox: VBoxManage is not installed"),
        (
            replace(LIBVIRT, kvm_boots=False),
            "docker",
            f"virtualbox: VBoxManage is not installed; libvirt: {EMULATED}",
        ),
        (
            DEBIAN,
            "docker",
            "virtualbox: VBoxManage is not installed; libvirt: virsh is not installed",
        ),
        (
            replace(VIRTUALBOX, vboxdrv=False),
            "docker",
            "virtualbox: VirtualBox's kernel driver is not loaded; libvirt: virsh is not installed",
        ),
    ],
)
def test_the_first_provider_that_works_is_taken(host: HostFacts, provider: str, why: str) -> None:
    plan = planned(host=host)
    assert plan.provider == provider
    assert choice(plan, "provider") == (provider, why)


def test_the_provider_asked_for_is_taken() -> None:
    plan = planned({"provider": "docker"}, VIRTUALBOX)
    assert choice(plan, "provider") == ("docker", "lab.yaml asks for it")


@pytest.mark.parametrize(
    ("provider", "host", "slug"),
    [
        ("virtualbox", DEBIAN, "host.virtualbox.no-vboxmanage"),
        ("virtualbox", replace(VIRTUALBOX, vboxdrv=False), "host.virtualbox.no-driver"),
        ("libvirt", DEBIAN, "host.libvirt.no-virsh"),
        ("libvirt", replace(LIBVIRT, arch="aarch64"), "host.libvirt.not-here"),
        ("docker", replace(DEBIAN, caps=frozenset()), "host.docker.caps"),
    ],
)
def test_a_provider_that_cannot_work_is_refused(provider: str, host: HostFacts, slug: str) -> None:
    error = refused(HostError, {"provider": provider}, host)
    assert error.exit_code == 3
    assert [f.id for f in error.findings] == [slug]


def test_a_host_on_which_nothing_works_hears_all_the_reasons() -> None:
    error = refused(HostError, {}, replace(DEBIAN, caps=frozenset()))
    assert [f.id for f in error.findings] == [
        "host.virtualbox.no-vboxmanage",
        "host.libvirt.no-virsh",
        "host.docker.caps",
    ]


NO_DEVICE = replace(LIBVIRT, kvm=False)
NO_GUESTS = replace(LIBVIRT, kvm_boots=False)


@pytest.mark.parametrize("host", [NO_DEVICE, NO_GUESTS])
def test_machines_are_emulated_where_lab_yaml_asks_for_them_and_nowhere_else(
    host: HostFacts,
) -> None:
    assert planned(host=host).provider == "docker"
    plan = planned({"provider": "libvirt"}, host)
    assert plan.facts.emulated
    assert plan.patience > 1
    (warning,) = [w for w in plan.warnings if w.id == "host.libvirt.emulated"]
    assert "slower" in warning.what
    assert planned(host=host, locked=Locked({"provider": "libvirt"})).provider == "docker"


@pytest.mark.parametrize("boots", [None, True])
def test_machines_under_kvm_are_waited_for_as_others(boots: bool | None) -> None:
    plan = planned({"provider": "libvirt"}, replace(LIBVIRT, kvm_boots=boots))
    assert not plan.facts.emulated
    assert (plan.patience, plan.warnings) == (1, ())


def test_libvirt_need_not_be_there_where_it_can_be_installed() -> None:
    host = replace(DEBIAN, kvm=True, tools={**DEBIAN.tools, "apt-get": Tool("/usr/bin/apt-get")})
    assert planned({"provider": "libvirt"}, host).provider == "libvirt"
    assert planned(host=host).provider == "docker"


def test_the_network_of_management_is_free_and_stays() -> None:
    raw = {"provider": "libvirt"}
    first = planned(raw, LIBVIRT)
    assert str(first.management) == "192.168.121.0/24"
    taken = used(LIBVIRT, "192.168.121.0/24", "vagrant-libvirt")
    moved = planned(raw, taken).management
    assert str(moved) == "10.121.0.0/24"
    # A second lab.up finds the lab's own networks on the host.
    again = used(taken, str(moved), f"libvirt:{management_name('lab')}")
    assert planned(raw, again).management == moved
    assert planned(host=DEBIAN).management is None


def test_without_a_free_network_of_management_there_is_no_lab() -> None:
    host = used(LIBVIRT, "192.168.121.0/24", "a")
    error = refused(HostError, {"provider": "libvirt"}, used(host, "10.121.0.0/16", "b"))
    assert [f.id for f in error.findings] == ["host.no-free-subnet"]


def test_the_supply_is_chosen_with_its_reason() -> None:
    why = "pkgs.k8s.io: does not answer; registry.k8s.io: does not answer"
    assert choice(planned(), "supply") == ("packages", why)
    asked = planned({"supply": "packages"})
    assert choice(asked, "supply") == ("packages", "lab.yaml asks for it")


@pytest.mark.parametrize(
    ("change", "slug"),
    [
        ({"os": "ubuntu", "os_version": "24.04"}, "host.packages.not-debian"),
        ({"os_version": "13"}, "host.packages.not-debian"),
        ({"arch": "aarch64"}, "host.packages.arch"),
    ],
)
def test_a_supply_that_cannot_work_is_refused(change: dict[str, Any], slug: str) -> None:
    error = refused(HostError, {}, replace(DEBIAN, **change))
    assert [f.id for f in error.findings] == [slug]


@pytest.mark.parametrize("asked", ["auto", "1.36", "1.36.3"])
def test_kubernetes_versions(asked: str) -> None:
    plan = planned({"kubernetes": asked})
    assert plan.versions == {
        "kubernetes": "1.36.3",
        "containerd": "2.3.7",
        "runc": "1.5.3",
        "cni-plugins": "1.10.0",
        "cri-tools": "1.36.0",
        "etcd": "3.6.16",
        "coredns": "1.14.7",
        "kube-network-policies": "0.8.0",
        "pause": "3.10.2",
        "busybox": "1.35.0",
    }
    assert (plan.supply, plan.origin, plan.guest) == ("packages", "packages", "debian-12")


@pytest.mark.parametrize("supply", ["auto", "packages"])
@pytest.mark.parametrize("asked", ["1.19", "1.20.2", "1.3", "1.20.22"])
def test_an_unknown_kubernetes_version_names_what_there_is(asked: str, supply: str) -> None:
    error = refused(SpecError, {"kubernetes": asked, "supply": supply})
    assert error.exit_code == 2
    (finding,) = error.findings
    assert (finding.id, finding.where) == ("spec.unknown-version", "kubernetes")
    assert asked in finding.what
    # The newest of each minor that there is.
    assert ("1.36.3" if supply == "packages" else "1.36.4") in finding.why
    # The nearest that the supply has, which is not the same one for each.
    nearest = "1.35.4" if supply == "packages" else "1.31.14"
    assert finding.fix == f'kubernetes: "{nearest}"'


OFFLINE = replace(DEBIAN, go_modules=False)


def test_dns_is_left_out_where_it_cannot_be_had() -> None:
    plan = planned(host=OFFLINE)
    assert plan.addons == ()
    assert choice(plan, "cluster DNS") == ("none", "the Go module proxy does not answer")
    assert "coredns" not in {a.id for a in plan.artifacts} | set(plan.keys)


def test_dns_is_kept_where_it_was_built_before() -> None:
    plan = planned(host=OFFLINE, stored=frozenset({COREDNS}))
    assert plan.addons == ("dns",)
    assert choice(plan, "cluster DNS") == ("CoreDNS 1.14.7", "built before")
    assert plan.keys["coredns"] == COREDNS


def test_dns_of_another_version_does_not_count() -> None:
    assert planned(host=OFFLINE, stored=frozenset({"coredns-0123456789abcdef"})).addons == ()


@pytest.mark.parametrize("answer", [True, None], ids=["answers", "no Go to ask with yet"])
def test_dns_is_built_where_the_proxy_may_answer(answer: bool | None) -> None:
    plan = planned(host=replace(DEBIAN, go_modules=answer))
    assert plan.addons == ("dns", "network-policy")
    assert choice(plan, "cluster DNS") == ("CoreDNS 1.14.7", "from the Go module proxy")


def test_dns_may_be_left_out_by_the_user() -> None:
    plan = planned({"addons": []})
    assert choice(plan, "cluster DNS") == ("none", "lab.yaml leaves it out")
    assert "coredns" not in plan.keys


def test_images_without_dns_are_another_entry_of_the_store() -> None:
    with_dns, without = planned().keys, planned(host=OFFLINE).keys
    assert with_dns["images"] != without["images"]
    assert with_dns["kubernetes"] == without["kubernetes"]
    assert planned().node_image != planned(host=OFFLINE).node_image


def test_every_node_has_its_place() -> None:
    plan = planned({"workers": 3})
    assert [(n.name, str(n.address), str(n.pods)) for n in plan.nodes] == [
        ("cp1", "192.168.56.11/24", "10.244.0.0/24"),
        ("w1", "192.168.56.21/24", "10.244.1.0/24"),
        ("w2", "192.168.56.22/24", "10.244.2.0/24"),
        ("w3", "192.168.56.23/24", "10.244.3.0/24"),
    ]
    assert str(plan.host_address) == "192.168.56.1"
    assert str(plan.dns_service) == "10.96.0.10"
    assert plan.endpoint == "192.168.56.11:6443"
    assert plan.context == "labwright-lab"
    assert [n.name for n in plan.control_planes] == ["cp1"]
    assert [n.name for n in plan.workers] == ["w1", "w2", "w3"]


def test_nodes_beside_the_cluster_have_a_place_and_no_pods() -> None:
    plan = planned({"workers": 1, "tools": 1, "nas": 1})
    assert [(n.name, str(n.address), str(n.pods)) for n in plan.nodes] == [
        ("cp1", "192.168.56.11/24", "10.244.0.0/24"),
        ("w1", "192.168.56.21/24", "10.244.1.0/24"),
        ("tools1", "192.168.56.101/24", "None"),
        ("nas1", "192.168.56.111/24", "None"),
    ]
    assert [n.name for n in plan.cluster] == ["cp1", "w1"]
    assert [n.name for n in plan.having("tools")] == ["tools1"]


def test_they_change_nothing_of_the_other_nodes() -> None:
    alone, with_both = planned(), planned({"tools": 1, "nas": 1})
    assert with_both.nodes[:3] == alone.nodes
    assert with_both.node_image == alone.node_image
    assert upstream({"tools": 1, "nas": 1}).node_image == upstream().node_image


@pytest.mark.parametrize(
    ("networks", "chosen"),
    [
        ({}, "172.29.0.0/16"),
        ({"pods": "172.29.0.0/16"}, "172.30.0.0/16"),
        ({"pods": "172.16.0.0/12"}, "10.57.0.0/16"),
        ({"pods": "172.16.0.0/12", "services": "10.48.0.0/12"}, "198.18.0.0/16"),
    ],
)
def test_containers_of_a_tools_node_are_apart_from_the_lab(
    networks: dict[str, str], chosen: str
) -> None:
    assert str(planned({"tools": 1, "network": networks}).containers) == chosen


@pytest.mark.parametrize(
    ("nas", "nfs", "provider", "warned"),
    [
        (1, False, "docker", True),
        (1, True, "docker", False),
        (0, False, "docker", False),
        # A machine has a kernel of its own, whatever the host's can do.
        (1, False, "libvirt", False),
    ],
)
def test_a_nas_that_no_pod_can_mount_is_worth_a_warning(
    nas: int, nfs: bool, provider: str, warned: bool
) -> None:
    host = replace(HOSTS[provider], nfs=nfs)
    plan = planned({"nas": nas, "provider": provider}, host)
    assert ("host.no-nfs" in {w.id for w in plan.warnings}) is warned
    assert plan.facts.nfs is (nfs or provider != "docker")


@pytest.mark.parametrize(
    ("asked", "provider", "nf_tables", "chosen", "warned"),
    [
        ("auto", "docker", True, "iptables", False),
        ("auto", "libvirt", True, "iptables", False),
        ("iptables", "docker", False, "iptables", False),
        ("nftables", "docker", True, "nftables", False),
        ("nftables", "docker", None, "nftables", True),
        # A machine has a kernel of its own, whatever the host's lacks.
        ("nftables", "libvirt", False, "nftables", False),
    ],
)
def test_what_kube_proxy_writes_its_rules_with(
    asked: str, provider: str, nf_tables: bool | None, chosen: str, warned: bool
) -> None:
    host = replace(HOSTS[provider], nf_tables=nf_tables)
    plan = planned({"kube_proxy": asked, "provider": provider}, host)
    assert plan.kube_proxy == chosen
    assert [c.chosen for c in plan.choices if c.what == "kube-proxy"] == [chosen]
    assert ("host.nftables-unknown" in {w.id for w in plan.warnings}) is warned


def test_nftables_is_refused_where_the_shared_kernel_lacks_it() -> None:
    error = refused(SpecError, {"kube_proxy": "nftables"}, replace(DEBIAN, nf_tables=False))
    (finding,) = error.findings
    assert (finding.id, finding.where) == ("spec.no-nftables", "kube_proxy")
    assert "kube_proxy: iptables" in finding.fix


def test_places_follow_the_networks_of_lab_yaml() -> None:
    plan = planned(
        {
            "network": {
                "subnet": "172.20.0.0/16",
                "pods": "10.10.0.0/20",
                "services": "10.97.0.0/20",
            }
        }
    )
    assert [str(n.address) for n in plan.nodes][::2] == ["172.20.0.11/16", "172.20.0.22/16"]
    assert [str(n.pods) for n in plan.nodes] == ["10.10.0.0/24", "10.10.1.0/24", "10.10.2.0/24"]
    assert (str(plan.host_address), str(plan.dns_service)) == ("172.20.0.1", "10.97.0.10")


def test_the_largest_lab_fits_a_24() -> None:
    plan = planned({"workers": 50})
    assert len({n.address.ip for n in plan.nodes}) == len({n.pods for n in plan.nodes}) == 51
    assert all(
        n.address.ip in plan.subnet and n.pods and n.pods.subnet_of(plan.pods) for n in plan.nodes
    )


def test_macs_are_virtualbox_s_own_stable_and_different() -> None:
    macs = [n.mac for n in planned({"workers": 50}).nodes]
    assert all(re.fullmatch(r"08:00:27(:[0-9a-f]{2}){3}", mac) for mac in macs)
    assert len(set(macs)) == 51
    assert [n.mac for n in planned({"workers": 2}).nodes] == macs[:3]
    assert planned({"name": "other"}).nodes[0].mac != macs[0]


def test_a_lab_stays_where_it_was() -> None:
    plan = planned(locked=Locked({"network": {"subnet": "192.168.60.0/24"}}))
    assert choice(plan, "subnet") == ("192.168.60.0/24", "this lab had it before")
    assert plan.subnet == IPv4Network("192.168.60.0/24")


def used(host: HostFacts, network: str, owner: str, device: str = "") -> HostFacts:
    there = HostNetwork(IPv4Network(network), owner, device)
    return replace(host, networks=(*host.networks, there))


@pytest.mark.parametrize(
    ("provider", "owner", "device"),
    [
        # The owners as tools/networks.py names them while the lab's machines run.
        ("docker", f"docker:{network_name('lab')}", "br-0123456789ab"),
        ("virtualbox", "virtualbox:vboxnet0", "vboxnet0"),
        ("virtualbox", "address of vboxnet0", "vboxnet0"),
        ("libvirt", f"libvirt:{network_name('lab')}", "virbr1"),
        ("libvirt", "route on virbr1", "virbr1"),
    ],
)
@pytest.mark.parametrize("asked", ["auto", "192.168.56.0/24"])
def test_a_lab_that_is_up_is_not_in_its_own_way(
    provider: ProviderName, owner: str, device: str, asked: str
) -> None:
    raw = {"provider": provider, "network": {"subnet": asked}}
    first = planned(raw, HOSTS[provider])
    host = used(HOSTS[provider], str(first.subnet), owner, device)
    locked = Locked({"network": {"subnet": str(first.subnet)}})
    assert planned(raw, host, locked=locked).subnet == first.subnet


def test_a_lab_stays_on_its_provider() -> None:
    plan = planned(host=VIRTUALBOX, locked=Locked({"provider": "docker"}))
    assert choice(plan, "provider") == ("docker", "as lab.lock has it, and it works here")


def test_a_lab_moves_where_its_provider_does_not_work() -> None:
    plan = planned(locked=Locked({"provider": "virtualbox"}))
    provider, why = choice(plan, "provider")
    assert provider == "docker"
    assert "virtualbox: VBoxManage is not installed" in why


def test_the_same_facts_give_the_same_plan() -> None:
    raw = {"workers": 4, "nodes": {"w2": {"memory": "2GiB"}}}
    shuffled = replace(
        DEBIAN,
        caps=frozenset(sorted(DEBIAN.caps, reverse=True)),
        tools=dict(reversed(list(DEBIAN.tools.items()))),
    )
    assert planned(raw) == planned(raw) == planned(raw, shuffled)


@pytest.mark.parametrize(("version", "driver"), [(1, "cgroupfs"), (2, "systemd")])
def test_containers_take_the_cgroup_driver_of_the_host(version: int, driver: str) -> None:
    plan = planned({"provider": "docker"}, replace(DEBIAN, cgroup=version))  # type: ignore[arg-type]
    assert (plan.facts.cgroup, plan.facts.cgroup_driver) == (version, driver)


@pytest.mark.parametrize("provider", ["virtualbox", "libvirt"])
@pytest.mark.parametrize("version", [1, 2])
def test_machines_have_a_kernel_of_their_own(provider: ProviderName, version: int) -> None:
    host = replace(HOSTS[provider], cgroup=version, caps=frozenset())  # type: ignore[arg-type]
    facts = planned({"provider": provider}, host).facts
    assert facts.own_kernel
    assert facts.conntrack_tunable
    assert (facts.cgroup, facts.cgroup_driver) == (2, "systemd")
    assert not facts.restrict_oom_score_adj


@pytest.mark.parametrize("has", [True, False])
def test_oom_scores_are_restricted_where_the_host_withholds_them(has: bool) -> None:
    caps = DEBIAN.caps if has else DEBIAN.caps - {"CAP_SYS_RESOURCE"}
    facts = planned(host=replace(DEBIAN, caps=caps)).facts
    assert facts.restrict_oom_score_adj is not has
    assert not facts.own_kernel


def test_nodes_larger_than_the_host_are_worth_a_warning() -> None:
    assert planned(host=replace(DEBIAN, memory=5120)).warnings == ()
    (warning,) = planned(host=replace(DEBIAN, memory=5119)).warnings
    assert (warning.id, warning.level) == ("host.memory", "warning")
    assert "5120 MiB" in warning.what
    assert "5119 MiB" in warning.what


@pytest.mark.parametrize(
    ("limit", "provider", "others", "warns"),
    [
        (128, "docker", 0, False),
        (59, "docker", 0, True),
        (128, "docker", 4, True),
        (None, "docker", 4, False),
        (128, "libvirt", 4, False),
    ],
)
def test_more_container_nodes_than_inotify_is_enough_for_are_worth_a_warning(
    limit: int | None, provider: ProviderName, others: int, warns: bool
) -> None:
    nets = ("10.9.0.0/24", "10.8.0.0/16", "10.7.0.0/16", "172.30.0.0/16")
    subnet, pods, services, containers = map(IPv4Network, nets)
    ports = {f"w{number}": 2300 + number for number in range(others)}
    image = "labwright/node:0"
    other = Place("other", "/o", subnet, pods, services, containers, ports=ports, node_image=image)
    host = replace(HOSTS[provider], inotify=limit)
    found = planned({"provider": provider}, host, labs=(other,)).warnings
    assert ("host.inotify" in {warning.id for warning in found}) == warns


def test_pods_move_out_of_the_host_s_way() -> None:
    plan = planned(host=used(DEBIAN, "10.244.0.0/16", "route on tun0"))
    assert plan.warnings == ()
    assert choice(plan, "pods") == (
        "10.245.0.0/16",
        "free here: 10.244.0.0/16 is taken by route on tun0",
    )


def test_pods_of_lab_yaml_that_the_host_knows_are_worth_a_warning() -> None:
    host = used(DEBIAN, "10.244.0.0/16", "route on tun0")
    (warning,) = planned({"network": {"pods": "10.244.0.0/16"}}, host).warnings
    assert (warning.id, warning.where) == ("host.pods-in-use", "network.pods")
    assert "route on tun0 has 10.244.0.0/16" in warning.why


@pytest.mark.parametrize(
    ("conf", "chosen"),
    [
        (None, "192.168.56.0/24"),
        (("0.0.0.0/0",), "192.168.56.0/24"),
        (("10.0.0.0/8",), "10.56.0.0/24"),
        (("172.16.0.0/12", "192.168.60.0/22"), "192.168.60.0/24"),
        (("192.168.0.0/26", "172.20.5.0/24"), "172.20.5.0/24"),
    ],
)
def test_networks_conf_says_where_a_virtualbox_lab_may_be(
    conf: tuple[str, ...] | None, chosen: str
) -> None:
    nets = None if conf is None else tuple(map(IPv4Network, conf))
    assert str(planned(host=replace(VIRTUALBOX, permitted=nets)).subnet) == chosen
    # The others ask no such file.
    assert str(planned(host=replace(DEBIAN, permitted=nets)).subnet) == "192.168.56.0/24"


@pytest.mark.parametrize("conf", [(), ("8.8.8.0/24",), ("192.168.56.0/26",)])
def test_a_networks_conf_that_permits_no_lab_is_said(conf: tuple[str, ...]) -> None:
    host = replace(VIRTUALBOX, permitted=tuple(map(IPv4Network, conf)))
    (finding,) = refused(HostError, {}, host).findings
    assert finding.id == "host.no-free-subnet"
    (finding,) = refused(HostError, {"network": {"subnet": "172.20.5.0/24"}}, host).findings
    assert finding.id == "host.subnet-not-permitted"
    assert "networks.conf" in finding.fix


@pytest.mark.parametrize(
    ("measured", "planned_mtu"),
    [(1500, 1500), (1400, 1400), (65536, 1500), (9000, 1500), (1280, 1280), (68, 576)],
)
def test_no_packet_is_larger_than_the_way_out_takes(measured: int, planned_mtu: int) -> None:
    plan = planned(host=replace(DEBIAN, mtu=measured, way_out="wg0"))
    assert plan.mtu == planned_mtu
    assert choice(plan, "MTU")[0] == str(planned_mtu)
    assert ("wg0" in choice(plan, "MTU")[1]) is (planned_mtu < 1500)


@pytest.mark.parametrize(
    ("provider", "ports"), [("docker", [2222, 2223]), ("virtualbox", [2222, 2223]), ("libvirt", [])]
)
def test_ports_are_planned_where_ssh_is_forwarded(provider: ProviderName, ports: list[int]) -> None:
    plan = planned({"provider": provider, "workers": 1}, HOSTS[provider])
    assert [n.ssh_port for n in plan.nodes if n.ssh_port] == ports


def test_a_lab_that_is_there_keeps_what_it_has() -> None:
    first = planned({"workers": 1})
    before = replace(
        first.place("/x"),
        subnet=IPv4Network("192.168.61.0/24"),
        pods=IPv4Network("10.99.0.0/16"),
        ports={"cp1": 2230},
    )
    host = used(replace(DEBIAN, listening=frozenset({2230, 2222})), "192.168.61.0/24", "x")
    plan = planned({"workers": 1}, host, before=before, made=True)
    assert (plan.subnet, plan.pods, plan.services) == (before.subnet, before.pods, before.services)
    assert [n.ssh_port for n in plan.nodes] == [2230, 2223]
    assert [w.id for w in plan.warnings] == ["host.subnet-in-use"]
    # One that is only planned goes out of the way.
    plan = planned({"workers": 1}, host, before=before)
    assert str(plan.subnet) == "192.168.56.0/24"
    assert [n.ssh_port for n in plan.nodes] == [2223, 2224]


def test_labs_of_the_same_user_share_nothing() -> None:
    plans: list[Plan] = []
    for number in range(8):
        labs = tuple(p.place(f"/{i}") for i, p in enumerate(plans))
        plans.append(planned({"workers": 5}, labs=labs))
        assert plans[-1] == planned({"workers": 5}, labs=labs), number
    subnets = [str(p.subnet) for p in plans]
    assert subnets == [f"192.168.{n}.0/24" for n in range(56, 64)]
    nodes = [n for p in plans for n in p.nodes]
    assert len({n.mac for n in nodes}) == len({n.ssh_port for n in nodes}) == 48
    assert "192.168.56.0/24 is taken by lab lab" in choice(plans[1], "subnet")[1]


def test_numbers_in_a_subnet_are_one_s_own() -> None:
    numbers = [n for r in NUMBERS.values() for n in r]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) <= set(range(1, 255))
    assert len(NUMBERS["worker"]) >= MAX_WORKERS


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("192.168.56.5-192.168.56.249", "cp1 has 192.168.56.11; w1 has 192.168.56.21"),
        ("192.168.56.1-192.168.56.9", "this computer has 192.168.56.1"),
        ("192.168.56.250-192.168.56.255", "it is not inside 192.168.56.0/24"),
        ("10.0.0.200-10.0.0.249", "it is not inside 192.168.56.0/24"),
    ],
)
def test_services_get_addresses_that_nobody_has(asked: str, why: str) -> None:
    network = {"subnet": "192.168.56.0/24", "load_balancer": asked}
    with pytest.raises(SpecError) as caught:
        planned({"workers": 1, "network": network})
    (finding,) = caught.value.findings
    assert (finding.id, finding.where) == ("spec.load-balancer", "network.load_balancer")
    assert finding.why.startswith(why)
    assert "192.168.56.200-192.168.56.249" in finding.fix


def test_a_range_of_the_user_s_own_is_taken() -> None:
    network = {"subnet": "192.168.56.0/24", "load_balancer": "192.168.56.150-192.168.56.160"}
    first, last = planned({"network": network}).load_balancer
    assert (str(first), str(last)) == ("192.168.56.150", "192.168.56.160")


def test_who_listens_where_the_nodes_fetch_is_said_before() -> None:
    busy = replace(DEBIAN, listening=frozenset({SUPPLY_PORT}))
    said = {finding.id for finding in planned({}, busy).warnings}
    assert "host.port-taken" in said
    assert "host.port-taken" not in {finding.id for finding in planned().warnings}


def test_planned_ports_are_no_other_s() -> None:
    own = {SUPPLY_PORT, render.REGISTRY_PORT, 8751}
    assert not own & {*addresses.PORTS, *addresses.SPARE_PORTS}
    assert not set(addresses.PORTS) & set(addresses.SPARE_PORTS)
    assert min(addresses.SPARE_PORTS) > 1023


def test_artifacts_come_after_what_they_need() -> None:
    seen: set[str] = set()
    for artifact in planned().artifacts:
        assert set(artifact.needs) <= seen
        seen.add(artifact.id)
    assert set(planned().keys) == seen


def test_what_the_host_says_reaches_the_plan() -> None:
    plan = planned()
    assert plan.host_cpus == DEBIAN.cpus
    assert plan.nameservers == (IPv4Address("10.0.0.2"),)
    assert plan.image_repository == "labwright.local"


def test_the_node_image_is_named_by_all_that_is_baked() -> None:
    plan = planned()
    assert re.fullmatch(r"labwright/node:[0-9a-f]{16}", plan.node_image)
    assert planned({"name": "other", "workers": 1}).node_image == plan.node_image


@pytest.mark.parametrize("provider", HOSTS)
def test_machines_of_a_guest_start_from_its_box(provider: ProviderName) -> None:
    plan = planned({"provider": provider, "supply": "upstream"}, online(HOSTS[provider]))
    boxes = {
        "docker": None,
        "hosts": None,
        "virtualbox": "bento/ubuntu-24.04",
        "libvirt": "cloud-image/ubuntu-24.04",
    }
    assert (plan.box.name if plan.box else None) == boxes[provider]


def test_the_box_of_lab_yaml_goes_before_the_guest_s() -> None:
    plan = planned({"box": {"name": "own/box"}}, online(VIRTUALBOX))
    assert plan.box == Box("own/box")


def boxed(plan: Plan) -> Choice:
    (choice,) = (c for c in plan.choices if c.what == "box")
    return choice


@pytest.mark.parametrize("provider", ["virtualbox", "libvirt"])
def test_machines_of_the_packages_supply_start_from_our_own_box(provider: ProviderName) -> None:
    plan = planned({"provider": provider}, HOSTS[provider])
    assert plan.own_box
    assert plan.box is not None
    assert plan.box.name == "labwright/debian-12"
    assert re.fullmatch(r"0\.0\.[0-9]+", plan.box.version)
    needs = {artifact.id: artifact.needs for artifact in plan.artifacts}
    assert needs[f"box-{provider}"] == ("machine-root",)
    # What is missing in a machine is not what is missing in a container.
    assert needs["apt"] == (*AS_DEBS, "machine-root")
    assert "base" not in needs
    assert plan.keys["apt"] != planned().keys["apt"]
    (bundled,) = (a for a in collected(plan) if a.id.startswith("box-"))
    assert bundled.id == f"box-{provider}"
    assert not [a for a in collected(plan) if a.id in {"base", "machine-root"}]


NO_CATALOGUE = {"": "does not answer"}
HAD = {"guest": "debian-12", "provider": "libvirt", "supply": "upstream"}


@pytest.mark.parametrize("guest", catalog.load().guests)
def test_without_vagrants_catalogue_our_own_box_is_taken_and_the_plan_says_so(guest: str) -> None:
    host = online(replace(LIBVIRT, box_sources=NO_CATALOGUE))
    had = {**HAD, "guest": guest}
    plan = planned(had, host)
    assert plan.own_box
    assert boxed(plan).chosen == f"labwright/{guest}"
    assert "Vagrant does not have it, and Vagrant's catalogue does not answer" in boxed(plan).why
    assert {"machine-root", "box-libvirt"} <= plan.keys.keys()
    # Nothing of a container's root is built for it.
    assert "base" not in plan.keys
    known = catalog.load().guests[guest].boxes["libvirt"]
    there = replace(host, boxes=(HadBox(known.name, known.version, "libvirt"),))
    assert planned(had, there).box == known
    other = replace(host, boxes=(HadBox(known.name, known.version, "virtualbox"),))
    assert planned(had, other).own_box


def test_a_lab_that_has_our_own_box_keeps_it_when_the_catalogue_is_back() -> None:
    before = planned(HAD, online(replace(LIBVIRT, box_sources=NO_CATALOGUE)))
    held = Locked(lock.content(before, Stocked()))
    again = planned(HAD, online(LIBVIRT), locked=held)
    assert (again.box, boxed(again).why) == (before.box, "as lab.lock has it")


def test_lab_yamls_box_gives_way_only_where_it_cannot_be_had() -> None:
    asked = {"name": "o/b", "version": "1.2", "url": "http://boxes.test/b.box"}
    raw = {**HAD, "supply": "packages", "box": asked}
    assert planned(raw, LIBVIRT).box == Box(**asked)
    away = replace(LIBVIRT, box_sources={asked["url"]: "does not answer"})
    plan = planned(raw, away)
    assert plan.own_box
    (finding,) = (w for w in plan.warnings if w.id == "host.box-replaced")
    assert "not from o/b 1.2" in finding.what
    # A file is not out of reach: lab.yaml is wrong.
    gone = replace(LIBVIRT, box_sources={asked["url"]: "no such file"})
    with pytest.raises(SpecError) as caught:
        planned(raw, gone)
    assert caught.value.findings[0].where == "box.url"


def test_where_none_can_be_built_the_plan_warns_and_keeps_the_box() -> None:
    host = online(replace(LIBVIRT, os="fedora", os_version="41", box_sources=NO_CATALOGUE))
    plan = planned({**HAD, "guest": "debian-13"}, host)
    assert not plan.own_box
    assert [w.id for w in plan.warnings if w.where == "box"] == ["host.no-box"]
    # One that was built elsewhere and brought here is as good.
    key = boxes.own_keys(catalog.load().guests["debian-13"], "libvirt")["box-libvirt"]
    assert planned({**HAD, "guest": "debian-13"}, host, stored=frozenset({key})).own_box


def test_a_host_that_builds_none_takes_one_of_ours_that_vagrant_has() -> None:
    had = tuple(HadBox("labwright/debian-13", f"0.0.{n}", "libvirt") for n in (9, 10))
    host = online(replace(LIBVIRT, os="fedora", box_sources=NO_CATALOGUE, boxes=had))
    plan = planned({**HAD, "guest": "debian-13"}, host)
    assert (plan.box, plan.own_box) == (Box("labwright/debian-13", "0.0.10"), False)
    assert boxed(plan).why.endswith("and Vagrant has this one")
    assert planned({**HAD, "guest": "debian-12"}, host).box != plan.box
    # Ours are for x86-64.
    theirs = tuple(replace(box, provider="virtualbox") for box in had)
    there = online(replace(HOSTS["virtualbox"], os="fedora", arch="aarch64", boxes=theirs))
    raw = {**HAD, "guest": "debian-13", "provider": "virtualbox"}
    arm = planned(raw, replace(there, box_sources=NO_CATALOGUE))
    assert [w.id for w in arm.warnings if w.where == "box"] == ["host.no-box"]


def test_a_bundle_brings_its_box() -> None:
    facts = {"provider": "libvirt", "guest": "debian-12", "arch": "x86_64", "supply": "packages"}
    entry = Entry("box-libvirt", "box-libvirt-0123456789abcdef", {"f": FileFact("0" * 64, 1)})
    versions = {"kubernetes": "1.36.3", "coredns": "1.14.7"}
    content = Manifest("l", "1", versions, {**facts, "addons": "dns"}, "0" * 64, {entry.id: entry})
    opened = Bundled("/bundle", content, {entry.id: entry.key})
    plan = planned({"provider": "libvirt"}, LIBVIRT, bundled=opened)
    assert (plan.own_box, plan.box) == (True, Box("labwright/debian-12", "0.0.1250999896491"))
    assert boxed(plan).why == "in the bundle"


CHARTED = {"versions": {"rancher": "2.15", "cert-manager": "1.21"}}


def test_what_vendors_answered_is_taken_in() -> None:
    made = planned({"supply": "upstream", **CHARTED}, online(DEBIAN))
    pins = answers(made.wanted)
    plan = pinned(made, pins, ROLES)
    assert plan.pins is pins
    assert [a.id for a in plan.artifacts] == ["base", "charts"]
    assert set(plan.keys) == {"base", "charts"}
    assert plan.keys["base"] == made.keys["base"]
    (charts,) = (a for a in plan.artifacts if a.id == "charts")
    assert set(charts.params) == {"rancher", "cert-manager"}
    assert all(charts.params[n].endswith(f"#{pins.charts[n].sha256}") for n in charts.params)


def test_a_lab_without_charts_has_none() -> None:
    assert [a.id for a in upstream().artifacts] == ["base"]


def test_what_is_baked_is_named_by_what_vendors_answered() -> None:
    made = planned({"supply": "upstream"}, online(DEBIAN))
    pins = answers(made.wanted)
    image = pinned(made, pins, ROLES).node_image
    assert image != made.node_image
    assert image == pinned(made, pins, ROLES).node_image
    deb = replace(pins.packages["kubelet"], sha256="0" * 64)
    pushed_again = replace(pins.images["pause"], digest="sha256:" + "0" * 64)
    other = [
        pinned(made, replace(pins, packages={**pins.packages, "kubelet": deb}), ROLES),
        pinned(made, replace(pins, images={**pins.images, "pause": pushed_again}), ROLES),
        pinned(made, pins, "fedcba9876543210"),
    ]
    assert len({image, *(plan.node_image for plan in other)}) == 4


def test_charts_are_baked_into_no_node() -> None:
    made = planned({"supply": "upstream", **CHARTED}, online(DEBIAN))
    pins = answers(made.wanted)
    without = pinned(made, replace(pins, charts={}), ROLES)
    assert pinned(made, pins, ROLES).node_image == without.node_image


def test_answers_of_nothing_are_still_answers() -> None:
    assert pinned(planned(), Pins(), ROLES).pins == Pins()
