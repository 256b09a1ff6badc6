"""The manifest of a bundle: every file a lab needs, with its size and SHA-256.

``bundle.json`` has one form only, down to the byte, and carries the digest of what it says: a flip
of any bit in it is noticed without anything to compare it with.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from labwright.errors import Finding, SupplyError

FORMAT = 1
MANIFEST = "bundle.json"
LOCK = "lab.lock"
PART = ".part"

_HEX = re.compile(r"[0-9a-f]{64}")
# An id and a key become names of folders; a leading dot is for what is not finished.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_OUTER = {"format", "digest", "lab", "made_by", "versions", "facts", "lock", "entries"}


@dataclass(frozen=True, slots=True)
class FileFact:
    """What a file is: ``sha256`` in hex, ``size`` in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the content store: ``id`` is its folder in the bundle, ``key`` its store key.

    ``files`` maps paths below that folder.
    """

    id: str
    key: str
    files: Mapping[str, FileFact]

    @property
    def content(self) -> str:
        """Give one SHA-256 of all files: same content, same value, whatever the key."""
        facts = {path: [fact.sha256, fact.size] for path, fact in self.files.items()}
        return hashlib.sha256(_canonical(facts)).hexdigest()

    @property
    def size(self) -> int:
        """Give the bytes of all files."""
        return sum(fact.size for fact in self.files.values())


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle is made of.

    ``facts`` holds provider, guest, arch and supply; ``lock`` is the SHA-256 of lab.lock's text;
    ``entries`` is keyed by the entries' ids; ``made_by`` is Labwright's version.
    """

    lab: str
    made_by: str
    versions: Mapping[str, str]
    facts: Mapping[str, str]
    lock: str
    entries: Mapping[str, Entry]
    format: int = field(default=FORMAT)

    @property
    def size(self) -> int:
        """Give the bytes of all entries."""
        return sum(entry.size for entry in self.entries.values())

    @property
    def digest(self) -> str:
        """Give the SHA-256 of the canonical JSON: the bundle's identity."""
        return hashlib.sha256(_canonical(_plain(self))).hexdigest()

    @property
    def files(self) -> dict[str, FileFact]:
        """Give every file of the entries by its path in the bundle, sorted."""
        found = {
            f"{entry.id}/{path}": fact
            for entry in self.entries.values()
            for path, fact in entry.files.items()
        }
        return dict(sorted(found.items()))


def dump(manifest: Manifest) -> str:
    """Give the text of bundle.json; the same manifest gives the same text."""
    content = {**_plain(manifest), "digest": manifest.digest}
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def parse(text: str, where: str = MANIFEST) -> Manifest:
    """Read bundle.json.

    Raises SupplyError, with ``where``: it is damaged, of another format, or names a path that
    leaves the bundle's folder.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        _refuse(where, f"it is not JSON: {error}")
    if not isinstance(raw, dict):
        _refuse(where, "it is not an object")
    if raw.get("format") != FORMAT:
        _refuse(where, f"its format is {raw.get('format')!r}; this Labwright reads {FORMAT}")
    try:
        manifest = _manifest(raw)
    except ValueError as error:
        _refuse(where, str(error))
    if dump(manifest) != text:
        _refuse(where, "it was changed after it was made")
    return manifest


def safe(path: object) -> bool:
    """Tell whether a path stays below its folder and cannot be taken for an unfinished file."""
    if not isinstance(path, str) or not path.isprintable() or "\\" in path or path.endswith(PART):
        return False
    return all(part not in {"", ".", ".."} for part in path.split("/"))


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _plain(manifest: Manifest) -> dict[str, Any]:
    return {
        "format": manifest.format,
        "lab": manifest.lab,
        "made_by": manifest.made_by,
        "versions": dict(manifest.versions),
        "facts": dict(manifest.facts),
        "lock": manifest.lock,
        "entries": {
            id_: {
                "key": entry.key,
                "files": {
                    path: {"sha256": fact.sha256, "size": fact.size}
                    for path, fact in entry.files.items()
                },
            }
            for id_, entry in manifest.entries.items()
        },
    }


def _manifest(raw: dict[str, Any]) -> Manifest:
    _keys(raw, _OUTER, "the manifest")
    return Manifest(
        lab=_text(raw["lab"], "lab"),
        made_by=_text(raw["made_by"], "made_by"),
        versions=_texts(raw["versions"], "versions"),
        facts=_texts(raw["facts"], "facts"),
        lock=_sha256(raw["lock"], "lock"),
        entries={id_: _entry(id_, value) for id_, value in _map(raw["entries"], "entries").items()},
    )


def _entry(id_: str, raw: object) -> Entry:
    if not _NAME.fullmatch(id_) or id_ in {MANIFEST, LOCK} or id_.endswith(PART):
        raise ValueError(f"{id_!r} cannot be the name of an entry")
    content = _map(raw, id_)
    _keys(content, {"key", "files"}, id_)
    key = content["key"]
    if not isinstance(key, str) or not _NAME.fullmatch(key):
        raise ValueError(f"{id_} has the key {key!r}, which cannot be the name of a folder")
    files = {path: _fact(path, fact) for path, fact in _map(content["files"], id_).items()}
    for path in files:
        if any(parent in files for parent in _parents(path)):
            raise ValueError(f"{id_} has a file and a folder of one name above {path}")
    return Entry(id_, key, files)


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _fact(path: str, raw: object) -> FileFact:
    if not safe(path):
        raise ValueError(f"{path!r} is not a path inside the bundle")
    content = _map(raw, path)
    _keys(content, {"sha256", "size"}, path)
    size = content["size"]
    if type(size) is not int or size < 0:
        raise ValueError(f"{path} has the size {size!r}")
    return FileFact(_sha256(content["sha256"], path), size)


def _keys(raw: Mapping[str, Any], wanted: set[str], where: str) -> None:
    if set(raw) != wanted:
        odd = ", ".join(repr(name) for name in sorted(set(raw) ^ wanted)[:3])
        raise ValueError(f"{where} lacks a key or has one too many: {odd}")


def _map(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not an object")
    return value


def _texts(value: object, where: str) -> dict[str, str]:
    found = _map(value, where)
    return {_text(name, where): _text(item, f"{where}.{name}") for name, item in found.items()}


def _text(value: object, where: str) -> str:
    # These are printed: nothing in them may move a terminal's cursor.
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{where!r} is not a line of text")
    return value


def _sha256(value: object, where: str) -> str:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise ValueError(f"{where} has no SHA-256 of 64 hex digits")
    return value


def _refuse(where: str, why: str) -> NoReturn:
    raise SupplyError(
        Finding(
            "bundle.manifest",
            "error",
            f"{where} is not the manifest of a bundle that can be used",
            why[:300],
            "get the bundle again from where it was made, or ./invokew bundle.make",
        )
    ) from None
