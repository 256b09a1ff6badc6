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
from labwright.tools import apt, host, workdir
from labwright.tools.docker import Docker
from labwright.tools.shell import Shell
from labwright.tools.store import Store
from tests.fakes import planned, run_of

LABEL = "labwright.test-machines"
_KEYS = "/home/vagrant/.ssh/authorized_keys"

# Users stay when Debian's packages go, and dpkg and ldconfig keep books of their own.
_BOOKS = r"/(passwd|group|shadow|gshadow|subuid|subgid)-?$|ld.so.cache$|/\.pwd\.lock$"
LOOKS = {
    "hostname": "hostname; cat /etc/hostname /etc/hosts",
    "packages": "dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n'; apt-mark showhold",
    "etc": "find /etc -type f -o -type l | sort | grep -Ev 'BOOKS' | "
    "xargs -d '\n' sha256sum 2>&1 | grep -v ssl/certs/java".replace("BOOKS", _BOOKS),
    "folders": "ls -A / /opt /srv /usr/local /usr/local/* /var/lib /root /home/vagrant",
    "masked": "systemctl list-unit-files --state=masked --no-legend",
    "network": "ip -brief link | sed 's/@.*//'; ip -4 -o address; ip route",
    "mounts": "cut -d ' ' -f 2,3 /proc/mounts | sort",
    "kernel": "sysctl -n net.ipv4.ip_forward kernel.panic vm.overcommit_memory",
    "listening": "ss -Htln | awk '{ print $4 }' | sort",
    "failed": "systemctl --failed --no-legend",
}


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

    def look(self, node: str) -> dict[str, str]:
        """Give all of a machine that a lab might change, to compare it with later."""
        found = {name: self.shell(node, script) for name, script in LOOKS.items()}
        pid = docker("inspect", "--format", "{{.State.Pid}}", self.container(node)).strip()
        # The machine's own iptables comes with the lab, and its rules must not stay without it.
        words = ["nsenter", "--net", "--target", pid, "iptables-save"]
        rules = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        found["firewall"] = "\n".join(line for line in rules.splitlines() if line[:2] == "-A")
        return found

    def public_key(self, node: str) -> str:
        return " ".join(self.run(node, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()[:2])


def _ensure_docker() -> None:
    """Have a Docker daemon, as the first lab.up on a computer has one."""
    own = Docker(Shell())
    if not own.api()[0]:
        if host.which("dockerd") is None:
            apt.install(Shell(), ["docker.io"], lambda _line: None)
        own.start(workdir.cache() / "dockerd.log")


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
    _ensure_docker()
    labels = ("--label", f"{LABEL}={name}")
    base = subnet.rpartition(".")[0]
    # The computer has no address there, and so no way. Not --internal: Docker then drops what
    # comes from other addresses than the network's own, and pods have others.
    options = ("-o", "com.docker.network.bridge.inhibit_ipv4=true") if jump else ()
    try:
        docker("network", "create", *labels, *options, f"--subnet={subnet}", name)
        for number, node in enumerate([*nodes, *(["jump"] if jump else [])], start=11):
            _start(made, node, f"{base}.{number}", labels)
        if jump:
            docker("network", "connect", "bridge", made.container("jump"))
            facts = json.loads(docker("inspect", made.container("jump")))[0]
            made.addresses["jump"] = facts["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
            # As behind any bastion: the way out is another machine's affair, but there is one.
            way_out = f"{base}.{11 + len(nodes)}"
            for node in nodes:
                made.run(node, "ip", "route", "replace", "default", "via", way_out)
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
