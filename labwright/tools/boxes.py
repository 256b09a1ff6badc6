"""Vagrant's own list of boxes: what is in it, and how a box gets there and goes."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from labwright.boxes import FOUND, NO_FILE
from labwright.errors import Finding, SupplyError
from labwright.model import HadBox
from labwright.tools.shell import Shell, ToolError

METADATA = "metadata.json"
# What a box is called in the store and in a bundle.
PACKAGE = "package.box"
# How a name is written where it is a folder's (lib/vagrant/box_collection.rb).
SLASH, COLON = "-VAGRANTSLASH-", "-VAGRANTCOLON-"
DEADLINE = 0.8
PORTS = {"http": 80, "https": 443}
# Vagrant's own catalogue (lib/vagrant/shared_helpers.rb).
CATALOGUE = "https://vagrantcloud.com"


@dataclass(frozen=True, slots=True)
class Entry:
    """A box on the disk: ``size`` in bytes, ``added`` in seconds since 1970."""

    box: HadBox
    folder: Path
    size: int
    added: float


@dataclass(frozen=True, slots=True)
class Offer:
    """One file of a catalogue: what ``url`` gives, and its ``sha256`` in hexadecimal digits."""

    version: str
    provider: str
    url: str
    sha256: str = ""


def home() -> Path:
    """Give Vagrant's own folder."""
    return Path(os.environ.get("VAGRANT_HOME") or Path.home() / ".vagrant.d")


def had() -> tuple[HadBox, ...]:
    """Give the boxes in Vagrant's list; Vagrant itself takes over a second to say."""
    return tuple(box for box, _folder in _folders())


def listed() -> list[Entry]:
    """Give the boxes in Vagrant's list with what they take on the disk."""
    return [
        Entry(box, folder, _size(folder), (folder / METADATA).stat().st_mtime)
        for box, folder in _folders()
    ]


def _folders() -> Iterator[tuple[HadBox, Path]]:
    boxes = home() / "boxes"
    # Since 2.4 a folder for the architecture lies between version and provider.
    for depth in ("*/*/*", "*/*/*/*"):
        for found in sorted(boxes.glob(f"{depth}/{METADATA}")):
            name, version, *_arch, provider = found.parent.relative_to(boxes).parts
            name = name.replace(SLASH, "/").replace(COLON, ":")
            yield HadBox(name, version, provider), found.parent


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def source(url: str) -> str:
    """Say whether a box can be had at an address: ``answers``, or why not."""
    url = url or os.environ.get("VAGRANT_SERVER_URL") or CATALOGUE
    if path := file_of(url):
        return FOUND if path.is_file() else NO_FILE
    parts = urlsplit(url)
    try:
        where = (parts.hostname or "", parts.port or PORTS[parts.scheme])
        socket.create_connection(where, timeout=DEADLINE).close()
    except (OSError, ValueError):
        return "does not answer"
    return FOUND


def file_of(url: str) -> Path | None:
    """Give the file that Vagrant would read; ``None`` where it would ask a server."""
    parts = urlsplit(url)
    if parts.scheme in PORTS:
        return None
    return Path(unquote(parts.path) if parts.scheme == "file" else url).expanduser()


def catalogue(name: str, description: str, offers: Iterable[Offer]) -> dict[str, Any]:
    """Give a catalogue of one box, as ``vagrant box add`` reads it.

    https://developer.hashicorp.com/vagrant/docs/boxes/format#box-metadata
    """
    versions: dict[str, list[dict[str, str]]] = {}
    for offer in offers:
        checked = {"checksum_type": "sha256", "checksum": offer.sha256} if offer.sha256 else {}
        versions.setdefault(offer.version, []).append(
            {"name": offer.provider, "url": offer.url, **checked}
        )
    return {
        "name": name,
        "description": description,
        "versions": [
            {"version": version, "providers": providers} for version, providers in versions.items()
        ],
    }


def dump(content: Mapping[str, Any]) -> str:
    """Write a catalogue down."""
    return json.dumps(content, indent=1) + "\n"


def add(
    shell: Shell,
    where: str,
    provider: str,
    on_line: Callable[[str], None],
    *,
    version: str = "",
    name: str = "",
    again: bool = False,
    what: str = "",
) -> None:
    """Have Vagrant add a box from a catalogue or a file, a path or an address.

    ``name`` is for a plain .box file, which has none; ``what`` names the box in an error.
    Raises SupplyError.
    """
    words = ["vagrant", "box", "add", where, "--provider", provider, "--no-tty"]
    words += ["--box-version", version] if version else []
    words += ["--name", name] if name else []
    words += ["--force"] if again else []
    _vagrant(shell, words, on_line, f"Vagrant did not take {what or f'the box from {where}'}")


def remove(shell: Shell, box: HadBox, on_line: Callable[[str], None]) -> None:
    """Have Vagrant remove a box from its list. Raises SupplyError."""
    words = ["vagrant", "box", "remove", box.name, "--provider", box.provider]
    words += ["--box-version", box.version, "--force", "--no-tty"]
    _vagrant(shell, words, on_line, f"Vagrant did not remove {box.name}")


def _vagrant(shell: Shell, words: list[str], on_line: Callable[[str], None], what: str) -> None:
    try:
        shell.run(words, env={"VAGRANT_NO_COLOR": "1"}, on_line=on_line)
    except ToolError as error:
        fix = "mend what Vagrant says, and run the same again"
        raise SupplyError(Finding("supply.box", "error", what, fix=fix), error.details) from error


def users() -> dict[HadBox, list[str]]:
    """Give for each box the folders with machines made from it, by Vagrant's own index."""
    index = home() / "data/machine-index/index"
    try:
        machines = json.loads(index.read_text("utf-8"))["machines"].values()
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return {}
    found: dict[HadBox, list[str]] = {}
    for machine in machines:
        box = machine.get("extra_data", {}).get("box") or {}
        if {"name", "version", "provider"} <= box.keys():
            key = HadBox(box["name"], box["version"], box["provider"])
            place = str(machine.get("vagrantfile_path", "?"))
            if place not in found.setdefault(key, []):
                found[key].append(place)
    return found


def digest(path: Path) -> str:
    """Give the sha256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
