"""The content store: damage, interruptions, two runs at once, a full disk."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from labwright.errors import Finding, SupplyError
from labwright.tools import store as module
from labwright.tools.store import Store, remove_tree

KEY = "thing-0123456789abcdef"
REPOSITORY = Path(__file__).parents[2]


class Builder:
    """Counts its calls and puts out one file in a folder."""

    def __init__(self, content: str = "content") -> None:
        self.calls = 0
        self.content = content

    def __call__(self, work: Path, out: Path) -> None:
        self.calls += 1
        assert work.is_dir()
        assert not list(out.iterdir())
        (out / "bin").mkdir()
        (out / "bin/thing").write_text(self.content)


def failing(error: BaseException) -> Callable[[Path, Path], None]:
    def build(work: Path, out: Path) -> None:
        (work / "step-1").touch()
        (out / "half").touch()
        raise error

    return build


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, said: list[str]) -> Store:
    return Store(tmp_path / "store", said.append)


def test_builds_once_and_leaves_nothing_but_the_entry(store: Store) -> None:
    build = Builder()
    entry = store.ensure(KEY, build)
    assert store.ensure(KEY, build) == entry == store.path(KEY)
    assert build.calls == 1
    assert (entry / "bin/thing").read_text() == "content"
    manifest = json.loads((entry / "manifest.json").read_text())
    assert manifest["files"]["bin/thing"]["size"] == len("content")
    for leftover in (".work", ".out", ".damaged"):
        assert not (store.root / leftover / KEY).exists()


@pytest.mark.parametrize("harm", ["cut short", "removed", "manifest"])
def test_damage_that_shows_is_noticed_without_reading(
    store: Store, said: list[str], harm: str
) -> None:
    build = Builder()
    entry = store.ensure(KEY, build)
    if harm == "cut short":
        (entry / "bin/thing").write_text("con")
    elif harm == "removed":
        (entry / "bin/thing").unlink()
    else:
        (entry / "manifest.json").write_text("{")
    assert not store.has(KEY)
    assert (store.ensure(KEY, build) / "bin/thing").read_text() == "content"
    assert build.calls == 2
    assert "damaged" in said[0]


def test_a_changed_byte_is_found_when_asked_to_verify(store: Store, said: list[str]) -> None:
    build = Builder()
    entry = store.ensure(KEY, build)
    (entry / "bin/thing").write_text("c0ntent")
    assert store.has(KEY)
    assert store.verify(KEY) == ("bin/thing has other content than when it was made",)
    store.ensure(KEY, build, verify=True)
    assert store.verify(KEY) == ()
    assert build.calls == 2
    assert "bin/thing" in said[0]


def test_a_damaged_entry_is_kept_until_a_sound_one_is_made(store: Store) -> None:
    entry = store.ensure(KEY, Builder())
    (entry / "bin/thing").write_text("c")
    with pytest.raises(RuntimeError):
        store.ensure(KEY, failing(RuntimeError()))
    assert (store.root / ".damaged" / KEY / "bin/thing").exists()
    store.ensure(KEY, Builder())
    assert not (store.root / ".damaged" / KEY).exists()


def test_an_interrupted_build_goes_on_in_the_same_work_folder(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt):
        store.ensure(KEY, failing(KeyboardInterrupt()))
    assert not store.has(KEY)

    def go_on(work: Path, out: Path) -> None:
        assert (work / "step-1").exists()
        Builder()(work, out)

    store.ensure(KEY, go_on)
    assert store.has(KEY)


RUN = """
    import sys, time
    from pathlib import Path
    from labwright.tools.store import Store

    def build(work, out):
        with (Path(sys.argv[1]) / "calls").open("a") as calls:
            calls.write("x")
        time.sleep(1)
        (out / "thing").touch()

    print(Store(Path(sys.argv[1]) / "store").ensure(sys.argv[2], build))
"""


def test_two_runs_at_once_build_once(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", textwrap.dedent(RUN), str(tmp_path), KEY]
    runs = [
        subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [run.communicate(timeout=30)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert said[0] == said[1] == f"{tmp_path / 'store' / KEY}\n"
    assert (tmp_path / "calls").read_text() == "x"


def test_a_full_disk_is_a_finding(store: Store) -> None:
    with pytest.raises(SupplyError) as caught:
        store.ensure(KEY, failing(OSError(errno.ENOSPC, "No space left on device")))
    (finding,) = caught.value.findings
    assert finding.id == "store.disk-full"
    assert "MiB" in finding.why
    assert (store.root / ".work" / KEY / "step-1").exists()


def test_a_full_disk_is_found_in_a_compilers_words(store: Store) -> None:
    words = ("write /work/a.o: no space left on device",)
    error = SupplyError(Finding("supply.x", "error", "go failed"), words)
    with pytest.raises(SupplyError) as caught:
        store.ensure(KEY, failing(error))
    assert caught.value.findings[0].id == "store.disk-full"
    assert caught.value.details == words


def test_a_folder_of_another_user_is_a_finding(store: Store) -> None:
    with pytest.raises(SupplyError) as caught:
        store.ensure(KEY, failing(PermissionError(errno.EACCES, "Permission denied", "/x")))
    (finding,) = caught.value.findings
    assert (finding.id, "/x" in finding.what) == ("store.forbidden", True)


def test_other_errors_pass_as_they_are(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.ensure(KEY, failing(FileNotFoundError()))


def test_a_sound_entry_needs_no_lock_and_no_writing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = store.ensure(KEY, Builder())
    monkeypatch.setattr(module, "FileLock", None)  # a store on read-only media has no locks
    assert store.ensure(KEY, Builder()) == entry


def test_remove_tree_takes_read_only_folders(tmp_path: Path) -> None:
    folder = tmp_path / "mod/cache"
    folder.mkdir(parents=True)
    (folder / "file").touch(mode=0o400)
    folder.chmod(0o500)
    try:
        remove_tree(tmp_path / "mod")
    finally:
        if folder.exists():
            folder.chmod(0o700)
    assert not (tmp_path / "mod").exists()
