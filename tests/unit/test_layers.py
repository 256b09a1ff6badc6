"""Imports point one way, and each outside library has one home."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "labwright"

# Lowest first: a module imports only from layers below its own, or from its own folder's base.
LAYERS = (
    {"errors"},
    {"events", "known", "model", "names"},
    {"authority", "bundle", "catalog", "conformance", "keys", "oci"},
    {"lock", "solver", "spec"},
    {"providers", "supplies"},
    {"boxes"},
    {"addresses", "doctor", "machines", "software"},
    {"site"},
    {"plan"},
    {"render", "tools"},
    {"addons", "kubeconfig", "locate"},
    {"recipes"},
    {"phases"},
    {"lab"},
    {"boxshop"},
    {"console"},
    {"cli"},
    {"cli_box", "cli_bundle", "cli_dev", "cli_doctor", "selftest"},
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

# The only importers of what starts processes or drives other tools.
HOMES = {
    # measure.py does not run here: it is sent to machines.
    "subprocess": {"tools/shell.py", "tools/vagrant.py", "tools/data/measure.py"},
    "vagrant": {"tools/vagrant.py"},
    "ansible_runner": {"tools/ansible.py"},
    "jinja2": {"render.py"},
    "invoke": {"cli.py", "selftest.py"},
    "rich": {"console.py"},
    "requests": {"tools/download.py", "tools/partfile.py", "tools/trouble.py"},
    "urllib3": {"tools/download.py", "tools/partfile.py", "tools/trouble.py"},
    "cryptography": {"authority.py"},
    "zstandard": {"tools/bundle_archive.py"},
}


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py"))


@cache
def imports(path: Path) -> tuple[str, ...]:
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "labwright":
                yield from (f"labwright.{alias.name}" for alias in node.names)


def part(dotted: str) -> str:
    return dotted.split(".")[1] if dotted.count(".") else ""


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imports(path):
        other = part(name)
        if name.startswith("labwright.") and other in RANK and other != own:
            assert RANK[other] < RANK[own] or {own, other} == {"render", "tools"}, (
                f"{own} imports {other}"
            )


def test_every_module_has_a_layer() -> None:
    names = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in modules()}
    assert names - {"__init__"} == set(RANK)


@pytest.mark.parametrize("library", HOMES)
def test_a_library_stays_in_its_home(library: str) -> None:
    users = {
        str(p.relative_to(PACKAGE))
        for p in modules()
        if any(name.split(".")[0] == library for name in imports(p))
    }
    assert users <= HOMES[library]


def test_nothing_but_tools_is_imported_by_siblings_of_tools() -> None:
    for folder in ("providers", "supplies"):
        for path in (PACKAGE / folder).glob("*.py"):
            if path.stem in {"__init__", "base"}:
                continue
            siblings = {
                name.split(".")[2]
                for name in imports(path)
                if name.startswith(f"labwright.{folder}.")
            }
            assert siblings <= {"base"}, path
