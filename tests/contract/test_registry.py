"""Images from a real registry: the same manifest comes out that skopeo put in."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from labwright import oci
from labwright.errors import SupplyError
from labwright.oci import File, Image
from labwright.tools.download import Http
from labwright.tools.registry import ImagePin, Reference, Registries
from tests.vendors import Faulty, Registry, needs, run

API = "registry.k8s.io"
NAME = "kube-apiserver:v1.20.2"
REF = f"{API}/{NAME}"
# Incompressible, and longer than what one read of a socket gives.
PROGRAM = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(20_000))
HEX = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("archives")
    (folder / "program").write_bytes(PROGRAM)
    made = {}
    for arch in ("amd64", "arm64"):
        files = {"bin/program": File(folder / "program"), f"{arch}": File()}
        made[arch] = folder / f"{arch}.tar"
        oci.write(Image(REF, files, ("/bin/program",), arch=arch), made[arch])
    return made


@pytest.fixture(scope="module")
def digest(registry: Registry, archives: dict[str, Path]) -> str:
    return registry.push(archives["amd64"], NAME)


@pytest.fixture
def http() -> Iterator[Http]:
    with Http(patience=20, backoff=0.01) as session:
        yield session


@pytest.fixture
def door(registry: Registry) -> Iterator[Faulty]:
    with Faulty(registry.url) as server:
        yield server


@pytest.fixture
def registries(http: Http, door: Faulty) -> Registries:
    return Registries(http, {API: door.url})


def manifest_in(archive: Path) -> tuple[dict[str, Any], bytes]:
    with tarfile.open(archive) as tar:
        content = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    (entry,) = json.loads(content["index.json"])["manifests"]
    return entry, content["blobs/" + entry["digest"].replace(":", "/")]


def inspected(archive: Path) -> Any:
    said = run("skopeo", "--insecure-policy", "inspect", f"oci-archive:{archive}")
    return json.loads(said)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("rancher/rancher:v2.15.1", "docker.io/rancher/rancher:v2.15.1"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("registry.k8s.io/coredns/coredns:v1.14.2", "registry.k8s.io/coredns/coredns:v1.14.2"),
        ("localhost/thing:1", "localhost/thing:1"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest"),
        (f"quay.io/a__b/c-d@sha256:{HEX}", f"quay.io/a__b/c-d@sha256:{HEX}"),
        (f"busybox:1@sha256:{HEX}", f"docker.io/library/busybox:1@sha256:{HEX}"),
    ],
)
def test_references_are_read_as_runtimes_read_them(text: str, full: str) -> None:
    assert str(Reference.parse(text)) == full
    assert Reference.parse(full) == Reference.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Busybox",
        "a b",
        "x:y:z",
        "x@sha256:12",
        "quay.io/",
        "/x",
        "quay.io/../x",
        "x:-a",
        "x/",
        "a b.c/x",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(SupplyError, match="not the name of an image"):
        Reference.parse(text)


def test_digest_and_bytes_are_those_that_were_pushed(
    registries: Registries, archives: dict[str, Path], digest: str, tmp_path: Path
) -> None:
    pin = registries.resolve(REF)
    before, manifest = manifest_in(archives["amd64"])
    parts = json.loads(manifest)
    size = sum(part["size"] for part in [parts["config"], *parts["layers"]])
    assert pin == ImagePin(REF, digest, size)
    assert before["digest"] == digest
    steps: list[tuple[int, int | None]] = []
    registries.save(pin, tmp_path / "saved.tar", tmp_path / "blobs", lambda *s: steps.append(s))
    # Both are written in the same deterministic way, so all of the archive is the same.
    assert (tmp_path / "saved.tar").read_bytes() == archives["amd64"].read_bytes()
    assert steps[-1] == (size, size)
    assert steps == sorted(steps)


def test_skopeo_reads_our_archive(
    registries: Registries, registry: Registry, digest: str, tmp_path: Path
) -> None:
    registries.save(registries.resolve(REF), tmp_path / "saved.tar", tmp_path / "blobs")
    facts = inspected(tmp_path / "saved.tar")
    assert facts["Digest"] == digest
    assert facts["Architecture"] == "amd64"
    assert registry.push(tmp_path / "saved.tar", "again:v1") == digest


def test_a_docker_manifest_stays_as_it_is(
    registries: Registries, registry: Registry, archives: dict[str, Path], tmp_path: Path
) -> None:
    digest = registry.push(archives["amd64"], "docker:v1", form="v2s2")
    pin = registries.resolve(f"{API}/docker:v1")
    assert pin.digest == digest
    registries.save(pin, tmp_path / "saved.tar", tmp_path / "blobs")
    entry, manifest = manifest_in(tmp_path / "saved.tar")
    assert entry["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert entry["digest"] == digest == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    assert entry["annotations"]["io.containerd.image.name"] == f"{API}/docker:v1"
    assert inspected(tmp_path / "saved.tar")["Digest"] == digest


def test_an_index_is_followed_to_the_architecture(
    registries: Registries, registry: Registry, archives: dict[str, Path], tmp_path: Path
) -> None:
    digests = registry.push_index("multi/arch:v1", archives)
    ref = f"{API}/multi/arch:v1"
    for arch in archives:
        pin = registries.resolve(ref, arch)
        assert pin.digest == digests[arch]
        assert registries.resolve(f"{ref}@{digests['index']}", arch) == pin
        registries.save(pin, tmp_path / f"{arch}.tar", tmp_path / "blobs")
        assert inspected(tmp_path / f"{arch}.tar")["Architecture"] == arch
    with pytest.raises(SupplyError) as caught:
        registries.resolve(ref, "riscv64")
    (finding,) = caught.value.findings
    assert finding.what == f"image {ref} is not made for linux/riscv64"
    assert finding.why == "it is made for linux/amd64, linux/arm64"


def test_an_image_without_an_index_is_asked_what_it_is_for(
    registries: Registries, digest: str
) -> None:
    with pytest.raises(SupplyError, match="not made for linux/arm64"):
        registries.resolve(REF, "arm64")


def test_a_missing_image_says_where_it_was_asked_for(registries: Registries, door: Faulty) -> None:
    with pytest.raises(SupplyError) as caught:
        registries.resolve(f"{API}/nothing:v9")
    (finding,) = caught.value.findings
    assert finding.what == f"image {API}/nothing:v9 is not to be had"
    url = f"{door.url}/v2/nothing/manifests/v9"
    assert finding.why == f"{url} could not be fetched: HTTP 404 Not Found"
    assert f"mirrors.registries.{API}" in finding.fix


def test_a_mirror_is_told_for_whom_it_stands(
    registries: Registries, door: Faulty, digest: str, tmp_path: Path
) -> None:
    registries.save(registries.resolve(REF), tmp_path / "saved.tar", tmp_path / "blobs")
    assert len(door.seen) >= 4
    assert all(seen.path.endswith(f"?ns={API}") for seen in door.seen)


def test_a_mirror_may_have_a_path(
    http: Http, registry: Registry, tmp_path: Path, digest: str
) -> None:
    with Faulty(registry.url) as door:
        pinned = Registries(http, {API: f"{door.url}/v2/"}).resolve(REF)
        assert pinned.digest == digest
        with pytest.raises(SupplyError):
            Registries(http, {API: f"{door.url}/prefix"}).resolve(REF)
        assert door.seen[-1].path.startswith("/prefix/v2/kube-apiserver/manifests/")


def test_a_registry_that_recovers_and_a_cut_blob(
    registries: Registries, door: Faulty, digest: str, tmp_path: Path
) -> None:
    door.answer(500, "/manifests/", times=2)
    pin = registries.resolve(REF)
    assert pin.digest == digest
    layer = json.loads(manifest_in_registry(registries, pin, tmp_path))["layers"][0]
    door.seen.clear()
    door.answer(500, "/blobs/", times=2)
    door.cut(f"/blobs/{layer['digest']}", after=layer["size"] // 2)
    registries.save(pin, tmp_path / "saved.tar", tmp_path / "blobs")
    asked = [seen.range for seen in door.requests(layer["digest"])]
    assert asked[-2:] == ["", f"bytes={layer['size'] // 2}-"]
    assert inspected(tmp_path / "saved.tar")["Digest"] == digest


def manifest_in_registry(registries: Registries, pin: ImagePin, tmp_path: Path) -> bytes:
    registries.save(pin, tmp_path / "other.tar", tmp_path / "other")
    return manifest_in(tmp_path / "other.tar")[1]


def test_blobs_are_fetched_once_for_all_images(
    registries: Registries, door: Faulty, digest: str, tmp_path: Path
) -> None:
    pin = registries.resolve(REF)
    registries.save(pin, tmp_path / "a.tar", tmp_path / "blobs")
    first = (tmp_path / "a.tar").read_bytes()
    door.seen.clear()
    registries.save(pin, tmp_path / "b.tar", tmp_path / "blobs")
    assert not door.seen
    assert (tmp_path / "b.tar").read_bytes() == first
    for blob in (tmp_path / "blobs/sha256").iterdir():
        blob.write_bytes(b"?" + blob.read_bytes()[1:])
    registries.save(pin, tmp_path / "b.tar", tmp_path / "blobs")
    assert (tmp_path / "b.tar").read_bytes() == first


def test_two_runs_may_save_at_once(
    registries: Registries, door: Faulty, digest: str, tmp_path: Path
) -> None:
    pin = registries.resolve(REF)
    door.seen.clear()

    def save(number: int) -> bytes:
        registries.save(pin, tmp_path / f"{number}.tar", tmp_path / "blobs")
        return (tmp_path / f"{number}.tar").read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(save, range(4)))) == 1
    blobs = [seen.path for seen in door.requests("/blobs/")]
    assert len(blobs) == len(set(blobs)) == 2


@pytest.mark.parametrize("what", ["manifests", "blobs"])
def test_a_flipped_bit_is_refused(
    registries: Registries, door: Faulty, digest: str, tmp_path: Path, what: str
) -> None:
    pin = registries.resolve(REF)
    door.flip(f"/{what}/", at=100)
    with pytest.raises(SupplyError, match="is not what was promised"):
        registries.save(pin, tmp_path / "saved.tar", tmp_path / "blobs")
    assert not (tmp_path / "saved.tar").exists()
    with pytest.raises(SupplyError, match="is not what was promised"):
        registries.resolve(REF)


def test_a_digest_that_is_not_there(registries: Registries) -> None:
    with pytest.raises(SupplyError, match="is not to be had"):
        registries.resolve(f"{REF}@sha256:{'0' * 64}")


def test_what_is_no_registry_is_said_so(http: Http, tmp_path: Path) -> None:
    (tmp_path / "v2/thing/manifests").mkdir(parents=True)
    (tmp_path / "v2/thing/manifests/v1").write_text("<html>welcome to the hotel's Wi-Fi</html>")
    (tmp_path / "v2/thing/manifests/v2").write_text('{"schemaVersion": 1}')
    (tmp_path / "v2/thing/manifests/v3").write_text(
        json.dumps({"schemaVersion": 2, "config": {"digest": "../../x", "size": 1}, "layers": []})
    )
    with Faulty(tmp_path) as door:
        registries = Registries(http, {API: door.url})
        for tag in ("v1", "v2", "v3"):
            with pytest.raises(SupplyError, match="cannot be read"):
                registries.resolve(f"{API}/thing:{tag}")


def test_the_token_that_anyone_may_have_is_fetched(
    http: Http, tmp_path: Path, registry: Registry, digest: str
) -> None:
    """The registry itself asks for it, as real ones do; a folder of files stands for the issuer."""
    needs("openssl")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        "-subj", "/CN=issuer", "-keyout", key, "-out", cert,
    )  # fmt: skip
    issued = tmp_path / "issuer"
    issued.mkdir()
    with Faulty(issued) as issuer:
        auth = {
            "token": {
                "realm": f"{issuer.url}/token",
                "service": "lab",
                "issuer": "issuer",
                "rootcertbundle": str(cert),
            }
        }
        data = registry.data
        with Registry(tmp_path / "closed", data=data, auth=auth) as closed:
            registries = Registries(http, {API: closed.url})
            with pytest.raises(SupplyError, match=f"{issuer.url}/token could not be fetched"):
                registries.resolve(REF)
            asked = issuer.seen[-1].path
            assert asked == "/token?service=lab&scope=repository:kube-apiserver:pull"
            (issued / "token").write_text(json.dumps({"token": token(key, cert)}))
            assert registries.resolve(REF).digest == digest
            registries.save(registries.resolve(REF), tmp_path / "a.tar", tmp_path / "blobs")
            assert inspected(tmp_path / "a.tar")["Digest"] == digest


def token(key: Path, cert: Path) -> str:
    """Sign a token for pulling kube-apiserver, as the issuer of a registry does."""
    import base64
    import ssl
    import time

    def packed(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    chain = base64.b64encode(ssl.PEM_cert_to_DER_cert(cert.read_text())).decode()
    head = packed(json.dumps({"typ": "JWT", "alg": "RS256", "x5c": [chain]}).encode())
    now = int(time.time())
    access = [{"type": "repository", "name": "kube-apiserver", "actions": ["pull"]}]
    claims = {"iss": "issuer", "sub": "", "aud": "lab", "exp": now + 300, "nbf": now - 60}
    body = packed(json.dumps({**claims, "iat": now, "jti": "1", "access": access}).encode())
    text, signature = key.with_name("text"), key.with_name("signature")
    text.write_text(f"{head}.{body}")
    run("openssl", "dgst", "-sha256", "-sign", key, "-out", signature, text)
    return f"{head}.{body}.{packed(signature.read_bytes())}"
