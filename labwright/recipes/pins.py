"""Asks repositories and registries what a lab will get, before any machine boots.

What an earlier lock has stays as it is: a package for as long as it can be had, an image always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from labwright.errors import Finding, LabError, SupplyError
from labwright.model import AptSource, ChartPin, DebPin, DebWish, ImagePin, Pins, Wanted
from labwright.tools import charts
from labwright.tools.aptrepo import Deb, Repository, order
from labwright.tools.download import Http
from labwright.tools.openpgp import fingerprint
from labwright.tools.registry import Registries

ARMOUR = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
# Long enough for a registry that restarts, short enough for a host that is offline; in seconds.
PATIENCE = 15.0
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def resolve(
    wanted: Wanted, machine: str, before: Pins | None = None, say: Callable[[str], None] = print
) -> Pins:
    """Give keys, package versions, image digests and charts.

    ``machine`` is the nodes' architecture as the kernel names it. Raises SupplyError with all
    that failed, not only the first.
    """
    earlier = before or Pins()
    arch = ARCHITECTURES.get(machine, machine)
    with Http(PATIENCE) as http, ThreadPoolExecutor(8) as pool:
        keys = {s.name: _key(http, s) for s in wanted.apt if s.key}
        say("ask the package sources")
        packages = _packages(http, wanted, keys, arch, earlier)
        say("ask the registries")
        registries = Registries(http, wanted.registries)
        jobs = {
            name: pool.submit(_image, registries, ref, arch, earlier.images.get(name))
            for name, ref in wanted.images.items()
        }
        images: dict[str, ImagePin] = {}
        problems: list[Finding] = []
        for name, job in jobs.items():
            try:
                images[name] = job.result()
            except LabError as error:
                problems += error.findings
        if problems:
            raise SupplyError(problems)
        found = {n: charts.find(http, url, n, v) for n, (url, v) in wanted.charts.items()}
    return Pins(
        keys=keys,
        packages=packages,
        images=images,
        charts={n: ChartPin(pin.version, pin.url, pin.sha256) for n, pin in found.items()},
    )


def covers(pins: Pins, wanted: Wanted) -> bool:
    """Whether pins answer everything that is wanted, so that nobody need be asked."""
    chart_versions = {n: v.removeprefix("v") for n, (_url, v) in wanted.charts.items()}
    return (
        {name: pin.ref for name, pin in pins.images.items()} == dict(wanted.images)
        and {n: p.version.removeprefix("v") for n, p in pins.charts.items()} == chart_versions
        and set(pins.keys) == {source.name for source in wanted.apt if source.key}
        and all(_answers(pins, wish) for wish in wanted.debs)
        and all(_still_trusted(s, pins.keys[s.name].encode()) for s in wanted.apt if s.key)
    )


def _still_trusted(source: AptSource, key: bytes) -> bool:
    """Whether a kept key is the one that is known; a text that is no key any more is not."""
    try:
        return _trusted(source, key)
    except SupplyError:
        return False


def _answers(pins: Pins, wish: DebWish) -> bool:
    pin = pins.packages.get(wish.name)
    if pin is None:
        return not wish.required
    return pin.source in wish.sources and _starts(pin.version, wish.version)


def _starts(version: str, prefix: str) -> bool:
    """Whether a version begins so, whatever its epoch; 2.2.10 does not begin with 2.2.1."""
    own = version.rpartition(":")[2]
    goes_on = prefix[-1:].isdigit() and own[len(prefix) : len(prefix) + 1].isdigit()
    return own.startswith(prefix) and not goes_on


def _key(http: Http, source: AptSource) -> str:
    body = http.get(source.key)
    if not body.lstrip().startswith(ARMOUR):
        raise SupplyError(
            Finding(
                "supply.key-format",
                "error",
                f"{source.key} is not an ASCII-armoured key",
                "nodes take the key of a package source as text",
                "gpg --armor --export KEY writes one",
                f"mirrors.apt.{source.name}",
            )
        )
    if not _trusted(source, body):
        raise SupplyError(
            Finding(
                "supply.key-untrusted",
                "error",
                f"the key of package source {source.name} is not the one that is known",
                f"{', '.join(fingerprint(body))} is there, {source.fingerprint} is known",
                f"if you trust it, save it and name the file: mirrors.apt.{source.name}.key",
                f"mirrors.apt.{source.name}",
            )
        )
    return body.decode().replace("\r\n", "\n").rstrip("\n") + "\n"


def _trusted(source: AptSource, key: bytes) -> bool:
    return not source.fingerprint or source.fingerprint in fingerprint(key)


def _packages(
    http: Http, wanted: Wanted, keys: Mapping[str, str], arch: str, earlier: Pins
) -> dict[str, DebPin]:
    repositories = {s.name: list(_repositories(http, s, keys, arch)) for s in wanted.apt}
    found: dict[str, DebPin] = {}
    for wish in wanted.debs:
        deb = _deb(wish, repositories, earlier.packages.get(wish.name))
        if deb is not None:
            found[wish.name] = DebPin(deb.version, deb.sha256, deb.source)
        elif wish.required:
            raise SupplyError(_no_deb(wish, wanted))
    return found


def _repositories(
    http: Http, source: AptSource, keys: Mapping[str, str], arch: str
) -> Iterator[Repository]:
    key = keys[source.name].encode() if source.name in keys else _keyring(source.keyring)
    for suite in source.suites:
        name = source.name
        yield Repository(http, source.uri, suite, source.components, arch, key, name=name)


def _keyring(path: str) -> bytes | None:
    """Read a guest's keyring where this host has the same one; apt on the node checks anyway."""
    return Path(path).read_bytes() if path and Path(path).is_file() else None


def _deb(
    wish: DebWish, repositories: Mapping[str, list[Repository]], before: DebPin | None
) -> Deb | None:
    asked = [repo for source in wish.sources for repo in repositories[source]]
    if before is not None and _starts(before.version, wish.version):
        for repository in asked:
            for deb in repository.versions(wish.name):
                if (deb.version, deb.sha256) == (before.version, before.sha256):
                    return deb
    newest = [d for repo in asked if (d := repo.newest(wish.name, wish.version))]
    return max(newest, key=lambda deb: order(deb.version), default=None)


def _no_deb(wish: DebWish, wanted: Wanted) -> Finding:
    places = ", ".join(s.uri for s in wanted.apt if s.name in wish.sources)
    version = f" {wish.version.rstrip('-')}" if wish.version else ""
    return Finding(
        "supply.no-package",
        "error",
        f"there is no package {wish.name}{version} in {' or '.join(wish.sources)}",
        f"asked: {places}",
        "choose a version that is there, or another mirror",
        f"mirrors.apt.{wish.sources[0]}",
    )


def _image(registries: Registries, ref: str, arch: str, before: ImagePin | None) -> ImagePin:
    if before is None or before.ref != ref:
        pin = registries.resolve(ref, arch)
        return ImagePin(ref, pin.digest, pin.size)
    try:
        pin = registries.resolve(f"{ref}@{before.digest}", arch)
    except SupplyError as error:
        # Not the tag instead: what stands there now may be another program.
        fix = "bring the image back, or take what is there now: ./invokew lab.lock --upgrade"
        raise SupplyError([replace(f, fix=fix) for f in error.findings], error.details) from error
    return ImagePin(ref, pin.digest, pin.size)
