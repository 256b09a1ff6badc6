"""Bundles on real disks and sockets: made, shared, damaged, packed, served and taken apart."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import resource
import shutil
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labwright import bundle
from labwright.bundle import Manifest
from labwright.errors import Finding, SupplyError
from labwright.tools import bundle_bytes, bundle_files, bundles
from labwright.tools.download import Http
from labwright.tools.store import Store
from tests.vendors import Faulty

LOCK = "lab: demo\n"
MB = 1 << 20
BIG = 3 * MB + 17


def content(seed: int, size: int) -> bytes:
    return hashlib.shake_128(str(seed).encode()).digest(size)


CONTENTS = {
    "apt": {"Packages": b"Package: x\n", "pool/x 1~2+b.deb": content(1, BIG), "empty": b""},
    "base": {"rootfs.tar": content(2, 2 * MB)},
    "host": {"kubectl": content(3, MB + 1), "helm": content(4, 12345)},
}
Entries = dict[str, tuple[str, Path]]


def stocked(root: Path, contents: dict[str, dict[str, bytes]] = CONTENTS) -> Entries:
    """Put entries into a real store."""
    store = Store(root)
    entries: Entries = {}
    for id_, files in contents.items():
        key = f"{id_}-{hashlib.sha256(repr(files).encode()).hexdigest()[:16]}"

        def build(_work: Path, out: Path, files: dict[str, bytes] = files) -> None:
            for path, data in files.items():
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                (out / path).write_bytes(data)

        entries[id_] = (key, store.ensure(key, build))
    return entries


def make(
    entries: Entries,
    target: Path,
    progress: bundle_bytes.Progress = bundle_bytes.ignore,
    say: Callable[[str], None] = lambda _text: None,
    lock: str = LOCK,
) -> Manifest:
    facts = {"provider": "docker", "arch": "amd64"}
    versions = {"kubernetes": "1.20.2"}
    return bundles.make(
        entries,
        target,
        lab="demo",
        versions=versions,
        facts=facts,
        lock=lock,
        say=say,
        progress=progress,
    )


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Entries:
    return stocked(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def made(entries: Entries, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("made") / "demo"
    make(entries, target)
    return target


@pytest.fixture(scope="module")
def packed(entries: Entries, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("packed") / "demo.tar.zst"
    make(entries, target)
    return target


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def http() -> Iterator[Http]:
    with Http(patience=10, backoff=0.01) as http:
        yield http


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the bytes that are read to be hashed or copied."""
    counts: list[int] = []
    original = bundle_bytes._read

    def count(file: io.RawIOBase, buffer: memoryview) -> int:
        counts.append(original(file, buffer))  # type: ignore[arg-type]
        return counts[-1]

    monkeypatch.setattr(bundle_bytes, "_read", count)
    return counts


def held(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def expected() -> dict[str, bytes]:
    files = {f"{i}/{path}": data for i, files in CONTENTS.items() for path, data in files.items()}
    return {**files, "lab.lock": LOCK.encode()}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def ids(found: list[Finding]) -> list[str]:
    return [finding.id for finding in found]


# --- made -------------------------------------------------------------------------------------


def test_a_folder_holds_everything_and_nothing_else(entries: Entries, made: Path) -> None:
    files = held(made)
    manifest = bundle.parse(files.pop("bundle.json").decode())
    assert files == expected()
    assert manifest.lab == "demo"
    assert manifest.entries["apt"].key == entries["apt"][0]
    assert manifest.lock == hashlib.sha256(LOCK.encode()).hexdigest()
    assert bundles.verify(made) == []
    modes = {stat.S_IMODE(p.stat().st_mode) for p in made.rglob("*") if p.is_file()}
    assert modes == {0o444}


def test_no_file_is_the_store_s_own(entries: Entries, made: Path) -> None:
    for id_, (_key, folder) in entries.items():
        for path in CONTENTS[id_]:
            assert not (made / id_ / path).samefile(folder / path)
            assert (folder / path).stat().st_nlink == 1


def test_progress_ends_at_the_whole(entries: Entries, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    manifest = make(entries, tmp_path / "b", lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {manifest.size}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == manifest.size


def test_with_nothing_new_nothing_is_read_or_written(
    entries: Entries, copied: Path, read: list[int]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in (copied, *copied.rglob("*"))}
    make(entries, copied)
    assert read == []
    assert {p: p.stat().st_mtime_ns for p in (copied, *copied.rglob("*"))} == before


class StopError(Exception):
    pass


@pytest.mark.parametrize("after", [0, MB, 2 * MB, 4 * MB, 6 * MB])
def test_an_interrupted_make_goes_on(
    entries: Entries, tmp_path: Path, after: int, read: list[int]
) -> None:
    target = tmp_path / "b"

    def stop(done: int, _total: int) -> None:
        if done > after:
            raise StopError

    with pytest.raises(StopError):
        make(entries, target, stop)
    assert not (target / "bundle.json").exists()
    finished = held(target)
    assert not [path for path in finished if path.endswith(".part")]
    whole = sum(len(data) for path, data in finished.items() if path in expected())
    with pytest.raises(SupplyError, match="no bundle"):
        bundles.opened(str(target), tmp_path)
    read.clear()
    manifest = make(entries, target)
    # Not one byte of what was finished is read again.
    assert sum(read) == manifest.size - whole
    assert bundles.verify(target) == []
    assert not (target / ".progress").exists()


def test_what_changed_since_the_interruption_is_not_trusted(
    entries: Entries, tmp_path: Path
) -> None:
    target = tmp_path / "b"

    def stop(done: int, _total: int) -> None:
        if done > 6 * MB:
            raise StopError

    with pytest.raises(StopError):
        make(entries, target, stop)
    finished = [p for p in target.rglob("*") if p.is_file() and p.stat().st_size > MB]
    assert finished
    for path in finished:
        flip(path, 1000)
    (target / "host").mkdir(exist_ok=True)
    (target / "host/helm.part").write_bytes(b"left by a process that was killed")
    make(entries, target)
    assert bundles.verify(target) == []


def test_a_whole_file_of_unknown_origin_is_hashed_and_kept(
    entries: Entries, copied: Path, read: list[int]
) -> None:
    (copied / "bundle.json").unlink()
    (copied / ".progress").write_text('{"not a line of it\n[1]\n["../../x", "0", 1, 2]\n')
    before = {p: p.stat().st_ino for p in copied.rglob("*.deb")}
    manifest = make(entries, copied)
    assert sum(read) == manifest.size
    assert {p: p.stat().st_ino for p in copied.rglob("*.deb")} == before


def test_a_newer_bundle_replaces_an_older_one(
    entries: Entries, copied: Path, tmp_path: Path, read: list[int]
) -> None:
    changed = {
        "apt": {"Packages": b"Package: y\n", "pool/x 1~2+b.deb": content(1, BIG)},
        "charts": {"a/b/c.tgz": content(9, 1000)},
    }
    manifest = make(stocked(tmp_path / "other", changed), copied, lock="lab: newer\n")
    assert sum(read) == manifest.size - BIG
    assert set(held(copied)) == {"bundle.json", "lab.lock", *manifest.files}
    assert sorted(p.name for p in copied.iterdir() if p.is_dir()) == ["apt", "charts"]
    assert bundles.verify(copied) == []


def test_an_older_bundle_is_none_while_it_is_replaced(
    entries: Entries, copied: Path, tmp_path: Path
) -> None:
    def stop(_done: int, _total: int) -> None:
        raise StopError

    with pytest.raises(StopError):
        make(stocked(tmp_path / "other", {"apt": {"Packages": b"other"}}), copied, stop)
    with pytest.raises(SupplyError, match="no bundle"):
        bundles.verify(copied)
    make(entries, copied)
    assert bundles.verify(copied) == []


def test_a_damaged_store_is_found_while_copying(tmp_path: Path) -> None:
    entries = stocked(tmp_path / "store")
    flip(entries["base"][1] / "rootfs.tar", MB)
    for target in (tmp_path / "b", tmp_path / "b.tar.zst"):
        with pytest.raises(SupplyError) as caught:
            make(entries, target)
        (finding,) = caught.value.findings
        assert finding.id == "bundle.source"
        assert "rootfs.tar" in finding.what
        assert str(entries["base"][1]) in finding.fix
        assert not (target / "bundle.json").exists()
        assert not (target / "base/rootfs.tar").exists()
    assert not list(tmp_path.glob("*.zst*"))


def test_a_source_that_is_no_entry_is_said(tmp_path: Path) -> None:
    with pytest.raises(SupplyError, match="the store has no whole apt-1"):
        make({"apt": ("apt-1", tmp_path / "nothing")}, tmp_path / "b")


def test_a_folder_with_other_things_is_left_alone(entries: Entries, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("years of work")
    with pytest.raises(SupplyError, match="not empty, and no bundle"):
        make(entries, tmp_path / "home")
    assert held(tmp_path / "home") == {"thesis.txt": b"years of work"}


@pytest.mark.parametrize("name", ["apt", "apt/Packages"])
def test_nothing_is_written_through_a_link(
    entries: Entries, copied: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (copied / name).rename(elsewhere)
    (copied / name).symlink_to(elsewhere)
    (copied / "bundle.json").unlink()
    (copied / ".progress").touch()
    before = held(elsewhere) if elsewhere.is_dir() else elsewhere.read_bytes()
    with pytest.raises(SupplyError, match="neither a file nor a folder"):
        make(entries, copied)
    assert (held(elsewhere) if elsewhere.is_dir() else elsewhere.read_bytes()) == before


def test_a_hostile_memory_removes_nothing_outside(
    entries: Entries, copied: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("mine")
    (copied / "bundle.json").unlink()
    (copied / ".progress").write_text('["../mine", "0", 4, 0]\n["/etc/x", "0", 4, 0]\n')
    make(entries, copied)
    assert (tmp_path / "mine").read_text() == "mine"
    assert bundles.verify(copied) == []


def test_two_at_once_are_kept_apart(entries: Entries, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    waits = threading.Event()

    def say(text: str) -> None:
        assert "another run is writing" in text
        waits.set()

    with ThreadPoolExecutor() as pool:
        with FileLock(tmp_path / "b" / bundle_files.HELD):
            (tmp_path / "b/.progress").touch()
            run = pool.submit(make, entries, tmp_path / "b", say=say)
            assert waits.wait(10)
            assert held(tmp_path / "b").keys() == {".progress", ".lock"}
        run.result(timeout=10)
    assert bundles.verify(tmp_path / "b") == []


def test_a_file_too_large_for_its_disk_is_said(entries: Entries, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB + MB // 2, hard))
    try:
        with pytest.raises(SupplyError) as caught:
            make(entries, tmp_path / "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.findings[0].id == "bundle.too-big"
    make(entries, tmp_path / "b")
    assert bundles.verify(tmp_path / "b") == []


@pytest.mark.parametrize(
    ("number", "name"),
    [(errno.ENOSPC, "bundle.disk-full"), (errno.EDQUOT, "bundle.disk-full"),
     (errno.EACCES, "bundle.cannot-use"), (errno.EROFS, "bundle.cannot-use")],
)  # fmt: skip
def test_what_a_disk_refuses_is_said(tmp_path: Path, number: int, name: str) -> None:
    with pytest.raises(SupplyError) as caught, bundle_files.held(tmp_path / "b", print):
        raise OSError(number, os.strerror(number))
    assert caught.value.findings[0].id == name


# --- shared -----------------------------------------------------------------------------------


def test_bundles_side_by_side_share_their_files(
    entries: Entries, copied: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    more = {**entries, **stocked(tmp_path / "other", {"charts": {"a.tgz": b"chart"}})}
    make(more, tmp_path / "second", say=said.append)
    for path in expected().keys() - {"lab.lock"}:
        assert (tmp_path / "second" / path).samefile(copied / path), path
        assert (tmp_path / "second" / path).stat().st_nlink == 2
    assert (tmp_path / "second/charts/a.tgz").stat().st_nlink == 1
    assert "shared" in said[0]
    assert bundles.verify(tmp_path / "second") == []


def test_a_damaged_neighbour_gives_nothing(entries: Entries, copied: Path, tmp_path: Path) -> None:
    flip(copied / "base/rootfs.tar", 5)
    seen: list[tuple[int, int]] = []
    make(entries, tmp_path / "second", lambda *counts: seen.append(counts))
    assert not (tmp_path / "second/base/rootfs.tar").samefile(copied / "base/rootfs.tar")
    assert (tmp_path / "second/host/kubectl").samefile(copied / "host/kubectl")
    assert bundles.verify(tmp_path / "second") == []
    assert max(done for done, _ in seen) == seen[-1][1]


def test_replacing_a_shared_file_leaves_the_neighbour_whole(
    entries: Entries, copied: Path, tmp_path: Path
) -> None:
    make(entries, tmp_path / "second")
    changed = {**CONTENTS, "base": {"rootfs.tar": content(7, 2 * MB)}}
    make(stocked(tmp_path / "other", changed), tmp_path / "second")
    assert bundles.verify(tmp_path / "second") == []
    assert bundles.verify(copied) == []


def test_a_neighbour_that_links_to_the_store_gives_nothing(
    entries: Entries, copied: Path, tmp_path: Path
) -> None:
    source = entries["base"][1] / "rootfs.tar"
    (copied / "base/rootfs.tar").unlink()
    os.link(source, copied / "base/rootfs.tar")
    shutil.rmtree(copied / "host")
    (copied / "host").symlink_to(entries["host"][1])
    make(entries, tmp_path / "second")
    assert not (tmp_path / "second/base/rootfs.tar").samefile(source)
    assert not (tmp_path / "second/host/kubectl").samefile(entries["host"][1] / "kubectl")
    (copied / "base/rootfs.tar").unlink()
    assert source.stat().st_nlink == 1


# --- verified ---------------------------------------------------------------------------------

SMALL = {"apt": {"Packages": b"Package: x\n", "pool/x.deb": content(1, 300)}, "x": {"e": b"!"}}
KEPT = (HealthCheck.function_scoped_fixture,)


@given(st.data())
@settings(suppress_health_check=KEPT, deadline=None)
def test_any_flipped_bit_in_any_file_is_found(small: Path, data: st.DataObject) -> None:
    files = sorted(held(small))
    name = data.draw(st.sampled_from(files))
    before = (small / name).read_bytes()
    at = data.draw(st.integers(0, len(before) * 8 - 1))
    changed = bytearray(before)
    changed[at // 8] ^= 1 << at % 8
    (small / name).chmod(0o644)
    (small / name).write_bytes(changed)
    try:
        (finding,) = bundles.verify(small)
        assert name in finding.what
    finally:
        (small / name).write_bytes(before)
    assert bundles.verify(small) == []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    make(stocked(root / "store", SMALL), root / "b")
    return root / "b"


@given(st.data())
@settings(suppress_health_check=KEPT, deadline=None)
def test_a_flipped_bit_in_an_archive_never_changes_what_comes_out(
    small_packed: Path, data: st.DataObject
) -> None:
    # A few bits of a zstd frame tell the reader nothing, such as how large a window to keep.
    whole = small_packed.read_bytes()
    at = data.draw(st.integers(0, len(whole) * 8 - 1))
    changed = bytearray(whole)
    changed[at // 8] ^= 1 << at % 8
    bad = small_packed.with_name("bad.tar.zst")
    bad.write_bytes(changed)
    cache = small_packed.parent / "cache"
    if not bundles.verify(bad):
        folder = bundles.opened(str(bad), cache)
        assert bundles.verify(folder) == []
        assert (folder / "apt/pool/x.deb").read_bytes() == SMALL["apt"]["pool/x.deb"]
        shutil.rmtree(cache)


@pytest.fixture(scope="module")
def small_packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small-packed")
    make(stocked(root / "store", SMALL), root / "b.tar.zst")
    return root / "b.tar.zst"


def test_each_bad_file_is_a_finding(copied: Path, tmp_path: Path) -> None:
    (copied / "apt/Packages").unlink()
    (copied / "base/rootfs.tar").chmod(0o644)
    os.truncate(copied / "base/rootfs.tar", MB)
    flip(copied / "host/helm", 0)
    flip(copied / "lab.lock", 0)
    (copied / "host/kubectl").unlink()
    (copied / "host/kubectl").symlink_to("/bin/true")
    (copied / "host/extra").write_text("x")
    found = {finding.what.split()[0]: finding.id for finding in bundles.verify(copied)}
    assert found == {
        "apt/Packages": "bundle.missing",
        "base/rootfs.tar": "bundle.size",
        "host/helm": "bundle.content",
        "lab.lock": "bundle.content",
        "host/kubectl": "bundle.missing",
        "host/extra": "bundle.foreign",
    }


def test_a_bundle_without_its_lock_is_not_whole(entries: Entries, copied: Path) -> None:
    (copied / "lab.lock").unlink()
    assert ids(bundles.verify(copied)) == ["bundle.missing"]
    make(entries, copied)
    assert bundles.verify(copied) == []


def test_verify_counts_its_way(made: Path, packed: Path) -> None:
    for where in (made, packed):
        seen: list[tuple[int, int]] = []
        assert bundles.verify(where, lambda *counts, seen=seen: seen.append(counts)) == []
        assert seen[-1][0] == seen[-1][1]


def test_the_manifest_is_the_same_in_both_forms(made: Path, packed: Path, tmp_path: Path) -> None:
    assert bundles.manifest(made) == bundles.manifest(packed)
    for where in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(SupplyError, match="no bundle"):
            bundles.manifest(where)


@pytest.mark.parametrize("name", ["", "nothing", "file", "empty.tar.zst", "x.tar.zst"])
def test_what_is_no_bundle_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty.tar.zst").touch()
    with pytest.raises(SupplyError) as caught:
        bundles.opened(str(tmp_path / name), tmp_path / "cache")
    (finding,) = caught.value.findings
    assert "bundle.make" in finding.fix


# --- packed -----------------------------------------------------------------------------------


def test_an_archive_has_the_same_bytes_each_time(
    entries: Entries, packed: Path, tmp_path: Path
) -> None:
    moved: Entries = {}
    for id_, (key, folder) in reversed(list(entries.items())):
        shutil.copytree(folder, tmp_path / key)
        moved[id_] = (key, tmp_path / key)
    make(moved, tmp_path / "other.tar.zst")
    assert (tmp_path / "other.tar.zst").read_bytes() == packed.read_bytes()


def test_any_tar_reads_it_and_the_manifest_is_first(packed: Path, made: Path) -> None:
    with (
        packed.open("rb") as file,
        zstandard.open(file, "rb") as plain,
        tarfile.open(fileobj=plain, mode="r|") as tar,
    ):
        read = {m.name: (tar.extractfile(m) or io.BytesIO()).read() for m in tar}
    assert next(iter(read)) == "bundle.json"
    assert read == held(made)


def test_an_archive_that_is_there_is_not_made_again(entries: Entries, packed: Path) -> None:
    before = packed.stat().st_mtime_ns
    seen: list[tuple[int, int]] = []
    manifest = make(entries, packed, lambda *counts: seen.append(counts))
    assert packed.stat().st_mtime_ns == before
    assert seen == [(manifest.size, manifest.size)]


def test_an_interrupted_archive_leaves_nothing(entries: Entries, tmp_path: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done > MB:
            raise StopError

    with pytest.raises(StopError):
        make(entries, tmp_path / "b.tar.zst", stop)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_is_unpacked_once(
    packed: Path, made: Path, tmp_path: Path, read: list[int]
) -> None:
    said: list[str] = []
    folder = bundles.opened(str(packed), tmp_path / "cache", say=said.append)
    assert held(folder) == held(made)
    assert folder.parent == tmp_path / "cache"
    assert len(said) == 1
    read.clear()
    assert bundles.opened(str(packed), tmp_path / "cache", say=said.append) == folder
    assert (len(said), read) == (1, [])


def test_an_interrupted_unpacking_is_done_again(packed: Path, tmp_path: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done > MB:
            raise StopError

    with pytest.raises(StopError):
        bundles.opened(str(packed), tmp_path, progress=stop)
    (folder,) = tmp_path.iterdir()
    assert not (folder / "bundle.json").exists()
    assert bundles.opened(str(packed), tmp_path) == folder
    assert bundles.verify(folder) == []


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_half_an_archive_is_found(packed: Path, tmp_path: Path, share: float) -> None:
    half = tmp_path / "half.tar.zst"
    half.write_bytes(packed.read_bytes()[: int(packed.stat().st_size * share)])
    assert bundles.verify(half)
    with pytest.raises(SupplyError):
        bundles.opened(str(half), tmp_path / "cache")


Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, data: bytes = b"", **facts: object) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in facts.items():
        setattr(info, key, value)
    return info, data


def archive(path: Path, members: list[Member], tail: bytes = b"") -> Path:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    path.write_bytes(zstandard.compress(plain.getvalue() + tail))
    return path


def genuine(small: Path) -> list[Member]:
    files = held(small)
    first = files.pop("bundle.json")
    return [member("bundle.json", first), *(member(name, data) for name, data in files.items())]


def test_an_archive_packed_by_someone_else_is_taken(small: Path, tmp_path: Path) -> None:
    path = archive(tmp_path / "own.tar.zst", genuine(small))
    assert bundles.verify(path) == []
    assert held(bundles.opened(str(path), tmp_path / "cache")) == held(small)


HOSTILE: dict[str, Callable[[list[Member]], list[Member]]] = {
    "up": lambda good: [*good, member("../evil", b"x")],
    "absolute": lambda good: [*good, member("/tmp/evil", b"x")],
    "extra": lambda good: [*good, member("apt/evil", b"x")],
    "twice": lambda good: [*good, good[1]],
    "manifest twice": lambda good: [*good, good[0]],
    "symlink": lambda good: [
        *good[:1], member("apt", type=tarfile.SYMTYPE, linkname="/tmp"), *good[1:],
    ],
    "symlink for a file": lambda good: [
        *good[:-1], member(good[-1][0].name, type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    ],
    "hard link": lambda good: [
        *good[:-1], member(good[-1][0].name, type=tarfile.LNKTYPE, linkname="lab.lock"),
    ],
    "device": lambda good: [*good, member("apt/null", type=tarfile.CHRTYPE, devmajor=1)],
    "fifo": lambda good: [*good[:-1], member(good[-1][0].name, type=tarfile.FIFOTYPE)],
    "folder": lambda good: [*good, member("apt/pool", type=tarfile.DIRTYPE)],
    "missing": lambda good: good[:-1],
    "not first": lambda good: [good[1], good[0], *good[2:]],
    "no manifest": lambda good: good[1:],
    "nothing": lambda _good: [],
    "other content": lambda good: [
        *good[:-1], member(good[-1][0].name, b"\xff" * len(good[-1][1])),
    ],
    "longer": lambda good: [*good[:-1], member(good[-1][0].name, good[-1][1] + b"x")],
    "shorter": lambda good: [*good[:-1], member(good[-1][0].name, good[-1][1][:-1])],
    "long name": lambda good: [*good, member("x" * 3 * MB, b"x")],
    "lock": lambda good: [
        m if m[0].name != "lab.lock" else member("lab.lock", b"lab: other") for m in good
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused(small: Path, tmp_path: Path, kind: str) -> None:
    path = archive(tmp_path / "evil.tar.zst", HOSTILE[kind](genuine(small)))
    assert bundles.verify(path)
    with pytest.raises(SupplyError):
        bundles.opened(str(path), tmp_path / "cache")
    left = [p for p in tmp_path.rglob("*") if p != path and not p.is_dir()]
    assert all(p.is_relative_to(tmp_path / "cache") and not p.is_symlink() for p in left)
    assert not [p for p in left if p.name in {"evil", "bundle.json"}]


def test_more_after_the_end_is_refused(small: Path, tmp_path: Path) -> None:
    path = archive(tmp_path / "evil.tar.zst", genuine(small), tail=b"more")
    assert ids(bundles.verify(path)) == ["bundle.archive"]
    path = archive(tmp_path / "evil.tar.zst", genuine(small), tail=bytes(4 * MB))
    assert ids(bundles.verify(path)) == ["bundle.archive"]


def test_a_header_that_announces_gigabytes_gets_no_memory(small: Path, tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 7 << 30
    header = info.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "x.tar.zst").write_bytes(zstandard.compress(header + bytes(64 * MB)))
    assert ids(bundles.verify(tmp_path / "x.tar.zst")) == ["bundle.archive"]


# --- fetched ----------------------------------------------------------------------------------


def test_a_bundle_is_fetched_from_a_url(made: Path, tmp_path: Path, http: Http) -> None:
    seen: list[tuple[int, int]] = []
    with Faulty(made) as server:
        folder = bundles.opened(
            server.url, tmp_path, http, progress=lambda *counts: seen.append(counts)
        )
        assert held(folder) == held(made)
        assert seen[-1][0] == seen[-1][1] == bundle.parse(held(made)["bundle.json"].decode()).size
        asked = len(server.seen)
        assert bundles.opened(f"{server.url}/bundle.json", tmp_path, http) == folder
        assert [seen.path for seen in server.seen[asked:]] == ["/bundle.json"]
    assert bundles.verify(folder) == []


def test_a_pinned_bundle_in_the_cache_needs_no_server(
    made: Path, tmp_path: Path, http: Http
) -> None:
    digest = bundle.parse(held(made)["bundle.json"].decode()).digest
    with Faulty(made) as server:
        where = f"{server.url}#sha256={digest}"
        folder = bundles.opened(where, tmp_path, http)
    assert bundles.opened(where, tmp_path, http) == folder


def test_a_cut_connection_is_resumed(made: Path, tmp_path: Path, http: Http) -> None:
    with Faulty(made) as server:
        server.cut("rootfs.tar", MB)
        server.answer(503, "kubectl", times=2)
        folder = bundles.opened(server.url, tmp_path, http)
        asked = server.requests("rootfs.tar")
    assert [request.range for request in asked] == ["", f"bytes={MB}-"]
    assert held(folder) == held(made)


def test_an_interrupted_fetch_goes_on(made: Path, tmp_path: Path, http: Http) -> None:
    def stop(done: int, _total: int) -> None:
        if done > BIG + MB:
            raise StopError

    with Faulty(made) as server:
        with pytest.raises(StopError):
            bundles.opened(server.url, tmp_path, http, progress=stop)
        (folder,) = tmp_path.iterdir()
        assert not (folder / "bundle.json").exists()
        assert bundles.opened(server.url, tmp_path, http) == folder
        assert len(server.requests(".deb")) == 1
        assert server.requests("rootfs.tar")[-1].range.startswith("bytes=")
    assert held(folder) == held(made)


def test_a_file_that_was_altered_on_the_way_is_refused(
    made: Path, tmp_path: Path, http: Http
) -> None:
    with Faulty(made) as server:
        server.flip("rootfs.tar", MB)
        with pytest.raises(SupplyError, match="not what was promised"):
            bundles.opened(server.url, tmp_path, http)
        (folder,) = tmp_path.iterdir()
        assert not (folder / "base/rootfs.tar").exists()
        assert not (folder / "bundle.json").exists()
        server.mend()
        assert held(bundles.opened(server.url, tmp_path, http)) == held(made)


def test_an_altered_manifest_is_refused(made: Path, tmp_path: Path, http: Http) -> None:
    with Faulty(made) as server:
        server.flip("bundle.json", 100)
        with pytest.raises(SupplyError) as caught:
            bundles.opened(server.url, tmp_path, http)
    assert caught.value.findings[0].id == "bundle.manifest"
    assert list(tmp_path.iterdir()) == []


def test_another_bundle_than_the_pinned_one_is_refused(
    made: Path, tmp_path: Path, http: Http
) -> None:
    with Faulty(made) as server, pytest.raises(SupplyError) as caught:
        bundles.opened(f"{server.url}#sha256={'0' * 64}", tmp_path, http)
    assert caught.value.findings[0].id == "bundle.another"


@pytest.mark.parametrize(
    "pin", ["sha256=", "sha256=../../x", f"md5={'0' * 64}", f"sha256={'z' * 64}"]
)
def test_a_pin_that_is_none_is_said(tmp_path: Path, http: Http, pin: str) -> None:
    with pytest.raises(SupplyError) as caught:
        bundles.opened(f"http://127.0.0.1:9/#{pin}", tmp_path, http)
    assert caught.value.findings[0].id == "bundle.pin"


def test_an_address_without_a_bundle_is_said(tmp_path: Path, http: Http) -> None:
    with Faulty(tmp_path) as server, pytest.raises(SupplyError) as caught:
        bundles.opened(server.url, tmp_path / "cache", http)
    assert caught.value.findings[0].id == "bundle.none"


# --- taken apart ------------------------------------------------------------------------------


def test_the_lock_is_read_with_the_manifest(made: Path, copied: Path, tmp_path: Path) -> None:
    manifest, lock = bundles.read(made)
    assert (manifest.lab, lock) == ("demo", LOCK)
    with pytest.raises(SupplyError, match="no bundle"):
        bundles.read(tmp_path)
    flip(copied / "lab.lock", 0)
    with pytest.raises(SupplyError, match=r"lab\.lock"):
        bundles.read(copied)
    (copied / "lab.lock").unlink()
    with pytest.raises(SupplyError, match=r"lab\.lock"):
        bundles.read(copied)


def test_an_entry_is_imported_into_a_store(made: Path, tmp_path: Path) -> None:
    manifest = bundle.parse(held(made)["bundle.json"].decode())
    entry = manifest.entries["apt"]
    store = Store(tmp_path)
    folder = store.ensure(entry.key, lambda _work, out: bundles.import_entry(made, entry, out))
    assert store.verify(entry.key) == ()
    files = held(folder)
    described = json.loads(files.pop("manifest.json"))["files"]
    assert files == CONTENTS["apt"]
    assert {p: f["sha256"] for p, f in described.items()} == {
        p: fact.sha256 for p, fact in entry.files.items()
    }


@pytest.mark.parametrize("harm", ["flip", "cut", "longer", "missing", "symlink", "fifo"])
def test_no_damaged_file_is_imported(copied: Path, tmp_path: Path, harm: str) -> None:
    entry = bundle.parse((copied / "bundle.json").read_text()).entries["host"]
    bad = copied / "host/kubectl"
    bad.chmod(0o644)
    if harm == "flip":
        flip(bad, MB)
    elif harm in {"cut", "longer"}:
        os.truncate(bad, MB if harm == "cut" else 2 * MB)
    else:
        bad.rename(tmp_path / "aside")
    if harm == "symlink":
        bad.symlink_to(tmp_path / "aside")
    if harm == "fifo":
        os.mkfifo(bad)
    with pytest.raises(SupplyError) as caught:
        bundles.import_entry(copied, entry, tmp_path / "out")
    (finding,) = caught.value.findings
    assert "host/kubectl" in finding.what
    assert "bundle.verify" in finding.fix
    assert not (tmp_path / "out/kubectl").exists()
