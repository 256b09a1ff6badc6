"""Machines for the provider hosts: containers of a node's bare root, with a key of the test's own.

Nothing of Labwright's nodes is in them but Debian, sshd, sudo and Python, as on any machine.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labwright.phases import fetch
from labwright.phases.bake import ENTRYPOINT
from labwright.phases.base import Tools
from labwright.providers import PROVIDERS
from labwright.supplies.base import base_root
from labwright.tools import host, workdir
from labwright.tools.docker import Docker
from labwright.tools.shell import Shell
from labwright.tools.store import Store
from tests.fakes import planned, run_of

LABEL = "labwright.test-machines"
_KEYS = "/home/vagrant/.ssh/authorized_keys"


@dataclass
class Machines:
    """Containers on a network of their own; ``key`` logs in as the user vagrant."""

    name: str
    key: Path
    subnet: str
    addresses: dict[str, str] = field(default_factory=dict)

    def container(self, node: str) -> str:
        return f"{self.name}-{node}"

    def run(self, node: str, *words: str) -> str:
        done = subprocess.run(
            ["docker", "exec", self.container(node), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    def shell(self, node: str, script: str) -> str:
        return self.run(node, "sh", "-c", script)

    def public_key(self, node: str) -> str:
        return " ".join(self.run(node, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()[:2])


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout


@contextmanager
def machines(
    tmp: Path, nodes: list[str], subnet: str = "192.168.60.0/24", **ways: Any
) -> Iterator[Machines]:
    """Start a machine for each node, and one named ``jump`` where ``ways`` say ``jump=True``.

    The machines are then on a network that this computer does not reach: only the bastion is on
    both.
    """
    name = f"hs{secrets.token_hex(2)}"
    key = tmp / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    made = Machines(name, key, subnet)
    jump = bool(ways.get("jump"))
    labels = ("--label", f"{LABEL}={name}")
    base = subnet.rpartition(".")[0]
    # The computer has no address on an internal network, and so no way there.
    options = ("--internal", "-o", "com.docker.network.bridge.inhibit_ipv4=true") if jump else ()
    try:
        docker("network", "create", *labels, *options, f"--subnet={subnet}", name)
        for number, node in enumerate([*nodes, *(["jump"] if jump else [])], start=11):
            _start(made, node, f"{base}.{number}", labels)
        if jump:
            docker("network", "connect", "bridge", made.container("jump"))
            facts = json.loads(docker("inspect", made.container("jump")))[0]
            made.addresses["jump"] = facts["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        yield made
    finally:
        for kind, removal in {"ps": ("rm", "-f", "-v"), "network": ("network", "rm")}.items():
            listing = ("ps", "-aq") if kind == "ps" else ("network", "ls", "-q")
            found = docker(*listing, "--filter", f"label={LABEL}={name}").split()
            if found:
                docker(*removal, *found)


def _start(made: Machines, node: str, address: str, labels: tuple[str, ...]) -> None:
    own = Docker(Shell())
    args = PROVIDERS["docker"].node_args(host.facts(Shell()))
    network = (f"--network={made.name}", f"--ip={address}", f"--hostname=machine-{node}")
    own.run_detached(made.container(node), image(), [*args, *network, *labels], [ENTRYPOINT])
    public = Path(f"{made.key}.pub").read_text("utf-8")
    own.execute(made.container(node), "sh", "-c", f"cat >> {_KEYS}", stdin=public)
    made.addresses[node] = address


def image() -> str:
    """Give the image of a node's bare root, made as a lab makes it where it is not there yet."""
    shell = Shell()
    tools = Tools(shell, Store(workdir.cache() / "store", lambda _text: None), Docker(shell))
    made = planned({"provider": "docker", "supply": "packages"})
    run = run_of(Path("nowhere"), made, tools=tools)
    entry = fetch.ensure(run, base_root())
    name = f"labwright/base:{made.keys['base'].removeprefix('base-')}"
    if not tools.docker.has_image(name):
        tools.docker.import_image(entry / "rootfs.tar", name)
    return name
