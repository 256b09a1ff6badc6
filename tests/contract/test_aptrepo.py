"""Apt repositories as the vendors build them: signed by gpg, indexed by apt-ftparchive."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from labwright.errors import SupplyError
from labwright.tools.aptrepo import Repository, order
from labwright.tools.download import Http
from tests.vendors import AptRepos, SigningKey, make_deb, needs, run

VERSIONS = [
    "0", "0~", "1", "1.0", "1.0-0", "1.0-1", "1.0-1~", "1.0~rc1", "1.0~rc1-1", "1.0~~", "1.0a",
    "1.0+b1", "1.0.1", "1.00", "1.", "01", "1:0", "0:1", "2:1.0-1", "1.36.2-1.1", "1.36.20-1.1",
    "1.36.2-1.10", "1.7.28-1~debian.12~bookworm", "1.7.28-2~ubuntu.24.04~noble", "a", "z", "1a~",
    "1.6.20~ds1-1+deb12u1", "1.6.20~ds1-1+b1", "1.20.5+really1.20.2-1.1+deb12u1", "1.0-1-1",
    "5:28.0.1-1~debian.12~bookworm", "1.0.~", "1.0-1.", "1-a", "1-A", "1-+", "1-.",
]  # fmt: skip


@pytest.fixture(scope="module")
def key() -> Iterator[SigningKey]:
    with SigningKey() as made:
        yield made


@pytest.fixture(scope="module")
def stranger() -> Iterator[SigningKey]:
    with SigningKey("A stranger") as made:
        yield made


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("debs")
    for version in ("1.36.2-1.1", "1.36.2-2.1", "1.36.10-1.1", "1.36.20-1.1", "1.36.9-1.1"):
        make_deb(folder, "kubelet", version)
    make_deb(folder, "kubelet", "1.36.99-1.1", "arm64")
    make_deb(folder, "docs", "1.0", "all")
    make_deb(folder, "docker-ce", "5:28.0.1-1~debian.12~bookworm")
    return folder


@pytest.fixture
def repos(key: SigningKey, tmp_path: Path) -> Iterator[AptRepos]:
    with AptRepos(key, tmp_path / "www") as running:
        yield running


@pytest.fixture
def http() -> Iterator[Http]:
    with Http(patience=20, backoff=0.01) as session:
        yield session


def flat(http: Http, repos: AptRepos, debs: Path, key: SigningKey) -> Repository:
    return Repository(http, repos.kubernetes("v1.36", debs), "/", key=key.armoured, name="k8s")


def refusal(repository: Repository) -> str:
    with pytest.raises(SupplyError) as caught:
        repository.newest("kubelet")
    (finding,) = caught.value.findings
    assert finding.id == "supply.apt"
    assert finding.fix
    return f"{finding.what}: {finding.why}"


def test_pkgs_k8s_io_s_layout(
    http: Http, repos: AptRepos, debs: Path, key: SigningKey, tmp_path: Path
) -> None:
    needs("gpgv")
    repository = flat(http, repos, debs, key)
    deb = repository.newest("kubelet")
    assert deb is not None
    assert repository.verified
    assert (deb.name, deb.version, deb.source) == ("kubelet", "1.36.20-1.1", "k8s")
    assert deb.filename == "amd64/kubelet_1.36.20-1.1_amd64.deb"
    original = debs / "kubelet_1.36.20-1.1_amd64.deb"
    assert http.get(repository.url(deb)) == original.read_bytes()
    assert deb.size == original.stat().st_size
    versions = [found.version for found in repository.versions("kubelet")]
    assert versions == ["1.36.20-1.1", "1.36.10-1.1", "1.36.9-1.1", "1.36.2-2.1", "1.36.2-1.1"]


def test_an_epoch_in_a_file_s_name(
    http: Http, repos: AptRepos, debs: Path, key: SigningKey
) -> None:
    repository = flat(http, repos, debs, key)
    deb = repository.newest("docker-ce")
    assert deb is not None
    assert "5%3a28" in deb.filename
    (original,) = debs.glob("docker-ce*")
    assert http.get(repository.url(deb)) == original.read_bytes()
    local = Repository(http, str(next(repos.folder.glob("core:/*/*/deb"))), "/", key=key.armoured)
    assert http.get(local.url(deb)) == original.read_bytes()
    found = local.newest("docker-ce", "28")
    assert found is not None
    assert replace(found, source=deb.source) == deb


@pytest.mark.parametrize(
    ("name", "prefix", "version"),
    [
        ("kubelet", "1.36.2-", "1.36.2-2.1"),
        ("kubelet", "1.36.2", "1.36.2-2.1"),
        ("kubelet", "1.36.2-1.1", "1.36.2-1.1"),
        ("kubelet", "1.36", "1.36.20-1.1"),
        ("kubelet", "1.3", None),
        ("kubelet", "1.37", None),
        ("kubeadm", "", None),
        ("docs", "1.0-", "1.0"),
        ("docs", "1.0", "1.0"),
        ("docker-ce", "28.0.1", "5:28.0.1-1~debian.12~bookworm"),
        ("docker-ce", "5:28", "5:28.0.1-1~debian.12~bookworm"),
    ],
)
def test_the_newest_of_a_prefix(
    http: Http, repos: AptRepos, debs: Path, key: SigningKey, name: str, prefix: str, version: str
) -> None:
    found = flat(http, repos, debs, key).newest(name, prefix)
    assert (found and found.version) == version


@pytest.mark.parametrize("index", ["Packages.xz", "Packages.gz", "Packages"])
def test_an_archive_with_dists(
    http: Http, repos: AptRepos, debs: Path, key: SigningKey, index: str
) -> None:
    url = repos.archive("debian", debs, suite="bookworm-updates", component="stable")
    folder = repos.folder / "debian/dists/bookworm-updates"
    for other in {"Packages.xz", "Packages.gz", "Packages"} - {index}:
        (folder / "stable/binary-amd64" / other).unlink()
    repos.release(folder, {"Suite": "bookworm-updates"}, None)
    repository = Repository(http, url, "bookworm-updates", ["stable"], key=key.armoured)
    deb = repository.newest("docs")
    assert deb is not None
    assert deb.filename == "pool/stable/docs_1.0_all.deb"
    assert http.get(repository.url(deb)) == (debs / "docs_1.0_all.deb").read_bytes()
    (asked,) = repos.server.requests("/Packages")
    assert asked.path.endswith(f"/binary-amd64/{index}")


def test_release_and_a_signature_beside_it(
    http: Http, repos: AptRepos, debs: Path, key: SigningKey
) -> None:
    needs("gpgv")
    repository = flat(http, repos, debs, key)
    repos.server.missing("/InRelease")
    assert repository.newest("kubelet")
    assert repository.verified
    assert repos.server.requests("/Release.gpg")


def test_what_is_not_signed_at_all(
    http: Http, repos: AptRepos, debs: Path, key: SigningKey
) -> None:
    needs("gpgv")
    repository = flat(http, repos, debs, key)
    repos.server.missing("/InRelease")
    repos.server.missing("/Release.gpg")
    said = refusal(repository)
    assert "is not signed" in said
    assert key.fingerprint in said
    assert repos.url in said


def test_the_signature_of_a_stranger(
    http: Http, repos: AptRepos, debs: Path, key: SigningKey, stranger: SigningKey
) -> None:
    needs("gpgv")
    url = repos.kubernetes("v1.36", debs)
    said = refusal(Repository(http, url, "/", key=stranger.armoured))
    assert stranger.fingerprint in said
    assert key.fingerprint[-16:] in said
    repos.server.missing("/InRelease")
    assert "signed by key" in refusal(Repository(http, url, "/", key=stranger.armoured))
    both = key.armoured + stranger.armoured
    assert Repository(http, url, "/", key=both).verified


def test_a_release_altered_after_it_was_signed(
    http: Http, repos: AptRepos, debs: Path, key: SigningKey
) -> None:
    needs("gpgv")
    url = repos.kubernetes("v1.36", debs)
    for name in ("InRelease", "Release"):
        path = next(repos.folder.rglob(name))
        path.write_bytes(path.read_bytes().replace(b"Labwright", b"Elsewhere"))
    assert "altered after it was signed" in refusal(Repository(http, url, "/", key=key.armoured))
    repos.server.missing("/InRelease")
    assert "altered after it was signed" in refusal(Repository(http, url, "/", key=key.armoured))


@pytest.mark.parametrize("before", [True, False])
def test_nothing_can_be_put_beside_the_signed_text(
    http: Http, repos: AptRepos, debs: Path, key: SigningKey, before: bool
) -> None:
    url = repos.kubernetes("v1.36", debs)
    path = next(repos.folder.rglob("InRelease"))
    signed, more = path.read_bytes(), b"SHA256:\n " + b"0" * 64 + b" 5 Packages\n"
    both = more + signed if before else signed + more + signed
    path.write_bytes(both)
    assert "not one signed text" in refusal(Repository(http, url, "/", key=key.armoured))


def test_an_altered_index(http: Http, repos: AptRepos, debs: Path, key: SigningKey) -> None:
    repository = flat(http, repos, debs, key)
    repos.server.flip("/Packages", at=200)
    assert "has another package index than its Release says" in refusal(repository)


def test_validity_ends(http: Http, repos: AptRepos, debs: Path, key: SigningKey) -> None:
    until = datetime.now(UTC) + timedelta(days=7)
    url = repos.kubernetes("v1.36", debs, until=until)
    assert Repository(http, url, "/", key=key.armoured).newest("kubelet")
    later = until + timedelta(minutes=1)
    said = refusal(Repository(http, url, "/", key=key.armoured, now=later))
    assert "is out of date" in said
    assert f"valid until {until:%Y-%m-%d %H:%M} UTC; now is {later:%Y-%m-%d %H:%M} UTC" in said


def test_without_gpgv_it_says_that_nothing_was_verified(
    http: Http, repos: AptRepos, debs: Path, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = flat(http, repos, debs, key)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert repository.newest("kubelet")
    assert not repository.verified


def test_without_a_key_nothing_is_verified(http: Http, repos: AptRepos, debs: Path) -> None:
    repository = Repository(http, repos.kubernetes("v1.36", debs), "/")
    assert repository.newest("kubelet")
    assert not repository.verified


def test_an_index_is_fetched_by_its_hash_where_it_can_be(
    http: Http, repos: AptRepos, debs: Path, key: SigningKey
) -> None:
    url = repos.archive("debian", debs)
    folder = repos.folder / "debian/dists/bookworm"
    repos.release(folder, {"Acquire-By-Hash": "yes"}, None)
    assert Repository(http, url, "bookworm", ["main"], key=key.armoured).newest("docs")
    assert [seen.path.rpartition("/")[2] for seen in repos.server.requests("/binary-amd64/")][
        1:
    ] == ["Packages.xz"]
    packages = folder / "main/binary-amd64/Packages.xz"
    hashed = packages.parent / "by-hash/SHA256" / run("sha256sum", packages).split()[0]
    hashed.parent.mkdir(parents=True)
    hashed.write_bytes(packages.read_bytes())
    packages.write_bytes(b"newer than the Release")
    repos.server.seen.clear()
    assert Repository(http, url, "bookworm", ["main"], key=key.armoured).newest("docs")
    assert len(repos.server.requests("/binary-amd64/")) == 1


def test_what_it_does_not_have_is_named(
    http: Http, repos: AptRepos, debs: Path, key: SigningKey
) -> None:
    url = repos.archive("debian", debs)
    said = refusal(Repository(http, url, "bookworm", ["contrib"], key=key.armoured))
    assert "has nothing for amd64 in bookworm contrib" in said
    with pytest.raises(SupplyError, match="could not be fetched"):
        Repository(http, url, "trixie", ["main"], key=key.armoured).newest("docs")


def test_what_is_no_repository(http: Http, repos: AptRepos, key: SigningKey) -> None:
    (repos.folder / "InRelease").write_text("<html>welcome to the hotel's Wi-Fi</html>")
    assert "not one signed text" in refusal(Repository(http, repos.url, "/", key=key.armoured))
    (repos.folder / "InRelease").unlink()
    (repos.folder / "Release").write_text("SHA256:\n what is this\n")
    assert "cannot be read" in refusal(Repository(http, repos.url, "/"))


def test_apt_itself_takes_what_we_test_with(
    repos: AptRepos, debs: Path, tmp_path: Path, http: Http, key: SigningKey
) -> None:
    """The repositories are the vendors' protocol only as far as apt thinks so, too."""
    needs("apt-get")
    (tmp_path / "key.asc").write_bytes(key.armoured)
    option = f"[arch=amd64 signed-by={tmp_path / 'key.asc'}]"
    (tmp_path / "sources.list").write_text(
        f"deb {option} {repos.kubernetes('v1.36', debs)} /\n"
        f"deb {option} {repos.archive('debian', debs)} bookworm main\n"
    )
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "status").touch()
    words = {
        "Dir::Etc::sourcelist": tmp_path / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": tmp_path / "state",
        "Dir::State::status": tmp_path / "status",
        "Dir::Cache": tmp_path / "cache",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",
    }
    options = [f"-o{name}={value}" for name, value in words.items()]
    run("apt-get", *options, "--error-on=any", "update")
    said = run("apt-cache", *options, "policy", "kubelet")
    ours = flat(http, repos, debs, key).newest("kubelet")
    assert ours is not None
    assert f"Candidate: {ours.version}\n" in said


def test_versions_are_ordered_as_dpkg_orders_them() -> None:
    needs("dpkg")
    chosen = list(itertools.combinations(VERSIONS, 2))[::3]
    script = "".join(
        f"for r in lt eq gt; do dpkg --compare-versions '{a}' $r '{b}' && echo $r && break; done\n"
        for a, b in chosen
    )
    said = run("sh", "-c", script).split()
    for (a, b), relation in zip(chosen, said, strict=True):
        ours = (order(a) > order(b)) - (order(a) < order(b))
        assert ("lt", "eq", "gt")[ours + 1] == relation, (a, b)
