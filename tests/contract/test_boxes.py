"""The real Vagrant takes our boxes, from a folder, a file, over HTTP, and lets them go."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from labwright import boxshop, catalog, keys
from labwright.boxes import own_version
from labwright.boxshop import Shop
from labwright.bundle import Manifest
from labwright.errors import HostError, LabError, SpecError, SupplyError
from labwright.lab import Options
from labwright.model import Box, HadBox
from labwright.phases.base import Run
from labwright.phases.boxing import ensure_box
from labwright.recipes import box
from labwright.supplies.base import own_box
from labwright.tools import boxes, bundles
from labwright.tools.boxes import PACKAGE
from labwright.tools.bundle_serve import serving_bundle
from labwright.tools.libvirt import Libvirt
from labwright.tools.shell import Shell
from labwright.tools.store import Store
from labwright.tools.workdir import cache
from tests.contract.needs import need, want
from tests.fakes import LIBVIRT, planned, run_of
from tests.unit.test_recipes import tiny_root

TOOLS = ("sfdisk", "mke2fs", "grub-mkimage", "qemu-img")
NAME = "labwright/debian-12"
PROVIDERS = ("libvirt", "virtualbox")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Shop]:
    """Give a shop with a cache and a Vagrant of its own, where the root is made already."""
    need("vagrant")
    for program in TOOLS:
        want(program)
    if not box.GRUB.exists():
        pytest.skip(f"{box.GRUB} is not there: grub-pc-bin is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "vagrant"))
    small = {name: replace(form, disk=64) for name, form in box.FORMS.items()}
    monkeypatch.setattr(box, "FORMS", small)
    # Which packages a host has is Debian's to say; the programs are there.
    monkeypatch.setattr(boxshop, "with_host_packages", lambda _run, _artifacts: None)
    monkeypatch.setattr(boxshop, "not_buildable", lambda _host, _what: [])
    root = tiny_root(tmp_path / "root")
    guest = catalog.load().guests["debian-12"]
    places = keys.keys(own_box(guest, "libvirt"))
    keep(Store(cache() / "store"), places["machine-root"], root)

    def make(*, yes: bool = False) -> Shop:
        return Shop(Options(root=tmp_path, yes=yes))

    return make


def keep(store: Store, key: str, folder: Path) -> None:
    """Put a folder into the store as it is."""

    def copy(_work: Path, out: Path) -> None:
        shutil.copytree(folder, out, dirs_exist_ok=True)

    store.ensure(key, copy)


def listed() -> set[tuple[str, str]]:
    return {(found.name, found.provider) for found in boxes.had()}


def test_vagrant_takes_a_folder_of_boxes_wherever_it_is_now(
    shop: Callable[..., Shop], tmp_path: Path
) -> None:
    made = shop().build(PROVIDERS, "debian-12")
    folder = tmp_path / "stick"
    written = shop().hand_on(made, folder)
    assert [p.name for p in written] == [
        "debian-12-libvirt.box",
        "debian-12-virtualbox.box",
        "debian-12.json",
    ]
    moved = folder.rename(tmp_path / "a stick elsewhere")
    added = shop().add(str(moved), "", "")
    # In a catalogue the versions are in order, and a version is a digest's.
    assert sorted(added) == sorted(f"{m.name} {m.version} ({m.provider})" for m in made)
    assert listed() == {(NAME, "libvirt"), (NAME, "virtualbox")}
    assert shop().add(str(moved), "", "") == []
    # Vagrant itself says the same of its list.
    said = Shell().run(["vagrant", "box", "list", "--machine-readable"]).out
    assert said.count(f"box-name,{NAME}") == 2
    assert said.count(f"box-version,{made[0].version}") == 1
    for entry in boxes.listed():
        said = (entry.folder / "metadata.json").read_text("utf-8")
        assert json.loads(said)["provider"] == entry.box.provider


def test_other_bytes_than_the_catalogue_says_are_refused(
    shop: Callable[..., Shop], tmp_path: Path
) -> None:
    made = shop().build(["libvirt"], "debian-12")
    folder = tmp_path / "stick"
    first, _catalogue = shop().hand_on(made, folder)
    with first.open("r+b") as file:
        file.seek(5000)
        file.write(b"x")
    with pytest.raises(SupplyError) as caught:
        shop().add(str(folder), "", "")
    assert "checksum" in "\n".join(caught.value.details).lower()
    assert listed() == set()


def test_a_served_bundle_is_a_catalogue_that_vagrant_reads(
    shop: Callable[..., Shop], tmp_path: Path
) -> None:
    (made,) = shop().build(["libvirt"], "debian-12")
    key = made.path.parent.name
    facts = {"provider": "libvirt", "guest": "debian-12", "arch": "x86_64", "supply": "packages"}
    manifest: Manifest = bundles.make(
        {"box-libvirt": (key, made.path.parent)},
        tmp_path / "bundle",
        lab="demo",
        versions={"kubernetes": "1.20.2"},
        facts={**facts, "addons": ""},
        lock="name: demo\n",
    )
    assert PACKAGE in manifest.entries["box-libvirt"].files
    with serving_bundle(tmp_path / "bundle", "127.0.0.1", 0) as url:
        # As a learner without Labwright does it.
        Shell().run(["vagrant", "box", "add", f"{url}/boxes/debian-12.json"])
        assert boxes.had() == (HadBox(NAME, own_version(key), "libvirt"),)
        with pytest.raises(SpecError) as caught:
            shop().add(f"{url}/boxes/debian-12.json", "virtualbox", "")
        assert "has labwright/debian-12 for libvirt" in caught.value.findings[0].what
        with pytest.raises(LabError):
            shop().add(f"{url}/boxes/other.json", "", "")


def test_a_box_that_a_lab_uses_is_never_removed(
    shop: Callable[..., Shop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    # A pool of this computer is nobody's but its user's.
    monkeypatch.setattr(Libvirt, "remove_base", lambda _self, name: taken.append(name))
    made = shop().build(PROVIDERS, "debian-12")
    assert len(shop().add("", "", "")) == 2
    index = tmp_path / "vagrant/data/machine-index/index"
    index.parent.mkdir(parents=True, exist_ok=True)
    used = {"name": NAME, "provider": "libvirt", "version": made[0].version}
    machine = {"vagrantfile_path": "/home/me/.lab/demo", "extra_data": {"box": used}}
    index.write_text(json.dumps({"version": 1, "machines": {"1": machine}}))
    rows = {e.box.provider: labs for e, labs in shop().listed(everything=False)}
    assert rows == {"libvirt": ["demo"], "virtualbox": []}
    with pytest.raises(HostError) as caught:
        shop().prune()
    assert caught.value.findings[0].id == "host.no-consent"
    (gone,) = shop(yes=True).prune()
    assert gone.box.provider == "virtualbox"
    assert listed() == {(NAME, "libvirt")}
    assert shop(yes=True).prune() == []
    assert taken == []
    index.unlink()
    (last,) = shop(yes=True).prune()
    assert last.box.provider == "libvirt"
    assert taken == [NAME]


def test_a_lab_adds_its_own_box_once_and_a_plain_file_under_its_version(
    shop: Callable[..., Shop], tmp_path: Path
) -> None:
    (made,) = shop().build(["libvirt"], "debian-12")
    plan = planned({"provider": "libvirt"}, LIBVIRT)
    run = run_of(tmp_path, plan)
    run = replace(run, tools=replace(run.tools, store=shop().run.tools.store, shell=Shell()))
    ensure_box(run)
    assert plan.box is not None
    assert boxes.had() == (HadBox(NAME, plan.box.version, "libvirt"),)
    before = boxes.listed()
    ensure_box(run)
    assert boxes.listed() == before
    url = str(shutil.copyfile(made.path, tmp_path / "mine.box"))
    asked = Box("me/node", "1.2.3", url, f"sha256:{made.sha256}")
    ensure_box(_with(run, asked))
    assert (HadBox("me/node", "1.2.3", "libvirt")) in boxes.had()
    wrong = replace(asked, name="me/other", checksum=f"sha256:{0:064}")
    with pytest.raises(SupplyError):
        ensure_box(_with(run, wrong))


def test_docker_loads_the_image(shop: Callable[..., Shop], tmp_path: Path) -> None:
    root = tiny_root(tmp_path / "base")
    artifacts = boxshop._artifacts(catalog.load().guests["debian-12"], "docker")
    store = shop().run.tools.store
    place = keys.keys(artifacts)["base"]
    keep(store, place, root)
    (made,) = shop().build(["docker"], "debian-12")
    with tarfile.open(made.path) as tar:
        assert sorted(tar.getnames()) == ["config.json", "layer.tar", "manifest.json"]
    if not shop().run.tools.docker.api()[0]:
        pytest.skip("no Docker daemon answers")
    said = Shell().run(["docker", "load", "--input", made.path]).out
    assert "labwright/base:debian-12" in said
    Shell().run(["docker", "image", "rm", "labwright/base:debian-12"])


def _with(run: Run, wanted: Box) -> Run:
    return replace(run, _plan=replace(run.plan, own_box=False, box=wanted))
