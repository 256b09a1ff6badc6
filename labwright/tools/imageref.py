"""Names of images, and what their manifests say: Docker's and OCI's, as registries give them.

https://github.com/opencontainers/image-spec/blob/main/manifest.md and, for Docker's,
https://distribution.github.io/distribution/spec/manifest-v2-2/.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labwright import oci
from labwright.errors import Finding, SupplyError

DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = frozenset({oci.INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({oci.MANIFEST, DOCKER_MANIFEST})
DIGEST = r"sha256:[0-9a-f]{64}"
HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]+)?")
SHAPE = re.compile(
    r"(?P<name>[a-z0-9]+(?:(?:[._]|__|-+|/)[a-z0-9]+)*)"
    rf"(?::(?P<tag>\w[\w.-]{{0,127}}))?(?:@(?P<digest>{DIGEST}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Reference:
    """The full name of an image; ``tag`` or ``digest`` may be empty, not both."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``registry.k8s.io/pause:3.10@sha256:…``; short names are Docker Hub's.

        Raises SupplyError where it is no name of an image.
        """
        head, slash, rest = text.partition("/")
        if not slash or not (set(head) & {".", ":"} or head == "localhost"):
            head, rest = "docker.io", text
        found = SHAPE.fullmatch(rest)
        if not found or not HOST.fullmatch(head):
            what = f"{text!r} is not the name of an image"
            raise SupplyError(
                Finding("supply.image-name", "error", what, fix="write registry/name:version")
            )
        registry = "docker.io" if head == "index.docker.io" else head
        name, tag, digest = found["name"], found["tag"] or "", found["digest"] or ""
        if registry == "docker.io" and "/" not in name:
            name = f"library/{name}"
        return cls(registry, name, tag if tag or digest else "latest", digest)

    @property
    def name(self) -> str:
        """The name that a runtime knows it by: with the tag, or the digest where there is none."""
        end = f":{self.tag}" if self.tag else f"@{self.digest}"
        return f"{self.registry}/{self.repository}{end}"

    def __str__(self) -> str:
        """Give the whole reference, tag and digest."""
        return f"{self.name}@{self.digest}" if self.tag and self.digest else self.name


def for_platform(image: Reference, index: Mapping[str, Any], arch: str) -> str:
    """Pick a manifest's digest from an index; by arm64 everyone means its variant v8.

    Raises SupplyError.
    """
    has = []
    for entry in index.get("manifests", ()):
        platform = entry.get("platform") or {}
        kind = f"{platform.get('os')}/{platform.get('architecture')}"
        if kind == f"linux/{arch}" and platform.get("variant", "") in {"", "v8"}:
            return digest_of(image, entry)
        has.append(kind)
    raise no_platform(image, arch, has)


def no_platform(image: Reference, arch: str, has: list[str]) -> SupplyError:
    """Make the error that an image is for other platforms; ``has`` names them."""
    known = ", ".join(sorted({kind for kind in has if "unknown" not in kind})) or "nothing"
    why = f"it is made for {known}"
    fix = "choose a version that is made for it"
    what = f"image {image} is not made for linux/{arch}"
    return SupplyError(Finding("supply.image-platform", "error", what, why, fix))


def read_manifest(image: Reference, body: bytes, content_type: str) -> dict[str, Any]:
    """Read a manifest; its media type is its own word, then the server's, then OCI's default."""
    manifest = json_object(image, body)
    kind = manifest.get("mediaType") or content_type.partition(";")[0].strip()
    if kind not in INDEXES | MANIFESTS:
        kind = oci.INDEX if "manifests" in manifest else oci.MANIFEST
    if manifest.get("schemaVersion") != 2:
        raise _unreadable(image, "its manifest is not of schema version 2")
    return {**manifest, "mediaType": kind}


def blob_sizes(image: Reference, manifest: Mapping[str, Any]) -> dict[str, int]:
    """Give digest → bytes of the config and the layers, each once, in their order."""
    try:
        parts = [manifest["config"], *manifest["layers"]]
        sizes = {str(part["digest"]): int(part["size"]) for part in parts}
    except (LookupError, TypeError, ValueError) as error:
        raise _unreadable(image, "its manifest names no layers") from error
    for digest in sizes:
        digest_of(image, {"digest": digest})
    return sizes


def digest_of(image: Reference, entry: Mapping[str, Any]) -> str:
    """Give the digest; as it becomes the name of a file, nothing else may pass."""
    digest = str(entry.get("digest"))
    if not re.fullmatch(DIGEST, digest):
        raise _unreadable(image, f"{digest[:80]!r} is no sha256 digest")
    return digest


def json_object(image: Reference, body: bytes) -> dict[str, Any]:
    """Read a JSON object that a server gave for an image.

    Raises SupplyError.
    """
    try:
        value = json.loads(body)
    except ValueError as error:
        raise _unreadable(image, "the server's answer is not JSON") from error
    if not isinstance(value, dict):
        raise _unreadable(image, "the server's answer is not a JSON object")
    return value


def _unreadable(image: Reference, why: str) -> SupplyError:
    what = f"image {image} cannot be read"
    fix = "check that a registry answers there, and mirrors: in lab.yaml"
    return SupplyError(Finding("supply.image-format", "error", what, why, fix))


def checked(image: Reference, body: bytes, promised: str) -> str:
    """Give the digest of a manifest or config, which is the promised one where there is one.

    Raises SupplyError.
    """
    digest = _digest(body)
    if digest == promised or not promised.startswith("sha256:"):
        return digest
    what = f"image {image} is not what was promised"
    why = f"{promised} was asked for or announced, {digest} came"
    fix = "ask whoever runs the registry or the mirror: the image was altered there or on its way"
    raise SupplyError(Finding("supply.digest", "error", what, why, fix))


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
