"""What Kubernetes' own conformance tests say of a lab: read from their report, told as a table."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MARK = r"\[Conformance\]"
"""What the tests that make a cluster conformant have in their names."""
Outcome = Literal["passed", "failed", "skipped"]
# ginkgo gives this message to all that was not chosen; a test that skips itself says more.
_NOT_CHOSEN = "skipped"
_SHOWN = 300


def focus(words: str) -> str:
    """Return what matches the conformance tests whose names match a regular expression."""
    return f"({words}).*{MARK}" if words else MARK


@dataclass(frozen=True, slots=True)
class Case:
    """One test: its SIG, its ``name`` without marks in brackets, and ``why`` if it did not pass."""

    sig: str
    name: str
    outcome: Outcome
    seconds: float
    why: str = ""


def read(report: Path) -> list[Case]:
    """Return the tests of a JUnit report that were chosen. Raises ValueError: it is none."""
    try:
        root = ET.parse(report).getroot()  # noqa: S314 - written by the tests that we started
    except ET.ParseError as error:
        raise ValueError(str(error)) from error
    return sorted(_tests(root), key=lambda test: (test.sig, test.name))


def _tests(root: ET.Element) -> Iterator[Case]:
    for case in root.iter("testcase"):
        full = case.get("name", "")
        if not full.startswith("[It]"):
            # What runs before and after all tests has cases too; those count where they fail.
            if case.find("failure") is None and case.find("error") is None:
                continue
            full = f"[It] [suite] {full.strip('[]')}"
        trouble = next((t for t in case if t.tag in {"failure", "error", "skipped"}), None)
        message = (trouble.get("message") or trouble.text or "") if trouble is not None else ""
        if trouble is not None and trouble.tag == "skipped":
            if message.strip() == _NOT_CHOSEN:
                continue
            outcome: Outcome = "skipped"
        else:
            outcome = "passed" if trouble is None else "failed"
        sig = re.search(r"\[(sig-[\w-]+|suite)\]", full)
        name = re.sub(r"\[[^]]*\]", " ", full)
        yield Case(
            sig[1] if sig else "",
            " ".join(name.split()),
            outcome,
            float(case.get("time", "0")),
            _first_words(message),
        )


def _first_words(message: str) -> str:
    text = " ".join(message.removeprefix("skipped - ").split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"


def count(tests: Iterable[Case]) -> Counter[Outcome]:
    """Return how many tests had each outcome."""
    return Counter(test.outcome for test in tests)


def table(tests: Iterable[Case], head: Mapping[str, str]) -> str:
    """Return Markdown: what was tested, the outcomes by SIG, and each that did not pass."""
    tests = list(tests)
    lines = ["| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in head.items()]
    lines.append("")
    lines += ["| SIG | passed | failed | skipped | minutes |", "|---|---:|---:|---:|---:|"]
    sigs = sorted({test.sig for test in tests})
    for sig in sigs:
        lines.append(_row(sig, [test for test in tests if test.sig == sig]))
    lines += [_row("all", tests), ""]
    for outcome in ("failed", "skipped"):
        found = [test for test in tests if test.outcome == outcome]
        if found:
            lines += [f"| {outcome} | why |", "|---|---|"]
            lines += [f"| {t.sig}: {_cell(t.name)} | {_cell(t.why)} |" for t in found]
            lines.append("")
    return "\n".join(lines)


def _row(name: str, tests: Iterable[Case]) -> str:
    tests = list(tests)
    counted = count(tests)
    minutes = sum(test.seconds for test in tests) / 60
    figures = (counted["passed"], counted["failed"], counted["skipped"], f"{minutes:.1f}")
    return f"| {name} | " + " | ".join(map(str, figures)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
