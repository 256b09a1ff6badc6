"""Reads what a key file says of itself: dearmouring and fingerprints of OpenPGP keys.

RFC 9580 (https://www.rfc-editor.org/rfc/rfc9580); it judges no signature, gpgv does that.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

from labwright.errors import Finding, SupplyError

PUBLIC_KEY = 6
# §6.2: header line, headers, an empty line, base64, and perhaps a CRC that §6.1 says to ignore.
ARMOUR = re.compile(
    rb"^-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n"
    rb"(?:[^\r\n:]+:[^\r\n]*\r?\n)*[ \t]*\r?\n"
    rb"(?P<body>[A-Za-z0-9+/=\s]*?)"
    rb"(?:^=[A-Za-z0-9+/]{4}[ \t]*\r?\n)?"
    rb"^-----END PGP PUBLIC KEY BLOCK-----",
    re.MULTILINE,
)


def fingerprint(key: bytes) -> tuple[str, ...]:
    """Give the fingerprints of the primary keys, upper case hex, in the order of the file.

    Raises SupplyError where it is no public key.
    """
    try:
        bodies = [body for tag, body in _packets(dearmour(key)) if tag == PUBLIC_KEY]
        found = tuple(_fingerprint(body) for body in bodies)
    except (IndexError, ValueError) as error:
        raise _no_key(str(error)) from error
    if not found:
        raise _no_key("no public key is in it")
    return found


def certificate(keys: bytes, wanted: str) -> bytes:
    """Give the one key of several that has a fingerprint, with all that belongs to it, binary.

    Empty where it is not among them. Raises SupplyError where these are no public keys.
    """
    found, taken = b"", False
    try:
        for tag, body in _packets(dearmour(keys)):
            if tag == PUBLIC_KEY:
                taken = _fingerprint(body) == wanted
            if taken:
                found += bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body
    except (IndexError, ValueError) as error:
        raise _no_key(str(error)) from error
    return found


def dearmour(key: bytes) -> bytes:
    """Give the binary packets of a key file, armoured or not.

    Raises SupplyError where the armour is damaged.
    """
    if key[:1] and key[0] & 0x80:  # §4.2: the first bit of every packet is set, of no letter
        return key
    blocks = [found["body"] for found in ARMOUR.finditer(key)]
    if not blocks:
        raise _no_key("it is neither armoured nor binary")
    try:
        return b"".join(base64.b64decode(b"".join(b.split()), validate=True) for b in blocks)
    except binascii.Error as error:
        raise _no_key(str(error)) from error


def _fingerprint(body: bytes) -> str:
    """§5.5.4.2 and §5.5.4.3: the packet is hashed as if its header were the old one."""
    if body[0] == 4:
        head = b"\x99" + len(body).to_bytes(2, "big")
        return hashlib.sha1(head + body, usedforsecurity=False).hexdigest().upper()
    if body[0] == 6:
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise ValueError(f"keys of version {body[0]} are not known")


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give tag and body of each packet; keys never come in partial lengths (§4.2.1.4)."""
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise ValueError(f"byte {at} begins no packet")
        new = head & 0x40
        tag = head & 0x3F if new else (head & 0x3C) >> 2
        size, width = _new_length(data, at + 1) if new else _old_length(data, at + 1, head & 3)
        at += 1 + width
        if at + size > len(data):
            raise ValueError("it ends in the middle of a packet")
        yield tag, data[at : at + size]
        at += size


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    if first < 192:
        return first, 1
    if first < 224:
        return ((first - 192) << 8) + data[at + 1] + 192, 2
    if first == 255:
        return int.from_bytes(data[at + 1 : at + 5], "big"), 5
    raise ValueError("a packet has a partial length")


def _old_length(data: bytes, at: int, kind: int) -> tuple[int, int]:
    if kind == 3:
        raise ValueError("a packet has no length")
    return int.from_bytes(data[at : at + (1 << kind)], "big"), 1 << kind


def _no_key(why: str) -> SupplyError:
    fix = "fetch the key again from the repository's own site"
    what = "this is not an OpenPGP public key"
    return SupplyError(Finding("supply.key", "error", what, why, fix))
