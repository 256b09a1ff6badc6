"""What is on the nodes of two labs, and how that differs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.errors import SpecError
from labwright.tools.nodes import ASK, Software, differences, dump, load, record
from labwright.tools.shell import Result, Shell
from labwright.tools.ssh import Ssh

WORDS = st.text("abc:./@", min_size=1, max_size=4)
PARTS = st.fixed_dictionaries(
    {"packages": st.dictionaries(WORDS, WORDS), "images": st.dictionaries(WORDS, WORDS)}
)
LABS = st.dictionaries(st.sampled_from(["cp1", "w1", "w2"]), PARTS)

ONE: Software = {
    "cp1": {
        "packages": {"kubelet": "1.36.4-1.1", "socat": "1.7.4"},
        "images": {"registry.k8s.io/pause:3.10.2": "sha256:aa"},
    },
    "w1": {"packages": {"kubelet": "1.36.4-1.1"}, "images": {}},
}


def test_the_same_software_has_no_differences() -> None:
    assert [*differences(ONE, ONE)] == []


def test_each_difference_has_its_node() -> None:
    other: Software = {
        "cp1": {
            "packages": {"kubelet": "1.36.3-1.1", "socat": "1.7.4", "runc": "1.1.5"},
            "images": {"registry.k8s.io/pause:3.10.2": "sha256:bb"},
        },
        "w1": {"packages": {}, "images": {}},
        "w2": {"packages": {"kubelet": "1.36.4-1.1"}, "images": {}},
    }
    assert [*differences(ONE, other)] == [
        ("cp1", "kubelet", "1.36.4-1.1", "1.36.3-1.1"),
        ("cp1", "runc", "", "1.1.5"),
        ("cp1", "registry.k8s.io/pause:3.10.2", "sha256:aa", "sha256:bb"),
        ("w1", "kubelet", "1.36.4-1.1", ""),
        ("w2", "the whole node", "", "there"),
    ]


def test_a_node_that_one_side_has_is_one_row() -> None:
    assert [*differences(ONE, {"cp1": ONE["cp1"]})] == [("w1", "the whole node", "there", "")]
    bare: Software = {**ONE, "w2": {"packages": {}, "images": {}}}
    assert [*differences(ONE, bare)] == [("w2", "the whole node", "", "there")]


@given(LABS, LABS)
def test_differences_are_the_same_from_either_side(one: Software, other: Software) -> None:
    there = [(node, name, there, here) for node, name, here, there in differences(other, one)]
    assert sorted(differences(one, other)) == sorted(there)


@given(LABS)
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory, lab: Software
) -> None:
    path = tmp_path_factory.mktemp("lab") / "software.json"
    path.write_text(dump(lab), "utf-8")
    assert load(path) == lab
    assert [*differences(load(path), lab)] == []


def test_the_same_software_is_the_same_text() -> None:
    shuffled = {node: dict(reversed([*ONE[node].items()])) for node in reversed([*ONE])}
    assert dump(shuffled) == dump(ONE)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "3", '{"cp1": []}', '{"cp1": {}}', '{"cp1": {"packages": 3}}', None]
)
def test_what_is_no_record_is_said(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "software.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SpecError) as caught:
        load(path)
    (finding,) = caught.value.findings
    assert finding.id == "spec.no-record"
    assert str(path) in finding.what


SAID = """\
installed kubelet 1.36.4-1.1
config-files old-thing 1.0
installed libc6 2.36-9+deb12u13
==
REF TYPE DIGEST SIZE PLATFORMS LABELS
registry.k8s.io/pause:3.10.2 application/x sha256:aa 268.0 KiB linux/amd64 managed
registry.k8s.io/pause@sha256:aa application/x sha256:aa 268.0 KiB linux/amd64 managed
sha256:cc application/x sha256:aa 268.0 KiB linux/amd64 managed
"""


class Told(Shell):
    """Answers as every node would."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str | Path], **_how: Any) -> Result:
        words = tuple(map(str, argv))
        self.asked.append(words)
        return Result(words, 0, SAID, "", 0.0)


def test_a_node_s_answer_is_read(tmp_path: Path) -> None:
    shell = Told()
    found = record(Ssh(shell, tmp_path / "ssh_config"), ["cp1", "w1"])
    assert list(found) == ["cp1", "w1"]
    # Neither a package that was removed nor the runtime's own names of an image.
    assert found["cp1"] == {
        "packages": {"kubelet": "1.36.4-1.1", "libc6": "2.36-9+deb12u13"},
        "images": {"registry.k8s.io/pause:3.10.2": "sha256:aa"},
    }
    assert found["w1"] == found["cp1"]
    assert len(shell.asked) == 2
    assert all(ASK in words for words in shell.asked)
