"""The lab's certificates, judged by the programs that meet them."""

from __future__ import annotations

import shutil
import ssl
import stat
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from labwright import authority
from labwright.authority import Pair, Scope, Server
from labwright.model import Service
from labwright.phases import certificates
from labwright.tools.workdir import Workdir
from tests.fakes import planned

NOW = datetime.now(UTC)
SCOPE = Scope("one", "one.internal", IPv4Network("192.168.56.0/24"))
SERVER = Server(("registry.one.internal",), (IPv4Address("192.168.56.11"),))
pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not on PATH")


def verify(tmp_path: Path, ca: Pair, service: Pair, *words: str) -> str:
    """Ask OpenSSL what it thinks of a certificate; empty where it is content."""
    (tmp_path / "ca.crt").write_text(ca.certificate)
    (tmp_path / "service.crt").write_text(service.certificate)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", *words]
    files = ["-CAfile", str(tmp_path / "ca.crt"), str(tmp_path / "service.crt")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("-verify_hostname", "registry.one.internal"),
        ("-verify_hostname", "localhost"),
        ("-verify_ip", "192.168.56.11"),
        ("-verify_ip", "127.0.0.1"),
    ],
)
def test_a_service_is_known_by_its_names_and_addresses(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    ca = authority.found(SCOPE, NOW)
    assert verify(tmp_path, ca, authority.issue(ca, SERVER, NOW), *words) == ""


@pytest.mark.parametrize(
    "server",
    [
        Server(("www.example.org",), ()),
        Server(("one.internal.example.org",), ()),
        replace(SERVER, addresses=(IPv4Address("192.168.57.11"),)),
    ],
    ids=["another domain", "a longer domain", "another network"],
)
def test_an_authority_cannot_speak_for_what_is_not_the_labs(tmp_path: Path, server: Server) -> None:
    ca = authority.found(SCOPE, NOW)
    assert "permitted subtree" in verify(tmp_path, ca, authority.issue(ca, server, NOW))


def test_a_service_of_another_authority_is_refused(tmp_path: Path) -> None:
    ca, other = (authority.found(SCOPE, NOW) for _ in range(2))
    service = authority.issue(other, SERVER, NOW)
    assert verify(tmp_path, ca, service) != ""
    assert not authority.serves(ca, service, SERVER, NOW)


def test_what_still_serves_is_told_from_what_does_not() -> None:
    ca = authority.found(SCOPE, NOW)
    service = authority.issue(ca, SERVER, NOW)
    later = NOW + authority.SERVER - timedelta(days=20)
    other = replace(SERVER, names=("rancher.one.internal",))
    assert authority.serves(ca, service, SERVER, NOW)
    assert not authority.serves(ca, service, SERVER, later)
    assert not authority.serves(ca, service, other, NOW)
    assert not authority.serves(ca, replace(service, key=ca.key), SERVER, NOW)
    assert not authority.serves(ca, Pair("cut off", "cut off"), SERVER, NOW)


def test_an_authority_is_one_labs() -> None:
    ca = authority.found(SCOPE, NOW)
    assert authority.speaks_for(ca, SCOPE, NOW)
    assert not authority.speaks_for(ca, replace(SCOPE, domain="two.internal"), NOW)
    assert not authority.speaks_for(ca, replace(SCOPE, subnet=IPv4Network("10.1.0.0/24")), NOW)
    assert not authority.speaks_for(ca, SCOPE, NOW + authority.YEARS)
    assert not authority.speaks_for(replace(ca, key="cut off"), SCOPE, NOW)


def test_a_pair_does_not_show_its_key() -> None:
    ca = authority.found(SCOPE, NOW)
    assert "PRIVATE" not in repr(ca)
    assert "lab one" in repr(ca)


def test_certificates_are_made_once_and_kept_from_others(tmp_path: Path) -> None:
    plan = planned()
    service = Service("registry", f"registry.{plan.domain}", plan.nodes[0].address.ip)
    plan = replace(plan, services_at=(service,))
    folder = Workdir(tmp_path, plan.name)
    assert certificates.ensure(plan, folder) == ["tls/ca.crt", "tls/registry.crt"]
    assert certificates.ensure(plan, folder) == []
    keys = sorted((folder.path / "tls").glob("*.key"))
    assert [path.name for path in keys] == ["ca.key", "registry.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder.path / "tls/registry.crt", folder.path / "tls/registry.key")


def test_certificates_of_a_service_that_went_go_too(tmp_path: Path) -> None:
    plan = planned()
    service = Service("registry", f"registry.{plan.domain}", plan.nodes[0].address.ip)
    folder = Workdir(tmp_path, plan.name)
    certificates.ensure(replace(plan, services_at=(service,)), folder)
    assert certificates.ensure(plan, folder) == []
    assert sorted(p.name for p in (folder.path / "tls").iterdir()) == ["ca.crt", "ca.key"]


def test_another_authority_means_other_certificates(tmp_path: Path) -> None:
    plan = planned()
    service = Service("registry", f"registry.{plan.domain}", plan.nodes[0].address.ip)
    plan = replace(plan, services_at=(service,))
    folder = Workdir(tmp_path, plan.name)
    certificates.ensure(plan, folder)
    (folder.path / "tls/ca.key").unlink()
    assert certificates.ensure(plan, folder) == ["tls/ca.crt", "tls/registry.crt"]
