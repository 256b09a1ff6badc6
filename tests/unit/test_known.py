"""The words of other tools: each pattern finds the real text that it was written for."""

from __future__ import annotations

from pathlib import Path

import pytest

from labwright import known
from labwright.errors import BootError, ConvergeError, Finding, HostError, LabError
from labwright.known import Known
from labwright.phases.base import Run, run_all
from tests.fakes import Recorder, run_of

NOT_STARTED = Finding("boot.vagrant", "error", "vagrant up failed with exit code 1")
WORDS = (
    'Command: ["startvm", "b06eddbf-70b1-43b6-aaeb-4a241c813a99", "--type", "headless"]',
    "VBoxManage: error: VT-x is disabled in the BIOS (VERR_VMX_MSR_ALL_VMX_DISABLED)",
)


def test_there_are_many_and_each_has_a_name_of_its_own() -> None:
    ids = [entry.id for entry in known.patterns()]
    assert len(ids) >= 40
    assert len(set(ids)) == len(ids)
    tools = {entry.tool for entry in known.patterns()}
    assert {
        *("Vagrant", "VirtualBox", "kubeadm", "kubelet", "apt"),
        *("containerd", "Docker", "Helm", "Rancher", "Ansible"),
    } <= tools


@pytest.mark.parametrize("entry", known.patterns(), ids=lambda entry: entry.id)
def test_a_pattern_finds_the_real_text_it_was_written_for_and_no_other_does(entry: Known) -> None:
    (finding,) = known.find(f"before\n{entry.said}\nafter")
    assert finding.id == f"known.{entry.id}"
    assert entry.tool in finding.what
    assert finding.fix
    assert entry.source.startswith(("https://github.com/", "bash -c", "VBoxManage "))
    assert finding.docs.startswith("https://")


@pytest.mark.parametrize(
    "text",
    [
        "[preflight] Running pre-flight checks",
        "This node has joined the cluster",
        "==> cp1: Machine booted and ready!",
        "Port 8080 is free",
        "kubelet is healthy after 502.061ms",
        "Reading package lists... Done",
    ],
)
def test_words_of_success_are_not_taken_for_failures(text: str) -> None:
    assert known.find(text) == ()


def test_of_a_log_the_last_line_that_says_so_is_given() -> None:
    log = "10:00 cni plugin not initialized\n10:01 cni plugin not initialized\n10:02 fine\n"
    ((finding, line),) = known.last_lines(log)
    assert finding.id == "known.kubelet.no-cni"
    assert line == "10:01 cni plugin not initialized"
    assert list(known.last_lines("10:02 fine\n")) == []


def test_the_known_comes_first_and_the_tool_keeps_its_words() -> None:
    error = BootError(NOT_STARTED, WORDS)
    known.explain(error)
    known.explain(error)
    assert [finding.id for finding in error.findings] == [
        "known.virtualbox.vtx-off",
        "boot.vagrant",
    ]
    assert error.details == WORDS
    assert error.exit_code == BootError.exit_code


def test_an_error_of_unknown_words_stays_as_it_is() -> None:
    error = BootError(NOT_STARTED, ["something nobody has seen"])
    known.explain(error)
    assert error.findings == (NOT_STARTED,)


def test_the_words_of_a_failed_task_are_looked_at_too() -> None:
    said = "non-zero return code\n[ERROR Swap]: running with swap on is not supported"
    error = ConvergeError(Finding("converge.task", "error", "Initialise the cluster", said))
    known.explain(error)
    assert error.findings[0].id == "known.kubeadm.swap"


class Failing:
    """A phase that fails with another tool's words."""

    name = "boot"

    def title(self, run: Run) -> str:
        return "Boot"

    def skip(self, run: Run) -> str | None:
        return None

    def outline(self, run: Run) -> list[str]:
        return []

    def execute(self, run: Run) -> None:
        raise BootError(NOT_STARTED, WORDS)


def test_a_failing_phase_says_what_is_known(tmp_path: Path) -> None:
    sink = Recorder()
    with pytest.raises(LabError) as caught:
        run_all([Failing()], run_of(tmp_path, sink=sink))
    assert caught.value.findings[0].id == "known.virtualbox.vtx-off"
    (failed,) = [event for event in sink.events if event.kind == "failed"]
    assert failed.data["details"] == list(WORDS)


def test_what_a_machine_s_ssh_said_is_not_taken_for_a_node_s() -> None:
    said = Finding("hosts.no-login", "error", "no login", "Permission denied (publickey).")
    error = HostError(said)
    known.explain(error)
    assert error.findings == (said,)
    assert known.find(said.why), "without the rule it would be explained"
