"""ssh to a node, by the lab's own configuration and its own known hosts."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labwright.errors import BootError, Finding, HostError
from labwright.model import Machine
from labwright.tools.shell import Shell, ToolError


class Ssh:
    """Runs commands on nodes."""

    def __init__(self, shell: Shell, config: Path) -> None:
        """Use the ``ssh_config`` of a lab."""
        self._shell = shell
        self._config = config

    def words(self, node: str, *command: str) -> list[str]:
        """Give the command line that reaches a node."""
        return ["ssh", "-F", str(self._config), node, *command]

    def run(self, node: str, command: str, timeout: float = 30, stdin: str | None = None) -> str:
        """Run a command on a node and give its output. Raises ToolError."""
        return self._shell.run(self.words(node, command), timeout=timeout, input=stdin).out

    def fetch(self, node: str, path: str, target: Path) -> None:
        """Copy a program from a node, whole or not at all. Raises ToolError."""
        part = target.with_name(f"{target.name}.part")
        words = ["scp", "-q", "-F", str(self._config), f"{node}:{path}", str(part)]
        self._shell.run(words, timeout=120)
        part.chmod(0o755)
        part.replace(target)

    def answers(self, node: str) -> bool:
        """Whether a node lets us in, with the host key that it had."""
        words = ["ssh", "-F", str(self._config), *_AT_ONCE, node, "true"]
        try:
            return self._shell.run(words, timeout=30, check=False).code == 0
        except ToolError:
            return False

    def ways_back(self, nodes: Sequence[str], theirs: int, ours: int) -> list[Callable[[], None]]:
        """Let each node reach our loopback's port ``ours`` on its own loopback's ``theirs``.

        Gives what closes each way again. Raises HostError: a node allows no forwarding.
        """
        folder = Path(tempfile.mkdtemp(prefix="labwright-"))
        closers: list[Callable[[], None]] = []

        def open_one(node: str) -> Callable[[], None]:
            # A name that is short: a socket's path has 108 bytes at the most.
            socket = folder / node
            forward = f"127.0.0.1:{theirs}:127.0.0.1:{ours}"
            words = ["ssh", "-F", str(self._config), *_AT_ONCE, "-M", "-S", str(socket), "-f", "-N"]
            words += ["-o", "ExitOnForwardFailure=yes", "-R", forward, node]
            # What stays in the background keeps standard error, and nobody would see its end.
            quiet = ["sh", "-c", 'exec "$@" >/dev/null 2>"$0"', f"{socket}.log"]
            self._shell.run([*quiet, *words], timeout=60)
            close = ["ssh", "-F", str(self._config), "-S", str(socket), "-O", "exit", node]
            return lambda: void(self._shell.run(close, timeout=30, check=False))

        with ThreadPoolExecutor(8) as pool:
            jobs = {node: pool.submit(open_one, node) for node in nodes}
        failed: list[Finding] = []
        for node, job in jobs.items():
            try:
                closers.append(job.result())
            except ToolError as error:
                said = folder / f"{node}.log"
                lines = said.read_text("utf-8").splitlines() if said.is_file() else []
                why = "; ".join(lines[-2:]) or error.findings[0].what
                what = "it does not let this computer's packages come through ssh"
                fix = f"AllowTcpForwarding yes in its sshd_config, and nothing on its port {theirs}"
                failed.append(Finding("hosts.no-way-back", "error", what, why, fix, node))
        closers.append(lambda: shutil.rmtree(folder, ignore_errors=True))
        if failed:
            for close in closers:
                close()
            raise HostError(failed)
        # An ExitStack calls the last first, and the folder holds the sockets.
        return closers[::-1]


def void(_value: object) -> None:
    """Take a value and give none."""


# Of a first scan; one that is cut off has the machine do its part of the work in vain.
SCAN_SECONDS = 5
# Nobody is there to answer questions.
_AT_ONCE = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10")


def ensure_key(shell: Shell, path: Path, comment: str) -> Path:
    """Make an ed25519 key pair without a passphrase unless it is there; give the private half."""
    if not path.is_file():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
        shell.run(words)
    return path


def host_keys(shell: Shell, machines: Iterable[Machine], deadline: float = 90) -> str:
    """Give the machines' host keys as a known_hosts file, waiting until each has one to show.

    A key is taken when a machine was just booted by us; from then on ssh and Ansible refuse any
    other. Raises BootError: a machine shows none within ``deadline`` seconds.
    """
    end = time.monotonic() + deadline
    with ThreadPoolExecutor() as pool:
        return "".join(pool.map(lambda machine: _scan(shell, machine, end), machines))


def key_lines(text: str) -> list[str]:
    """Give the keys of a known_hosts file or of ssh-keyscan's output, comments left out."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _scan(shell: Shell, machine: Machine, end: float) -> str:
    seconds = SCAN_SECONDS
    while True:
        words = ["ssh-keyscan", "-T", str(seconds), "-t", "ed25519", "-p", str(machine.port)]
        result = shell.run([*words, machine.host], check=False)
        if result.out.strip():
            return result.out
        if time.monotonic() > end:
            what = f"{machine.name} shows no ssh host key at {machine.host}:{machine.port}"
            why = (result.tail(1) or ("no answer",))[0]
            raise BootError(Finding("boot.no-host-key", "error", what, f"last seen: {why}"))
        # One that is emulated may take longer to agree on a key than any scan of five seconds.
        seconds *= 2
        time.sleep(0.3)
