"""What is rendered is what was rendered before, byte for byte."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from labwright.providers import PROVIDERS
from labwright.supplies import SUPPLIES
from tests.fakes import HOSTS
from tests.golden.combinations import COMBINATIONS, CUSTOM, FILES, rendered

AGAIN = "look at the difference, then: LABWRIGHT_GOLDEN=write pytest tests/golden"


def kept(combination: str) -> dict[str, str]:
    folder = FILES / combination
    return {
        str(path.relative_to(folder)): path.read_bytes().decode()
        for path in folder.rglob("*")
        if path.is_file()
    }


def write(combination: str, files: dict[str, str]) -> None:
    shutil.rmtree(FILES / combination, ignore_errors=True)
    for name, text in files.items():
        path = Path(FILES / combination / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_files_are_as_they_were(combination: str) -> None:
    files = rendered(combination)
    if os.environ.get("LABWRIGHT_GOLDEN") == "write":
        write(combination, files)
    before = kept(combination)
    assert sorted(before) == sorted(files), f"{combination} has no golden files for these: {AGAIN}"
    for name, text in files.items():
        assert text == before[name], f"{combination}/{name} changed: {AGAIN}"


def test_no_golden_file_is_left_over() -> None:
    assert sorted(p.name for p in FILES.iterdir()) == sorted(COMBINATIONS), AGAIN


def test_every_provider_has_a_host_to_be_rendered_on() -> None:
    assert set(HOSTS) == set(PROVIDERS), "give tests/fakes.py a host for the new provider"


def test_every_supply_has_a_custom_lab() -> None:
    assert set(CUSTOM) == set(SUPPLIES), "say in combinations.py what a custom lab asks of it"


@pytest.mark.parametrize("combination", [c for c in COMBINATIONS if "-upstream-" in c])
def test_an_upstream_lab_s_files_hold_what_its_vendors_answered(combination: str) -> None:
    files = kept(combination)
    for name in ("inventory/hosts.yml", "lab.lock"):
        assert "BEGIN PGP PUBLIC KEY BLOCK" in files[name]
        assert "registry.k8s.io/kube-apiserver:v1.3" in files[name]
        assert "digest: sha256:" in files[name]
    assert "labwright.local" not in "".join(files.values())
