"""A distribution's archive: where the packages of a root come from, and whose signature counts."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labwright import catalog
from labwright.catalog import Guest
from labwright.errors import Finding, SupplyError
from labwright.model import AptSource
from labwright.recipes.base import Job, architecture, debian_sources
from labwright.tools.aptrepo import Repository
from labwright.tools.download import Http, Wanted
from labwright.tools.openpgp import certificate


@dataclass(frozen=True, slots=True)
class Archive:
    """A release's archive: ``sources`` for apt on this computer, ``keyring`` as its root has it."""

    distribution: str
    sources: str
    keyring: Path


def of(job: Job) -> Archive:
    """Give the archive of the release that is the artifact's version. Raises SupplyError."""
    codename = job.artifact.version
    guest = next(g for g in catalog.load().guests.values() if g.codename == codename)
    if guest.distribution == "debian":
        found = debian_sources(job.shell, suite=codename)
    else:
        found = "".join(f"{line}\n" for s in _sources(job, guest) for line in lines(job, s))
    return Archive(guest.distribution, found, Path(guest.keyring))


def lines(job: Job, source: AptSource) -> Iterator[str]:
    """Give a line of sources.list for each suite of a source; its key goes to a file beside it."""
    signed = _key(job, source)
    for suite in source.suites:
        yield f"deb [signed-by={signed}] {' '.join([source.uri, suite, *source.components])}"


def file_in(job: Job, package: Path, end: str) -> bytes | None:
    """Give the content of the file in a .deb whose name ends so."""
    tree = job.work / f"{package.stem}.tar"
    job.run(["sh", "-c", 'dpkg-deb --fsys-tarfile "$0" > "$1"', package, tree])
    with tarfile.open(tree) as tar:
        for member in tar:
            if member.name.endswith(end) and (file := tar.extractfile(member)):
                return file.read()
    return None


def _sources(job: Job, guest: Guest) -> Iterator[AptSource]:
    """Give a distribution's sources: a lab's may be mirrors."""
    asked = {source.name: source for source in job.plan.wanted.apt} if job.plan else {}
    words = {"distribution": guest.distribution, "codename": guest.codename}
    for name in guest.apt:
        known = catalog.load().apt[name]
        yield asked.get(name) or AptSource(
            name,
            f"{known.base}/{known.path.format_map(words)}",
            tuple(suite.format_map(words) for suite in known.suites),
            known.components,
            fingerprint=known.fingerprint,
            keyring=known.keyring,
        )


def _key(job: Job, source: AptSource) -> str | Path:
    pins = job.plan.pins if job.plan else None
    if pins and source.name in pins.keys:
        path = job.work / f"{source.name}.asc"
        path.write_text(pins.keys[source.name], encoding="utf-8")
        return path
    if Path(source.keyring).exists() or not source.fingerprint:
        return source.keyring
    path = job.work / f"{source.name}.gpg"
    path.write_bytes(_packaged(job, source))
    return path


def _packaged(job: Job, source: AptSource) -> bytes:
    """Take a distribution's key out of its own package, as Debian has none of it.

    Whoever hands out that package need not be trusted: the one key that is known is taken.
    """
    job.say(f"fetch the key of {source.name}'s archive")
    with Http() as http:
        arch = architecture(job.shell)
        suite, *_ = source.suites
        repository = Repository(http, source.uri, suite, source.components[:1], arch)
        deb = repository.newest(f"{source.name}-keyring")
        if deb is not None:
            package = job.work / f"{deb.name}.deb"
            http.download(Wanted(repository.url(deb), deb.sha256, deb.size), package)
            held = file_in(job, package, Path(source.keyring).as_posix())
            if held and (found := certificate(held, source.fingerprint)):
                return found
    raise SupplyError(
        Finding(
            "supply.archive-key",
            "error",
            f"the archive at {source.uri} does not have the key that is known of {source.name}",
            f"it is looked for in its package {source.name}-keyring: {source.fingerprint}",
            "if this is a mirror, name another one; if not, please report it",
            f"mirrors.apt.{source.name}",
        )
    )
