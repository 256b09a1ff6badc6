"""A read-only registry whose images are OCI archives: nothing is unpacked, nothing copied.

It speaks the pull part of https://github.com/opencontainers/distribution-spec/blob/main/spec.md.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from labwright import oci
from labwright.errors import Finding, SupplyError
from labwright.tools.registry import Reference
from labwright.tools.serve import BINARY, JSON, Answer, Slice

IMAGES = "images.json"
INDEXES = {oci.INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"}
# No registry has to take more than that, so no client sends or expects it.
MANIFEST_LIMIT = 4 << 20
PATH = re.compile(
    r"/v2/(?P<name>[^?]+?)/(?:(?P<kind>manifests|blobs)/(?P<which>[^/]+)|(?P<list>tags/list))"
)
BLOB = re.compile(r"(?:\./)?blobs/sha256/([0-9a-f]{64})")
API = {"Docker-Distribution-API-Version": "registry/2.0"}


@dataclass(slots=True)
class _Repository:
    tags: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)  # digest of a manifest → media type
    blobs: dict[str, Slice] = field(default_factory=dict)


class Registry:
    """The images of one folder, as a registry answers for them.

    ``?ns=`` tells which registry's image is meant, as containerd says it to a mirror; without it
    the first registry that has the name answers.
    """

    def __init__(self, folder: Path) -> None:
        """Read ``images.json`` (name → ``ref``, ``archive``, ``digest``) and the archives' indexes.

        Raises SupplyError: one is missing or is not what ``images.json`` says.
        """
        self._found: dict[str, dict[str, _Repository]] = {}
        for ref, archive, digest in _images(folder):
            image = Reference.parse(ref)
            registries = self._found.setdefault(image.repository, {})
            repository = registries.setdefault(image.registry, _Repository())
            _read(archive, digest, repository)
            if image.tag:
                repository.tags[image.tag] = digest

    def answer(self, method: str, target: str) -> Answer:
        """Answer a request for ``target``, a path with its query; a HEAD as if it were a GET."""
        if method not in {"GET", "HEAD"}:
            return _problem(405, "UNSUPPORTED", "this registry is read-only", Allow="GET, HEAD")
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        path = unquote(parts.path)
        if path in {"/v2", "/v2/"}:
            return Answer(200, JSON, b"{}", API)
        found = PATH.fullmatch(path)
        if not found:
            return _problem(404, "UNSUPPORTED", "this registry has nothing there")
        choice = self._choice(found["name"], query.get("ns", [""])[0])
        if not choice:
            return _problem(404, "NAME_UNKNOWN", "this registry has no such repository")
        if found["list"]:
            return _tags(found["name"], choice, query)
        which = found["which"]
        return _manifest(choice, which) if found["kind"] == "manifests" else _blob(choice, which)

    def _choice(self, name: str, registry: str) -> list[_Repository]:
        registries = self._found.get(name, {})
        if registry:
            return [registries[registry]] if registry in registries else []
        return list(registries.values())


def _problem(status: int, code: str, message: str, **headers: str) -> Answer:
    text = json.dumps({"errors": [{"code": code, "message": message}]})
    return Answer(status, JSON, text.encode(), {**API, **headers})


def _manifest(choice: Iterable[_Repository], which: str) -> Answer:
    for repository in choice:
        digest = repository.tags.get(which, which)
        if digest in repository.kinds:
            headers = {**API, "Docker-Content-Digest": digest, "ETag": f'"{digest}"'}
            return Answer(200, repository.kinds[digest], repository.blobs[digest], headers)
    return _problem(404, "MANIFEST_UNKNOWN", "this registry has no such manifest")


def _blob(choice: Iterable[_Repository], digest: str) -> Answer:
    for repository in choice:
        if digest in repository.blobs:
            headers = {**API, "Docker-Content-Digest": digest, "ETag": f'"{digest}"'}
            return Answer(200, BINARY, repository.blobs[digest], headers)
    return _problem(404, "BLOB_UNKNOWN", "this registry has no such blob")


def _tags(name: str, choice: Iterable[_Repository], query: Mapping[str, list[str]]) -> Answer:
    tags = sorted({tag for repository in choice for tag in repository.tags})
    if "last" in query:
        tags = [tag for tag in tags if tag > query["last"][0]]
    count = query.get("n", [""])[0]
    headers = dict(API)
    if count.isdecimal() and int(count[:9]) < len(tags):
        tags = tags[: int(count[:9])]
        if tags:
            rest = f"/v2/{name}/tags/list?n={count}&last={quote(tags[-1])}"
            headers["Link"] = f'<{rest}>; rel="next"'
    return Answer(200, JSON, json.dumps({"name": name, "tags": tags}).encode(), headers)


def _images(folder: Path) -> Iterator[tuple[str, Path, str]]:
    try:
        raw = json.loads((folder / IMAGES).read_text(encoding="utf-8"))
        found = [(str(i["ref"]), str(i["archive"]), str(i["digest"])) for i in raw.values()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unusable(folder / IMAGES, str(error)) from error
    for ref, archive, digest in found:
        if Path(archive).name != archive:
            raise _unusable(folder / IMAGES, f"{archive!r} is not the name of a file beside it")
        yield ref, folder / archive, digest


def _read(archive: Path, digest: str, repository: _Repository) -> None:
    try:
        blobs, index = _contents(archive)
        kinds: dict[str, str] = {}
        _collect(blobs, index, kinds)
    except (OSError, tarfile.TarError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unusable(archive, str(error)) from error
    if digest not in kinds:
        raise _unusable(archive, f"it does not hold the manifest {digest}")
    repository.blobs |= blobs
    repository.kinds |= kinds


def _contents(archive: Path) -> tuple[dict[str, Slice], Any]:
    blobs: dict[str, Slice] = {}
    index = None
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE} or member.sparse is not None:
                continue
            place = Slice(archive, member.offset_data, member.size)
            if found := BLOB.fullmatch(member.name):
                blobs[f"sha256:{found[1]}"] = place
            elif member.name.removeprefix("./") == "index.json":
                index = json.loads(_bytes(place))
    return blobs, index


def _collect(blobs: Mapping[str, Slice], index: Any, kinds: dict[str, str]) -> None:
    """Add digest → media type of the manifests that the archive has, those of an index too."""
    for entry in index["manifests"]:
        digest, kind = str(entry["digest"]), str(entry["mediaType"])
        if digest in kinds or digest not in blobs:
            continue  # an index may name platforms that were left out
        body = _bytes(blobs[digest])
        if f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
            raise ValueError(f"{digest} has other content than its name says")
        if not (kind.isprintable() and kind.isascii()):
            raise ValueError(f"{kind!r} is not a media type")
        kinds[digest] = kind
        if kind in INDEXES:
            _collect(blobs, json.loads(body), kinds)


def _bytes(place: Slice) -> bytes:
    if place.size > MANIFEST_LIMIT:
        raise ValueError(f"a manifest of {place.size} bytes is larger than registries allow")
    with place.path.open("rb") as file:
        file.seek(place.offset)
        return file.read(place.size)


def _unusable(path: Path, why: str) -> SupplyError:
    return SupplyError(
        Finding(
            "bundle.images",
            "error",
            f"{path} cannot be served as images",
            why[:300],
            "./invokew bundle.verify says what is damaged",
        )
    )
