"""A distribution's archive whose key this computer does not have: real apt, a real signature."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labwright.errors import SupplyError
from labwright.model import AptSource, Artifact
from labwright.recipes import archive
from labwright.recipes.base import Apt, Job
from labwright.tools.shell import Shell, ToolError
from tests.vendors import AptRepos, SigningKey, make_deb, needs

KEYRING = "/usr/share/keyrings/faraway-archive-keyring.gpg"


@pytest.fixture(scope="module")
def key() -> Iterator[SigningKey]:
    with SigningKey() as made:
        yield made


@pytest.fixture(scope="module")
def stranger() -> Iterator[SigningKey]:
    with SigningKey("A stranger") as made:
        yield made


@pytest.fixture
def job(tmp_path: Path) -> Job:
    for name in ("work", "out"):
        (tmp_path / name).mkdir()
    artifact = Artifact("machine-root", "machine-root", "noble")
    return Job(artifact, tmp_path / "work", tmp_path / "out", {}, Shell(), lambda _text: None)


@pytest.fixture
def served(tmp_path: Path, key: SigningKey) -> Iterator[Callable[[SigningKey, bytes], AptSource]]:
    """Serve an archive that somebody signs, with a package of keys; give it as a source."""
    needs("apt-get", "gpg")
    with AptRepos(key, tmp_path / "www") as repos:

        def serve(signer: SigningKey, keys: bytes) -> AptSource:
            debs = tmp_path / "debs"
            held = {KEYRING.removeprefix("/"): keys}
            make_deb(debs, "faraway-keyring", "1.0", "all", files=held)
            repos.key = signer
            url = repos.archive("faraway", debs, suite="noble")
            return AptSource(
                "faraway",
                url,
                ("noble",),
                ("main",),
                fingerprint=key.fingerprint,
                keyring=KEYRING,
            )

        yield serve


def update(job: Job, source: AptSource) -> None:
    lines = "".join(f"{line}\n" for line in archive.lines(job, source))
    Apt(job, job.work / "apt", lines).update()


def test_the_key_that_is_known_is_taken_out_of_the_archives_own_package(
    job: Job,
    served: Callable[[SigningKey, bytes], AptSource],
    key: SigningKey,
    stranger: SigningKey,
) -> None:
    source = served(key, stranger.armoured + key.armoured)
    update(job, source)
    apt = Apt(job, job.work / "apt", "".join(f"{x}\n" for x in archive.lines(job, source)))
    apt.get("download", "faraway-keyring", cwd=job.out)
    assert [*job.out.glob("faraway-keyring_*.deb")]


def test_who_signs_with_another_key_of_that_package_is_refused(
    job: Job,
    served: Callable[[SigningKey, bytes], AptSource],
    key: SigningKey,
    stranger: SigningKey,
) -> None:
    source = served(stranger, stranger.armoured + key.armoured)
    with pytest.raises(ToolError) as caught:
        update(job, source)
    assert "NO_PUBKEY" in "\n".join(caught.value.details)


def test_an_archive_without_the_known_key_is_refused(
    job: Job, served: Callable[[SigningKey, bytes], AptSource], stranger: SigningKey
) -> None:
    source = served(stranger, stranger.armoured)
    with pytest.raises(SupplyError) as caught:
        update(job, source)
    (finding,) = caught.value.findings
    assert (finding.id, finding.where) == ("supply.archive-key", "mirrors.apt.faraway")
    assert source.fingerprint in finding.why
