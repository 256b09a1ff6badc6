"""The manifest: what is written is read again, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.bundle import Entry, FileFact, Manifest, dump, parse, safe
from labwright.errors import SupplyError

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True).filter(
    lambda name: not name.endswith(".part") and name not in {"bundle.json", "lab.lock"}
)
LINE = st.text(max_size=20).filter(str.isprintable)
TEXTS = st.dictionaries(LINE, LINE, max_size=3)
FACT = st.builds(FileFact, HEX, st.integers(0, 2**63))
# Two levels, the first of them only ever a folder: no path is a file and a folder at once.
PATH = st.one_of(
    st.builds("f-{}".format, NAME), st.builds("d-{}/{}".format, NAME, NAME.filter(safe))
).filter(safe)
FILES = st.dictionaries(PATH, FACT, max_size=4)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    ids = draw(st.lists(NAME, max_size=3, unique=True))
    entries = {id_: Entry(id_, draw(NAME), draw(FILES)) for id_ in ids}
    return Manifest(draw(LINE), draw(LINE), draw(TEXTS), draw(TEXTS), draw(HEX), entries)


def sample() -> Manifest:
    files = {"a.deb": FileFact("0" * 64, 3), "pool/b.deb": FileFact("f" * 64, 4)}
    entries = {"apt": Entry("apt", "apt-01", files), "host": Entry("host", "host-02", {})}
    return Manifest("demo", "0.1.0", {"kubernetes": "1.20.2"}, {"arch": "amd64"}, "a" * 64, entries)


@given(manifests())
def test_what_is_written_is_read_again(manifest: Manifest) -> None:
    again = parse(dump(manifest))
    assert again == manifest
    assert again.digest == manifest.digest
    assert dump(again) == dump(manifest)


@given(manifests(), st.data())
def test_no_character_can_be_changed(manifest: Manifest, data: st.DataObject) -> None:
    text = dump(manifest)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda letter: letter != text[at]))
    with pytest.raises(SupplyError):
        parse(text[:at] + other + text[at + 1 :])


@given(st.one_of(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists)))
def test_other_things_are_refused_in_words(content: object) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(SupplyError) as caught:
        parse(text, "usb/bundle.json")
    assert "usb/bundle.json" in caught.value.findings[0].what


def test_size_files_and_identity() -> None:
    manifest = sample()
    assert manifest.size == 7
    assert list(manifest.files) == ["apt/a.deb", "apt/pool/b.deb"]
    assert replace(manifest, lab="other").digest != manifest.digest
    moved = {**manifest.entries, "apt": replace(manifest.entries["apt"], key="apt-99")}
    assert replace(manifest, entries=moved).digest != manifest.digest
    assert moved["apt"].content == manifest.entries["apt"].content


def test_content_tells_names_and_sizes_apart() -> None:
    fact = FileFact("0" * 64, 1)
    contents = {
        Entry("x", "k", files).content
        for files in ({}, {"a": fact}, {"b": fact}, {"a": replace(fact, size=2)})
    }
    assert len(contents) == 4


def alter(change: Callable[[dict[str, Any]], object]) -> str:
    """Change the JSON of a manifest as someone would who knows its form."""
    raw = json.loads(dump(sample()))
    change(raw)
    return json.dumps(raw, indent=1, sort_keys=True) + "\n"


def rename(path: str) -> Callable[[dict[str, Any]], object]:
    def change(raw: dict[str, Any]) -> None:
        files = raw["entries"]["apt"]["files"]
        files[path] = files.pop("a.deb")

    return change


@pytest.mark.parametrize(
    "path",
    [
        "../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a/.", "", "a\\b", "..", "a\x00b",
        "a\nb", "x.part", "\x1b[2J", "pool", "pool/b.deb/c", "a/",
    ],
)  # fmt: skip
def test_no_path_leads_out(path: str) -> None:
    with pytest.raises(SupplyError) as caught:
        parse(alter(rename(path)))
    assert "changed after" not in caught.value.findings[0].why


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda raw: raw.update(format=2), "its format is 2"),
        (lambda raw: raw.update(format=None), "its format is None"),
        (lambda raw: raw.update(extra=1), "one too many: 'extra'"),
        (lambda raw: raw.pop("lab"), "lacks a key"),
        (lambda raw: raw.update(lab="a\nb"), "not a line of text"),
        (lambda raw: raw.update(versions=[]), "not an object"),
        (lambda raw: raw.update(versions={"x": 1}), "not a line of text"),
        (lambda raw: raw.update(lock="0" * 63), "64 hex"),
        (lambda raw: raw.update(lock="A" * 64), "64 hex"),
        (lambda raw: raw.update(digest="0" * 64), "changed after it was made"),
        (lambda raw: raw["entries"].update({"../x": raw["entries"]["apt"]}), "name of an entry"),
        (lambda raw: raw["entries"].update({"lab.lock": raw["entries"]["apt"]}), "of an entry"),
        (lambda raw: raw["entries"]["apt"].update(key="../x"), "name of a folder"),
        (lambda raw: raw["entries"]["apt"].update(key=""), "name of a folder"),
        (lambda raw: raw["entries"]["apt"]["files"]["a.deb"].update(size=-1), "size -1"),
        (lambda raw: raw["entries"]["apt"]["files"]["a.deb"].update(size=True), "size True"),
        (lambda raw: raw["entries"]["apt"]["files"]["a.deb"].update(size="3"), "size '3'"),
        (lambda raw: raw["entries"]["apt"]["files"]["a.deb"].update(sha256=None), "64 hex"),
        (lambda raw: raw["entries"]["apt"]["files"].update({"a.deb": []}), "not an object"),
        (lambda raw: raw["entries"].update(apt=None), "not an object"),
    ],
)
def test_each_part_is_checked(change: Callable[[dict[str, Any]], object], why: str) -> None:
    with pytest.raises(SupplyError) as caught:
        parse(alter(change))
    assert why in caught.value.findings[0].why


def test_a_deep_manifest_is_refused() -> None:
    with pytest.raises(SupplyError):
        parse("[" * 200_000)


def test_a_name_given_twice_is_refused() -> None:
    text = dump(sample()).replace('"a.deb": {', '"a.deb": {}, "a.deb": {')
    with pytest.raises(SupplyError, match="changed after it was made"):
        parse(text)
