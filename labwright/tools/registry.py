"""Reads images from registries: a client of the OCI distribution protocol, without a daemon.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

from filelock import FileLock

from labwright import oci
from labwright.errors import Finding, SupplyError
from labwright.model import ImagePin
from labwright.tools.download import Answer, Http, HttpError, Progress, Wanted
from labwright.tools.imageref import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEXES,
    Reference,
    blob_sizes,
    checked,
    digest_of,
    for_platform,
    json_object,
    no_platform,
    read_manifest,
)

__all__ = ["ImagePin", "Reference", "Registries"]

T = TypeVar("T")
ACCEPT = ", ".join((oci.INDEX, DOCKER_INDEX, oci.MANIFEST, DOCKER_MANIFEST, "*/*"))
# The specification's own limit for what a registry has to take; every client keeps it.
MANIFEST_LIMIT = 4 << 20
# docker.io is a name only; this is where its API answers.
HOSTS = {"docker.io": "registry-1.docker.io"}


class Registries:
    """Every registry, each asked at its own address or at the mirror named for it."""

    def __init__(self, http: Http, mirrors: Mapping[str, str] | None = None) -> None:
        """Ask ``mirrors[registry]``, a URL with a path prefix or without, in a registry's place."""
        self._http, self._mirrors = http, dict(mirrors or {})
        self._tokens: dict[tuple[str, str], str] = {}

    def resolve(self, ref: str, arch: str = "amd64") -> ImagePin:
        """Find the image for linux on ``arch`` and what it weighs; fetches manifests only.

        Raises SupplyError: not there, not for this platform, or not what its digest says.
        """
        image = Reference.parse(ref)
        digest, manifest = self._manifest(image, image.digest or image.tag)
        alone = manifest["mediaType"] not in INDEXES
        if not alone:
            digest, manifest = self._manifest(image, for_platform(image, manifest, arch))
        size = sum(blob_sizes(image, manifest).values())
        if alone:
            self._check_platform(image, manifest, arch)
        return ImagePin(image.name, digest, size)

    def save(
        self,
        pin: ImagePin,
        archive: Path,
        blobs: Path,
        progress: Progress = lambda _done, _total: None,
    ) -> None:
        """Write the image as an OCI archive whose manifest is the registry's, byte for byte.

        What it consists of is fetched to ``blobs/sha256/<hex>``, shared between images and runs;
        what is there already and right is not fetched again. ``progress`` counts all of the image.

        Raises SupplyError.
        """
        image = Reference.parse(pin.ref)
        known = digest_of(image, {"digest": pin.digest})
        body = self._part(image, "manifests", known, blobs).read_bytes()
        manifest = read_manifest(image, body, "")
        done, files = 0, {}
        for digest, size in blob_sizes(image, manifest).items():
            step = _after(done, pin.size, progress)
            files[digest] = self._part(image, "blobs", digest, blobs, size=size, progress=step)
            done += size
        part = archive.with_name(f"{archive.name}.part")
        oci.pack(image.name, body, manifest["mediaType"], files, part)
        part.replace(archive)

    def _manifest(self, image: Reference, which: str) -> tuple[str, dict[str, Any]]:
        answer = self._ask(image, f"manifests/{which}")
        promised = which if ":" in which else answer.headers.get("docker-content-digest", "")
        digest = checked(image, answer.body, promised)
        return digest, read_manifest(image, answer.body, answer.headers.get("content-type", ""))

    def _check_platform(self, image: Reference, manifest: Mapping[str, Any], arch: str) -> None:
        """Look into the config of an image that has no index: it alone says what it is for."""
        digest = manifest["config"]["digest"]
        body = self._ask(image, f"blobs/{digest}").body
        checked(image, body, digest)
        config = json_object(image, body)
        has = f"{config.get('os', 'linux')}/{config.get('architecture', arch)}"
        if has != f"linux/{arch}":
            raise no_platform(image, arch, [has])

    def _part(
        self,
        image: Reference,
        kind: str,
        digest: str,
        blobs: Path,
        *,
        size: int | None = None,
        progress: Progress = lambda _done, _total: None,
    ) -> Path:
        """Have a manifest or a blob in the folder, and give its file."""
        target = blobs / "sha256" / digest.removeprefix("sha256:")
        locks = blobs / ".locks"
        for folder in (target.parent, locks):
            folder.mkdir(parents=True, exist_ok=True)
        path = f"{kind}/{digest}"
        wanted = Wanted(self._url(image, path), target.name, size)
        with FileLock(locks / target.name):  # images share layers, and runs share the folder
            self._authorized(
                image,
                path,
                lambda headers: self._http.download(wanted, target, progress, headers=headers),
            )
        return target

    def _ask(self, image: Reference, path: str) -> Answer:
        url = self._url(image, path)
        ask = partial(self._http.ask, url, limit=MANIFEST_LIMIT)
        return self._authorized(image, path, lambda headers: ask(headers=headers))

    def _authorized(self, image: Reference, path: str, act: Callable[[Mapping[str, str]], T]) -> T:
        """Act with the token there is; where it does not do, once more with a new one.

        A token lives for minutes; on a slow line one image needs several.
        """
        try:
            return act(self._headers(image))
        except HttpError as error:
            refused = error
        try:
            if refused.status == 401 and self._log_in(image, path):
                return act(self._headers(image))
        except HttpError as error:
            raise _missing(image, error) from error
        raise _missing(image, refused) from refused

    def _headers(self, image: Reference) -> dict[str, str]:
        token = self._tokens.get((image.registry, image.repository))
        return {"Accept": ACCEPT, **({"Authorization": f"Bearer {token}"} if token else {})}

    def _log_in(self, image: Reference, path: str) -> bool:
        """Get the token that anyone may have; tell whether there is a new one.

        https://distribution.github.io/distribution/spec/auth/token/
        """
        asked = self._http.ask(self._url(image, path), accept={200, 401, 403, 404})
        kind, _, rest = asked.headers.get("www-authenticate", "").partition(" ")
        facts = parse_keqv_list([f for f in parse_http_list(rest) if "=" in f])
        if kind.lower() != "bearer" or "realm" not in facts:
            return False
        scope = facts.get("scope", f"repository:{image.repository}:pull")
        words = {"service": facts["service"]} if "service" in facts else {}
        query = urlencode({**words, "scope": scope})
        joint = "&" if urlsplit(facts["realm"]).query else "?"
        given = json_object(image, self._http.get(f"{facts['realm']}{joint}{query}"))
        token = given.get("token") or given.get("access_token")
        if isinstance(token, str):
            self._tokens[image.registry, image.repository] = token
        return isinstance(token, str)

    def _url(self, image: Reference, path: str) -> str:
        """Give an API address; mirrors are told which registry they stand for, as containerd does.

        https://github.com/containerd/containerd/blob/main/docs/hosts.md
        """
        host = HOSTS.get(image.registry, image.registry)
        mirror = self._mirrors.get(image.registry)
        base = (mirror or f"https://{host}").rstrip("/")
        base = base if base.endswith("/v2") else f"{base}/v2"
        query = f"?ns={quote(image.registry)}" if mirror else ""
        return f"{base}/{image.repository}/{path}{query}"


def _missing(image: Reference, error: HttpError) -> SupplyError:
    """Name the image and what was asked for, whatever came in its place."""
    (finding,) = error.findings
    # Registries answer 401 or 403, too, for what does not exist: they do not tell which.
    if error.status not in {401, 403, 404}:
        what, fix = f"image {image} could not be fetched", finding.fix
    else:
        what = f"image {image} is not to be had"
        fix = (
            "check its version, or name a registry that has it: mirrors.registries."
            f"{image.registry} in lab.yaml"
        )
    why = f"{finding.what}: {finding.why}"
    return SupplyError(Finding("supply.image", "error", what, why, fix))


def _after(before: int, total: int, progress: Progress) -> Callable[[int, int | None], None]:
    return lambda done, _all: progress(before + done, total)
