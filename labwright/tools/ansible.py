"""Ansible, through ansible-runner: plays on the nodes, with events instead of text."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_mitogen
import ansible_runner

from labwright.errors import ConvergeError, Finding

MARK = "LABWRIGHT_RUN"
PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that failed: on which node, and what the module said."""

    node: str
    task: str
    message: str


@dataclass
class Outcome:
    """What a run came to: changed tasks a node, and the failures in the order they came."""

    changed: Mapping[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


def play(
    playbook: str,
    inventories: Sequence[Path],
    folder: Path,
    known_hosts: Path,
    say: Callable[[str], None],
    extra: Mapping[str, Any] | None = None,
    on_line: Callable[[str], None] = lambda _line: None,
    limit: Sequence[str] = (),
) -> Outcome:
    """Run one playbook of ``playbooks/``; ``folder`` takes Ansible's own files, and
    ``known_hosts`` has the nodes' host keys. ``limit`` names the nodes where not all are meant.

    ``say`` gets the name of each task as it starts, ``on_line`` Ansible's own output.
    Raises ConvergeError that names each node that failed, with what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    environment = _environment(folder, known_hosts)
    # ansible-runner takes Ctrl-C for itself and never gives it back.
    with _own_interrupt():
        runner = _run(
            playbook, inventories, folder, environment, extra, outcome, say, on_line, limit
        )
    if runner.status == "canceled":
        _end_strays(environment[MARK])
        raise KeyboardInterrupt
    if runner.status != "successful":
        raise ConvergeError(_findings(playbook, outcome, folder), _tail(runner))
    return outcome


@contextmanager
def _own_interrupt() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_strays(mark: str) -> None:
    """End what a cancelled run leaves: ansible-runner kills it, and Mitogen's own part lives on.

    Only processes that carry this very run's mark in their environment are ended.
    """
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}\0".encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGTERM)


def _run(
    playbook: str,
    inventories: Sequence[Path],
    folder: Path,
    environment: Mapping[str, str],
    extra: Mapping[str, Any] | None,
    outcome: Outcome,
    say: Callable[[str], None],
    on_line: Callable[[str], None],
    limit: Sequence[str],
) -> Any:
    return ansible_runner.run(
        private_data_dir=str(folder),
        project_dir=str(PLAYBOOKS),
        playbook=str(PLAYBOOKS / playbook),
        inventory=[str(path) for path in inventories],
        extravars=dict(extra or {}),
        envvars=dict(environment),
        event_handler=lambda event: _take(event, outcome, say, on_line),
        limit=",".join(limit) or None,
        quiet=True,
        rotate_artifacts=3,
    )


def _environment(folder: Path, known_hosts: Path) -> dict[str, str]:
    """Settings by environment: a developer's own ansible.cfg must not change a lab."""
    (folder / "ansible.cfg").touch()
    return {
        MARK: uuid.uuid4().hex,
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_STRATEGY_PLUGINS": str(
            Path(ansible_mitogen.__file__).parent / "plugins" / "strategy"
        ),
        "ANSIBLE_STRATEGY": "mitogen_linear",
        "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
        "ANSIBLE_SSH_ARGS": f"-o UserKnownHostsFile={known_hosts}",
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_NOCOLOR": "True",
        "ANSIBLE_FORCE_COLOR": "False",
        "ANSIBLE_FORKS": "20",
        "ANSIBLE_GATHERING": "explicit",
        "ANSIBLE_TIMEOUT": "30",
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        "ANSIBLE_NOCOWS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def _take(
    event: Mapping[str, Any],
    outcome: Outcome,
    say: Callable[[str], None],
    on_line: Callable[[str], None],
) -> bool:
    data = event.get("event_data", {})
    kind = event.get("event", "")
    if kind == "playbook_on_task_start":
        say(str(data.get("task", "")))
    elif kind == "playbook_on_stats":
        outcome.changed = data.get("changed") or {}
    elif kind in {"runner_on_failed", "runner_on_unreachable"} and not data.get("ignore_errors"):
        outcome.failures.append(
            Failure(str(data.get("host")), str(data.get("task")), _message(data.get("res") or {}))
        )
    for line in str(event.get("stdout", "")).splitlines():
        on_line(line)
    # ansible-runner keeps an event on disk when this is true; what failed is enough.
    return kind in {"runner_on_failed", "runner_on_unreachable"}


def _message(result: Mapping[str, Any]) -> str:
    failed = [item for item in result.get("results") or [] if item.get("failed")]
    if failed:
        return _message(failed[0])
    words = [str(result.get(key) or "").strip() for key in ("msg", "censored", "stderr", "stdout")]
    # Each keeps its own end: a long output must not push the cause out.
    return "\n".join(line for word in words for line in word.splitlines()[-6:])


def _findings(playbook: str, outcome: Outcome, folder: Path) -> list[Finding]:
    again = "run the same command again: it goes on where it stopped"
    if not outcome.failures:
        what = f"{playbook} ended without saying which task failed"
        return [Finding("converge.ansible", "error", what, f"see {folder / 'artifacts'}", again)]
    return [
        Finding("converge.task", "error", f"{f.task}", f.message, again, f.node)
        for f in outcome.failures
    ]


def _tail(runner: Any) -> list[str]:
    try:
        lines: list[str] = runner.stdout.read().splitlines()
    except (OSError, AttributeError):
        return []
    return [line for line in lines if line.strip()][-15:]
