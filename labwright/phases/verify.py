"""Prove the lab: run the checks of tests/nodes with testinfra over ssh."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labwright.errors import Finding, VerifyError
from labwright.phases.base import Run
from labwright.phases.boot import any_answers
from labwright.render import ROOT

CHECKS = ROOT / "tests" / "nodes"
DEADLINE = 600.0


@dataclass(frozen=True, slots=True)
class Check:
    """One check as the report has it; ``message`` says why it failed or was skipped."""

    name: str
    outcome: str
    message: str
    node: str


@dataclass(frozen=True, slots=True)
class Verify:
    """Ends with a report in which every check passed."""

    name: str = "verify"

    def title(self, run: Run) -> str:
        """Say with what."""
        return "Verify the lab with testinfra"

    def skip(self, run: Run) -> str | None:
        """Never: it is the proof."""
        return None

    def outline(self, run: Run) -> list[str]:
        """Name the report."""
        return [f"run tests/nodes, write {run.workdir.path / 'report' / 'verify.xml'}"]

    def execute(self, run: Run) -> None:
        """Run the checks in boot order. Raises VerifyError, the first failure first."""
        if not any_answers(run):
            what = f"no machine of lab {run.workdir.name} answers"
            why = "they are halted, or were never booted"
            raise VerifyError(Finding("verify.halted", "error", what, why, "./invokew lab.up"))
        report = run.workdir.path / "report" / "verify.xml"
        report.parent.mkdir(parents=True, exist_ok=True)
        report.unlink(missing_ok=True)
        result = run.tools.shell.run(
            [
                *(sys.executable, "-m", "pytest", str(CHECKS), "-q", "--tb=short"),
                *("-p", "no:cacheprovider", "-o", "addopts=", "--color=no"),
                f"--lab={run.workdir.path}",
                f"--junit-xml={report}",
            ],
            cwd=ROOT,
            # What the user's own pytest is told is not for these checks.
            env={"PYTEST_ADDOPTS": ""},
            on_line=lambda line: _follow(run, line),
            timeout=DEADLINE * run.plan.patience,
            check=False,
        )
        if not report.is_file():
            what = f"the checks did not run (pytest ended with {result.code})"
            raise VerifyError(Finding("verify.not-run", "error", what), result.tail())
        checks = list(read(report))
        failed = [c for c in checks if c.outcome == "failed"]
        if failed or result.code:
            raise VerifyError([_finding(check) for check in failed] or [_nothing(result.code)])
        skips = Counter((c.name, c.message) for c in checks if c.outcome == "skipped")
        for (name, message), times in sorted(skips.items()):
            nodes = f" ({times} nodes)" if times > 1 else ""
            what = f"not checked: {name}{nodes}"
            run.finding(Finding("verify.skipped", "note", what, message))
        passed = sum(c.outcome == "passed" for c in checks)
        skipped = sum(c.outcome == "skipped" for c in checks)
        run.conclude(f"{passed} checks passed" + (f", {skipped} skipped" if skipped else ""))


def _follow(run: Run, line: str) -> None:
    run.tool(line)


def read(report: Path) -> Iterator[Check]:
    """Give the checks of a JUnit report in the order they ran."""
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - our own file
        name = case.get("name", "")
        match = re.search(r"\[([^\]]+)\]", name)
        node = match[1] if match else ""
        title = name.partition("[")[0].removeprefix("test_").replace("_", " ")
        trouble = next((t for t in case if t.tag in {"failure", "error", "skipped"}), None)
        if trouble is None:
            yield Check(title, "passed", "", node)
            continue
        outcome = "skipped" if trouble.tag == "skipped" else "failed"
        yield Check(title, outcome, _essence(trouble.get("message", "")), node)


def _essence(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return "; ".join(lines[:4]).removeprefix("AssertionError: ")


def _finding(check: Check) -> Finding:
    return Finding(
        "verify." + check.name.replace(" ", "-"),
        "error",
        check.name,
        check.message,
        "./invokew lab.up mends what can be mended; the first failure is the likely cause",
        check.node,
    )


def _nothing(code: int) -> Finding:
    return Finding("verify.pytest", "error", f"pytest ended with {code} and no failed check")
