"""Bundles: everything a lab needs in one folder, or one file, to take along or to serve.

A folder holds ``bundle.json``, ``lab.lock`` and ``<entry id>/<path>``. ``bundle.json`` is written
last: without it a folder is no bundle. ``.progress`` is there only while one is made.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from labwright import __version__
from labwright.bundle import LOCK, MANIFEST, Entry, FileFact, Manifest, dump, parse
from labwright.errors import Finding, SupplyError
from labwright.tools import bundle_archive, bundle_fetch, bundle_folder, store, workdir
from labwright.tools.bundle_archive import SUFFIX
from labwright.tools.bundle_bytes import DamageError, Meter, Progress, check, copy, each, ignore
from labwright.tools.bundle_files import HELD, held, manifest_of, survey, whole
from labwright.tools.bundle_problems import damaged, nothing_at, problem, refused
from labwright.tools.download import Http

Say = Callable[[str], None]


def _silent(_text: str) -> None:
    """Say nothing."""


def make(
    entries: Mapping[str, tuple[str, Path]],
    target: Path,
    *,
    lab: str,
    versions: Mapping[str, str],
    facts: Mapping[str, str],
    lock: str,
    made_by: str = __version__,
    say: Say = _silent,
    progress: Progress = ignore,
) -> Manifest:
    """Make a bundle in the folder ``target``, or in one file where its name ends in ``.tar.zst``.

    ``entries`` maps an id to the store's key and folder; ``lock`` is the text of lab.lock. A
    folder is gone on with where an earlier run ended; files that a bundle beside it has are
    shared with that one, never with the store. ``progress(done, total)``, in bytes, may be called
    from another thread.

    Raises SupplyError: a file of the store is damaged, or ``target`` is something else.
    """
    made = {id_: _entry(id_, key, folder) for id_, (key, folder) in entries.items()}
    digest = hashlib.sha256(lock.encode()).hexdigest()
    new = parse(dump(Manifest(lab, made_by, versions, facts, digest, made)))
    sources = {
        f"{id_}/{path}": entries[id_][1] / path
        for id_, entry in made.items()
        for path in entry.files
    }
    meter = Meter(progress, new.size)
    if target.name.endswith(SUFFIX):
        _pack(new, lock, sources, target, meter)
    elif whole(target, new):
        meter.add(new.size)
    else:
        bundle_folder.fill(new, lock, sources, target, meter, say)
    return new


def verify(where: Path, progress: Progress = ignore) -> list[Finding]:
    """Hash every file of a bundle, folder or ``.tar.zst``, and give one finding for each bad one.

    Raises SupplyError: there is no bundle.
    """
    try:
        if where.is_dir():
            return _verify_folder(where, progress)
        return list(bundle_archive.scan(where, None, progress))
    except SupplyError as error:
        if any(finding.id == "bundle.none" for finding in error.findings):
            raise
        return list(error.findings)


def opened(
    where: str,
    cache: Path,
    http: Http | None = None,
    say: Say = _silent,
    progress: Progress = ignore,
) -> Path:
    """Give the folder of the bundle ``where``: a folder, a ``.tar.zst`` or an URL.

    The last two are unpacked or fetched to ``cache/<digest>``, once; ``http`` is needed for an
    URL. A folder is given as it is: what is taken from it is verified by :func:`import_entry`.

    Raises SupplyError.
    """
    if where.startswith(("http://", "https://")):
        if http is None:
            raise ValueError("an URL needs http")
        return bundle_fetch.fetch(where, cache, http, say, progress)
    path = Path(where).expanduser()
    if path.name.endswith(SUFFIX) and not path.is_dir():
        return _unpacked(path, cache, say, progress)
    if manifest_of(path) is None:
        raise nothing_at(path)
    return path


def manifest(where: Path) -> Manifest:
    """Read the manifest of a bundle, folder or ``.tar.zst``; its files are not looked at.

    Raises SupplyError: there is no bundle, or its manifest is damaged.
    """
    if not where.is_dir():
        return bundle_archive.manifest_in(where)
    found = manifest_of(where)
    if found is None:
        raise nothing_at(where)
    return found


def read(folder: Path) -> tuple[Manifest, str]:
    """Give the manifest of a bundle's folder and the text of its lab.lock, both verified.

    Raises SupplyError: there is no bundle, or one of the two is damaged.
    """
    found = manifest(folder)
    with _told(LOCK, folder):
        try:
            raw = (folder / LOCK).read_bytes()
        except OSError as error:
            raise DamageError("missing") from error
        if hashlib.sha256(raw).hexdigest() != found.lock:
            raise DamageError("content")
    return found, raw.decode()


def import_entry(folder: Path, entry: Entry, out: Path, progress: Progress = ignore) -> None:
    """Copy an entry's files from a bundle's folder into the empty folder ``out``, hashing each.

    Raises SupplyError at the first file that is not what the entry says.
    """
    meter = Meter(progress, entry.size)

    def take(item: tuple[str, FileFact]) -> None:
        path, fact = item
        with _told(f"{entry.id}/{path}", folder):
            copy(folder / entry.id / path, out / path, fact, meter, 0o644)

    try:
        each(take, entry.files.items(), meter)
    except OSError as error:
        raise refused(error, out) from error


@contextlib.contextmanager
def _told(path: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except DamageError as error:
        raise problem(
            error.sort,
            f"{path} in {folder} is not what the bundle's manifest says",
            str(error),
            f"./invokew bundle.verify {folder} finds all that is damaged: remove that, and copy, "
            "fetch or make the bundle again",
        ) from error


def _entry(id_: str, key: str, folder: Path) -> Entry:
    try:
        text = (folder / store.MANIFEST).read_text(encoding="utf-8")
        files = {
            path: FileFact(fact["sha256"], fact["size"])
            for path, fact in json.loads(text)["files"].items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise problem(
            "source",
            f"the store has no whole {key}",
            f"{folder / store.MANIFEST} cannot be read",
            "./invokew lab.up makes it",
        ) from error
    return Entry(id_, key, files)


def _pack(
    new: Manifest, lock: str, sources: Mapping[str, Path], target: Path, meter: Meter
) -> None:
    # The archive got its name when it was finished, so its manifest speaks for all of it.
    with contextlib.suppress(SupplyError):
        if bundle_archive.manifest_in(target) == new:
            meter.add(new.size)
            return
    try:
        bundle_archive.pack(new, lock, sources, target, meter)
    except OSError as error:
        raise refused(error, target) from error


def _verify_folder(folder: Path, progress: Progress) -> list[Finding]:
    found = manifest(folder)
    there, odd = survey(folder)
    wanted = found.files
    wanted[LOCK] = FileFact(found.lock, there[LOCK].st_size if LOCK in there else 0)
    foreign = {*there, *odd} - {*wanted, MANIFEST, HELD}
    bad = [damaged(path, "foreign", folder) for path in foreign]
    meter = Meter(progress, sum(fact.size for fact in wanted.values()))

    def look(path: str) -> None:
        try:
            check(folder / path, wanted[path], meter)
        except DamageError as error:
            bad.append(damaged(path, error.sort, folder))

    bad += [damaged(path, "missing", folder) for path in wanted if path not in there]
    # The large ones first: at the end every core has something left to do.
    by_size = sorted(there.keys() & wanted, key=lambda path: -wanted[path].size)
    each(look, by_size, meter)
    return sorted(bad, key=lambda finding: finding.what)


def _unpacked(archive: Path, cache: Path, say: Say, progress: Progress) -> Path:
    found = bundle_archive.manifest_in(archive)
    folder = cache / found.digest
    if whole(folder, found):
        return folder
    say(f"unpack {found.size / 1e6:.0f} MB from {archive}")
    with held(folder, say):
        if whole(folder, found):  # what this one waited for
            return folder
        if bad := bundle_archive.scan(archive, folder, progress):
            raise SupplyError(bad)
        workdir.write(folder / MANIFEST, dump(found), 0o444)
    return folder
