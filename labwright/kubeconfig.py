"""The user's own kubeconfig: a lab's context goes in and comes out, the rest stays as it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from labwright.errors import Finding, HostError
from labwright.tools.workdir import write

SECTIONS = ("clusters", "users", "contexts")


def users_file() -> Path:
    """Give the file that kubectl itself would change: the first of $KUBECONFIG, or the default."""
    first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(first) if first else Path.home() / ".kube" / "config"


def merge(target: Path, text: str) -> None:
    """Put a lab's cluster, user and context into ``target`` and make it the current one.

    Entries of the same name are replaced. Raises HostError when ``target`` is not a kubeconfig.
    """
    ours = yaml.safe_load(text)
    theirs = _read(target)
    for section in SECTIONS:
        names = {entry["name"] for entry in ours[section]}
        kept = [e for e in theirs.get(section) or [] if e.get("name") not in names]
        theirs[section] = kept + ours[section]
    theirs["current-context"] = ours["current-context"]
    _write(target, theirs)


def take_out(target: Path, name: str) -> bool:
    """Remove what :func:`merge` put there for context ``name``; give whether it was there."""
    if not target.is_file():
        return False
    config = _read(target)
    there = False
    for section in SECTIONS:
        entries = config.get(section) or []
        kept = [entry for entry in entries if entry.get("name") != name]
        there = there or len(kept) != len(entries)
        config[section] = kept
    if not there:
        return False
    if config.get("current-context") == name:
        config["current-context"] = ""
    _write(target, config)
    return True


def _read(target: Path) -> dict[str, Any]:
    if not target.is_file():
        return {"apiVersion": "v1", "kind": "Config"}
    try:
        config = yaml.safe_load(target.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise HostError(_unreadable(target, str(error))) from error
    if config is None:
        return {"apiVersion": "v1", "kind": "Config"}
    if not isinstance(config, dict):
        raise HostError(_unreadable(target, "it holds no keys"))
    for section in SECTIONS:
        entries = config.get(section) or []
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise HostError(_unreadable(target, f"{section} is not a list of entries"))
    return config


def _unreadable(target: Path, why: str) -> Finding:
    what = f"{target} is not a kubeconfig; it was left as it is"
    return Finding("host.kubeconfig", "error", what, why, "mend it, or set KUBECONFIG to another")


def _write(target: Path, config: dict[str, Any]) -> None:
    # A link stays a link: what it points to is written.
    write(target.resolve(), yaml.safe_dump(config, sort_keys=False), 0o600)
