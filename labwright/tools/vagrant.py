"""Vagrant, through python-vagrant: boot, halt, destroy and find machines."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from labwright.errors import BootError, Finding
from labwright.model import Machine, ProviderName
from labwright.tools import sidebyside

# What Vagrant says once a machine's settings are made and only its start is left.
BOOTING = "Booting VM..."
# What a terminal would have wiped off a line, then `==> w1: ` or, under it, `    w1: `.
SPEAKER = re.compile(r"^(?:.*\x1b\[K)?(?:(?:==>| {3}) \S+: ?)?")

STATES = {"running": "running", "not_created": "absent", "not created": "absent"}


class Vagrant:
    """The machines of one rendered lab.

    python-vagrant sends Vagrant's words to the null device and raises without them: every call
    here writes them to a log, and an error carries its last lines. A call costs Vagrant's own
    start, over a second: call seldom.
    """

    def __init__(self, folder: Path, provider: ProviderName) -> None:
        """Work on ``folder/Vagrantfile`` with one provider."""
        self._folder = folder
        self._provider = provider
        self._log = folder / "logs" / "vagrant.log"

    def states(self) -> dict[str, str]:
        """Give each machine's state: ``running``, ``absent``, or Vagrant's own word."""
        # Vagrant writes this folder with its first machine; before that there is nothing to ask.
        if not (self._folder / ".vagrant").is_dir():
            return {}
        with self._calling("status") as box:
            return {s.name: STATES.get(s.state, s.state) for s in box.status()}

    def up(self, names: Sequence[str], on_line: Callable[[str], None]) -> None:
        """Create or start machines, without provisioning: Ansible does that.

        Raises BootError with Vagrant's last lines.
        """
        with self._calling("up") as box, self._log.open("a", encoding="utf-8") as log:
            for line in box.up(
                no_provision=True,
                provider=self._provider,
                vm_name=_pattern(names),
                stream_output=True,
            ):
                log.write(line)
                log.flush()
                on_line(line.rstrip())

    def up_apart(
        self,
        names: Sequence[str],
        on_line: Callable[[str], None],
        *,
        at_once: int,
        fresh: Collection[str],
    ) -> None:
        """Create or start machines by a Vagrant each, as one Vagrant takes them one by one.

        Import of the box, clone, network, ports and settings are done for one machine at a time:
        two would both make the host-only interface that neither finds, one clears away the folder
        of a machine that the other is just cloning (CleanMachineFolder), and Vagrant's own lock
        around the import does not hold for three (its file is deleted while others wait for it).
        From where a machine boots, which is most of the time, the next one is on its way.

        A machine that was ``fresh``, not there before, and failed is removed; others are kept.
        Raises BootError that names each machine that failed, with its log.
        """
        outcome = sidebyside.run(
            names,
            self._up_one,
            lambda name, line: on_line(f"{name}: {SPEAKER.sub('', line)}"),
            at_once=max(1, at_once),
            past=lambda line: BOOTING in line,
        )
        if not outcome.failed:
            return
        removed = self._take_back([n for n in outcome.failed if n in fresh], on_line)
        details: list[str] = []
        findings = []
        for name, error in outcome.failed.items():
            if not isinstance(error, BootError):
                raise error
            what = f"did not come up: {error.findings[0].what}"
            why = "it was only just made and is removed again" if name in removed else "it is kept"
            fix = f"see {self._node_log(name)}; machines that came up are kept: run the same again"
            findings.append(Finding("boot.machine", "error", what, why, fix, where=name))
            # Line by line as Vagrant said them: what they mean is looked up over several.
            details += [f"{name}:", *error.details]
        if outcome.unstarted:
            what = f"not begun after that: {', '.join(outcome.unstarted)}"
            findings.append(Finding("boot.not-begun", "note", what))
        raise BootError(findings, details)

    def _up_one(self, name: str) -> Iterator[str]:
        file = self._node_log(name)
        with self._calling("up", log=file) as box, file.open("a", encoding="utf-8") as log:
            for line in box.up(
                no_provision=True, provider=self._provider, vm_name=name, stream_output=True
            ):
                log.write(line)
                log.flush()
                yield line.rstrip()

    def _take_back(self, names: Sequence[str], on_line: Callable[[str], None]) -> Sequence[str]:
        """Remove machines that were only just made; give those that are gone."""
        if not names:
            return ()
        on_line(f"remove {', '.join(names)} again")
        try:
            self.destroy(on_line, names)
        except BootError:
            return ()
        return names

    def _node_log(self, name: str) -> Path:
        return self._log.with_name(f"vagrant-{name}.log")

    def machines(self) -> dict[str, Machine]:
        """Give how ssh reaches each running machine."""
        with self._calling("ssh-config") as box:
            return parse_ssh_config(box.ssh_config())

    def halt(self, on_line: Callable[[str], None]) -> None:
        """Shut every machine down; what is on it stays."""
        with self._calling("halt", on_line) as box:
            box.halt()

    def destroy(self, on_line: Callable[[str], None], names: Sequence[str] = ()) -> None:
        """Remove machines with their disks; all of them unless some are named."""
        with self._calling("destroy", on_line) as box:
            box.destroy(vm_name=_pattern(names) if names else None)

    @contextlib.contextmanager
    def _calling(
        self,
        command: str,
        on_line: Callable[[str], None] | None = None,
        log: Path | None = None,
    ) -> Iterator[Any]:
        """Give a python-vagrant object whose words go to the log, and to ``on_line`` after."""
        # On a host that has no Vagrant yet, python-vagrant complains as soon as it is imported.
        import vagrant  # noqa: PLC0415

        log = log or self._log
        log.parent.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "VAGRANT_CWD": str(self._folder), "VAGRANT_NO_COLOR": "1"}
        if self._provider == "docker":
            # Its parallel boot asks each container that exists for its ports, and fails on one
            # that another thread is just making ("No such object").
            env["VAGRANT_NO_PARALLEL"] = "1"
        start = log.stat().st_size if log.exists() else 0

        @contextlib.contextmanager
        def to_log() -> Iterator[IO[bytes]]:
            with log.open("ab") as file:
                yield file

        box = vagrant.Vagrant(
            root=str(self._folder), env=env, out_cm=to_log, err_cm=to_log, quiet_stdout=False
        )
        try:
            yield box
        except subprocess.CalledProcessError as error:
            tail = _words(log, start)[-30:]
            raise BootError(
                Finding(
                    "boot.vagrant",
                    "error",
                    f"vagrant {command} failed with exit code {error.returncode}",
                    fix=f"see {log}; the machines are kept: run the same command again",
                ),
                tail,
            ) from error
        finally:
            if on_line:
                for line in _words(log, start):
                    on_line(line)


def _words(log: Path, start: int) -> list[str]:
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace").splitlines()


def _pattern(names: Sequence[str]) -> str:
    """Name several machines in one call: a regular expression between slashes."""
    return f"/^({'|'.join(names)})$/"


def parse_ssh_config(text: str) -> dict[str, Machine]:
    """Read the output of ``vagrant ssh-config``: one ``Host`` block a machine.

    A block that others jump through is none of the lab's machines.
    """
    blocks: list[dict[str, str]] = []
    for line in text.splitlines():
        word, _, value = line.strip().partition(" ")
        if word == "Host":
            blocks.append({})
        if word and blocks:
            blocks[-1].setdefault(word, value.strip().strip('"'))
    hops = {b["ProxyJump"] for b in blocks if "ProxyJump" in b}
    return {
        b["Host"]: Machine(
            b["Host"], b["HostName"], int(b["Port"]), b.get("User", ""), b.get("IdentityFile", "")
        )
        for b in blocks
        if b["Host"] not in hops
    }


def validate(text: str) -> None:
    """Let the real Vagrant judge a rendered Vagrantfile, whatever providers are installed.

    Raises BootError with its words.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Vagrantfile").write_text(text, encoding="utf-8")
        # The key that a lab's Vagrantfile names must exist for Vagrant to find it valid.
        Path(folder, "ssh").mkdir()
        Path(folder, "ssh", "id_ed25519").touch()
        result = subprocess.run(
            ["vagrant", "validate", "--ignore-provider"],
            cwd=folder,
            env={**os.environ, "VAGRANT_HOME": folder, "VAGRANT_NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        raise BootError(
            Finding("boot.vagrantfile", "error", "Vagrant refuses the Vagrantfile"),
            (result.stdout + result.stderr).splitlines(),
        )
