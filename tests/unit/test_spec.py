from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from labwright import spec
from labwright.errors import SpecError
from labwright.events import mask
from labwright.model import AptMirror, Mirrors

ROOT = Path(__file__).resolve().parents[2]


def refused(raw: object) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        spec.build(raw)
    assert caught.value.exit_code == 2
    return [(f.where, f.id) for f in caught.value.findings]


def test_defaults_are_three_nodes() -> None:
    made = spec.build({})
    assert [(n.name, n.role) for n in made.nodes] == [
        ("cp1", "control_plane"),
        ("w1", "worker"),
        ("w2", "worker"),
    ]
    assert (made.provider, made.supply, made.kubernetes, made.subnet) == (None, None, None, None)


@pytest.mark.parametrize(
    ("raw", "where", "slug"),
    [
        ({"nmae": "x"}, "nmae", "spec.unknown-key"),
        ({"network": {"subnt": "auto"}}, "network.subnt", "spec.unknown-key"),
        ({"nodes": {"w1": {"cpu": 2}}}, "nodes.w1.cpu", "spec.unknown-key"),
        ({"workers": "3"}, "workers", "spec.int-type"),
        ({"workers": 500}, "workers", "spec.less-than-equal"),
        ({"workers": 0}, "workers", "spec.no-workers"),
        ({"control_planes": 3}, "control_planes", "spec.control-planes"),
        ({"name": "a/b"}, "name", "spec.string-pattern-mismatch"),
        ({"name": "../x"}, "name", "spec.string-pattern-mismatch"),
        ({"kubernetes": 1.20}, "kubernetes", "spec.value-error"),
        ({"kubernetes": "latest"}, "kubernetes", "spec.string-pattern-mismatch"),
        ({"provider": "vmware"}, "provider", "spec.literal-error"),
        ({"kube_proxy": "ipvs"}, "kube_proxy", "spec.literal-error"),
        ({"addons": ["dsn"]}, "addons.0", "spec.unknown-addon"),
        ({"supply": "bundle:"}, "supply", "spec.string-pattern-mismatch"),
        ({"versions": {"etcd": 3.5}}, "versions.etcd", "spec.value-error"),
        ({"versions": {"etcd": "latest"}}, "versions.etcd", "spec.string-pattern-mismatch"),
        ({"versions": {"etdc": "3.5"}}, "versions.etdc", "spec.unknown-component"),
        ({"versions": {"vagrant": "2.4"}}, "versions.vagrant", "spec.unknown-component"),
        ({"versions": {"kubernetes": "1.36"}}, "versions", "spec.version-of-kubernetes"),
        ({"guest": "debain-12"}, "guest", "spec.unknown-guest"),
        (
            {"mirrors": {"apt": {"pkgs": "http://m"}}},
            "mirrors.apt.pkgs",
            "spec.unknown-package-source",
        ),
        (
            {"mirrors": {"charts": {"helm": "http://m"}}},
            "mirrors.charts.helm",
            "spec.unknown-chart",
        ),
        ({"mirrors": {"registry": {}}}, "mirrors.registry", "spec.unknown-key"),
        (
            {"mirrors": {"apt": {"docker": {"url": "http://m", "kye": "x"}}}},
            "mirrors.apt.docker.kye",
            "spec.unknown-key",
        ),
        ({"mirrors": {"apt": {"docker": {"key": "x"}}}}, "mirrors.apt.docker.url", "spec.missing"),
        ({"mirrors": {"apt": {"docker": "m.lan"}}}, "mirrors.apt.docker.url", "spec.value-error"),
        (
            {"mirrors": {"registries": {"docker.io": "ftp://m.lan"}}},
            "mirrors.registries.docker.io",
            "spec.value-error",
        ),
        ({"nodes": {"w9": {}}}, "nodes.w9", "spec.unknown-node"),
        ({"nodes": {"tools1": {}}}, "nodes.tools1", "spec.unknown-node"),
        ({"tools": 2}, "tools", "spec.less-than-equal"),
        ({"nas": True}, "nas", "spec.int-type"),
        (
            {"network": {"pods": "10.96.0.0/20", "services": "10.96.0.0/16"}},
            "network.pods",
            "spec.overlap",
        ),
        (
            {"network": {"subnet": "10.1.2.0/24", "pods": "10.1.0.0/16"}},
            "network.subnet",
            "spec.overlap",
        ),
        ({"addons": ["dns", "dns"]}, "addons.1", "spec.twice"),
        ({"network": {"pods": "10.96.0.1/16"}}, "network.pods", "spec.ip-v4-network"),
        ({"network": {"services": "8.8.0.0/16"}}, "network.services", "spec.value-error"),
        ({"network": {"subnet": "8.8.8.0/24"}}, "network.subnet", "spec.value-error"),
        ({"network": {"subnet": "192.168.56.0/30"}}, "network.subnet", "spec.subnet-size"),
        ({"network": {"services": "10.0.0.0/8"}}, "network.services", "spec.services-size"),
        ({"network": {"pods": "10.244.0.0/23"}}, "network.pods", "spec.pods-too-small"),
        ({"defaults": {"memory": "lots"}}, "defaults.memory", "spec.value-error"),
        ({"defaults": {"memory": 10}}, "defaults.memory", "spec.greater-than-equal"),
        (
            {"box": {"name": "x", "checksum": "md5:1"}},
            "box.checksum",
            "spec.string-pattern-mismatch",
        ),
        (
            {"box": {"name": "x", "version": ">= 1"}},
            "box.version",
            "spec.string-pattern-mismatch",
        ),
        (
            {"box": {"name": "x", "url": "ftp://boxes.test/x.box"}},
            "box.url",
            "spec.string-pattern-mismatch",
        ),
        # Vagrant would check nothing, and say nothing.
        (
            {"box": {"name": "x", "checksum": f"sha256:{'0' * 64}"}},
            "box.checksum",
            "spec.box-checksum",
        ),
        (
            {
                "box": {
                    "name": "x",
                    "url": "http://b.test/x.json?a=b",
                    "checksum": f"sha256:{'0' * 64}",
                }
            },
            "box.checksum",
            "spec.box-checksum",
        ),
    ],
)
def test_one_wrong_key_gives_one_finding(raw: dict[str, Any], where: str, slug: str) -> None:
    assert (where, slug) in refused(raw)


def test_every_problem_is_reported_at_once() -> None:
    found = refused(
        {
            "nmae": "x",
            "workers": 500,
            "addons": ["dsn"],
            "network": {
                "subnet": "nowhere",
                "pods": "10.96.0.0/16",
                "services": "10.96.0.0/20",
            },
        }
    )
    assert sorted(where for where, _ in found) == [
        "addons.0",
        "network.pods",
        "network.subnet",
        "nmae",
        "workers",
    ]


def test_no_rule_judges_a_default_in_place_of_a_refused_value() -> None:
    found = refused({"workers": "9", "nodes": {"w9": {"cpus": 2}}})
    assert [where for where, _ in found] == ["workers"]


def test_a_misspelt_key_names_the_likely_one() -> None:
    with pytest.raises(SpecError) as caught:
        spec.build({"wokers": 2})
    assert caught.value.findings[0].fix == "did you mean workers?"


@pytest.mark.parametrize(
    ("raw", "fix"),
    [
        ({"provider": "virtualbx"}, "did you mean virtualbox?"),
        ({"kube_proxy": "ipvs"}, "auto, iptables or nftables"),
        ({"box": "me/node"}, 'a box such as {name: me/node, version: "1.2.0"}'),
        ({"box": {"version": "1.0"}}, "the name that Vagrant has it by, such as me/node"),
        ({"defaults": {"disk": "2GiB"}}, "4GiB to 4TiB, such as 20GiB"),
        ({"nodes": {"w1": 3}}, "the keys here are cpus, memory, disk"),
        ({"provider": "vmware"}, "take one of auto, virtualbox, libvirt, docker, hosts"),
        ({"versions": {"contanerd": "1.7"}}, "did you mean containerd?"),
        ({"versions": {"kubernetes": "1.36"}}, 'kubernetes: "1.36"'),
        ({"guest": "ubuntu-24"}, "did you mean ubuntu-24.04?"),
        ({"mirrors": {"apt": {"kuberntes": "http://m"}}}, "did you mean kubernetes?"),
        ({"mirrors": {"charts": {"ranchr": "http://m"}}}, "did you mean rancher?"),
        ({"mirrors": {"registry": {}}}, "did you mean registries?"),
        (
            {"supply": "upstrem"},
            "auto, upstream, packages, or bundle: and a folder, an archive or an address",
        ),
        ({"versions": {"etcd": 3.5}}, 'a version in quotes, such as "2.15" or "2.15.1"'),
    ],
)
def test_a_wrong_value_says_what_to_write(raw: dict[str, Any], fix: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec.build(raw)
    assert [f.fix for f in caught.value.findings] == [fix]


@pytest.mark.parametrize(
    "address",
    [
        "http://user:word@mirror.lan",
        "https://user@mirror.lan/x",
        "http://mirror.lan/?token=x",
        "http://mirror.lan/#x",
    ],
)
@pytest.mark.parametrize(
    "at", [("apt", "kubernetes"), ("registries", "docker.io"), ("charts", "rancher")]
)
def test_an_address_holds_no_secret(address: str, at: tuple[str, str]) -> None:
    with pytest.raises(SpecError) as caught:
        spec.build({"mirrors": {at[0]: {at[1]: address}}})
    (finding,) = caught.value.findings
    assert finding.where.startswith(f"mirrors.{at[0]}.{at[1]}")
    assert "netrc" in finding.why
    assert "word@" not in mask(str(caught.value))


def test_mirrors() -> None:
    made = spec.build(
        {
            "mirrors": {
                "apt": {
                    "kubernetes": "http://m.lan/k8s/",
                    "docker": {"url": "https://m.lan:8443/docker", "key": "keys/docker.asc"},
                },
                "registries": {"registry.k8s.io": "http://m.lan:5000/"},
                "charts": {"rancher": "http://m.lan/charts"},
            }
        },
        "/class/lab.yaml",
    )
    assert made.mirrors == Mirrors(
        apt={
            "kubernetes": AptMirror("http://m.lan/k8s"),
            "docker": AptMirror("https://m.lan:8443/docker", "/class/keys/docker.asc"),
        },
        registries={"registry.k8s.io": "http://m.lan:5000"},
        charts={"rancher": "http://m.lan/charts"},
    )
    assert spec.build({}).mirrors == Mirrors()


@pytest.mark.parametrize("key", ["https://m.lan/key.asc", "file:///keys/key.asc", "/keys/key.asc"])
def test_a_key_may_be_anywhere(key: str) -> None:
    made = spec.build(
        {"mirrors": {"apt": {"docker": {"url": "http://m", "key": key}}}}, "/x/lab.yaml"
    )
    assert made.mirrors.apt["docker"].key == key


@pytest.mark.parametrize(
    ("text", "supply", "bundle"),
    [
        ("auto", None, ""),
        ("upstream", "upstream", ""),
        ("packages", "packages", ""),
        ("bundle:class.tar.zst", "bundle", "/class/class.tar.zst"),
        ("bundle:../b", "bundle", "/class/../b"),
        ("bundle:/media/usb/b", "bundle", "/media/usb/b"),
        ("bundle:http://10.0.0.9:8800#sha256=ab", "bundle", "http://10.0.0.9:8800#sha256=ab"),
    ],
)
def test_supplies(text: str, supply: str | None, bundle: str) -> None:
    made = spec.build({"supply": text}, "/class/lab.yaml")
    assert (made.supply, made.bundle) == (supply, bundle)


def test_the_supply_of_the_command_line_goes_before_lab_yaml_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = spec.build({"supply": "bundle:b", "workers": 1}, "/class/lab.yaml")
    here = spec.with_supply(made, "bundle:b")
    # What is typed is relative to where it is typed.
    assert (here.supply, here.bundle) == ("bundle", str(tmp_path / "b"))
    other = spec.with_supply(made, "upstream")
    assert (other.supply, other.bundle) == ("upstream", "")
    assert (other.source, other.nodes) == (made.source, made.nodes)
    with pytest.raises(SpecError) as caught:
        spec.with_supply(made, "upstrem")
    assert caught.value.findings[0].where == "supply"


def test_wishes_for_versions_and_the_guest() -> None:
    made = spec.build({"versions": {"rancher": "2.15", "etcd": "3.6.8-0"}, "guest": "debian-13"})
    assert made.versions == {"rancher": "2.15", "etcd": "3.6.8-0"}
    assert made.guest == "debian-13"
    assert (spec.build({"guest": "auto"}).guest, spec.build({}).versions) == (None, {})


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [("2GiB", 2048), ("2G", 2048), ("1TiB", 2**20), (1500, 1500), ("900M", 900)],
)
def test_sizes(text: str | int, mebibytes: int) -> None:
    made = spec.build({"nodes": {"w1": {"memory": text}}})
    assert made.nodes[1].size.memory == mebibytes


def test_a_node_overrides_the_defaults() -> None:
    made = spec.build({"defaults": {"cpus": 3}, "nodes": {"w2": {"cpus": 4}}})
    assert [n.size.cpus for n in made.nodes] == [3, 3, 4]


def test_a_one_node_lab() -> None:
    made = spec.build({"workers": 0, "schedule_on_control_planes": True})
    assert [n.name for n in made.nodes] == ["cp1"]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ({"network": {"subnet": "192.168.56.1/24"}}, "is in is 192.168.56.0/24"),
        ({"machines": {"cp1": "10.0.0.999"}}, "that is no IPv4 address"),
        ({"box": {"name": "me/node", "version": 1.0}}, 'as in "1.0"'),
        ({"kubernetes": 1.2}, 'as in "1.20"'),
        ({"defaults": {"memory": "8TiB"}}, "it is too large"),
    ],
)
def test_a_wrong_value_is_said_in_words_of_yaml(raw: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec.build(raw)
    assert why in caught.value.findings[0].why


def test_what_is_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_bytes(b"name: \x8b\n")
    for path, why in ((tmp_path / "lab.yaml", "no text in UTF-8"), (tmp_path, "Is a directory")):
        with pytest.raises(SpecError) as caught:
            spec.load(path)
        (finding,) = caught.value.findings
        assert why in finding.why
        assert finding.fix


@pytest.mark.parametrize("text", ["- a\n", "text", "3"])
def test_not_a_mapping(tmp_path: Path, text: str) -> None:
    (tmp_path / "lab.yaml").write_text(text)
    with pytest.raises(SpecError, match="not keys with values"):
        spec.load(tmp_path / "lab.yaml")


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("")
    assert spec.load(tmp_path / "lab.yaml").name == "lab"


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "lab.yaml:"), ("workers: 1\nworkers: 2\n", "here twice")]
)
def test_bad_yaml_names_the_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "lab.yaml").write_text(text)
    with pytest.raises(SpecError, match=words):
        spec.load(tmp_path / "lab.yaml")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        spec.load(tmp_path / "nowhere.yaml")


def test_the_schema_in_the_repository_is_the_code_s() -> None:
    kept = json.loads((ROOT / "lab.schema.json").read_text("utf-8"))
    assert kept == json.loads(json.dumps(spec.schema())), "run: invoke dev.schema"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.stem)
def test_examples_are_valid_by_both(path: Path) -> None:
    spec.load(path)
    jsonschema.validate(yaml.safe_load(path.read_text("utf-8")), spec.schema())
