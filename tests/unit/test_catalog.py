"""The catalog is whole, and versions mean what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labwright import catalog
from labwright.model import SupplyName
from labwright.supplies import SUPPLIES

COMPONENTS = {"etcd", "pause", "coredns", "containerd", "cni-plugins", "busybox"}


@pytest.mark.parametrize(
    ("version", "api"),
    [
        ("1.15.0", "v1beta2"),
        ("1.20.2", "v1beta2"),
        ("1.21.14", "v1beta2"),
        ("1.22.0", "v1beta3"),
        ("1.22", "v1beta3"),
        ("1.30.9", "v1beta3"),
        ("1.31.0", "v1beta4"),
        ("1.100.0", "v1beta4"),
        ("2.0.0", "v1beta4"),
    ],
)
def test_the_api_kubeadm_reads(version: str, api: str) -> None:
    assert catalog.kubeadm_api(version) == api


@pytest.mark.parametrize("release", catalog.load().releases, ids=lambda r: r.version)
def test_a_release_is_whole(release: catalog.Release) -> None:
    assert set(release.components) == COMPONENTS
    assert all(re.fullmatch(r"\d+(\.\d+)+", v) for v in release.components.values())
    assert re.fullmatch(r"\d+\.\d+\.\d+", release.version)
    assert set(release.supplies) <= set(SUPPLIES)
    assert release.supplies
    assert release.source


@pytest.mark.parametrize("supply", SUPPLIES)
def test_every_supply_offers_a_release(supply: SupplyName) -> None:
    offered = catalog.load().offered_by(supply)
    assert offered
    for release in offered:
        assert SUPPLIES[supply].artifacts(release)


def test_no_supply_offers_what_does_not_name_it() -> None:
    assert catalog.load().offered_by("nobody") == ()


def test_every_addon_says_what_it_is_for() -> None:
    assert all(catalog.load().addons.values())


def test_releases_come_oldest_first_by_number(tmp_path: Path) -> None:
    entry = '[[kubernetes]]\nversion = "{}"\nsupplies = []\nsource = ""\ncomponents = {{}}\n'
    path = tmp_path / "catalog.toml"
    path.write_text("".join(map(entry.format, ("1.20.10", "1.9.1", "1.20.9"))) + "[addons]\n")
    found = catalog.load(path)
    assert [r.version for r in found.releases] == ["1.9.1", "1.20.9", "1.20.10"]
    assert [r.minor for r in found.releases] == [(1, 9), (1, 20), (1, 20)]
