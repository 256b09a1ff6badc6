"""The console's words: plain where there is no terminal, whole, and without secrets."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterable

import pytest
from rich.console import Console as Rich

from labwright.console import Console
from labwright.errors import BootError, Finding
from labwright.events import MASK, Event
from labwright.render import ROOT
from labwright.tools.shell import Shell

TOKEN = "abcdef.0123456789abcdef"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


def shown(do: Callable[[Console], object], *, verbose: bool = False, terminal: bool = False) -> str:
    """Give what reaches standard output: a pipe, or with ``terminal`` a terminal."""
    file = io.StringIO()
    rich = Rich(file=file, force_terminal=True, highlight=False, width=200) if terminal else None
    with contextlib.redirect_stdout(file):
        do(Console(verbose, rich))
    return file.getvalue()


def events(told: Iterable[Event]) -> Callable[[Console], None]:
    def tell(console: Console) -> None:
        for event in told:
            console(event)

    return tell


def boot(kind: str, text: str = "", seconds: float | None = None) -> Event:
    return Event(kind, text, "boot", 5, 8, seconds)  # type: ignore[arg-type]


RUN = (
    Event("run", "lab.up"),
    boot("start", "Boot 3 machines"),
    boot("say", "start cp1, w1"),
    boot("step", "one of very many"),
    boot("tool", "==> cp1: Creating"),
    boot("done", "started cp1, w1", 61.27),
    boot("start", "Converge"),
    boot("skip", "nothing to do", 0.04),
    boot("start", "Verify"),
    boot("failed", "Verify", 2.0),
)


def test_a_run_is_plain_lines_where_there_is_no_terminal() -> None:
    assert shown(events(RUN)).splitlines() == [
        "[5/8] Boot 3 machines",
        "      start cp1, w1",
        "      ✓ 61.3 s  started cp1, w1",
        "[5/8] Converge",
        "      - 0.0 s  nothing to do",
        "[5/8] Verify",
        "      ✗ 2.0 s",
    ]


def test_verbose_adds_the_tools_own_lines() -> None:
    lines = shown(events(RUN), verbose=True).splitlines()
    assert "      | ==> cp1: Creating" in lines
    assert len(lines) == 8


def test_a_terminal_has_one_line_a_phase_in_the_end() -> None:
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown(events(RUN), terminal=True))
    done = [line for line in re.split(r"[\r\n]+", lines) if "✓" in line or "✗" in line]
    assert done == ["[5/8] Boot 3 machines ✓ 61.3 s  started cp1, w1", "[5/8] Verify ✗ 2.0 s"]


@pytest.mark.parametrize("kind", ["start", "say", "tool", "skip", "done"])
@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_no_secret_is_shown(kind: str, terminal: bool) -> None:
    told = [boot("start", "x"), boot(kind, f"join --token {TOKEN}", 1.0), boot("done")]
    text = shown(events(told), verbose=True, terminal=terminal)
    assert TOKEN not in text
    assert MASK in text


def test_no_secret_is_printed_in_any_other_way() -> None:
    finding = Finding("x", "error", TOKEN, TOKEN, TOKEN, TOKEN, TOKEN)

    def do(console: Console) -> None:
        console.print(TOKEN)
        console.rows([[TOKEN, "x"]], ["a", "b"])
        console.finding(finding)
        console.error(BootError(finding, [TOKEN]))
        console(Event("finding", finding=finding))

    text = shown(do)
    assert TOKEN not in text
    assert text.count(MASK) == 2 + 3 * 5 + 1


WORDS = (
    "[red]not a colour[/red]",
    "[/]",
    "[1/3] [bold",
    r"C:\labs" + "\\",
    "\\[x]",
    "/etc/passwd:100:100 :key: {braces} %s",
    "äöü ☃",
    "x" * 500,
)


@pytest.mark.parametrize("words", WORDS)
def test_words_are_shown_as_they_are(words: str) -> None:
    def do(console: Console) -> None:
        console.print(words)
        console(boot("start", words))
        console(boot("say", words))
        console(boot("tool", words))
        console(boot("done", words, 1.0))
        console(boot("skip", words, 1.0))
        console.error(BootError(Finding("x", "error", words, words, words), [words]))

    text = shown(do, verbose=True)
    assert text.count(words) == 10
    assert len(text.splitlines()) == 11


@pytest.mark.parametrize(
    "words", ["\x1b[31mred\x1b[0m", "10 %\r20 %", "a\x07b\x08", "\x1b]0;t\x07"]
)
def test_a_tool_s_control_characters_reach_no_file(words: str) -> None:
    def do(console: Console) -> None:
        console(boot("tool", words))
        console(boot("say", words))
        console.error(BootError(Finding("x", "error", words), [words]))

    assert not CONTROL.search(shown(do, verbose=True))


def test_an_error_says_what_why_and_how_to_mend_it() -> None:
    error = BootError(
        [
            Finding("a", "error", "w1 does not answer", "no route\nno card", "invoke lab.up", "w1"),
            Finding("b", "warning", "slow disk", docs="https://x.lan/y"),
        ],
        ["vagrant said", "no"],
    )
    assert shown(lambda console: console.error(error)).splitlines() == [
        "error: w1: w1 does not answer",
        "  why: no route",
        "  why: no card",
        "  fix: invoke lab.up",
        "warning: slow disk",
        "  see: https://x.lan/y",
        "  the tool's last words:",
        "  | vagrant said",
        "  | no",
    ]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"LABWRIGHT_COMMAND": "/opt/labs [7]/invokew"}, "/opt/labs [7]/invokew"),
        ({}, "./invokew"),
    ],
    ids=["typed", "not known"],
)
def test_a_command_is_named_as_the_user_typed_it(
    typed: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
from labwright.console import Console
from labwright.errors import BootError, Finding
from labwright.events import Event

console = Console()
console.print("next: ./invokew lab.status")
console.rows([["./invokew lab.ssh"]])
console(Event("say", "./invokew lab.up"))
console.error(BootError(Finding("x", "error", "no", "because", "./invokew lab.destroy")))
"""
    monkeypatch.delenv("LABWRIGHT_COMMAND", raising=False)
    env = {"COLUMNS": "200", **typed}
    out = Shell().run([sys.executable, "-c", program], cwd=ROOT, env=env).out
    assert [line.strip() for line in out.splitlines()] == [
        f"next: {said} lab.status",
        f"{said} lab.ssh",
        f"{said} lab.up",
        "error: no",
        "why: because",
        f"fix: {said} lab.destroy",
    ]


def test_rows_stand_below_each_other() -> None:
    rows = [["cp1", "control plane", "[x]"], ["w10", "worker", ""]]
    lines = shown(lambda console: console.rows(rows, ["node", "role", "y"])).splitlines()
    assert [line.split() for line in lines] == [
        ["node", "role", "y"],
        ["cp1", "control", "plane", "[x]"],
        ["w10", "worker"],
    ]
    assert lines[1].index("control") == lines[2].index("worker")


def test_no_rows_are_no_trouble() -> None:
    assert shown(lambda console: console.rows([])).strip() == ""


def test_what_is_unknown_is_not_shown() -> None:
    told = [Event("run", "x"), Event("end", "x"), Event("finding")]
    assert shown(events(told)) == ""


def test_the_same_words_on_a_terminal_and_in_a_file() -> None:
    finding = Finding("a", "error", "no", "because", "mend it", "w1")
    terminal = shown(lambda console: console.finding(finding), terminal=True)
    assert "\x1b[" in terminal
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal)
    assert plain == shown(lambda console: console.finding(finding))
