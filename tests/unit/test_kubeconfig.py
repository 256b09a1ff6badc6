"""The user's kubeconfig: a lab goes in and comes out, everything else stays."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from labwright.errors import ConvergeError, HostError
from labwright.kubeconfig import SECTIONS, merge, take_out
from labwright.phases.export import renamed

WORK = """\
apiVersion: v1
kind: Config
preferences: {colors: true}
clusters:
- name: work
  cluster: {server: "https://work.lan:6443", certificate-authority-data: YQ==}
users:
- name: me
  user: {exec: {command: get-token, args: [--for, work]}}
contexts:
- name: work
  context: {cluster: work, user: me, namespace: team}
current-context: work
"""

# As kubeadm writes it.
ADMIN = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [
        {
            "name": "kubernetes",
            "cluster": {"server": "https://cp1:6443", "certificate-authority-data": "Yg=="},
        }
    ],
    "users": [{"name": "kubernetes-admin", "user": {"client-key-data": "Yw=="}}],
    "contexts": [
        {
            "name": "kubernetes-admin@kubernetes",
            "context": {"cluster": "kubernetes", "user": "kubernetes-admin"},
        }
    ],
    "current-context": "kubernetes-admin@kubernetes",
}


def lab(name: str = "labwright-lab", endpoint: str = "192.168.56.11:6443") -> str:
    return yaml.safe_dump(renamed(ADMIN, name, endpoint))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def names(path: Path) -> list[list[str]]:
    return [[entry["name"] for entry in read(path)[section]] for section in SECTIONS]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config"
    path.write_text(WORK)
    return path


def test_the_administrator_s_config_gets_the_name_of_the_lab() -> None:
    assert renamed(ADMIN, "labwright-x", "10.0.0.1:6443") == {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "labwright-x",
                "cluster": {
                    "server": "https://10.0.0.1:6443",
                    "certificate-authority-data": "Yg==",
                },
            }
        ],
        "users": [{"name": "labwright-x", "user": {"client-key-data": "Yw=="}}],
        "contexts": [
            {"name": "labwright-x", "context": {"cluster": "labwright-x", "user": "labwright-x"}}
        ],
        "current-context": "labwright-x",
    }


@pytest.mark.parametrize("broken", [None, "text", {}, {"clusters": []}, {"clusters": [{}]}])
def test_what_is_no_administrator_s_config_is_said(broken: object) -> None:
    with pytest.raises(ConvergeError, match="not a kubeconfig"):
        renamed(broken, "x", "y")


def test_a_lab_goes_in_beside_the_others(config: Path) -> None:
    merge(config, lab())
    assert names(config) == [
        ["work", "labwright-lab"],
        ["me", "labwright-lab"],
        ["work", "labwright-lab"],
    ]
    assert read(config)["current-context"] == "labwright-lab"
    before, after = yaml.safe_load(WORK), read(config)
    assert [after[section][0] for section in SECTIONS] == [before[s][0] for s in SECTIONS]
    assert after["preferences"] == {"colors": True}


def test_a_lab_made_anew_takes_its_own_place(config: Path) -> None:
    merge(config, lab())
    merge(config, lab(endpoint="10.56.0.11:6443"))
    assert names(config)[0] == ["work", "labwright-lab"]
    assert read(config)["clusters"][1]["cluster"]["server"] == "https://10.56.0.11:6443"


def test_two_labs_live_side_by_side(config: Path) -> None:
    merge(config, lab())
    merge(config, lab("labwright-other"))
    assert take_out(config, "labwright-lab")
    assert names(config)[2] == ["work", "labwright-other"]
    assert read(config)["current-context"] == "labwright-other"


def test_taking_out_restores_what_was_there(config: Path) -> None:
    merge(config, lab())
    assert take_out(config, "labwright-lab")
    before, after = yaml.safe_load(WORK), read(config)
    # What was current before nobody remembers; a context that is gone must not be.
    assert after.pop("current-context") == ""
    before.pop("current-context")
    assert after == before


def test_a_choice_made_since_stays(config: Path) -> None:
    merge(config, lab())
    config.write_text(
        config.read_text().replace("current-context: labwright-lab", "current-context: work")
    )
    take_out(config, "labwright-lab")
    assert read(config) == yaml.safe_load(WORK)


def test_taking_out_what_is_not_there_changes_nothing(config: Path, tmp_path: Path) -> None:
    before = config.stat()
    assert not take_out(config, "labwright-lab")
    assert config.read_text() == WORK
    assert config.stat().st_ino == before.st_ino
    assert not take_out(tmp_path / "nowhere", "labwright-lab")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("content", [None, "", "apiVersion: v1\nkind: Config\nclusters: null\n"])
def test_an_empty_file_or_none_is_a_start(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / ".kube" / "config"
    if content is not None:
        path.parent.mkdir()
        path.write_text(content)
    merge(path, lab())
    assert read(path) == yaml.safe_load(lab())
    assert take_out(path, "labwright-lab")
    assert names(path) == [[], [], []]


BROKEN = {
    "no yaml": b"clusters: [",
    "a list": b"- a\n",
    "a word": b"text",
    "no text": b"\xff\xfe",
    "a section that is a word": b"clusters: nonsense\n",
    "a section that is a number": b"users: 5\n",
    "an entry that is a word": b"contexts: [work]\n",
}


@pytest.mark.parametrize("shape", BROKEN)
def test_a_broken_file_is_left_as_it_is(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "config"
    path.write_bytes(BROKEN[shape])
    with pytest.raises(HostError) as caught:
        merge(path, lab())
    finding = caught.value.findings[0]
    assert finding.id == "host.kubeconfig"
    assert str(path) in finding.what
    with pytest.raises(HostError):
        take_out(path, "labwright-lab")
    assert path.read_bytes() == BROKEN[shape]
    assert [p.name for p in tmp_path.iterdir()] == ["config"]


def test_a_link_stays_a_link(config: Path, tmp_path: Path) -> None:
    link = tmp_path / "home" / "config"
    link.parent.mkdir()
    link.symlink_to(config)
    merge(link, lab())
    assert link.is_symlink()
    assert names(config)[2] == ["work", "labwright-lab"]
    take_out(link, "labwright-lab")
    assert link.is_symlink()
    assert names(config)[2] == ["work"]


def test_a_link_to_nothing_yet_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "config"
    link.symlink_to(tmp_path / "real")
    merge(link, lab())
    assert link.is_symlink()
    assert names(tmp_path / "real")[2] == ["labwright-lab"]


def test_the_file_is_for_its_owner_only(config: Path, tmp_path: Path) -> None:
    config.chmod(0o644)
    for path in (config, tmp_path / "new"):
        merge(path, lab())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    take_out(config, "labwright-lab")
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
