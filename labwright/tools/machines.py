"""Meets machines that are there already: whose keys they show, and what they are like."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import shlex
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from labwright.errors import Finding
from labwright.model import MachineFacts
from labwright.tools.host import caps_of
from labwright.tools.shell import Result, Shell, ToolError

MEASURE = Path(__file__).parent / "data" / "measure.py"
# Packages that are, or bring, a container runtime or a part of Kubernetes.
RUNTIMES = (
    "containerd",
    "containerd.io",
    "cri-o",
    "docker-ce",
    "docker.io",
    "kubeadm",
    "kubectl",
    "kubelet",
    "podman",
    "runc",
)
DOCS = "docs/hosts.md"
DEADLINE = 60.0
_FACTS: TypeAdapter[MachineFacts] = TypeAdapter(MachineFacts)
# Exit codes of our own, before Python and sudo are known to be there.
_NO_PYTHON, _NO_SUDO, _SUDO_ASKS = 81, 82, 83
_CHECKS = f"""
command -v python3 >/dev/null || exit {_NO_PYTHON}
command -v sudo >/dev/null || exit {_NO_SUDO}
sudo -n true 2>/dev/null || exit {_SUDO_ASKS}
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """A host key as a machine showed it: its kind, and itself in base64."""

    kind: str
    blob: str

    @property
    def fingerprint(self) -> str:
        """Give it in the form that ssh and ssh-keygen show."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def is_named(self, wanted: str) -> bool:
        """Whether lab.yaml's ``host_key`` means this key."""
        return wanted == self.fingerprint or wanted.split()[:2] == [self.kind, self.blob]


def show(shell: Shell, config: Path, name: str, scratch: Path) -> Shown | Finding:
    """Let a machine show its host key, or say why it does not.

    ssh itself asks, and not ssh-keyscan, which goes through no bastion; nobody is logged in.
    """
    file = scratch / f"shown-{name}"
    file.unlink(missing_ok=True)
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": "10",
        "HashKnownHosts": "no",
        "PreferredAuthentications": "none",
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": str(file),
    }
    words = ["ssh", "-F", str(config)]
    words += [word for key, value in options.items() for word in ("-o", f'{key}="{value}"')]
    try:
        result = shell.run([*words, name, "true"], timeout=DEADLINE, check=False)
    except ToolError as error:
        return _unreachable(name, error.result)
    if not file.is_file():
        return _unreachable(name, result)
    _name, kind, blob = file.read_text("utf-8").split()[:3]
    return Shown(kind, blob)


def users_keys(shell: Shell, host: str, port: int) -> list[Shown]:
    """Give the keys that the user's own known_hosts has for a host."""
    name = host if port == 22 else f"[{host}]:{port}"
    try:
        out = shell.run(["ssh-keygen", "-F", name], check=False, timeout=10).out
    except ToolError:
        return []
    lines = [line.split() for line in out.splitlines() if line and not line.startswith(("#", "@"))]
    return [Shown(words[1], words[2]) for words in lines if len(words) > 2]


def measure(
    shell: Shell,
    config: Path,
    name: str,
    packages: Sequence[str],
    us: tuple[str, int] | None,
) -> MachineFacts | Finding:
    """Measure one machine, or say what keeps us from it. Nothing on it is changed."""
    question = json.dumps({"packages": list(packages), "runtimes": RUNTIMES, "us": us})
    ask = f'{_CHECKS}exec sudo -n python3 - "$SSH_CONNECTION" {shlex.quote(question)}'
    options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
    words = ["ssh", "-F", str(config), *options, name, f"exec sh -c {shlex.quote(ask)}"]
    start = time.time()
    try:
        script = MEASURE.read_text("utf-8")
        result = shell.run(words, input=script, timeout=DEADLINE, check=False)
    except ToolError as error:
        return _unreachable(name, error.result)
    end = time.time()
    if result.code:
        return _why_not(name, result)
    try:
        data: dict[str, Any] = json.loads(result.out.splitlines()[-1])
        now = float(data.pop("now"))
        data["caps"] = sorted(caps_of(int(data["caps"], 16)))
        # It said so at some time between: whatever is there is right.
        data["clock"] = min(0.0, now - start) or max(0.0, now - end)
        return _FACTS.validate_python(data)
    except (ValueError, KeyError, IndexError, ValidationError) as error:
        why = str(error).splitlines()[0]
        return Finding(
            "hosts.unreadable", "error", "what it measured cannot be read", why, "", name
        )


def _why_not(name: str, result: Result) -> Finding:
    said = {
        _NO_PYTHON: ("no-python", "it has no python3", "sudo apt-get install python3 python3-apt"),
        _NO_SUDO: ("no-sudo", "it has no sudo", "apt-get install sudo, as root"),
        _SUDO_ASKS: (
            "sudo-asks",
            "sudo asks for a password there",
            "in /etc/sudoers.d there: USER ALL=(ALL) NOPASSWD: ALL",
        ),
    }
    if result.code in said:
        slug, what, fix = said[result.code]
        return Finding(f"hosts.{slug}", "error", what, "Ansible needs it", fix, name, DOCS)
    if result.code == 255:
        return _unreachable(name, result)
    why = "; ".join(result.tail(3))
    return Finding("hosts.not-measured", "error", "it could not be measured", why, "", name, DOCS)


def _unreachable(name: str, result: Result) -> Finding:
    why = "; ".join(result.tail(3))
    said: Mapping[str, tuple[str, str, str]] = {
        "HOST IDENTIFICATION HAS CHANGED": _CHANGED,
        "Host key verification failed": _CHANGED,
        "host key for": _CHANGED,
        "Permission denied": (
            "no-login",
            "it does not let this user in",
            "name the right user and key; one with a passphrase has to be in the ssh agent",
        ),
    }
    whole = result.out + result.err
    slug, what, fix = next(
        (found for words, found in said.items() if words in whole),
        ("unreachable", "ssh does not reach it", "start it, or mend its address"),
    )
    where = f"machines.{name}" if not name.startswith("bastion") else "ssh.bastion"
    return Finding(f"hosts.{slug}", "error", what, why, fix, where, DOCS)


_CHANGED = (
    "host-key-changed",
    "it shows another host key than it had",
    "if it was made anew: take its line out of .lab/<lab>/known_hosts; else see who answers",
)


def source_address(host: str) -> IPv4Address | None:
    """Give the address that this computer speaks from to a host; no packet is sent."""
    with contextlib.suppress(OSError, ValueError), _udp() as probe:
        probe.connect((host, 9))
        return IPv4Address(probe.getsockname()[0])
    return None


def _udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def here_id() -> str:
    """Give this computer's machine id."""
    with contextlib.suppress(OSError):
        return Path("/etc/machine-id").read_text("utf-8").strip()
    return ""


def own_addresses(shell: Shell) -> frozenset[IPv4Address]:
    """Give this computer's own addresses, without loopback's."""
    with contextlib.suppress(ToolError, ValueError, KeyError):
        links = json.loads(shell.run(["ip", "-j", "-4", "address"], timeout=10).out)
        return frozenset(
            address
            for link in links
            for one in link.get("addr_info", ())
            if not (address := IPv4Address(one["local"])).is_loopback
        )
    return frozenset()
