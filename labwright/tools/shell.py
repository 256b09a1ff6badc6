"""Runs other programs: the only place that starts a process by hand."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labwright.errors import Finding, HostError

TAIL = 20
GRACE = 5.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended: exit ``code``, what it said, and the wall time in seconds."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    def tail(self, lines: int = TAIL) -> tuple[str, ...]:
        """Give the last lines it said, standard error after standard output."""
        return tuple(deque((self.out + self.err).splitlines(), maxlen=lines))


class ToolError(HostError):
    """A program failed, could not be started or took too long; ``result`` says how."""

    def __init__(self, finding: Finding, result: Result) -> None:
        """Keep the result; its last lines become the error's details."""
        super().__init__(finding, result.tail())
        self.result = result


class Shell:
    """Runs programs with an environment of its own; never through a shell."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        """Add ``env`` to this process's environment for every program."""
        self._env = dict(env or {})

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,  # noqa: A002 - the name subprocess gives it
        timeout: float | None = None,
        check: bool = True,
        on_line: Callable[[str], None] | None = None,
        terminal: bool = False,
    ) -> Result:
        """Run one program to its end and give what it said.

        With ``terminal`` it stays in this terminal's session, where sudo may ask for a password.

        With ``on_line`` every line of output goes there as it comes, and standard error is part
        of ``out``. On Ctrl-C or after ``timeout`` seconds the whole process group is ended.

        Raises ToolError: not found, timed out, or (with ``check``) a code other than 0.
        """
        words = tuple(str(word) for word in argv)
        start = time.monotonic()
        try:
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env={**os.environ, **self._env, **(env or {})},
                stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if on_line else subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=not terminal,
            )
        except OSError as error:
            raise ToolError(
                Finding(
                    "tool.not-started", "error", f"{words[0]} could not be started", str(error)
                ),
                Result(words, 127, "", str(error), 0.0),
            ) from error
        with process:
            try:
                out, err, late = _converse(process, input, timeout, on_line)
            except BaseException:
                _end_group(process, alone=terminal)
                raise
        result = Result(words, process.returncode, out, err, time.monotonic() - start)
        if late:
            what = f"{words[0]} did not finish within {timeout:.0f} s"
            raise ToolError(Finding("tool.timeout", "error", what, " ".join(words[:6])), result)
        if check and result.code:
            what = f"{words[0]} failed with exit code {result.code}"
            raise ToolError(Finding("tool.failed", "error", what, " ".join(words[:6])), result)
        return result

    def has(self, program: str) -> bool:
        """Whether a program is on the PATH that programs are run with."""
        return shutil.which(program, path=self._env.get("PATH")) is not None

    def detach(self, argv: Sequence[str | Path], log: Path) -> int:
        """Start a daemon that outlives this process, its words in ``log``; give its pid."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env={**os.environ, **self._env},
            )
        return process.pid

    def hand_over(self, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> int:
        """Run a program on the user's own terminal (ssh, an editor) and give its exit code."""
        return subprocess.call(
            [str(word) for word in argv], env={**os.environ, **self._env, **(env or {})}
        )


def _converse(
    process: subprocess.Popen[str],
    text: str | None,
    timeout: float | None,
    on_line: Callable[[str], None] | None,
) -> tuple[str, str, bool]:
    if on_line is None:
        try:
            out, err = process.communicate(text, timeout)
        except subprocess.TimeoutExpired:
            _end_group(process)
            out, err = process.communicate()
            return out, err, True
        return out, err, False
    late = threading.Event()

    def expire() -> None:
        late.set()
        _end_group(process)

    timer = threading.Timer(timeout, expire) if timeout is not None else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        if text is not None:
            threading.Thread(target=_feed, args=(process, text), daemon=True).start()
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            on_line(line.rstrip("\n"))
        process.wait()
    finally:
        if timer:
            timer.cancel()
    return "".join(lines), "", late.is_set()


def _feed(process: subprocess.Popen[str], text: str) -> None:
    """Write a program's input beside reading its output; it need not want all of it."""
    with contextlib.suppress(OSError, ValueError):
        if process.stdin:
            process.stdin.write(text)
            process.stdin.close()


def _end_group(process: subprocess.Popen[str], *, alone: bool = False) -> None:
    """End a program and all it started; ``alone`` where the group is this process's own."""
    send = process.send_signal if alone else lambda number: os.killpg(process.pid, number)
    with contextlib.suppress(ProcessLookupError):
        send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        # Not only where it did not end: what it started may be deaf, and hold its output open.
        send(signal.SIGKILL)
