"""Files are written whole, a lab has one holder at a time, and what cannot be read is said."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labwright.errors import HostError
from labwright.tools.workdir import Workdir, labs, refused, write

ROOT = Path(__file__).resolve().parents[2]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_writing_tells_whether_it_changed_anything(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    assert write(path, "one\n")
    assert not write(path, "one\n")
    assert write(path, "two\n")
    assert path.read_text("utf-8") == "two\n"


def test_what_is_unchanged_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, "same")
    before = path.stat()
    write(path, "same")
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("bits", [0o600, 0o644])
def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path, bits: int) -> None:
    before = os.umask(0o077 if bits == 0o644 else 0)
    try:
        write(tmp_path / "file", "x", bits)
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") == bits


def test_a_reader_sees_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, "old")
    with path.open(encoding="utf-8") as reader:
        write(path, "new, and longer")
        assert reader.read() == "old"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write(path, "half \ud800")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text("utf-8") == "old"


def test_a_damaged_file_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xff\xfe\x00")
    assert write(path, "sound")
    assert path.read_text("utf-8") == "sound"


def test_a_folder_that_refuses_is_said(tmp_path: Path) -> None:
    # A file where a folder should be refuses root too.
    (tmp_path / "file").touch()
    with pytest.raises(HostError) as caught:
        write(tmp_path / "file" / "below", "x")
    finding = caught.value.findings[0]
    assert finding.id == "host.cannot-write"
    assert str(tmp_path / "file" / "below") in finding.what


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into a read-only folder")
def test_a_read_only_folder_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(HostError, match="cannot be written"):
            write(tmp_path / "file", "x")
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_has_advice_of_its_own() -> None:
    full = refused(OSError(28, "No space left on device"), Path("/x")).findings[0]
    assert full.fix == "free some space there"
    assert refused(PermissionError(13, "no"), Path("/x")).findings[0].fix != full.fix


def test_a_lab_s_files(tmp_path: Path) -> None:
    lab = Workdir(tmp_path, "one")
    assert not lab.path.exists()
    assert lab.write({"a": "1", "inventory/b": "2"}) == ["a", "inventory/b"]
    assert lab.write({"a": "1", "inventory/b": "3"}) == ["inventory/b"]
    assert (tmp_path / ".lab" / "one" / "inventory" / "b").read_text() == "3"


def test_a_lab_exists_when_it_has_a_plan(tmp_path: Path) -> None:
    for name in ("b", "a"):
        Workdir(tmp_path, name).write({"plan.json": "{}"})
    Workdir(tmp_path, "empty").write({"journal.jsonl": ""})
    assert Workdir(tmp_path, "a").exists
    assert not Workdir(tmp_path, "empty").exists
    assert labs(tmp_path) == ["a", "b"]
    assert labs(tmp_path / "nowhere") == []


def test_where_a_lab_came_from(tmp_path: Path) -> None:
    lab = Workdir(tmp_path, "lab")
    assert lab.source() is None
    lab.write({"source": ""})
    assert lab.source() == ""
    lab.write({"source": "/x/lab.yaml\n"})
    assert lab.source() == "/x/lab.yaml"


def test_removing_leaves_nothing(tmp_path: Path) -> None:
    lab = Workdir(tmp_path, "lab")
    lab.write({"ssh/key": "x", "plan.json": "{}"})
    lab.remove()
    assert not lab.path.exists()
    lab.remove()


@contextmanager
def holder(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold the lab ``lab`` from another process."""
    driver = """
        import sys
        from pathlib import Path
        from labwright.tools.workdir import Workdir
        with Workdir(Path(sys.argv[1]), "lab").held("lab.up"):
            print("held", flush=True)
            sys.stdin.read()
    """
    words = [sys.executable, "-c", textwrap.dedent(driver), str(root)]
    with subprocess.Popen(
        words, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_second_holder_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    lab = Workdir(tmp_path, "lab")
    with holder(tmp_path) as first:
        with pytest.raises(HostError) as caught, lab.held("lab.destroy"):
            pass
        finding = caught.value.findings[0]
        assert finding.id == "host.lab-busy"
        assert f"lab.up, process {first.pid}, since " in finding.what
        with Workdir(tmp_path, "other").held("lab.up"):
            pass
        first.communicate()
    with lab.held("lab.destroy"):
        pass


def test_a_holder_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        with Workdir(tmp_path, "lab").held("lab.up"):
            assert f"process {os.getpid()}" in (tmp_path / ".lab/lab/holder").read_text()


def test_one_process_does_not_hold_a_lab_twice(tmp_path: Path) -> None:
    with (
        Workdir(tmp_path, "lab").held("lab.up"),
        pytest.raises(HostError, match=r"in use by lab\.up"),
        Workdir(tmp_path, "lab").held("lab.up"),
    ):
        pass


def test_a_lab_is_let_go_after_an_error_and_after_its_removal(tmp_path: Path) -> None:
    lab = Workdir(tmp_path, "lab")
    with pytest.raises(ZeroDivisionError), lab.held("lab.up"):
        raise ZeroDivisionError
    assert not (lab.path / "holder").exists()
    with lab.held("lab.destroy"):
        lab.remove()
    with lab.held("lab.up"):
        pass


def test_a_lab_that_cannot_be_held_is_said(tmp_path: Path) -> None:
    (tmp_path / ".lab").touch()
    with pytest.raises(HostError, match="cannot be written"), Workdir(tmp_path, "x").held("lab.up"):
        pass
