"""lab.lock: what is written reads back, differences are named, and parts are forgotten."""

from __future__ import annotations

import copy
import string
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from labwright import catalog
from labwright.errors import SupplyError
from labwright.lock import SOFTWARE, Locked, Stocked, content, drift, read, text
from labwright.model import ChartPin, DebPin, ImagePin, Pins, Plan
from labwright.phases.fetch import stock
from tests.fakes import DEBIAN, HOSTS, KEYED, STOCK, answers, online, planned, run_of, upstream

BESIDE: dict[str, Any] = {"tools": 1, "nas": 1}
CHARTED: dict[str, Any] = {"versions": {"rancher": "2.15", "cert-manager": "1.21"}}


def locked(plan: Plan) -> dict[str, Any]:
    """The content of the lock of an upstream lab."""
    return content(plan, stock(run_of(Path("nowhere"), plan)))


# --- there and back


@pytest.mark.parametrize("provider", HOSTS)
@pytest.mark.parametrize("raw", [{}, CHARTED, {"mirrors": KEYED}, {"addons": []}, BESIDE])
def test_the_pins_of_a_lock_read_back(raw: dict[str, Any], provider: str) -> None:
    plan = upstream({"provider": provider, **raw}, HOSTS[provider])
    found = read(text(locked(plan)))
    assert found.pins == plan.pins
    assert found.versions == plan.versions
    assert found.network("subnet") == plan.subnet
    assert [found.word(w) for w in ("supply", "provider", "guest", "name")] == [
        "upstream",
        provider,
        plan.guest,
        "lab",
    ]


WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=6)
# What YAML could take for a number, a date, a time or a truth value.
ODD = st.sampled_from(
    ["3.10", "1_000", "1e3", "2026-11-22", "1:30", "on", "null", "0x1f", "~", "="]
)
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
VERSIONS = ODD | st.from_regex(
    r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}([-+~][a-z0-9.]{1,8})?", fullmatch=True
)
PINS = st.builds(
    Pins,
    keys=st.dictionaries(st.just("kubernetes"), st.text(string.printable, min_size=1)),
    packages=st.dictionaries(WORDS, st.builds(DebPin, VERSIONS, HEX | st.just("1e64"), WORDS)),
    images=st.dictionaries(
        WORDS, st.builds(ImagePin, WORDS, HEX.map(lambda h: f"sha256:{h}"), st.integers(0, 1 << 40))
    ),
    charts=st.dictionaries(WORDS, st.builds(ChartPin, VERSIONS, WORDS, HEX)),
)
PLAN = upstream()


@settings(max_examples=40)
@given(PINS)
def test_pins_of_any_kind_read_back(pins: Pins) -> None:
    plan = replace(PLAN, pins=pins)
    before = locked(plan)
    found = read(text(before))
    assert found.pins == pins
    assert found.content == before
    assert drift(found.content, before) == []


def test_a_lab_of_packages_has_no_pins() -> None:
    found = read(text(content(planned(), STOCK)))
    assert found.pins is None
    assert found.content["packages"] == STOCK.packages
    assert set(found.content["images"]["pause"]) == {"ref", "digest", "size"}


def test_the_same_lab_gives_the_same_text() -> None:
    assert text(locked(upstream(CHARTED))) == text(locked(upstream(CHARTED)))


def test_versions_have_an_order_of_their_own() -> None:
    made = upstream(CHARTED)
    turned = replace(made, versions=dict(reversed([*made.versions.items()])))
    assert text(locked(turned)) == text(locked(made))
    assert [*locked(made)["versions"]] == sorted(made.versions)


def test_a_lock_says_what_it_is_for() -> None:
    head = text({})
    assert head.startswith("# Written by Labwright from lab.yaml.")
    assert "--locked" in head


def test_a_bundle_s_lab_is_locked_to_the_supply_it_came_from() -> None:
    plan = replace(upstream(), supply="bundle", pins=None, bundle="/b")
    assert content(plan, Stocked())["supply"] == "upstream"


# --- reading what people and computers do to files


def test_an_empty_lock_says_nothing() -> None:
    nothing = Locked()
    assert (nothing.versions, nothing.network("pods"), nothing.pins) == ({}, None, None)
    assert nothing.word("supply") == ""


@pytest.mark.parametrize("words", ["a: [", "- a\n", "text", "", "3", "a: b: c"])
def test_what_is_no_lock_is_said(words: str) -> None:
    with pytest.raises(SupplyError) as caught:
        read(words, "class.lock")
    (finding,) = caught.value.findings
    assert (finding.id, finding.where) == ("supply.lock-unreadable", "class.lock")
    assert "class.lock" in finding.what
    assert finding.fix


@pytest.mark.parametrize(
    "damage",
    [
        {"sources": None},
        {"sources": {"kubernetes": None}},
        {"sources": {"kubernetes": {"uri": "x"}}},
        {"checksums": []},
        {"checksums": {"kubelet": {"sha256": "x"}}},
        {"checksums": {"unheard-of": {"sha256": "x", "source": "y"}}},
        {"packages": None},
        {"images": {"pause": {"ref": "x", "digest": "y", "size": "many"}}},
        {"charts": {"rancher": "2.15"}},
    ],
)
def test_a_lock_that_was_altered_has_no_pins(damage: Mapping[str, Any]) -> None:
    assert read(text({**locked(upstream(CHARTED)), **damage})).pins is None


@pytest.mark.parametrize("odd", [[], None, "words", 3])
def test_a_lock_of_odd_shapes_is_read_as_far_as_it_goes(odd: object) -> None:
    found = Locked({"versions": odd, "network": odd, "supply": None})
    assert (found.versions, found.network("subnet"), found.word("supply")) == ({}, None, "")


def test_a_lock_of_an_older_labwright_plans_a_lab() -> None:
    old = read("supply: packages\nsubnet: 192.168.60.0/24\nversions:\n  pause: 3.2\n")
    assert planned(locked=old).supply == "packages"


# --- differences


@pytest.mark.parametrize("made", [upstream(CHARTED), planned()], ids=["upstream", "packages"])
def test_a_lock_does_not_differ_from_itself(made: Plan) -> None:
    assert drift(locked(made), locked(made)) == []


def changed(before: Mapping[str, Any], *path: str, to: Any) -> dict[str, Any]:
    after = copy.deepcopy(dict(before))
    place = after
    for name in path[:-1]:
        place = place[name]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return after


@pytest.mark.parametrize(
    ("path", "to", "line"),
    [
        (("supply",), "packages", "supply: upstream → packages"),
        (("versions", "etcd"), "3.7.0-0", "versions.etcd: 3.6.8-0 → 3.7.0-0"),
        (("versions", "rancher"), None, "versions.rancher: 2.15.1 → none"),
        (("versions", "traefik"), "3.7.11", "versions.traefik: none → 3.7.11"),
        (("packages", "kubelet"), "1.36.4-2.1", "packages.kubelet: 1.36.4-1.1 → 1.36.4-2.1"),
        (("network", "subnet"), "10.56.1.0/24", "network.subnet: 192.168.56.0/24 → 10.56.1.0/24"),
        (("nodes", "w1", "memory"), 4096, "nodes.w1.memory: 1536 → 4096"),
        (("addons",), [], "addons: dns, network-policy → none"),
        (("addons",), ["dns", "x"], "addons: dns, network-policy → dns, x"),
        (
            ("sources", "kubernetes", "uri"),
            "http://m.lan/",
            "sources.kubernetes.uri: https://pkgs.k8s.io/core:/stable:/v1.36/deb/ → http://m.lan/",
        ),
    ],
)
def test_each_difference_is_a_line(path: tuple[str, ...], to: Any, line: str) -> None:
    before = locked(upstream(CHARTED))
    assert drift(before, changed(before, *path, to=to)) == [line]


def test_an_image_that_was_pushed_again_is_a_difference() -> None:
    before = locked(upstream())
    digest = "sha256:" + "0" * 64
    (line,) = drift(before, changed(before, "images", "pause", "digest", to=digest))
    assert line.startswith("images.pause.digest: sha256:")
    assert line.endswith(f"→ {digest}")


def test_a_key_is_not_printed_whole() -> None:
    before = locked(upstream())
    after = changed(before, "sources", "docker", "key", to="-----BEGIN\nother\n")
    assert drift(before, after) == ["sources.docker.key: another text → another text"]


def test_a_node_that_is_gone_is_one_line() -> None:
    before = locked(upstream())
    (line,) = drift(before, locked(upstream({"workers": 1})))
    assert line.startswith("nodes.w2: worker 192.168.56.22/24 ")
    assert line.endswith("→ none")


def test_packages_of_a_node_that_comes_are_few_lines() -> None:
    alone, with_both = locked(upstream()), locked(upstream(BESIDE))
    lines = [line for line in drift(alone, with_both) if line.startswith("role_packages")]
    assert len(lines) == len(BESIDE)
    assert all(": none → " in line for line in lines)
    # And when it goes, the node's own line says it.
    gone = [line.partition(":")[0] for line in drift(with_both, alone)]
    assert {"nodes.tools1", "nodes.nas1"} <= set(gone)
    assert not [path for path in gone if path.startswith("role_packages")]


def test_many_packages_are_counted() -> None:
    before = locked(upstream(BESIDE))
    many = {f"p{number}": "1" for number in range(60)}
    after = changed(before, "role_packages", "tools", to=many)
    del before["role_packages"]["tools"]
    assert drift(before, after) == ["role_packages.tools: none → 60 of them"]


def test_what_only_this_labwright_decides_is_no_difference() -> None:
    before = locked(upstream())
    after = {**before, "node_image": "labwright/node:0", "store": {"base": "base-0"}}
    assert drift(before, after) == []


def test_what_is_not_known_yet_is_no_difference() -> None:
    before = locked(upstream())
    unasked = content(planned({"supply": "upstream"}, online(DEBIAN)), Stocked())
    assert "sources" not in unasked
    assert drift(before, unasked) == []


@pytest.mark.parametrize("key", SOFTWARE)
def test_software_that_is_not_named_is_no_difference(key: str) -> None:
    before = locked(upstream({**CHARTED, **BESIDE}))
    assert before[key]
    assert drift(before, {**before, key: {}}) == []


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ({"schedule_on_control_planes": True}, "schedule_on_control_planes: False → True"),
        (
            {"mirrors": {"registries": {"quay.io": "http://m.lan:5000"}}},
            "mirrors.quay.io: none → http://m.lan:5000",
        ),
    ],
    ids=["schedule_on_control_planes", "mirrors"],
)
def test_what_a_lab_was_asked_for_is_held_to(raw: dict[str, Any], line: str) -> None:
    plain, asked = locked(upstream()), locked(upstream(raw))
    assert drift(plain, asked) == [line]
    name, _, change = line.partition(": ")
    assert drift(asked, plain) == [f"{name}: {' → '.join(reversed(change.split(' → ')))}"]


# --- moving on


KNOWN = catalog.load()


def test_all_is_forgotten_but_the_network() -> None:
    found = Locked(locked(upstream())).without([], KNOWN)
    assert found.content == {"network": locked(upstream())["network"]}
    assert Locked().without([], KNOWN) == Locked()


def test_a_component_is_forgotten_with_its_packages_and_images() -> None:
    before = locked(upstream(CHARTED))
    after = Locked(before).without(["kubernetes"], KNOWN)
    gone = {
        key: set(value) - set(after.content[key])
        for key, value in before.items()
        if isinstance(value, dict)
    }
    assert {key: names for key, names in gone.items() if names} == {
        "versions": {"kubernetes"},
        "packages": {"kubeadm", "kubelet", "kubectl"},
        "checksums": {"kubeadm", "kubelet", "kubectl"},
        "images": {"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"},
    }
    pins = after.pins
    assert pins
    assert set(pins.packages) == set(before["packages"]) - gone["packages"]


@pytest.mark.parametrize(
    ("component", "key", "name"),
    [
        ("containerd", "packages", "containerd.io"),
        ("etcd", "images", "etcd"),
        ("rancher", "charts", "rancher"),
        ("busybox", "images", "busybox"),
    ],
)
def test_what_belongs_to_a_component(component: str, key: str, name: str) -> None:
    before = locked(upstream(CHARTED))
    after = Locked(before).without([component], KNOWN).content
    assert set(before[key]) - set(after[key]) == {name}
    assert set(before["versions"]) - set(after["versions"]) == {component}


def test_an_upgrade_moves_what_is_named_and_what_must_follow() -> None:
    raw = {"supply": "upstream"}
    old = upstream({"kubernetes": "1.35.2", "versions": {"containerd": "2.3.4"}})
    kept = Locked(locked(old))
    assert planned(raw, online(DEBIAN), locked=kept).versions == old.versions
    moved = planned(raw, online(DEBIAN), locked=kept.without(["kubernetes"], KNOWN))
    assert moved.versions["kubernetes"].startswith("1.36.")
    assert moved.versions["etcd"] == "3.6.8-0"
    assert moved.versions["containerd"] == "2.3.4"


def test_forgetting_alters_no_lock_that_somebody_holds() -> None:
    before = locked(upstream())
    copied = copy.deepcopy(before)
    Locked(before).without(["kubernetes", "etcd"], KNOWN)
    assert before == copied


def test_a_key_is_written_as_the_lines_it_has() -> None:
    key = locked(upstream())["sources"]["kubernetes"]["key"]
    lines = [line.strip() for line in text(locked(upstream())).splitlines()]
    start = lines.index("key: |") + 1
    assert lines[start : start + len(key.splitlines())] == key.splitlines()


def test_the_text_is_plain_yaml() -> None:
    before = locked(upstream(CHARTED))
    assert yaml.safe_load(text(before)) == before
    assert answers(upstream(CHARTED).wanted) == read(text(before)).pins
