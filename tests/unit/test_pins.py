"""When an earlier lab.lock answers all that a lab wants, and when vendors are asked again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from labwright.model import AptSource, ChartPin, DebPin, DebWish, ImagePin, Pins, Wanted
from labwright.recipes.pins import covers
from tests.fakes import DEBIAN, KEYED, answers, online, planned

RAW: dict[str, Any] = {
    "supply": "upstream",
    "mirrors": KEYED,
    "versions": {"rancher": "2.15", "cert-manager": "1.21"},
}
WANTED = planned(RAW, online(DEBIAN)).wanted
PINS = answers(WANTED)


def deb(name: str, **change: str) -> Pins:
    return replace(PINS, packages={**PINS.packages, name: replace(PINS.packages[name], **change)})


def without(part: str, name: str) -> Pins:
    rest = {key: value for key, value in getattr(PINS, part).items() if key != name}
    return replace(PINS, **{part: rest})


def test_answers_to_all_that_is_wanted_cover_it() -> None:
    assert covers(PINS, WANTED)
    assert covers(Pins(), Wanted())


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("keys", "kubernetes"),
        ("keys", "docker"),
        ("packages", "kubelet"),
        ("packages", "containerd.io"),
        ("packages", "socat"),
        ("images", "pause"),
        ("charts", "rancher"),
    ],
)
def test_an_answer_too_few_does_not(part: str, name: str) -> None:
    assert not covers(without(part, name), WANTED)


def test_what_is_not_required_may_be_missing() -> None:
    assert covers(Pins(), Wanted(debs=(DebWish("docker-cli", ("debian",), required=False),)))
    assert not covers(Pins(), Wanted(debs=(DebWish("docker-cli", ("debian",)),)))


@pytest.mark.parametrize(
    ("version", "covered"),
    [
        ("1.36.4-1.1", True),
        ("1.36.4-2.1", True),
        ("5:1.36.4-1.1", True),
        ("1.36.40-1.1", False),
        ("1.36.3-1.1", False),
        ("11.36.4-1.1", False),
    ],
)
def test_a_package_has_the_version_that_is_wanted(version: str, covered: bool) -> None:
    assert covers(deb("kubelet", version=version), WANTED) is covered


@pytest.mark.parametrize(
    ("version", "covered"),
    [("2.3.4-1~debian.12~bookworm", True), ("2.3.4~rc1-1", True), ("2.3.40-1", False)],
)
def test_a_runtime_has_the_version_that_is_wanted(version: str, covered: bool) -> None:
    assert covers(deb("containerd.io", version=version), WANTED) is covered


def test_a_package_comes_from_where_it_may() -> None:
    assert covers(deb("socat", source="debian-security"), WANTED)
    assert not covers(deb("socat", source="docker"), WANTED)
    assert not covers(deb("kubelet", source="debian"), WANTED)


def test_another_image_is_another_question() -> None:
    other = replace(WANTED, images={**WANTED.images, "pause": "registry.k8s.io/pause:3.9"})
    assert not covers(PINS, other)
    fewer = {name: ref for name, ref in WANTED.images.items() if name != "coredns"}
    assert not covers(PINS, replace(WANTED, images=fewer))


@pytest.mark.parametrize(
    ("version", "covered"), [("1.21.2", True), ("v1.21.2", True), ("1.21.1", False)]
)
def test_a_chart_s_leading_v_makes_no_difference(version: str, covered: bool) -> None:
    pin = replace(PINS.charts["cert-manager"], version=version)
    pins = replace(PINS, charts={**PINS.charts, "cert-manager": pin})
    assert covers(pins, WANTED) is covered


def test_a_chart_that_is_no_longer_wanted_is_asked_about_no_more() -> None:
    assert not covers(PINS, replace(WANTED, charts={}))


KNOWN = "DE15B14486CD377B9E876E1A234654DA9A296436"


@pytest.mark.parametrize("key", ["", "no key", PINS.keys["kubernetes"]])
def test_a_key_that_is_not_the_known_one_does_not_count(key: str) -> None:
    source = AptSource("kubernetes", "http://m.lan/", ("/",), key="http://m.lan/key")
    wanted, pins = Wanted(apt=(source,)), Pins(keys={"kubernetes": key})
    assert covers(pins, wanted)
    assert not covers(pins, Wanted(apt=(replace(source, fingerprint=KNOWN),)))


def test_a_source_with_a_keyring_of_the_guest_has_no_key_to_keep() -> None:
    source = AptSource("debian", "http://d.lan/", ("bookworm",), keyring="/k.gpg")
    wish = DebWish("socat", ("debian",))
    pins = Pins(packages={"socat": DebPin("1.7.4", "0" * 64, "debian")})
    assert covers(pins, Wanted(apt=(source,), debs=(wish,)))


def test_a_lock_of_another_kind_of_lab_covers_nothing() -> None:
    other = Pins(
        images={"x": ImagePin("x:1", "sha256:" + "0" * 64, 1)},
        charts={"x": ChartPin("1", "http://x.lan/x.tgz", "0" * 64)},
    )
    assert not covers(other, WANTED)
    assert not covers(other, Wanted())
