"""What the commands print, and the code that they end with."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from invoke.exceptions import Exit

from labwright import catalog, cli, cli_bundle
from labwright.console import Console
from labwright.errors import (
    BootError,
    ConvergeError,
    Finding,
    HostError,
    LabError,
    SpecError,
    SupplyError,
)
from labwright.lab import Lab, Options
from labwright.locate import save_plan
from labwright.phases import preflight
from labwright.software import Bundled
from labwright.tools import bundles
from labwright.tools.download import Http
from labwright.tools.nodes import RECORD, dump
from labwright.tools.store import Store
from labwright.tools.workdir import Workdir
from tests.fakes import DEBIAN, manifest, online, planned, upstream
from tests.vendors import Faulty

SOFTWARE = {"cp1": {"packages": {"kubelet": "1.36.4-1.1", "socat": "1.7.4"}, "images": {}}}


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A command takes over the signals; give them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ended(command: Callable[[], object]) -> int:
    with pytest.raises(Exit) as caught:
        command()
    code: int = caught.value.code
    return code


# --- ends


@pytest.mark.parametrize("kind", [SpecError, SupplyError, BootError, ConvergeError])
def test_an_error_is_printed_and_is_the_exit_code(
    kind: type[LabError], capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        with cli.printing():
            raise kind(Finding("x", "error", "no such thing", fix="make one"))

    assert ended(command) == kind.exit_code
    assert "error: no such thing\n  fix: make one" in capsys.readouterr().out


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        with cli.printing():
            raise KeyboardInterrupt

    assert ended(command) == 130
    assert "goes on from here" in capsys.readouterr().out


# --- lab.diff


def recorded(path: Path, software: dict[str, Any]) -> str:
    path.write_text(dump(software), "utf-8")
    return str(path)


def test_two_equal_labs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (recorded(tmp_path / f"{n}.json", SOFTWARE) for n in ("one", "two"))
    cli.diff(one, two)
    assert capsys.readouterr().out == "same packages and images on every node\n"


def test_two_different_labs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {"cp1": {"packages": {"kubelet": "1.36.3-1.1"}, "images": {}}}
    one, two = recorded(tmp_path / "a.json", SOFTWARE), recorded(tmp_path / "b.json", other)
    assert ended(lambda: cli.diff(one, two)) == 1
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["cp1", "kubelet", "1.36.4-1.1", "1.36.3-1.1"] in rows
    assert ["cp1", "socat", "1.7.4", "-"] in rows
    assert rows[-1] == ["2", "differences"]


def test_a_record_may_have_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (recorded(tmp_path / name, SOFTWARE) for name in ("before", "after.txt"))
    cli.diff(one, two)
    assert capsys.readouterr().out == "same packages and images on every node\n"


def test_what_is_no_record_is_a_mistake_of_the_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_text("[]")
    one = str(tmp_path / "x.json")
    assert ended(lambda: cli.diff(one, one)) == SpecError.exit_code
    assert "does not say what is on the nodes" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["folder", "root", "name"])
def test_a_lab_that_is_down_is_compared_as_it_was(
    tmp_path: Path,
    form: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Workdir(tmp_path, "lab")
    save_plan(folder, planned())
    folder.write({"source": "", RECORD: dump(SOFTWARE)})
    which = {"folder": str(tmp_path / ".lab/lab"), "root": str(tmp_path), "name": "lab"}[form]
    cli.diff(which, recorded(tmp_path / "x.json", SOFTWARE))
    assert "same packages" in capsys.readouterr().out


# --- lab.lock


@pytest.mark.parametrize("names", ["kubernets", "etcd,kubernets"])
def test_a_component_that_is_not_there_is_not_upgraded(
    tmp_path: Path,
    names: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ended_with = ended(lambda: cli.lock("", upgrade=names, yes=False, supply=""))
    assert ended_with == SpecError.exit_code
    said = capsys.readouterr().out
    assert "there is no component kubernets" in said
    assert "lab.versions" in said
    assert not (tmp_path / "lab.lock").exists()


@pytest.mark.parametrize(
    "command",
    [
        lambda: cli.lock("", upgrade=False, yes=False, supply=""),
        lambda: cli.plan("", files=False, supply=""),
        lambda: cli.up("", yes=False, verbose=False, supply="", locked=True),
    ],
    ids=["lock", "plan", "up"],
)
def test_a_damaged_lock_stops_a_command_before_it_does_anything(
    tmp_path: Path,
    command: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.lock").write_text("versions: [")
    assert ended(command) == SupplyError.exit_code
    assert f"{tmp_path / 'lab.lock'} cannot be read" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["lab.lock"]


def test_a_lock_that_failed_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.yaml").write_text("network: {subnet: 10.56.0.0/16}\nprovider: virtualbox\n")
    nowhere = replace(DEBIAN, tools={})
    monkeypatch.setattr(preflight, "measure", lambda _tools, _spec: nowhere)
    lock = ended(lambda: cli.lock("", upgrade=False, yes=False, supply=""))
    assert lock == HostError.exit_code
    assert "VBoxManage is not installed" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["lab.yaml"]


# --- lab.plan, lab.versions


def test_a_plan_says_that_nobody_was_asked_yet(capsys: pytest.CaptureFixture[str]) -> None:
    unasked = planned({"supply": "upstream"}, online(DEBIAN))
    words = "digests: not asked yet"
    for made, said in ((unasked, True), (upstream(), False), (planned(), False)):
        cli._choices(made, Console())
        assert (words in capsys.readouterr().out) is said


def test_each_choice_is_printed_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    made = upstream({"kubernetes": "1.35"})
    cli._choices(made, Console())
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "lab lab: 3 nodes"
    for choice, row in zip(made.choices, rows[1:], strict=True):
        assert row.split() == [*choice.what.split(), *choice.chosen.split(), *choice.why.split()]


def test_a_component_shows_its_newest_versions_and_where_they_are() -> None:
    known = catalog.load().components
    (shown,) = cli._known(known["kubernetes"], everything=False)
    packages, upstream = shown.split("; ")
    assert packages == "packages: 1.37.2, 1.36.3, 1.35.4"
    assert upstream.startswith(f"upstream: {known['kubernetes'].releases[-1].version}, ")
    assert upstream.count(",") == cli.SHOWN
    assert upstream.endswith(", …")
    assert cli._known(known["runc"], everything=False) == ["packages: 1.5.3"]
    assert cli._known(known["vagrant"], everything=False) == ["2.4.9, 2.4.2, 2.3.4"]


@pytest.mark.parametrize("name", ["kubernetes", "rancher", "runc", "helm"])
def test_every_version_of_a_component_is_shown_on_request(name: str) -> None:
    component = catalog.load().components[name]
    (shown,) = cli._known(component, everything=True)
    assert "…" not in shown
    found = {word.strip(",;") for word in shown.split() if not word.endswith(":")}
    assert found == {release.version for release in component.releases}


def test_a_constraint_reads_as_words() -> None:
    assert cli._expression({"rancher": "2.15.*", "provider": "docker"}) == (
        "rancher 2.15.* and provider docker"
    )


# --- lab.up's last words


@pytest.mark.parametrize("addons", [[], ["dns"]])
@pytest.mark.parametrize("supply", ["packages", "upstream", "bundle"])
def test_a_lab_that_is_up_is_told_of_in_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], supply: str, addons: list[str]
) -> None:
    raw = {"addons": addons}
    made = upstream(raw) if supply != "packages" else planned(raw)
    if supply == "bundle":
        made = planned(raw, bundled=Bundled("/b", manifest(made)))
    it = Lab(Options(root=tmp_path))
    cli._made(it, made, Console(), 61.4)
    said = capsys.readouterr().out
    assert "lab lab is up and verified after 61 s" in said
    assert f"export KUBECONFIG={it.workdir.kubeconfig}" in said
    assert ("without cluster DNS: lab.yaml leaves it out" in said) is not bool(addons)


# --- bundles


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return made_bundle(tmp_path, tmp_path / "bundle")


def packed(bundle: Path) -> Path:
    """Give the same bundle as one file."""
    return made_bundle(bundle.parent, bundle.with_name("bundle.tar.zst"))


def made_bundle(folder: Path, target: Path) -> Path:
    def build(_work: Path, out: Path) -> None:
        (out / "kubelet.deb").write_bytes(b"deb" * 1000)

    made = Store(folder / "store").ensure("apt-0", build)
    bundles.make(
        {"apt": ("apt-0", made)},
        target,
        lab="class-7",
        versions={"kubernetes": "1.36.4"},
        facts={"provider": "docker", "guest": "debian-12", "arch": "x86_64", "supply": "upstream"},
        lock="name: class-7\n",
        say=lambda _text: None,
        progress=lambda _done, _total: None,
    )
    return target


def test_a_sound_bundle(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli_bundle.verify(str(bundle))
    said = capsys.readouterr().out
    assert f"sha256 {bundles.manifest(bundle).digest}" in said
    assert "all as the manifest says" in said


def test_a_flipped_bit_is_said_and_is_an_exit_code(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundle / "apt/kubelet.deb"
    content = bytearray(path.read_bytes())
    content[1500] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    assert ended(lambda: cli_bundle.verify(str(bundle))) == SupplyError.exit_code
    assert "apt/kubelet.deb" in capsys.readouterr().out


@pytest.mark.parametrize("files", [False, True])
def test_a_bundle_says_what_it_holds(
    bundle: Path, files: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    cli_bundle.show(str(bundle), files=files)
    said = capsys.readouterr().out
    for words in ("class-7", "kubernetes 1.36.4", "debian-12", "apt"):
        assert words in said
    assert ("apt/kubelet.deb" in said) is files


@pytest.mark.parametrize("form", ["folder", "archive", "address"])
def test_a_bundle_of_any_form_is_served(
    tmp_path: Path,
    bundle: Path,
    form: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = bundles.manifest(bundle)
    got: list[tuple[bytes, bytes]] = []

    def look(_seconds: float) -> None:
        """Ask what is served now, and press Ctrl-C."""
        (url,) = re.findall(r" at (http://\S+);", capsys.readouterr().out)
        with Http() as http:
            got.append((http.get(f"{url}/bundle.json"), http.get(f"{url}/apt/kubelet.deb")))
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_bundle, "time", SimpleNamespace(sleep=look))
    with Faulty(bundle) as other:
        where = {"folder": str(bundle), "archive": str(packed(bundle)), "address": other.url}[form]
        assert ended(lambda: cli_bundle.serve(where, "127.0.0.1", 0)) == 0
    assert got == [((bundle / "bundle.json").read_bytes(), b"deb" * 1000)]
    kept = tmp_path / "cache/labwright/bundles" / made.digest
    assert kept.is_dir() is (form != "folder")


@pytest.mark.parametrize("command", [cli_bundle.verify, lambda b: cli_bundle.show(b, files=True)])
def test_what_is_no_bundle_is_said(
    tmp_path: Path, command: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(lambda: command(str(tmp_path))) == SupplyError.exit_code
    assert str(tmp_path) in capsys.readouterr().out
