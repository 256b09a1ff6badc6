"""A bundle as one file: a tar compressed with zstd, its manifest first, the same bytes each time.

What is read may come from anywhere: names and sizes are taken from the manifest, never from the
tar, and nothing but plain files is written.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import zstandard

from labwright.bundle import LOCK, MANIFEST, FileFact, Manifest, dump, parse
from labwright.errors import Finding, SupplyError
from labwright.tools.bundle_bytes import (
    CHUNK,
    DamageError,
    Meter,
    Progress,
    arriving,
    ignore,
    plain,
    stream,
)
from labwright.tools.bundle_problems import damaged, problem, sound

SUFFIX = ".tar.zst"
# Packages and image layers are compressed already; higher levels cost time and gain nothing there.
LEVEL = 3
SMALL = 64 << 20
# What zstandard and tarfile raise for bytes that make no sense.
SENSELESS = (
    zstandard.ZstdError,
    tarfile.TarError,
    ArithmeticError,
    EOFError,
    LookupError,
    RecursionError,
    ValueError,
)


def pack(
    manifest: Manifest, lock: str, sources: Mapping[str, Path], target: Path, meter: Meter
) -> None:
    """Write the archive; ``sources`` gives the file for each path of the manifest.

    The bytes depend on the content and the version of zstd alone, not on the number of threads.

    Raises SupplyError: a source is not what the manifest says.
    """
    packer = zstandard.ZstdCompressor(LEVEL, write_checksum=True, threads=-1)
    with (
        arriving(target, 0o444) as file,
        packer.stream_writer(file, closefd=False) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name, text in ((MANIFEST, dump(manifest)), (LOCK, lock)):
            tar.addfile(_info(name, len(text.encode())), io.BytesIO(text.encode()))
        for path, fact in manifest.files.items():
            with sound(sources[path]), plain(sources[path], fact) as source:
                hashing = _Hashing(source, meter)
                tar.addfile(_info(path, fact.size), hashing)
                hashing.conclude(fact)


def manifest_in(archive: Path) -> Manifest:
    """Read just the manifest. Raises SupplyError: this is no bundle, or its manifest is bad."""
    with _tar(archive) as tar:
        return _first(tar, archive)


def scan(
    archive: Path, folder: Path | None = None, progress: Progress = ignore
) -> tuple[Finding, ...]:
    """Read every file to its end, write it to ``folder`` if there is one, and give what is wrong.

    After something that a bundle's archive cannot have, the rest is not read.

    Raises SupplyError: this is no bundle.
    """
    bad: list[Finding] = []
    with _tar(archive) as tar:
        manifest = _first(tar, archive)
        wanted: dict[str, FileFact | None] = {LOCK: None, **manifest.files}
        meter = Meter(progress, manifest.size)
        try:
            for member in tar:
                if member.name != MANIFEST or member.offset:
                    fact = _expected(member, wanted, manifest)
                    counts = meter if member.name != LOCK else Meter(ignore, 0)
                    bad += _take(tar, member, fact, folder, counts)
            _drain(tar)
        except (*SENSELESS, _StrangeError) as error:
            return (*bad, _broken(archive, str(error)))
    return (*bad, *(damaged(path, "missing", archive) for path in wanted))


class _StrangeError(Exception):
    """A member that a bundle's archive cannot have."""


class _Hashing:
    def __init__(self, file: IO[bytes], meter: Meter) -> None:
        self.sha256 = hashlib.sha256()
        self._file = file
        self._meter = meter

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._meter.add(len(data))
        self.sha256.update(data)
        return data

    def conclude(self, fact: FileFact) -> None:
        if self.sha256.hexdigest() != fact.sha256:
            raise DamageError("content")


class _Modest:
    """Reads no more than CHUNK at once: a header that announces gigabytes gets no memory."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.tell = file.tell
        self.seek = file.seek

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= CHUNK:
            raise tarfile.ReadError(f"a header of {size} bytes")
        data: bytes = self._file.read(size)
        return data


@contextmanager
def _tar(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        file = archive.open("rb")
    except OSError as error:
        raise problem(
            "none", f"there is no bundle at {archive}", str(error), "./invokew bundle.make"
        ) from error
    unpacker = zstandard.ZstdDecompressor()
    with file, unpacker.stream_reader(file, read_across_frames=True) as plain_:
        try:
            tar = tarfile.open(fileobj=_Modest(plain_), mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
        except SENSELESS as error:
            raise SupplyError(_broken(archive, str(error))) from error
        with tar:
            yield tar


def _first(tar: tarfile.TarFile, archive: Path) -> Manifest:
    member = tar.firstmember  # type: ignore[attr-defined]
    if member is None or member.name != MANIFEST or not _is_plain(member):
        raise SupplyError(_broken(archive, f"its first file is not {MANIFEST}"))
    try:
        text = _file(tar, member).read(min(member.size, SMALL))
    except (*SENSELESS, _StrangeError) as error:
        raise SupplyError(_broken(archive, str(error))) from error
    return parse(text.decode("utf-8", "replace"), f"{MANIFEST} in {archive}")


def _expected(
    member: tarfile.TarInfo, wanted: dict[str, FileFact | None], manifest: Manifest
) -> FileFact:
    if not _is_plain(member) or member.name not in wanted:
        raise _StrangeError(f"{member.name[:200]!r} does not belong to it, or not like that")
    fact = wanted.pop(member.name)
    if fact is None:
        fact = FileFact(manifest.lock, min(member.size, SMALL))
    return fact


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.type in {tarfile.REGTYPE, tarfile.AREGTYPE} and member.sparse is None


def _take(
    tar: tarfile.TarFile, member: tarfile.TarInfo, fact: FileFact, folder: Path | None, meter: Meter
) -> list[Finding]:
    try:
        if folder is None:
            stream(_file(tar, member), None, fact, meter)
        else:
            with arriving(folder / member.name, 0o444) as out:
                stream(_file(tar, member), out, fact, meter)
    except DamageError as error:
        return [damaged(member.name, error.sort, Path(str(tar.name or "")))]
    return []


def _file(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    if file is None:
        raise _StrangeError(f"{member.name[:200]!r} is not a plain file")
    return file


def _drain(tar: tarfile.TarFile) -> None:
    # zstd's checksum comes after the last byte: without this it would not be looked at.
    rest: bytes = tar.fileobj.read(CHUNK)
    if rest.strip(b"\0") or len(rest) == CHUNK:
        raise _StrangeError("something comes after its end")


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)  # owner 0:0 and date 0, whoever makes it and when
    info.size, info.mode = size, 0o444
    return info


def _broken(archive: Path, why: str) -> Finding:
    return Finding(
        "bundle.archive",
        "error",
        f"{archive} is damaged, or was not made by bundle.make",
        why,
        "get the file again from where it was made, or ./invokew bundle.make",
    )
