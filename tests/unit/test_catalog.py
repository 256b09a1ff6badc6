"""The catalog is whole, a broken one is refused, and expressions mean what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labwright import catalog
from labwright.catalog import Catalog, asked, load, matches
from labwright.supplies import SUPPLIES

REAL = load()
SMALL = """
[components.supply]
title = "supply"
kind = "word"
source = "here"
releases = [{ versions = ["packages", "upstream"] }]

[components.a]
title = "A"
kind = "cluster"
source = "here"
supplies = ["upstream"]
releases = [
  { versions = ["1.10.0", "1.9.1", "1.9.0"] },
  { version = "1.8", supplies = ["packages"] },
]

[constraints.one]
when = { a = ">=1.9" }
needs = { a = "1.9.*" }
why = "because"
source = "there"
"""


def read(tmp_path: Path, text: str) -> Catalog:
    path = tmp_path / "catalog.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


@pytest.mark.parametrize(
    ("expression", "value", "fits"),
    [
        (">=1.36,<1.37", "1.36.4", True),
        (">=1.36,<1.37", "1.37.0", False),
        (">=1.6.36,<1.7 | >=1.7.24", "1.7.23", False),
        (">=1.6.36,<1.7 | >=1.7.24", "1.6.40", True),
        ("2.15.*", "2.15.1", True),
        ("2.15.*", "2.150.1", False),
        ("3.6.8-0", "3.6.8-0", True),
        ("3.6.8-0", "3.6.8-1", False),
        (">=3.6.8", "3.6.8-0", True),
        ("debian-12 | debian-13", "debian-13", True),
        ("debian-12 | debian-13", "debian-1", False),
        ("<7.3", "7.2.22_Debianr1", True),
        ("<7.2", "7.2.22_Debianr1", False),
        ("<7.2", "unknown", False),
        (">=1.10", "1.9", False),
        (">=2.4.0b1", "2.4.0-beta.2", True),
    ],
)
def test_what_an_expression_means(expression: str, value: str, fits: bool) -> None:
    assert matches(expression, value) is fits


@pytest.mark.parametrize(
    ("wish", "value", "meant"),
    [
        ("1.36", "1.36.2", True),
        ("v1.36", "1.36.2", True),
        ("1.3", "1.36.2", False),
        ("1.36.2", "1.36.2", True),
        ("3.6.8", "3.6.8-0", True),
        ("debian", "debian-12", True),
        ("virtualbox", "virtualbox", True),
    ],
)
def test_what_a_wish_means(wish: str, value: str, meant: bool) -> None:
    assert asked(wish, value) is meant


def test_versions_come_oldest_first_by_number(tmp_path: Path) -> None:
    found = read(tmp_path, SMALL).components["a"].releases
    assert [r.version for r in found] == ["1.8", "1.9.0", "1.9.1", "1.10.0"]
    assert [r.supplies for r in found] == [("packages",), *[("upstream",)] * 3]
    assert {r.source for r in found} == {"here"}


def test_words_stay_in_the_order_of_preference(tmp_path: Path) -> None:
    text = SMALL.replace('"packages", "upstream"]', '"upstream", "packages"]', 1)
    words = read(tmp_path, text).components["supply"].releases
    assert [r.version for r in words] == ["upstream", "packages"]


def test_what_a_supply_offers(tmp_path: Path) -> None:
    small = read(tmp_path, SMALL)
    assert small.offers("packages") == ("a",)
    assert small.offers("bundle") == ()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("when = { a =", "when = { b =", "there is no component 'b'"),
        ("needs = { a =", "needs = { b =", "there is no component 'b'"),
        ('">=1.9"', '">=one"', "'>=one' is no specifier"),
        ('">=1.9"', '"1.9"', "a has no '1.9'"),
        ('why = "because"', 'why = ""', "both `why` and `source`"),
        ("when = { a", "when = {} #", "both `when` and `needs`"),
        ('"1.9.1", "1.9.0"', '"1.9.1", "1.9.1"', "1.9.1 is listed twice"),
        ('"1.9.1", "1.9.0"', '"1.9.1", "new"', "'new' is not a version"),
        ('supplies = ["upstream"]', 'supplies = ["downstream"]', "no supply 'downstream'"),
        ('kind = "cluster"', 'kind = "clusters"', "no kind 'clusters'"),
        ('kind = "cluster"\nsource = "here"', 'kind = "cluster"', "no source"),
        ('kind = "cluster"\n', "", "is not a catalog: 'kind'"),
        ("{ version =", "{ verse = 1, version =", "unexpected keyword argument 'verse'"),
        ("[constraints.one]", '[charts]\nb = ""\n[constraints.one]', "no component 'b'"),
        ("[constraints.one]", '[images]\ni = "{b}"\n[constraints.one]', "no component 'b'"),
        ('source = "there"', 'source = "there"\nhow = ""', "unexpected keyword argument 'how'"),
    ],
)
def test_a_catalog_that_contradicts_itself(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    assert old in SMALL
    with pytest.raises(ValueError, match=re.escape(complaint)):
        read(tmp_path, SMALL.replace(old, new))


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = SMALL.replace('why = "because"', 'why = ""').replace('">=1.9"', '">=one"')
    with pytest.raises(ValueError, match=r"why.*no specifier"):
        read(tmp_path, text)


@pytest.mark.parametrize("constraint", REAL.constraints, ids=lambda c: c.id)
def test_a_constraint_says_why_and_where_it_was_read(constraint: catalog.Constraint) -> None:
    assert len(constraint.why) > 20
    assert len(constraint.source) > 10


@pytest.mark.parametrize("guest", REAL.guests.values(), ids=lambda g: g.name)
def test_a_guest_has_its_archive_and_boxes(guest: catalog.Guest) -> None:
    assert guest.apt
    assert all(REAL.apt[name].keyring == guest.keyring for name in guest.apt)
    assert set(guest.boxes) == {"virtualbox", "libvirt"}
    assert all(box.name and box.version for box in guest.boxes.values())


def test_the_words_are_those_of_the_code() -> None:
    supplies = {r.version for r in REAL.components["supply"].releases}
    assert set(SUPPLIES) <= supplies
    assert set(REAL.guests) == {r.version for r in REAL.components["guest"].releases}


def test_a_source_is_trusted_by_a_key_or_by_the_guest() -> None:
    for source in REAL.apt.values():
        assert bool(source.key and source.fingerprint) != bool(source.keyring)


def test_every_image_names_its_registry_and_a_version() -> None:
    assert REAL.images
    for template in REAL.images.values():
        assert re.fullmatch(
            r"(registry\.k8s\.io|docker\.io|quay\.io)/[a-z0-9/-]+:v?\{[a-z-]+\}", template
        )


def test_every_addon_of_lab_yaml_says_what_it_is_for() -> None:
    for addon in REAL.addons.values():
        assert addon.title
        assert addon.component in REAL.components
