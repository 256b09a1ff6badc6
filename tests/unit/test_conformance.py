"""The conformance tests' report: what is read from it, and what the table says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from labwright.conformance import Case, count, focus, read, table
from labwright.phases.conformance import SURPLUS

REPORT = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="5">
 <testsuite name="Kubernetes e2e suite">
  <testcase name="[SynchronizedBeforeSuite]" time="4.5" status="passed"></testcase>
  <testcase name="[It] [sig-node] Pods should be updated [NodeConformance] [Conformance]"
    time="6.5" status="passed"></testcase>
  <testcase name="[It] [sig-apps] Job should delete a job [Conformance]" time="60" status="failed">
   <failure message="Timed out after 60s.&#xA;Expected | Job to be gone" type="failed">at</failure>
  </testcase>
  <testcase name="[It] [sig-network] Services need IPv6 [Conformance]" time="0" status="skipped">
   <skipped message="skipped - IPv6 is not there"></skipped>
  </testcase>
  <testcase name="[It] [sig-storage] not asked for" time="0" status="skipped">
   <skipped message="skipped"></skipped>
  </testcase>
 </testsuite>
</testsuites>
"""


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "junit.xml"
    path.write_text(REPORT, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("words", "name", "matches"),
    [
        ("", "[sig-node] Pods should be updated [Conformance]", True),
        ("", "[sig-node] Pods should be updated", False),
        (r"\[sig-node\]|Job", "[sig-node] Pods should be updated [Conformance]", True),
        (r"\[sig-node\]|Job", "[sig-node] Pods should be updated", False),
        ("Job", "[sig-node] Pods should be updated [Conformance]", False),
    ],
)
def test_only_conformance_tests_are_chosen(words: str, name: str, matches: bool) -> None:
    assert bool(re.search(focus(words), name)) == matches


def test_tests_that_were_chosen_are_read_with_their_sig_and_their_reason(report: Path) -> None:
    assert read(report) == [
        Case(
            "sig-apps",
            "Job should delete a job",
            "failed",
            60.0,
            "Timed out after 60s. Expected | Job to be gone",
        ),
        Case("sig-network", "Services need IPv6", "skipped", 0.0, "IPv6 is not there"),
        Case("sig-node", "Pods should be updated", "passed", 6.5),
    ]


def test_a_suite_that_cannot_begin_has_failed(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    path.write_text(
        '<testsuites><testcase name="[SynchronizedBeforeSuite]" time="600" status="failed">'
        "<failure>nodes are not ready</failure></testcase></testsuites>"
    )
    assert read(path) == [
        Case("suite", "SynchronizedBeforeSuite", "failed", 600.0, "nodes are not ready")
    ]


def test_what_is_cut_off_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(REPORT[:300], encoding="utf-8")
    with pytest.raises(ValueError, match="line"):
        read(tmp_path / "junit.xml")


def test_the_table_counts_by_sig_and_says_why_of_what_did_not_pass(report: Path) -> None:
    tests = read(report)
    assert count(tests) == {"passed": 1, "failed": 1, "skipped": 1}
    said = table(tests, {"Kubernetes": "1.36.3"})
    assert "| Kubernetes | 1.36.3 |" in said
    assert "| sig-apps | 0 | 1 | 0 | 1.0 |" in said
    assert "| all | 1 | 1 | 1 | 1.1 |" in said
    # A bar would end the cell.
    failed = (
        r"| sig-apps: Job should delete a job | Timed out after 60s. Expected \| Job to be gone |"
    )
    assert failed in said
    assert "| sig-network: Services need IPv6 | IPv6 is not there |" in said
    assert "Pods should be updated" not in said


LISTED = """REF TYPE DIGEST SIZE PLATFORMS LABELS
labwright.local/pause:3.10.2 t sha256:p x
sha256:idp t sha256:p x
registry.k8s.io/pause:3.10.1 t sha256:p x
registry.k8s.io/pause@sha256:p t sha256:p x
registry.k8s.io/pause:3.9 t sha256:q x
registry.k8s.io/pause@sha256:q t sha256:q x
sha256:idq t sha256:q x
registry.k8s.io/e2e-test-images/agnhost:2.55 t sha256:a x
registry.k8s.io/e2e-test-images/agnhost@sha256:a t sha256:a x
sha256:ida t sha256:a x
"""


def test_an_image_of_the_labs_own_keeps_its_names() -> None:
    """One that was pulled for the tests may have the same content as one that was there."""
    refs = "registry.k8s.io/pause:3.10.1 registry.k8s.io/e2e-test-images/agnhost:2.55"
    words = ["awk", "-v", "project=registry.k8s.io", "-v", f"refs={refs}", SURPLUS]
    said = subprocess.run(words, input=LISTED, capture_output=True, text=True, check=True).stdout
    assert {*said.split()} == {
        "registry.k8s.io/pause:3.10.1",
        "registry.k8s.io/pause@sha256:p",
        "registry.k8s.io/e2e-test-images/agnhost:2.55",
        "registry.k8s.io/e2e-test-images/agnhost@sha256:a",
        "sha256:ida",
    }
