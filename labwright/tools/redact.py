"""Takes secrets out of text that leaves this computer: by their shape, and by their value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from labwright.events import MASK, mask

# Files whose content is secret: they are never packed, and what is in them is looked for elsewhere.
SECRET_FILES = re.compile(
    r"(?i)(^kubeconfig|\.key$|\.pem$|\.p12$|^id_[a-z0-9]+$|password|passwd|secret|token|credential)"
)
SECRET_VALUES = re.compile(
    r"(?i)(?:client-key-data|client-certificate-data|token|password)[\"']?\s*[:=]\s*[\"']?([^\s\"',}]+)"
)
# A shorter value would be found in words that are no secret.
SHORTEST = 8
BLOCK = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)

# What is left of a key where the beginning of a file was cut off.
REST = re.compile(r"(?:^[A-Za-z0-9+/=]+\n)+-----END [A-Z ]*PRIVATE KEY-----", re.MULTILINE)


def is_secret(path: Path) -> bool:
    """Whether a file's name says that its content is secret."""
    return bool(SECRET_FILES.search(path.name)) and path.suffix != ".pub"


def values(root: Path) -> frozenset[str]:
    """Give the secrets in the secret files below a folder, to be taken out wherever they are."""
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and is_secret(p)]
    return frozenset(v for path in files for v in _values(path) if len(v) >= SHORTEST)


def _values(path: Path) -> Iterator[str]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if path.name.startswith("kubeconfig"):
        yield from SECRET_VALUES.findall(text)
        return
    for line in text.splitlines():
        # Of a key each line alone would do harm; of a password file the line is the password.
        if not line.startswith("-----"):
            yield line.strip()


def redact(text: str, secrets: Iterable[str]) -> str:
    """Take secrets out of a text."""
    text = REST.sub(MASK, BLOCK.sub(MASK, text))
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return mask(text)
