"""Reads an apt repository on any host: signature, dates, digests, and what versions it has.

https://wiki.debian.org/DebianRepository/Format; deb-version(7) for the order of versions.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import mktime_tz, parsedate_tz
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from labwright.errors import Finding, SupplyError
from labwright.tools.download import Http, shown
from labwright.tools.openpgp import dearmour, fingerprint
from labwright.tools.shell import Shell

MAYBE = frozenset({200, 403, 404})  # object stores answer 403 for what is not there
INDEX_LIMIT = 256 << 20
PACKED: Mapping[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
    "": bytes,
}
# RFC 9580 §7: one message and nothing beside it. A line of the text that begins with a dash is
# escaped, so no second message can pass for a part of the first, which alone gpgv would check.
SIGNED = re.compile(
    rb"-----BEGIN PGP SIGNED MESSAGE-----\r?\n(?:Hash: [^\n]*\n)*\r?\n"
    rb"(?P<text>(?:(?:- [^\n]*|[^-\n][^\n]*)?\n)*)"
    rb"-----BEGIN PGP SIGNATURE-----\r?\n(?:[A-Za-z]+: [^\n]*\n)*[^-]*"
    rb"-----END PGP SIGNATURE-----\s*"
)


@dataclass(frozen=True, slots=True)
class Deb:
    """A package file; ``filename`` is below the archive's root, ``source`` names the apt source."""

    name: str
    version: str
    filename: str
    sha256: str
    size: int
    source: str


@dataclass(frozen=True, slots=True)
class _Release:
    fields: Mapping[str, str]
    files: Mapping[str, tuple[str, int]]
    verified: bool


class Repository:
    """One apt source for one architecture; read at the first question and kept then.

    ``suite`` is a name (``bookworm``) or, in a flat repository, a path that ends in a slash.
    """

    def __init__(
        self,
        http: Http,
        uri: str,
        suite: str,
        components: Sequence[str] = (),
        arch: str = "amd64",
        key: bytes | None = None,
        *,
        name: str = "",
        now: datetime | None = None,
    ) -> None:
        """``key`` holds the keys to trust, armoured or binary; ``now`` is for Valid-Until."""
        self._http, self._root, self._suite = http, uri.rstrip("/") + "/", suite
        self._components, self._arch, self._key = tuple(components), arch, key
        self._name = name or shown(uri)
        self._now = now or datetime.now(UTC)

    @property
    def verified(self) -> bool:
        """Whether gpgv found the signature good; False where there is no gpgv, or no key."""
        return self._release.verified

    def url(self, deb: Deb) -> str:
        """Give the address of a package file; its name may hold a % of its own (``1%3a2.0``)."""
        remote = "://" in self._root
        return self._root + (quote(deb.filename, safe="/~+:=,@") if remote else deb.filename)

    def newest(self, name: str, prefix: str = "") -> Deb | None:
        """Give the newest package of a name whose version begins with ``prefix``, if there is one.

        ``1.36.2-`` and ``1.36.2`` take ``1.36.2-1.1`` or just ``1.36.2``, not ``1.36.20-1.1``; an
        epoch need not be written. Raises SupplyError: the repository cannot be read or trusted.
        """
        fitting = (deb for deb in self.versions(name) if _fits(deb.version, prefix))
        return next(fitting, None)

    def versions(self, name: str) -> list[Deb]:
        """Give every package of a name, newest first.

        Raises SupplyError: the repository cannot be read or trusted.
        """
        stanzas = [_fields(text) for index in self._indexes for text in index.stanzas(name)]
        debs = [self._deb(s) for s in stanzas if s.get("Architecture") in {self._arch, "all"}]
        return sorted(debs, key=lambda deb: order(deb.version), reverse=True)

    def _deb(self, stanza: Mapping[str, str]) -> Deb:
        try:
            return Deb(
                stanza["Package"],
                stanza["Version"],
                stanza["Filename"].removeprefix("./"),
                stanza["SHA256"].lower(),
                int(stanza["Size"]),
                self._name,
            )
        except (KeyError, ValueError) as error:
            raise self._bad("has a package index that lacks facts", str(error)) from error

    @cached_property
    def _base(self) -> str:
        if self._suite.endswith("/"):
            return self._root + self._suite.removeprefix("./").lstrip("/")
        return f"{self._root}dists/{self._suite}/"

    @cached_property
    def _release(self) -> _Release:
        text, verified = self._signed()
        try:
            fields = _fields(text)
            files = _files(fields.get("SHA256", ""))
            until = _moment(fields["Valid-Until"]) if "Valid-Until" in fields else None
        except ValueError as error:
            raise self._bad("has a Release that cannot be read", str(error)) from error
        if until and until < self._now:
            why = f"its Release is valid until {_shown(until)}; now is {_shown(self._now)}"
            fix = "set this computer's clock; if it is right, the mirror is stale: name another one"
            raise self._bad("is out of date", why, fix)
        return _Release(fields, files, verified)

    def _signed(self) -> tuple[str, bool]:
        """Give the text of the Release that the signature covers, and whether it was checked."""
        inline = self._http.ask(f"{self._base}InRelease", accept=MAYBE)
        if inline.status == 200:
            found = SIGNED.fullmatch(inline.body)
            if not found:
                raise self._bad("has an InRelease that is not one signed text", "")
            text = re.sub(rb"(?m)^- ", b"", found["text"])
            return text.decode("utf-8", "replace"), self._check({"InRelease": inline.body})
        release = self._http.get(f"{self._base}Release")
        signature = self._http.ask(f"{self._base}Release.gpg", accept=MAYBE)
        files = {"Release.gpg": signature.body, "Release": release}
        if signature.status != 200:
            files = {}
        return release.decode("utf-8", "replace"), self._check(files)

    def _check(self, files: Mapping[str, bytes]) -> bool:
        """Have gpgv check ``files`` (signature first); None of them: it is not signed at all."""
        gpgv = shutil.which("gpgv")
        if gpgv is None or self._key is None:
            return False
        keys = dearmour(self._key)
        known = ", ".join(fingerprint(keys))
        if not files:
            raise self._bad("is not signed", f"key {known} was expected")
        with tempfile.TemporaryDirectory() as folder:
            for name, content in {"keys.gpg": keys, **files}.items():
                (Path(folder) / name).write_bytes(content)
            paths = [str(Path(folder) / name) for name in ("keys.gpg", *files)]
            words = [gpgv, "--status-fd", "1", "--keyring", *paths]
            said = Shell().run(words, check=False, timeout=60)
        why = _verdict(said.out)
        if why:
            raise self._bad("is not signed by whom it should be", f"{why}; expected: key {known}")
        return True

    @cached_property
    def _indexes(self) -> list[_Index]:
        if self._suite.endswith("/"):
            folders = [""]
        else:
            folders = [f"{part}/binary-{self._arch}/" for part in self._components]
        return [_Index(self._packages(folder)) for folder in folders]

    def _packages(self, folder: str) -> bytes:
        files = self._release.files
        for suffix, unpack in PACKED.items():
            path = f"{folder}Packages{suffix}"
            if path in files:
                body = self._index_file(folder, path, *files[path])
                return unpack(body)
        raise self._bad(
            f"has nothing for {self._arch} in {self._suite} {folder.partition('/')[0]}".rstrip(),
            f"its Release names no {folder}Packages",
            "check the suite, the components and the architecture",
        )

    def _index_file(self, folder: str, path: str, digest: str, size: int) -> bytes:
        """Fetch it by its hash where it can be: the plain name may be newer than the Release."""
        body = b""
        if self._release.fields.get("Acquire-By-Hash") == "yes":
            url = f"{self._base}{folder}by-hash/SHA256/{digest}"
            body = self._http.ask(url, limit=INDEX_LIMIT, accept=MAYBE).body
        if hashlib.sha256(body).hexdigest() != digest:
            body = self._http.get(self._base + path, limit=INDEX_LIMIT)
        came = hashlib.sha256(body).hexdigest()
        if came != digest:
            why = f"{path}: sha256 {digest} ({size} bytes) is signed, {came} ({len(body)}) came"
            fix = "run it again in some minutes: a mirror may be in the middle of an update"
            raise self._bad("has another package index than its Release says", why, fix)
        return body

    def _bad(self, what: str, why: str, fix: str = "") -> SupplyError:
        fix = fix or (
            "do not install from there before you know why; check the address and the key, and "
            "mirrors: in lab.yaml"
        )
        address = f"apt repository {shown(self._base)}"
        return SupplyError(Finding("supply.apt", "error", f"{address} {what}", why, fix))


class _Index:
    """A Packages file; only what is asked for is taken apart: Debian's has 63000 stanzas."""

    def __init__(self, text: bytes) -> None:
        self._text = b"\n" + text
        self._places: dict[bytes, list[int]] = {}
        for found in re.finditer(rb"\nPackage: *([^\s]+)", self._text):
            self._places.setdefault(found[1], []).append(found.start())

    def stanzas(self, name: str) -> list[str]:
        found = []
        for at in self._places.get(name.encode(), ()):
            begin = self._text.rfind(b"\n\n", 0, at + 1) + 1
            end = self._text.find(b"\n\n", at)
            found.append(self._text[begin : end if end >= 0 else None].decode("utf-8", "replace"))
        return found


def order(version: str) -> Any:
    """Give a sort key that puts versions in the order of deb-version(7)."""
    epoch, colon, rest = version.partition(":")
    upstream, _, revision = (rest if colon else version).rpartition("-")
    if not upstream:
        upstream, revision = revision, ""
    return int(epoch) if colon and epoch.isdigit() else 0, _order(upstream), _order(revision)


def _order(text: str) -> list[Any]:
    # The last match is empty and stands for the end: a tilde is older than it, the rest newer.
    return [
        ([*map(_weight, words), 0], int(digits or 0))
        for words, digits in re.findall(r"([^0-9]*)([0-9]*)", text or "0")
    ]


def _weight(letter: str) -> int:
    if letter == "~":
        return -1
    return ord(letter) if letter.isalpha() else ord(letter) + 256


def _fits(version: str, prefix: str) -> bool:
    if not prefix:
        return True
    for text in (version, version.partition(":")[2]):
        if text == prefix.removesuffix("-"):
            return True
        rest = text.removeprefix(prefix)
        if rest != text and not (prefix[-1].isdigit() and rest[0].isdigit()):
            return True
    return False


def _fields(text: str) -> dict[str, str]:
    """Read one stanza; the lines of a long field are joined by newlines."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line[:1] in {" ", "\t"} and name:
            fields[name] = f"{fields[name]}\n{line.strip()}".lstrip("\n")
        elif ":" in line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def _files(lines: str) -> dict[str, tuple[str, int]]:
    """Give path → sha256 and size of what a Release lists."""
    files = {}
    for line in lines.splitlines():
        digest, size, path = line.split()
        files[path.removeprefix("./")] = (digest.lower(), int(size))
    return files


def _moment(date: str) -> datetime:
    parsed = parsedate_tz(date)
    if parsed is None:
        raise ValueError(f"{date!r} is no date")
    return datetime.fromtimestamp(mktime_tz(parsed), UTC)


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _verdict(status: str) -> str:
    """Say what gpgv holds against a signature; nothing: it is good.

    The words are in GnuPG's doc/DETAILS. As apt does, one good signature of several is enough,
    where none of the others is false: archives sign with the keys of two releases.
    """
    said = [line.split()[1:] for line in status.splitlines() if line.startswith("[GNUPG:] ")]
    words = {line[0] for line in said if line}
    if "BADSIG" in words:
        return "it was altered after it was signed"
    if {"GOODSIG", "VALIDSIG"} <= words:
        return ""
    if words & {"EXPKEYSIG", "EXPSIG"}:
        return "the key or the signature has expired"
    if "REVKEYSIG" in words:
        return "the key was revoked"
    other = sorted({line[1] for line in said if line and line[0] == "NO_PUBKEY"})
    return f"it is signed by key {', '.join(other)}" if other else "there is no signature in it"
