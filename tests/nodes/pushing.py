"""Runs on a node: push an image that no node has to a registry, and take it away again.

What calls ``main`` is added where this is sent: standard input is this program, and the first
argument says what to do. Only the registry's own API is used, and the node's own trust.

make REGISTRY NAME TAG WORD   put a layer with the file /word on top of NAME:TAG, as NAME:WORD;
                              prints the digest of its configuration.
remove REGISTRY NAME TAG …    delete the images behind these tags; prints what the registry then
                              says of each tag, a line with the status.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import urllib.error
import urllib.request
from typing import Any

MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)
LAYERS = {
    MANIFESTS[0]: "application/vnd.docker.image.rootfs.diff.tar",
    MANIFESTS[1]: "application/vnd.oci.image.layer.v1.tar",
}
TIMEOUT = 30.0


def call(method: str, url: str, data: bytes | None = None, **headers: str) -> Any:
    """Ask the registry; raises HTTPError for what is not a success."""
    request = urllib.request.Request(url, data, method=method)  # noqa: S310 - https only, below
    for name, value in {"Accept": ", ".join(MANIFESTS), **headers}.items():
        request.add_header(name.replace("_", "-"), value)
    return urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310


def digest(content: bytes) -> str:
    """Name content as registries do."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def upload(place: str, content: bytes) -> str:
    """Put a blob into a repository; give its digest."""
    where = call("POST", f"{place}/blobs/uploads/").headers["Location"]
    name = digest(content)
    url = f"{where}{'&' if '?' in where else '?'}digest={name}"
    call("PUT", url, content, Content_Type="application/octet-stream")
    return name


def layer(word: str) -> bytes:
    """Give a layer with the one file /word."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("word")
        member.size = len(word)
        tar.addfile(member, io.BytesIO(word.encode()))
    return stream.getvalue()


def make(place: str, tag: str, word: str) -> str:
    """Push ``tag`` with a layer more, as ``word``; give the digest of its configuration."""
    answer = call("GET", f"{place}/manifests/{tag}")
    manifest, form = json.load(answer), answer.headers["Content-Type"]
    config = json.load(call("GET", f"{place}/blobs/{manifest['config']['digest']}"))
    content = layer(word)
    config["rootfs"]["diff_ids"].append(digest(content))
    if "history" in config:
        config["history"].append({"created_by": "labwright verify"})
    added = {"mediaType": LAYERS[form], "size": len(content), "digest": upload(place, content)}
    manifest["layers"].append(added)
    text = json.dumps(config).encode()
    manifest["config"].update(size=len(text), digest=upload(place, text))
    call("PUT", f"{place}/manifests/{word}", json.dumps(manifest).encode(), Content_Type=form)
    return str(manifest["config"]["digest"])


def remove(place: str, tag: str) -> int:
    """Delete the image behind a tag, if it is there; give the status of asking for it then."""
    try:
        name = call("HEAD", f"{place}/manifests/{tag}").headers["Docker-Content-Digest"]
        call("DELETE", f"{place}/manifests/{name}")
        return int(call("HEAD", f"{place}/manifests/{tag}").status)
    except urllib.error.HTTPError as error:
        return error.code


def main(arguments: list[str]) -> int:
    """Do one command."""
    what, registry, name, tag, *more = arguments
    place = f"https://{registry}/v2/{name}"
    if what == "make":
        lines = [make(place, tag, *more)]
    else:
        lines = [str(remove(place, each)) for each in (tag, *more)]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0
