"""Fingerprints against those that GnuPG gives for the same keys."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labwright.errors import SupplyError
from labwright.tools.openpgp import certificate, dearmour, fingerprint

KEYRINGS = sorted(Path("/usr/share/keyrings").glob("*.gpg"))
needs_gpg = pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not on PATH")


def gpg(home: Path, *words: str | Path) -> bytes:
    argv = ["gpg", "--homedir", str(home), "--batch", "--no-autostart", *map(str, words)]
    return subprocess.run(argv, capture_output=True, check=True).stdout


def primaries(listing: bytes) -> tuple[str, ...]:
    """Take the first fingerprint after each primary key's line."""
    found, wanted = [], False
    for line in listing.decode().splitlines():
        fields = line.split(":")
        if fields[0] == "fpr" and wanted:
            found.append(fields[9])
            wanted = False
        wanted = wanted or fields[0] == "pub"
    return tuple(found)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    # The agent's socket has to fit into 108 bytes: pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="lw-gpg-") as folder:
        base = ["gpg", "--homedir", folder, "--batch", "--passphrase", ""]
        for algorithm in ("ed25519", "rsa2048", "nistp256"):
            user = f"{algorithm} <{algorithm}@localhost>"
            subprocess.run(
                [*base, "--quick-generate-key", user, algorithm, "default", "never"],
                capture_output=True,
                check=True,
            )
        yield Path(folder)
        subprocess.run(["gpgconf", "--homedir", folder, "--kill", "all"], check=True)


@needs_gpg
@pytest.mark.parametrize("algorithm", ["ed25519", "rsa2048", "nistp256"])
@pytest.mark.parametrize("armour", [(), ("--armor",)])
def test_new_keys(home: Path, algorithm: str, armour: tuple[str, ...]) -> None:
    listing = gpg(home, "--with-colons", "--list-keys", f"{algorithm}@localhost")
    (expected,) = primaries(listing)
    key = gpg(home, *armour, "--export", f"{algorithm}@localhost")
    assert fingerprint(key) == (expected,)
    assert len(expected) == 40


@needs_gpg
def test_several_keys_in_one_file(home: Path) -> None:
    expected = primaries(gpg(home, "--with-colons", "--list-keys"))
    assert len(expected) == 3
    assert fingerprint(gpg(home, "--export")) == expected
    blocks = [gpg(home, "--armor", "--export", key) for key in expected]
    assert fingerprint(b"A comment before.\n" + b"\n".join(blocks)) == expected


@needs_gpg
def test_one_key_of_several_is_whole_and_alone(home: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    expected = primaries(gpg(home, "--with-colons", "--list-keys"))
    for form in ((), ("--armor",)):
        keys = gpg(home, *form, "--export")
        for wanted in expected:
            (tmp_path / "one.gpg").write_bytes(certificate(keys, wanted))
            shown = gpg(tmp_path, "--show-keys", "--with-colons", tmp_path / "one.gpg")
            whole = gpg(home, "--with-colons", "--list-keys", wanted)
            assert primaries(shown) == (wanted,)
            # What belongs to it is there, and nothing of another.
            for kind in (b"uid", b"sub"):
                lines = (len(re.findall(rb"(?m)^%b:" % kind, text)) for text in (shown, whole))
                assert next(lines) == next(lines)
            assert b"\nuid:" in shown
        assert certificate(keys, "0" * 40) == b""
    with pytest.raises(SupplyError, match="not an OpenPGP public key"):
        certificate(keys[:-100], expected[0])


@needs_gpg
def test_armour_is_read_as_it_is_found_in_the_wild(home: Path) -> None:
    binary = gpg(home, "--export", "rsa2048@localhost")
    armoured = gpg(home, "--armor", "--export", "rsa2048@localhost")
    lines = armoured.splitlines()
    assert lines[-2].startswith(b"=")
    with_headers = [lines[0], b"Version: GnuPG v2.0.15 (GNU/Linux)", b"Comment: a-b", *lines[1:]]
    without_crc, wrong_crc = [*lines[:-2], lines[-1]], [*lines[:-2], b"=AAAA", lines[-1]]
    for form in (lines, with_headers, without_crc, wrong_crc):
        assert dearmour(b"\n".join(form)) == binary
        assert dearmour(b"\r\n".join(form) + b"\r\n") == binary
    assert dearmour(binary) == binary


@needs_gpg
@pytest.mark.skipif(not KEYRINGS, reason="there is no /usr/share/keyrings/*.gpg here")
@pytest.mark.parametrize("path", KEYRINGS, ids=lambda path: path.name)
def test_keyrings_of_this_system(path: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    expected = primaries(gpg(tmp_path, "--show-keys", "--with-colons", path))
    assert expected
    assert sorted(fingerprint(path.read_bytes())) == sorted(expected)


@needs_gpg
def test_a_cut_key_is_refused(home: Path) -> None:
    key = gpg(home, "--export", "rsa2048@localhost")
    for size in range(1, len(key), 97):
        with pytest.raises(SupplyError, match="not an OpenPGP public key"):
            fingerprint(key[:size])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>404</html>",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!\n-----END PGP PUBLIC KEY BLOCK-----\n",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nYQ=a\n-----END PGP PUBLIC KEY BLOCK-----\n",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nYWJj\n-----END PGP PUBLIC KEY BLOCK-----\n",
        b"\xc6\x05\x03abcd",  # a key of version 3
        b"\xc6\xe1abc",  # a partial length
        b"\x9b\x04",  # no length
        b"\xc6\xff\x00",  # a length cut short
        b"\xcd\x01a",  # a user's name alone
        b"\xc6\x00",  # an empty key
    ],
)
def test_what_is_no_key_is_refused(content: bytes) -> None:
    with pytest.raises(SupplyError, match="not an OpenPGP public key"):
        fingerprint(content)


def test_version_6_keys_by_the_example_of_the_rfc() -> None:
    # RFC 9580, appendix A.3: the primary key's packet and its fingerprint.
    packet = bytes.fromhex(
        "c62a0663877fe31b00000020f94da7bb48d60a61e567706a6587d0331999bb9d891a08242ead84543df895a3"
    )
    expected = "CB186C4F0609A697E4D52DFA6C722B0C1F1E27C18A56708F6525EC27BAD9ACC9"
    assert fingerprint(packet) == (expected,)
