"""Several starts at once, of which one part is done by one at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue


@dataclass
class Outcome:
    """What became of the starts: those that failed with their errors, and those never begun."""

    failed: dict[str, Exception] = field(default_factory=dict)
    unstarted: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Told:
    """A line of a start, or its end: without a line, and with an error if it failed."""

    name: str
    line: str | None = None
    error: Exception | None = None


def run(
    names: Sequence[str],
    start: Callable[[str], Iterator[str]],
    on_line: Callable[[str, str], None],
    *,
    at_once: int,
    past: Callable[[str], bool],
) -> Outcome:
    """Start each name in order; ``start`` gives its lines, and raises where it fails.

    The next one begins as soon as the one before has said a line that is ``past`` what must be
    done alone, or has ended, and not more than ``at_once`` run. After a failure none is begun;
    those that run are waited for, on Ctrl-C too, which reaches them by the terminal.

    ``on_line`` is called by the caller's own thread.
    """
    told: SimpleQueue[_Told] = SimpleQueue()
    waiting, running, outcome = deque(names), set[str](), Outcome()
    alone, interrupt = "", None
    while running or (waiting and not (outcome.failed or interrupt)):
        if waiting and not (alone or outcome.failed or interrupt) and len(running) < at_once:
            alone = waiting.popleft()
            running.add(alone)
            threading.Thread(target=_follow, args=(alone, start, told), daemon=True).start()
        message = None
        try:
            message = told.get()
            if message.line is not None:
                on_line(message.name, message.line)
        except KeyboardInterrupt as caught:
            if interrupt:  # whoever presses it twice does not want to wait
                raise
            interrupt = caught
        if message is None:
            continue
        if message.line is None:
            running.remove(message.name)
        if message.error is not None:
            outcome.failed[message.name] = message.error
        if alone == message.name and (message.line is None or past(message.line)):
            alone = ""
    if interrupt:
        raise interrupt
    outcome.unstarted.extend(waiting)
    return outcome


def _follow(name: str, start: Callable[[str], Iterator[str]], told: SimpleQueue[_Told]) -> None:
    error = None
    try:
        for line in start(name):
            told.put(_Told(name, line))
    except Exception as caught:  # it is the caller who is to be told
        error = caught
    told.put(_Told(name, error=error))
