"""What is installed on the nodes of a lab, as they say themselves, and how two labs differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labwright.errors import Finding, SpecError
from labwright.tools.ssh import Ssh

RECORD = "software.json"
ASK = (
    r"dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n'; echo ==; "
    # A node beside the cluster may have no runtime of images.
    "if systemctl is-enabled -q containerd; then sudo ctr -n k8s.io images ls; fi"
)
# Names that the runtime itself gives to an image, beside its reference.
ALIAS = ("sha256:",)

Software = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Node → ``packages`` (name → version) and ``images`` (reference → digest)."""


def record(ssh: Ssh, names: Sequence[str]) -> Software:
    """Ask every node at the same time. Raises ToolError."""
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(lambda name: _ask(ssh, name), names), strict=True))


def _ask(ssh: Ssh, name: str) -> dict[str, dict[str, str]]:
    packages, _, images = ssh.run(name, ASK).partition("==\n")
    debs = [line.split() for line in packages.splitlines()]
    rows = [line.split() for line in images.splitlines()[1:]]
    return {
        "packages": {word[1]: word[2] for word in debs if word[0] == "installed"},
        "images": {
            row[0]: row[2] for row in rows if not row[0].startswith(ALIAS) and "@" not in row[0]
        },
    }


def dump(software: Software) -> str:
    """Write it down; the same software gives the same text."""
    return json.dumps(software, indent=1, sort_keys=True) + "\n"


def load(path: Path) -> Software:
    """Read what ``dump`` wrote. Raises SpecError."""
    try:
        found: Software = json.loads(path.read_text("utf-8"))
        for parts in found.values():
            dict(parts["packages"]), dict(parts["images"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        what = f"{path} does not say what is on the nodes of a lab"
        fix = f"give a lab that is up, its folder .lab/<name>, or its {RECORD}"
        raise SpecError(Finding("spec.no-record", "error", what, str(error), fix)) from error
    return found


def differences(one: Software, other: Software) -> Iterator[tuple[str, str, str, str]]:
    """Give ``(node, name, here, there)`` for what is not the same; empty where it is missing."""
    for node in dict.fromkeys((*one, *other)):
        if node in one and node in other:
            for kind in ("packages", "images"):
                for found in _differ(one[node][kind], other[node][kind]):
                    yield node, *found
        else:
            there = ("there", "") if node in one else ("", "there")
            yield node, "the whole node", *there


def _differ(here: Mapping[str, str], there: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for name in sorted({*here, *there}):
        if here.get(name) != there.get(name):
            yield name, here.get(name, ""), there.get(name, "")
