"""Runs the real commands, as a user would: invokew in a folder with a lab.yaml."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
INVOKEW = ROOT / "invokew"
# A cold up builds Kubernetes; on two cores that is a quarter of an hour.
DEADLINE = 3600


@dataclass(frozen=True)
class Result:
    code: int
    out: str


@dataclass(frozen=True)
class Folder:
    """A folder with a lab.yaml and a home of its own; what runs there sees nobody else's."""

    path: Path
    name: str
    more_env: dict[str, str] = field(default_factory=dict)
    # The group that its commands run as, for a firewall to know them by.
    group: int | None = None

    def invoke(self, *words: str, check: bool = True) -> Result:
        done = subprocess.run(
            [INVOKEW, *words],
            cwd=self.path,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
            check=False,
            group=self.group,
        )
        assert not check or done.returncode == 0, (
            f"{words} ended with {done.returncode}\n{done.stdout}"
        )
        assert "Traceback" not in done.stdout, done.stdout
        return Result(done.returncode, done.stdout)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [INVOKEW, *words],
            cwd=self.path,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def env(self) -> dict[str, str]:
        config = str(self.path / "kube" / "config")
        return {**os.environ, "KUBECONFIG": config, **self.more_env}

    @property
    def lab(self) -> Path:
        return self.path / ".lab" / self.name

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        program = self.lab / "bin" / "kubectl"
        return subprocess.run(
            [program, "--kubeconfig", self.lab / "kubeconfig", *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout

    def events(self) -> list[dict[str, Any]]:
        lines = (self.lab / "journal.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def wait_for_event(self, deadline: float, wanted: Callable[[dict[str, Any]], bool]) -> None:
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            if (self.lab / "journal.jsonl").is_file() and any(map(wanted, self.events())):
                return
            time.sleep(0.2)
        raise AssertionError("the event did not come")


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Do what Ctrl-C does: a SIGINT to everything the terminal has in the foreground."""
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    return process.returncode, out


def processes(words: str) -> list[str]:
    """Give the processes whose command line names something, a second later at the most."""
    for _ in range(10):
        found = subprocess.run(["pgrep", "-af", words], capture_output=True, text=True, check=False)
        if not found.stdout:
            return []
        time.sleep(0.1)
    return found.stdout.splitlines()


def make(tmp: Path, raw: dict[str, Any]) -> Folder:
    name = f"e2e-{secrets.token_hex(3)}"
    # Also on a host where another provider would be the first choice.
    wish = {"name": name, "provider": "docker", **raw}
    (tmp / "lab.yaml").write_text(yaml.safe_dump(wish))
    return Folder(tmp, name)


def gone(folder: Folder) -> Iterator[str]:
    """Give what is left of a lab, a line each."""
    label = f"label=labwright.lab={folder.name}"
    for kind, words in {
        "container": ("ps", "-aq", "--filter", label),
        "network": ("network", "ls", "-q", "--filter", label),
    }.items():
        if left := docker(*words).split():
            yield f"{kind}: {left}"
    if folder.lab.exists():
        yield f"folder: {sorted(p.name for p in folder.lab.iterdir())}"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """A three-node lab that is up."""
    folder = make(tmp_path_factory.mktemp("three"), {})
    try:
        folder.invoke("lab.up", "--yes")
        yield folder
    finally:
        folder.invoke("lab.destroy", "--yes", check=False)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Folder]:
    """A one-node lab that was not brought up yet."""
    folder = make(tmp_path, {"workers": 0, "schedule_on_control_planes": True})
    try:
        yield folder
    finally:
        folder.invoke("lab.destroy", "--yes", check=False)
