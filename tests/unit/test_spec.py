from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from labwright import spec
from labwright.errors import SpecError

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
        ({"addons": ["dsn"]}, "addons.0", "spec.unknown-addon"),
        ({"nodes": {"w9": {}}}, "nodes.w9", "spec.unknown-node"),
        ({"network": {"pods": "10.96.0.0/20"}}, "network.pods", "spec.overlap"),
        ({"network": {"subnet": "10.244.1.0/24"}}, "network.subnet", "spec.overlap"),
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
            "network": {"subnet": "nowhere", "pods": "10.96.0.0/16"},
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
    ("text", "mebibytes"), [("2GiB", 2048), ("2G", 2048), (1500, 1500), ("900M", 900)]
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
