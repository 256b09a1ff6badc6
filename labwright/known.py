"""What the words of other tools mean: known.toml as findings. No I/O beyond reading that file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from labwright.errors import Finding, LabError

DATA = Path(__file__).with_name("known.toml")
PREFIX = "known."


@dataclass(frozen=True, slots=True)
class Known:
    """Words that a tool says when it fails; ``said`` is a real example, found at ``source``."""

    id: str
    tool: str
    match: re.Pattern[str]
    said: str
    source: str
    what: str
    why: str = ""
    fix: str = ""
    docs: str = ""

    def finding(self) -> Finding:
        """Say what it means."""
        what = f"{self.what} ({self.tool})"
        where = self.docs or self.source
        return Finding(PREFIX + self.id, "error", what, self.why, self.fix, docs=where)


@cache
def patterns() -> tuple[Known, ...]:
    """Read known.toml."""
    read = tomllib.loads(DATA.read_text("utf-8"))["known"]
    return tuple(Known(**{**entry, "match": re.compile(entry["match"])}) for entry in read)


def find(text: str) -> tuple[Finding, ...]:
    """Give what is known of the words in a text, each once, in the order of known.toml."""
    return tuple(known.finding() for known in patterns() if known.match.search(text))


def last_lines(text: str) -> Iterator[tuple[Finding, str]]:
    """Give what is known of a log, with the line that said so last: old trouble may be over."""
    for known in patterns():
        start = max((match.start() for match in known.match.finditer(text)), default=None)
        if start is not None:
            begin = text.rfind("\n", 0, start) + 1
            yield known.finding(), text[begin:].partition("\n")[0]


def explain(error: LabError) -> None:
    """Put what is known of an error's words before its own findings; twice is the same as once."""
    if any(finding.id.startswith(PREFIX) for finding in error.findings):
        return
    error.findings = (*find("\n".join(_words(error))), *error.findings)


def _words(error: LabError) -> Iterable[str]:
    for finding in error.findings:
        # What a machine's ssh said was read already, and is of no machine that we made.
        if not finding.id.startswith("hosts."):
            yield from (finding.what, finding.why)
    yield from error.details
