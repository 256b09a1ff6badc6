"""A lab's own certificate authority, and the certificates that it gives to the lab's services.

Whoever trusts it trusts it for the lab's domain and addresses only (RFC 5280, section 4.2.1.10).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Network

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

YEARS = timedelta(days=3650)
# The longest that Apple's systems take of a server (https://support.apple.com/en-us/103769).
SERVER = timedelta(days=825)
# A clock of a node that is a little behind must not find a certificate of the future.
BEFORE, LEFT = timedelta(hours=1), timedelta(days=30)
LOOPBACK = IPv4Network("127.0.0.0/8")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM. The key is a secret and not shown."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        """Show the certificate's name alone."""
        return f"Pair({_read(self.certificate).subject.rfc4514_string()})"


@dataclass(frozen=True, slots=True)
class Scope:
    """What an authority may speak for: one domain, and the addresses of one network."""

    lab: str
    domain: str
    subnet: IPv4Network


@dataclass(frozen=True, slots=True)
class Server:
    """What a certificate of a service is for."""

    names: tuple[str, ...]
    addresses: tuple[IPv4Address, ...]


def found(scope: Scope, now: datetime) -> Pair:
    """Make a new authority; ``now`` has a time zone."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(f"Labwright lab {scope.lab}", f"Labwright lab {scope.lab}", now, YEARS)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(_constraints(scope), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def issue(authority: Pair, server: Server, now: datetime) -> Pair:
    """Make a key for a service and sign it."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = _read(authority.certificate)
    known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder(server.names[0], _common_name(issuer), now, SERVER)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(server)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known), critical=False
        )
        .sign(_key(authority), hashes.SHA256())
    )
    return _pair(certificate, key)


def speaks_for(authority: Pair, scope: Scope, now: datetime) -> bool:
    """Tell whether an authority is this lab's and lasts; what cannot be read is not."""
    try:
        certificate = _read(authority.certificate)
        there = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        same = certificate.public_key() == _key(authority).public_key()
    except (ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return same and there == _constraints(scope) and _lasts(certificate, now)


def serves(authority: Pair, service: Pair, server: Server, now: datetime) -> bool:
    """Tell whether a service's certificate is of this authority, for these names, and lasts."""
    try:
        certificate = _read(service.certificate)
        certificate.verify_directly_issued_by(_read(authority.certificate))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        same = certificate.public_key() == _key(service).public_key()
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return (
        same and names == x509.SubjectAlternativeName(_names(server)) and _lasts(certificate, now)
    )


def _builder(name: str, issuer: str, now: datetime, lasts: timedelta) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_called(name))
        .issuer_name(_called(issuer))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(now - BEFORE + lasts)
    )


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _constraints(scope: Scope) -> x509.NameConstraints:
    names = [x509.DNSName(scope.domain), x509.DNSName("localhost")]
    networks = [x509.IPAddress(scope.subnet), x509.IPAddress(LOOPBACK)]
    return x509.NameConstraints([*names, *networks], None)


def _names(server: Server) -> Iterable[x509.GeneralName]:
    addresses = dict.fromkeys((*server.addresses, IPv4Address("127.0.0.1")))
    return [
        *map(x509.DNSName, (*server.names, "localhost")),
        *map(x509.IPAddress, addresses),
    ]


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _lasts(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc - LEFT


def _read(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())


def _key(pair: Pair) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pair.key.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not a key of ours")
    return key


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode())
