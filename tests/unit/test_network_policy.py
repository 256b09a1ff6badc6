"""NetworkPolicy: its manifest, where it can be enforced, and what is said where it cannot."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader  # type: ignore[import-untyped]
from ansible.template import Templar, trust_as_template  # type: ignore[import-untyped]

from labwright import catalog, render, spec
from labwright.model import HostFacts, Plan
from labwright.recipes.base import DATA
from labwright.recipes.images import ADDONS
from labwright.software import Bundled
from labwright.tools.host import packet_queues
from tests.fakes import DEBIAN, HOSTS, STOCK, manifest, online, planned, upstream

ROLE = Path(__file__).resolve().parents[2] / "playbooks/roles/network_policy"
COMPONENT = "kube-network-policies"
BOTH, NFT, XT = frozenset({"nft", "xt"}), frozenset({"nft"}), frozenset({"xt"})
NEITHER: frozenset[str] = frozenset()
# Two kernels: of Debian, where all are modules, and one that was made small.
ALL_MODULES = """CONFIG_NF_TABLES=m
CONFIG_NETFILTER_NETLINK_QUEUE=m
CONFIG_NFT_QUEUE=m
CONFIG_NFT_COMPAT=m
CONFIG_NETFILTER_XT_TARGET_NFQUEUE=m
"""
SMALL = """CONFIG_NF_TABLES=y
CONFIG_NETFILTER_NETLINK_QUEUE=y
# CONFIG_NFT_QUEUE is not set
CONFIG_NFT_COMPAT=y
CONFIG_NETFILTER_XT_TARGET_NFQUEUE=y
"""
NAMES = ("nf_tables", "nfnetlink_queue", "nft_queue", "nft_compat", "xt_NFQUEUE")


def with_queues(queues: frozenset[str] | None, host: HostFacts = DEBIAN) -> HostFacts:
    return replace(host, queues=queues)


def told(plan: Plan) -> tuple[str, str]:
    return next((c.chosen, c.why) for c in plan.choices if c.what == "add-on network-policy")


def warned(plan: Plan) -> list[str]:
    return [w.fix for w in plan.warnings if w.id == "host.no-network-policy"]


def rendered() -> list[dict[str, Any]]:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text("utf-8"))
    words = {k: trust_as_template(v) if isinstance(v, str) else v for k, v in defaults.items()}
    facts = {"lab_image_refs": {COMPONENT: "labwright.local/kube-network-policies:v0.8.0"}}
    text = (ROLE / "templates/network-policy.yaml.j2").read_text("utf-8")
    found = Templar(DataLoader(), {**facts, **words}).template(trust_as_template(text))
    return list(yaml.safe_load_all(found))


def pod() -> Mapping[str, Any]:
    (workload,) = (item for item in rendered() if item["kind"] == "DaemonSet")
    found: Mapping[str, Any] = workload["spec"]["template"]["spec"]
    return found


# --- the kernel


@pytest.mark.parametrize(
    ("config", "modules", "found"),
    [
        (ALL_MODULES, NAMES, BOTH),
        (ALL_MODULES, (), None),
        (ALL_MODULES, ("nf_tables", "nfnetlink_queue", "nft_queue"), NFT),
        (SMALL, (), XT),
        (SMALL.replace("NFT_COMPAT=y", "NFT_COMPAT=m"), (), None),
        (SMALL.replace("TARGET_NFQUEUE=y", "TARGET_NFQUEUE=n"), (), NEITHER),
        # Without the queue itself, no way leads into it.
        (ALL_MODULES.replace("NETLINK_QUEUE=m", "NETLINK_QUEUE=n"), NAMES, NEITHER),
        ("", NAMES, NEITHER),
    ],
)
def test_the_kernel_tells_how_it_can_ask_a_program(
    tmp_path: Path, config: str, modules: tuple[str, ...], found: frozenset[str] | None
) -> None:
    folder = tmp_path / "lib/modules/6.1/kernel/net"
    folder.mkdir(parents=True)
    for name in modules:
        (folder / f"{name}.ko.xz").touch()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/config.gz").write_bytes(gzip.compress(config.encode()))
    assert packet_queues(tmp_path, "6.1") == found


def test_a_kernel_that_tells_nothing(tmp_path: Path) -> None:
    assert packet_queues(tmp_path, "6.1") is None


# --- the plan


def test_it_is_on_by_default() -> None:
    assert spec.build({}).addons == ("dns", "network-policy")
    assert spec.build({}).unasked == {"dns", "network-policy"}
    assert spec.build({"addons": ["network-policy"]}).unasked == frozenset()


@pytest.mark.parametrize(
    ("supply", "queues", "on"),
    [
        ("packages", BOTH, True),
        ("packages", NFT, True),
        ("packages", XT, True),
        ("packages", NEITHER, False),
        ("packages", None, False),
        ("upstream", BOTH, True),
        ("upstream", NFT, True),
        # The project's own image knows the other way alone.
        ("upstream", XT, False),
        ("upstream", NEITHER, False),
        ("upstream", None, False),
    ],
)
def test_containers_have_it_where_the_kernel_is_known_to_do(
    supply: str, queues: frozenset[str] | None, on: bool
) -> None:
    plan = planned({"supply": supply, "provider": "docker"}, with_queues(queues, online(DEBIAN)))
    assert ("network-policy" in plan.addons) is on
    assert (told(plan)[0] == "none") is not on
    assert bool(warned(plan)) is not on
    assert on or "kernel" in told(plan)[1]


def test_who_names_it_may_try_it_on_a_kernel_that_tells_nothing() -> None:
    plan = planned({"addons": ["dns", "network-policy"]}, with_queues(None))
    assert "network-policy" in plan.addons
    assert not warned(plan)


def test_who_does_not_want_it_hears_nothing_of_it() -> None:
    plan = planned({"addons": ["dns"]}, with_queues(NEITHER))
    assert not warned(plan)
    assert "add-on network-policy" not in {c.what for c in plan.choices}


@pytest.mark.parametrize("provider", ["libvirt", "virtualbox", "hosts"])
def test_what_this_hosts_kernel_lacks_is_nothing_to_other_kernels(provider: str) -> None:
    plan = planned({"provider": provider}, with_queues(NEITHER, HOSTS[provider]))
    assert "network-policy" in plan.addons


def test_upstream_of_a_small_kernel_is_told_of_the_other_supply() -> None:
    plan = planned({"supply": "upstream"}, with_queues(XT, online(DEBIAN)))
    assert "supply: packages" in warned(plan)[0]


def test_its_image_is_asked_for_where_it_is_on() -> None:
    on, off = upstream({}, with_queues(NFT)), upstream({}, with_queues(NEITHER))
    assert on.wanted.images[COMPONENT].startswith(
        "registry.k8s.io/networking/kube-network-policies:v1."
    )
    assert COMPONENT not in off.wanted.images


def test_a_bundle_without_it_is_no_error_by_default() -> None:
    old = manifest(planned({"addons": ["dns"]}))
    made = planned({}, with_queues(BOTH), bundled=Bundled("/b", old))
    assert "network-policy" not in made.addons
    assert told(made)[0] == "none"


def test_the_checks_learn_what_was_left_out() -> None:
    tree = yaml.safe_load(render.inventory(planned({}, with_queues(NEITHER)), STOCK))
    assert "CONFIG_NFT_QUEUE" in tree["nodes"]["vars"]["lab_left_out"]["network-policy"]


# --- the program


def test_what_goes_into_the_program_is_pinned_for_the_catalogs_version() -> None:
    releases = catalog.load().components[COMPONENT].releases
    (version,) = (r.version for r in releases if "packages" in r.supplies)
    folder = DATA / "go" / COMPONENT
    pinned = (folder / version / "go.mod").read_text("utf-8")
    assert f"sigs.k8s.io/kube-network-policies v{version}\n" in pinned
    assert "module labwright.local/kube-network-policies\n" in pinned
    assert (folder / "netpol/main.go").is_file()


def test_the_image_has_it_where_the_projects_own_has() -> None:
    assert f"/{ADDONS[COMPONENT].path}" == pod()["containers"][0]["command"][0]


# --- the manifest


def test_it_runs_on_every_node_whatever_its_taints() -> None:
    assert pod()["tolerations"] == [{"operator": "Exists"}]
    assert pod()["priorityClassName"] == "system-node-critical"


def test_it_may_change_the_network_and_nothing_else() -> None:
    (container,) = pod()["containers"]
    security = container["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert security["readOnlyRootFilesystem"]
    assert "volumes" not in pod()
    (role,) = (item for item in rendered() if item["kind"] == "ClusterRole")
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"list", "watch"}


def test_it_listens_on_the_nodes_loopback_only() -> None:
    (container,) = pod()["containers"]
    (address,) = (w for w in container["args"] if w.startswith("--metrics-bind-address="))
    assert address.endswith("=127.0.0.1:9080")
    assert container["readinessProbe"]["httpGet"]["host"] == "127.0.0.1"


def test_it_is_removed_before_its_rights_are() -> None:
    assert [item["kind"] for item in rendered()][-1] == "DaemonSet"


def test_stopping_it_opens_all() -> None:
    # kube-network-policies 1.1 leaves its rules behind otherwise.
    assert "--fail-open=false" in pod()["containers"][0]["args"]
