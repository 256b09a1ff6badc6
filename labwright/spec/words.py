"""Turns what pydantic and YAML say of a lab.yaml into findings."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, ValidationError

from labwright.errors import Finding
from labwright.spec.file import (
    MAX_WORKERS,
    AptMirrorFile,
    BastionFile,
    BoxFile,
    LabFile,
    MachineFile,
    MirrorsFile,
    NetworkFile,
    NodeFile,
    RancherFile,
    SshFile,
)

DOCS = "docs/lab-yaml.md"
PROVIDERS = ("auto", "virtualbox", "libvirt", "docker", "hosts")


def findings(error: ValidationError) -> list[Finding]:
    """Make one finding of each problem that pydantic saw."""
    return [
        _finding(cast("Mapping[str, Any]", item), ".".join(map(str, path_of(item["loc"]))))
        for item in _without_twins(error.errors(include_url=False))
    ]


def _without_twins(items: Iterable[Any]) -> Iterator[Any]:
    """A union reports once for each of its members; one message a key is enough."""
    seen = set()
    for item in sorted(items, key=lambda i: i["type"] == "literal_error"):
        path = path_of(item["loc"])
        if path not in seen:
            seen.add(path)
            yield item


def path_of(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Drop what pydantic adds to a path: the names of a union's members and validators."""
    return tuple(
        part
        for part in loc
        if isinstance(part, int) or not re.search(r"[\[(]|^literal|^IPv4|^function", part)
    )


def _finding(item: Mapping[str, Any], where: str) -> Finding:
    loc, kind = item["loc"], item["type"]
    given = item.get("input")
    if kind == "extra_forbidden":
        known = _keys_beside(loc)
        fix = likely(str(loc[-1]), known) or f"the keys here are {listed(known)}"
        return Finding("spec.unknown-key", "error", "there is no such key", "", fix, where, DOCS)
    if where == "control_planes" and isinstance(given, int) and given > 1:
        return Finding(
            "spec.control-planes",
            "error",
            f"{given} control planes are not supported yet, only 1",
            "several need one address that outlives each of them",
            "set control_planes: 1",
            where,
        )
    hints = {
        "name": "up to 30 characters: small letters, digits and dashes, a letter first",
        "workers": f"a whole number up to {MAX_WORKERS}",
        "tools": "0 or 1",
        "nas": "0 or 1",
        "kubernetes": 'a version in quotes such as "1.36.3", or auto',
        "network.load_balancer": "a range such as 10.0.0.200-10.0.0.249",
        "network.subnet": "a private network such as 192.168.56.0/24, or auto",
        "network.pods": "a private network such as 10.244.0.0/16, or auto",
        "network.services": "a private network such as 10.96.0.0/16, or auto",
        "box": 'a box such as {name: me/node, version: "1.2.0"}',
        "box.name": "the name that Vagrant has it by, such as me/node",
        "box.checksum": "sha256: and 64 hexadecimal digits",
        "box.url": "an address with http, https or file, or a path beside lab.yaml",
        "box.version": 'one version in quotes, such as "202510.26.0"',
        "rancher.hostname": "a whole name in small letters, such as rancher.example.internal",
        "rancher.tls": "lab or rancher",
        "kube_proxy": "auto, iptables or nftables",
        "supply": "auto, upstream, packages, or bundle: and a folder, an archive or an address",
    }
    if loc[0] == "provider":
        hints["provider"] = likely(str(given), PROVIDERS) or f"take one of {listed(PROVIDERS)}"
    if loc[0] == "versions":
        hints[where] = 'a version in quotes, such as "2.15" or "2.15.1"'
    hints |= _ssh_hints(where)
    if loc[0] in {"defaults", "nodes"}:
        hints[where] = _SIZES.get(str(loc[-1]), f"the keys here are {listed(_SIZES)}")
    message = _said(item)
    what = f"{given!r} is not allowed here" if not isinstance(given, dict) else "wrong shape"
    return Finding(
        f"spec.{kind.replace('_', '-')}", "error", what, message, hints.get(where, ""), where
    )


_SIZES = {
    "cpus": "a whole number from 1 to 64",
    "memory": "512MiB to 1TiB, such as 2GiB",
    "disk": "4GiB to 4TiB, such as 20GiB",
}


def _said(item: Mapping[str, Any]) -> str:
    """Give pydantic's message in words of a person who writes YAML."""
    kind, given = item["type"], item.get("input")
    if kind == "model_type":
        return "it has keys of its own"
    if kind in {"greater_than_equal", "less_than_equal"} and item["loc"][-1] in {"memory", "disk"}:
        return "it is too small" if kind.startswith("greater") else "it is too large"
    if kind == "missing":
        return f"the key {item['loc'][-1]} is missing"
    if kind == "ip_v4_network" and isinstance(given, str):
        with contextlib.suppress(ValueError):
            whole = IPv4Network(given, strict=False)
            return f"the network that this address is in is {whole}"
    return str(item["msg"]).removeprefix("Value error, ")


def _ssh_hints(where: str) -> dict[str, str]:
    """Say what a key of a machine or of ``ssh`` takes."""
    parts = where.split(".")
    if parts[0] not in {"machines", "ssh"}:
        return {}
    key = parts[-1] if len(parts) > (2 if parts[0] == "machines" else 1) else "machine"
    known = {
        "machine": "an address such as 10.0.0.5, or {address: 10.0.0.5, user: admin, …}",
        "address": "a host's name or IPv4 address alone; user and port are keys of their own",
        "port": "a number from 1 to 65535",
        "bastion": "user@host:port, or {address: …, user: …, port: …, key: …}",
        "node_address": "an IPv4 address that the machine has",
        "host_key": "the line of its .pub file below /etc/ssh, or SHA256: and 43 characters",
    }
    return {where: known.get(key, "")}


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {
        "network": NetworkFile,
        "defaults": NodeFile,
        "nodes": NodeFile,
        "box": BoxFile,
        "rancher": RancherFile,
        "machines": BastionFile if "bastion" in loc else MachineFile,
        "ssh": BastionFile if "bastion" in loc else SshFile,
        "mirrors": AptMirrorFile if len(loc) > 2 else MirrorsFile,
    }
    model = models.get(str(loc[0]), LabFile) if len(loc) > 1 else LabFile
    return list(model.model_fields)


def likely(word: str, known: Iterable[str]) -> str:
    """Guess which of the known words was meant; empty when none is near."""
    match = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {match[0]}?" if match else ""


def listed(words: Iterable[str]) -> str:
    """Write words as a list in a sentence."""
    return ", ".join(words)


def kind(value: object) -> str:
    """Name what YAML gave, in words of a person who writes YAML."""
    return {list: "a list", str: "one text", int: "a number"}.get(type(value), "something else")


def bad_yaml(path: Path, error: yaml.YAMLError) -> Finding:
    """Say in which line a file stops being YAML."""
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
    why = getattr(error, "problem", None) or str(error)
    return Finding("spec.not-yaml", "error", "this is not YAML", why, "mend this line", where)
