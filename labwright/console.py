"""The only printer: one live line a phase on a terminal, plain lines elsewhere, the same words."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable

from rich.console import Console as Rich
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from labwright.errors import Finding, LabError
from labwright.events import Event, mask

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|[\x00-\x08\x0b-\x1f\x7f]")


# How the user called us; messages are written for the folder of the checkout.
_COMMAND = os.environ.get("LABWRIGHT_COMMAND", "./invokew")


def _own(text: str) -> str:
    """Mask secrets, drop control characters, and name the command as the user typed it."""
    return _CONTROL.sub("", mask(text)).replace("./invokew", _COMMAND)


def _plain(text: str) -> str:
    """As :func:`_own`, and take no word for markup."""
    return escape(_own(text))


class Console:
    """Shows events as they come.

    With ``verbose`` the other tools' own lines are shown too, and nothing is live.
    """

    def __init__(self, verbose: bool = False, rich: Rich | None = None) -> None:
        """Print to standard output, or to another rich console."""
        # In a file or a pipe nothing is cut or wrapped for a width that it does not have.
        width = None if sys.stdout.isatty() else 200
        self._rich = rich or Rich(highlight=False, emoji=False, soft_wrap=True, width=width)
        self._verbose = verbose
        self._live: Live | None = None
        self._spinner: Spinner | None = None
        self._started = 0.0
        self._title = ""

    def __call__(self, event: Event) -> None:
        """Show one event."""
        show = getattr(self, f"_on_{event.kind}", None)
        if show is not None:
            show(event)

    def print(self, text: str = "") -> None:
        """Print a line, secrets masked."""
        self._rich.print(_plain(text))

    def raw(self, text: str) -> None:
        """Print text for another program: not wrapped, not styled, not masked."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def rows(self, rows: Iterable[Iterable[str]], head: Iterable[str] = ()) -> None:
        """Print a table without lines."""
        table = Table(box=None, show_header=bool(tuple(head)), pad_edge=False, header_style="bold")
        cells = [[_plain(cell) for cell in row] for row in rows]
        names = list(head) or [""] * max((len(row) for row in cells), default=0)
        for name in names:
            table.add_column(name, overflow="fold")
        for row in cells:
            table.add_row(*row)
        self._rich.print(table)

    def error(self, error: LabError) -> None:
        """Print everything a LabError has to say, on this console."""
        for finding in error.findings:
            self.finding(finding)
        if error.details:
            self._rich.print("[dim]  the tool's last words:[/]")
            for line in error.details:
                self._rich.print(f"[dim]  | {_plain(line)}[/]")

    def finding(self, finding: Finding) -> None:
        """Print a finding: what, why, fix."""
        style = _STYLES[finding.level]
        where = f"{finding.where}: " if finding.where else ""
        head = f"[{style}]{finding.level}[/]: {_plain(where + finding.what)}"
        self._rich.print(head)
        for word, text in (("why", finding.why), ("fix", finding.fix), ("see", finding.docs)):
            for line in _own(text).splitlines():
                self._rich.print(f"  [dim]{word}:[/] {escape(line)}")

    def ask(self, question: str) -> bool:
        """Ask yes or no; anything but a terminal means no."""
        if not sys.stdin.isatty():
            return False
        self._stop()
        return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}

    def _on_start(self, event: Event) -> None:
        self._started = time.monotonic()
        self._title = f"[{event.step}/{event.steps}] {mask(event.text)}"
        if self._verbose or not self._rich.is_terminal:
            self._rich.print(escape(self._title))
            return
        self._spinner = Spinner("dots", Text(self._title))
        self._live = Live(self._spinner, console=self._rich, refresh_per_second=8, transient=True)
        self._live.start()

    def _on_step(self, event: Event) -> None:
        if self._live:
            self._on_say(event)

    def _on_say(self, event: Event) -> None:
        text = _own(event.text)
        if self._live and self._spinner:
            spent = f"{time.monotonic() - self._started:.0f} s"
            line = Text.assemble(self._title, ("  " + text, "dim"), (f"  {spent}", "dim"))
            self._spinner.update(text=line)
        else:
            self._rich.print(f"      {escape(text)}")

    def _on_tool(self, event: Event) -> None:
        if self._verbose:
            self._rich.print(f"      [dim]| {_plain(event.text)}[/]")

    def _on_skip(self, event: Event) -> None:
        self._finish(event, "[dim]-[/]", f"[dim]{_plain(event.text)}[/]")

    def _on_done(self, event: Event) -> None:
        self._finish(event, "[green]✓[/]", _plain(event.text))

    def _on_failed(self, event: Event) -> None:
        self._finish(event, "[red]✗[/]", "")

    def _on_finding(self, event: Event) -> None:
        if event.finding:
            self.finding(event.finding)

    def _finish(self, event: Event, mark: str, text: str) -> None:
        live = self._live is not None
        self._stop()
        seconds = f"{event.seconds or 0:.1f} s"
        title = escape(self._title) if live else "     "
        self._rich.print(f"{title} {mark} [dim]{seconds}[/]  {text}".rstrip())

    def _stop(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None
            self._spinner = None
