"""The registry that needs no daemon: skopeo and our own client pull from it, nobody pushes."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import queue
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labwright import oci
from labwright.errors import HostError, SupplyError
from labwright.oci import File, Image
from labwright.tools import bundles
from labwright.tools.bundle_serve import serving_bundle
from labwright.tools.download import Http
from labwright.tools.ociserve import Registry
from labwright.tools.registry import Registries
from labwright.tools.serve import serving
from labwright.tools.store import Store
from tests.contract.needs import need
from tests.vendors import run

HOME = "127.0.0.1"
MB = 1 << 20
APISERVER = "registry.k8s.io/kube-apiserver:v1.36.2"
PAUSE = "registry.k8s.io/pause:3.10"
NESTED = "registry.k8s.io/coredns/coredns:v1.14.2"
ELSEWHERE = "labwright.local/pause:3.10"
HUB = "busybox:1.36"
OCTETS = "application/octet-stream"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
Digests = dict[str, str]


def image(ref: str, seed: str, source: Path) -> Image:
    source.write_bytes(hashlib.shake_128(seed.encode()).digest(2 * MB))
    return Image(ref, {"bin/program": File(source)}, entrypoint=("/bin/program",))


def stock(folder: Path) -> Digests:
    """Write the archives of five images, and images.json as the recipes do."""
    digests, found = {}, {}
    for name, ref in enumerate((APISERVER, PAUSE, NESTED, ELSEWHERE, HUB)):
        archive = folder / f"{name}.tar"
        digests[ref] = oci.write(image(ref, ref, folder.parent / "program"), archive)
        size = archive.stat().st_size
        found[str(name)] = {
            "ref": ref, "archive": archive.name, "digest": digests[ref], "size": size,
        }  # fmt: skip
    (folder / "images.json").write_text(json.dumps(found))
    return digests


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry") / "images"
    folder.mkdir()
    (folder / "digests").write_text(json.dumps(stock(folder)))
    return folder


@pytest.fixture(scope="module")
def digests(folder: Path) -> Digests:
    found: Digests = json.loads((folder / "digests").read_text())
    return found


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[str]:
    with serving({}, HOME, 0, Registry(folder)) as url:
        yield url.removeprefix("http://")


def ask(
    host: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(host, timeout=5)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def error(body: bytes) -> str:
    (only,) = json.loads(body)["errors"]
    assert set(only) <= {"code", "message", "detail"}
    code: str = only["code"]
    return code


def manifest_of(archive: Path) -> dict[str, Any]:
    with tarfile.open(archive) as tar:
        index = json.load(tar.extractfile("index.json") or io.BytesIO())
        digest = index["manifests"][0]["digest"].replace(":", "/")
        found: dict[str, Any] = json.load(tar.extractfile(f"blobs/{digest}") or io.BytesIO())
        return found


# --- pulled -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", [APISERVER, NESTED, HUB])
def test_skopeo_pulls_the_same_image(host: str, digests: Digests, tmp_path: Path, ref: str) -> None:
    skopeo = need("skopeo")
    name = ref.partition("/")[2] if "/" in ref else f"library/{ref}"
    source = f"docker://{host}/{name}"
    target = tmp_path / "pulled.tar"
    run(
        skopeo, "--insecure-policy", "copy", "-q", "--preserve-digests", "--src-tls-verify=false",
        source, f"oci-archive:{target}:{ref}",
    )  # fmt: skip
    pulled = manifest_of(target)
    with tarfile.open(target) as tar:
        index = json.load(tar.extractfile("index.json") or io.BytesIO())
        blobs = {
            blob["digest"]: (tar.extractfile(f"blobs/{blob['digest'].replace(':', '/')}"))
            for blob in (pulled["config"], *pulled["layers"])
        }
        for digest, file in blobs.items():
            assert file
            assert f"sha256:{hashlib.sha256(file.read()).hexdigest()}" == digest
    assert index["manifests"][0]["digest"] == digests[ref]
    listed = json.loads(run(skopeo, "list-tags", "--tls-verify=false", source.rpartition(":")[0]))
    assert listed["Tags"] == [ref.rpartition(":")[2]]


@pytest.mark.parametrize("ref", [APISERVER, PAUSE, NESTED, ELSEWHERE, HUB])
def test_a_mirror_is_told_which_registry_is_meant(
    host: str, folder: Path, digests: Digests, tmp_path: Path, ref: str
) -> None:
    url = f"http://{host}"
    mirrors = {"registry.k8s.io": url, "labwright.local": url, "docker.io": url}
    with Http(patience=5, backoff=0.01) as client:
        registries = Registries(client, mirrors)
        pin = registries.resolve(ref)
        registries.save(pin, tmp_path / "saved.tar", tmp_path / "blobs")
    assert pin.digest == digests[ref]
    saved = manifest_of(tmp_path / "saved.tar")
    assert pin.size == sum(blob["size"] for blob in (saved["config"], *saved["layers"]))


def test_a_manifest_by_tag_and_by_digest(host: str, digests: Digests) -> None:
    digest = digests[APISERVER]
    for which in ("v1.36.2", digest):
        for method in ("GET", "HEAD"):
            status, headers, body = ask(host, f"/v2/kube-apiserver/manifests/{which}", method)
            assert status == 200
            assert headers["Content-Type"] == oci.MANIFEST
            assert headers["Docker-Content-Digest"] == digest
            assert headers["Docker-Distribution-API-Version"] == "registry/2.0"
            if method == "GET":
                assert f"sha256:{hashlib.sha256(body).hexdigest()}" == digest
                assert headers["Content-Length"] == str(len(body))
            else:
                assert body == b""


def test_a_blob_whole_and_in_parts(host: str, folder: Path) -> None:
    (layer,) = manifest_of(folder / "0.tar")["layers"]
    path = f"/v2/kube-apiserver/blobs/{layer['digest']}"
    status, headers, whole = ask(host, path)
    assert (status, headers["Content-Type"], len(whole)) == (200, OCTETS, layer["size"])
    assert f"sha256:{hashlib.sha256(whole).hexdigest()}" == layer["digest"]
    half = len(whole) // 2
    status, headers, rest = ask(host, path, Range=f"bytes={half}-")
    assert (status, rest) == (206, whole[half:])
    assert headers["Content-Range"] == f"bytes {half}-{len(whole) - 1}/{len(whole)}"
    assert ask(host, path, Range=f"bytes={len(whole)}-")[0] == 416
    status, headers, body = ask(host, path, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(whole)), b"")


def test_one_name_in_two_registries(host: str, digests: Digests) -> None:
    path = "/v2/pause/manifests/3.10"
    for registry, ref in (("registry.k8s.io", PAUSE), ("labwright.local", ELSEWHERE)):
        status, headers, _ = ask(host, f"{path}?ns={registry}")
        assert (status, headers["Docker-Content-Digest"]) == (200, digests[ref])
    assert ask(host, path)[1]["Docker-Content-Digest"] == digests[PAUSE]
    assert ask(host, f"/v2/pause/manifests/{digests[ELSEWHERE]}")[0] == 200
    assert error(ask(host, f"{path}?ns=quay.io")[2]) == "NAME_UNKNOWN"
    other = f"/v2/pause/manifests/{digests[ELSEWHERE]}?ns=registry.k8s.io"
    assert error(ask(host, other)[2]) == "MANIFEST_UNKNOWN"


def test_the_api_says_that_it_is_there(host: str) -> None:
    for path in ("/v2/", "/v2", "/v2/?ns=registry.k8s.io"):
        status, headers, _ = ask(host, path)
        assert (status, headers["Content-Type"]) == (200, "application/json")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/nothing/manifests/v1", "NAME_UNKNOWN"),
        ("/v2/nothing/tags/list", "NAME_UNKNOWN"),
        ("/v2/pause/manifests/9.9", "MANIFEST_UNKNOWN"),
        (f"/v2/pause/manifests/sha256:{'0' * 64}", "MANIFEST_UNKNOWN"),
        (f"/v2/pause/blobs/sha256:{'0' * 64}", "BLOB_UNKNOWN"),
        ("/v2/pause/blobs/..%2f..%2fimages.json", "UNSUPPORTED"),
        ("/v2/pause/blobs/x", "BLOB_UNKNOWN"),
        ("/v2/../images.json", "UNSUPPORTED"),
        ("/v2/_catalog", "UNSUPPORTED"),
        ("/v2/pause/manifests/%00", "MANIFEST_UNKNOWN"),
    ],
)
def test_what_is_not_there_is_said_in_the_specification_s_form(
    host: str, path: str, code: str
) -> None:
    status, headers, body = ask(host, path)
    assert (status, headers["Content-Type"], error(body)) == (404, "application/json", code)


def test_a_layer_is_no_manifest(host: str, folder: Path) -> None:
    (layer,) = manifest_of(folder / "1.tar")["layers"]
    _, _, body = ask(host, f"/v2/pause/manifests/{layer['digest']}")
    assert error(body) == "MANIFEST_UNKNOWN"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/v2/pause/blobs/uploads/", "/v2/pause/manifests/3.10", "/v2/"])
def test_nobody_can_write(host: str, path: str, method: str) -> None:
    status, headers, body = ask(host, path, method, body=b"x" * 1000)
    assert (status, headers["Allow"], error(body)) == (405, "GET, HEAD", "UNSUPPORTED")


def test_skopeo_cannot_push(host: str, folder: Path) -> None:
    words = ("--insecure-policy", "copy", "-q", "--dest-tls-verify=false")
    with pytest.raises(AssertionError, match="skopeo"):
        run(need("skopeo"), *words, f"oci-archive:{folder / '1.tar'}", f"docker://{host}/mine:1")
    assert error(ask(host, "/v2/mine/tags/list")[2]) == "NAME_UNKNOWN"


# --- archives ---------------------------------------------------------------------------------


def listing(folder: Path, ref: str, archive: str, digest: str) -> None:
    folder.mkdir(exist_ok=True)
    entry = {"ref": ref, "archive": archive, "digest": digest, "size": 1}
    known = folder / "images.json"
    found = json.loads(known.read_text()) if known.exists() else {}
    known.write_text(json.dumps({**found, ref: entry}))


def described(body: bytes, kind: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    return {"mediaType": kind, "digest": digest, "size": len(body)}


def packed(folder: Path, ref: str, kind: str) -> str:
    folder.mkdir(exist_ok=True)
    config, layer = b'{"architecture":"amd64","os":"linux"}', b"layer"
    parts = [described(config, "config"), described(layer, "layer")]
    raw = {"schemaVersion": 2, "mediaType": kind, "config": parts[0], "layers": parts[1:]}
    blobs: dict[str, bytes | Path] = {parts[0]["digest"]: config, parts[1]["digest"]: layer}
    return oci.pack(ref, json.dumps(raw, indent=3).encode(), kind, blobs, folder / "x.tar")


def test_docker_s_own_manifests_keep_their_type(tmp_path: Path) -> None:
    digest = packed(tmp_path, "docker.io/library/old:1", DOCKER)
    listing(tmp_path, "docker.io/library/old:1", "x.tar", digest)
    answer = Registry(tmp_path).answer("GET", "/v2/library/old/manifests/1?ns=docker.io")
    assert (answer.status, answer.kind) == (200, DOCKER)


def test_an_index_and_the_platforms_it_has(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    digest = packed(folder, "x/y:1", oci.MANIFEST)
    with tarfile.open(folder / "x.tar") as tar:
        inner = (tar.extractfile(f"blobs/{digest.replace(':', '/')}") or io.BytesIO()).read()
    here = {**described(inner, oci.MANIFEST), "platform": {"os": "linux", "architecture": "amd64"}}
    away = {**described(b"arm64", oci.MANIFEST), "platform": {"os": "linux"}}
    index = json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [here, away]})
    outer = oci.pack(
        "quay.io/x/y:1", index.encode(), oci.INDEX, {digest: inner}, folder / "index.tar"
    )
    listing(folder, "quay.io/x/y:1", "index.tar", outer)
    registry = Registry(folder)
    assert registry.answer("GET", "/v2/x/y/manifests/1").kind == oci.INDEX
    assert registry.answer("GET", f"/v2/x/y/manifests/{digest}").kind == oci.MANIFEST
    assert registry.answer("GET", f"/v2/x/y/manifests/{away['digest']}").status == 404


def test_tags_in_pages(tmp_path: Path) -> None:
    for tag in ("3.10", "3.9", "latest", "a"):
        digest = packed(tmp_path, f"registry.k8s.io/pause:{tag}", oci.MANIFEST)
        listing(tmp_path, f"registry.k8s.io/pause:{tag}", "x.tar", digest)
    registry = Registry(tmp_path)
    seen: list[str] = []
    target = "/v2/pause/tags/list?n=3"
    while target:
        answer = registry.answer("GET", target)
        assert isinstance(answer.body, bytes)
        seen += json.loads(answer.body)["tags"]
        target = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert seen == ["3.10", "3.9", "a", "latest"]
    assert (
        registry.answer("GET", "/v2/pause/tags/list?n=0").body == b'{"name": "pause", "tags": []}'
    )


def harm(folder: Path, kind: str) -> None:
    digest = packed(folder, "registry.k8s.io/pause:1", oci.MANIFEST)
    listing(folder, "registry.k8s.io/pause:1", "x.tar", digest)
    known, archive = folder / "images.json", folder / "x.tar"
    if kind == "no list":
        known.unlink()
    elif kind == "bad list":
        known.write_text("[1, 2]")
    elif kind == "no archive":
        archive.unlink()
    elif kind == "no tar":
        archive.write_bytes(b"x" * 20_000)
    elif kind == "cut":
        archive.write_bytes(archive.read_bytes()[:1100])
    elif kind == "other digest":
        known.write_text(known.read_text().replace(digest, f"sha256:{'0' * 64}"))
    elif kind == "changed manifest":
        archive.write_bytes(
            archive.read_bytes().replace(b'"schemaVersion": 2', b'"schemaVersion": 3')
        )
    elif kind == "path":
        known.write_text(known.read_text().replace("x.tar", "../x.tar"))
    elif kind == "no name":
        known.write_text(known.read_text().replace("k8s.io/pause:1", "k8s.io/Not A Name"))


@pytest.mark.parametrize(
    "kind",
    ["no list", "bad list", "no archive", "no tar", "cut", "other digest", "changed manifest",
     "path", "no name"],
)  # fmt: skip
def test_what_cannot_be_served_is_said(tmp_path: Path, kind: str) -> None:
    harm(tmp_path, kind)
    with pytest.raises(SupplyError):
        Registry(tmp_path)


# --- a bundle ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundle")

    def images(_work: Path, out: Path) -> None:
        for path in (*folder.glob("*.tar"), folder / "images.json"):
            (out / path.name).write_bytes(path.read_bytes())

    def apt(_work: Path, out: Path) -> None:
        (out / "x 1~2+b.deb").write_bytes(bytes(range(256)) * 100)

    store = Store(root / "store")
    keys = {"images": store.ensure("images-1", images), "apt": store.ensure("apt-1", apt)}
    entries = {id_: (path.name, path) for id_, path in keys.items()}
    bundles.make(entries, root / "demo", lab="demo", versions={}, facts={}, lock="lab: demo\n")
    return root / "demo"


def test_a_class_takes_a_bundle_and_its_images_from_one_address(
    bundle: Path, digests: Digests, tmp_path: Path
) -> None:
    told: queue.Queue[tuple[str, str, int]] = queue.Queue()
    with (
        serving_bundle(bundle, HOME, 0, lambda *facts: told.put(facts)) as url,
        Http(patience=5, backoff=0.01) as client,
    ):
        folder = bundles.opened(url, tmp_path, client)
        asked = [told.get(timeout=5) for _ in range(9)]
        pin = Registries(client, {"registry.k8s.io": url}).resolve(APISERVER)
    assert bundles.verify(folder) == []
    assert pin.digest == digests[APISERVER]
    assert {client for client, _, _ in asked} == {HOME}
    assert [path for _, path, _ in asked][0::8] == ["/bundle.json", "/lab.lock"]
    assert (HOME, "/apt/x%201~2%2Bb.deb", 25600) in asked


def test_only_what_the_manifest_names_is_served(bundle: Path) -> None:
    (bundle / "images/secret").write_text("nobody may read this")
    try:
        with serving_bundle(bundle, HOME, 0) as url:
            host = url.removeprefix("http://")
            paths = ("/images/secret", "/", "/images", "/images/", "/apt/../images/secret", "/x")
            for path in (*paths, "/..", "//etc/passwd", "/.lock", "/images/%2e%2e/lab.lock"):
                assert ask(host, path)[0] == 404, path
            status, headers, body = ask(host, "/lab.lock")
            assert (status, body) == (200, b"lab: demo\n")
            tag = headers["ETag"]
            assert tag == f'"{hashlib.sha256(body).hexdigest()}"'
            assert ask(host, "/lab.lock", If_None_Match=tag)[0] == 304
            assert ask(host, "/lab.lock", Range="bytes=1-", If_Range=tag)[2] == body[1:]
            assert ask(host, "/lab.lock", Range="bytes=1-", If_Range='"x"')[2] == body
            assert ask(host, "/lab.lock", "PUT", b"x")[0] == 501
    finally:
        (bundle / "images/secret").unlink()


def test_a_bundle_with_a_link_is_not_served(bundle: Path) -> None:
    (bundle / "apt/link").symlink_to("/etc/passwd")
    try:
        with (
            pytest.raises(SupplyError, match="neither a file nor a folder"),
            serving_bundle(bundle, HOME, 0),
        ):
            pass
    finally:
        (bundle / "apt/link").unlink()


def test_a_link_that_comes_later_shows_nothing(bundle: Path, tmp_path: Path) -> None:
    with serving_bundle(bundle, HOME, 0) as url:
        (bundle / "lab.lock").rename(tmp_path / "aside")
        (bundle / "lab.lock").symlink_to("/etc/passwd")
        try:
            assert ask(url.removeprefix("http://"), "/lab.lock")[0] == 404
        finally:
            (tmp_path / "aside").replace(bundle / "lab.lock")


def test_where_there_is_no_bundle_nothing_is_served(tmp_path: Path) -> None:
    with pytest.raises(SupplyError, match="no bundle"), serving_bundle(tmp_path, HOME, 0):
        pass


def test_a_port_in_use_is_said(bundle: Path) -> None:
    with socket.create_server((HOME, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(HostError, match=str(port)), serving_bundle(bundle, HOME, port):
            pass
