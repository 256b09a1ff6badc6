"""ansible-runner's events, as ansible-core 2.19 really sends them, become an outcome."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labwright.tools.ansible import Failure, Outcome, _findings, _take


def event(kind: str, stdout: str = "", **data: Any) -> dict[str, Any]:
    return {
        "uuid": "2f0c",
        "counter": 1,
        "stdout": stdout,
        "start_line": 0,
        "end_line": 1,
        "runner_ident": "8c",
        "event": kind,
        "created": "2024-01-02T12:00:00+00:00",
        "event_data": {"playbook": "site.yml", "play": "nodes", **data} if data else {},
    }


def failed(res: Mapping[str, Any], kind: str = "runner_on_failed", **more: Any) -> dict[str, Any]:
    data = {"task": "Init", "task_action": "ansible.builtin.command", "host": "cp1"}
    return event(kind, **{**data, "res": res, "ignore_errors": None, **more})


def outcome_of(*events: Mapping[str, Any]) -> tuple[Outcome, list[str], list[str]]:
    outcome = Outcome()
    said: list[str] = []
    lines: list[str] = []
    for one in events:
        _take(one, outcome, said.append, lines.append)
    return outcome, said, lines


def message(res: Mapping[str, Any]) -> str:
    outcome, _, _ = outcome_of(failed(res))
    (failure,) = outcome.failures
    return failure.message


def test_a_run_is_told_task_by_task() -> None:
    outcome, said, lines = outcome_of(
        event("playbook_on_start"),
        event("playbook_on_play_start", "\r\nPLAY [nodes] ***", name="nodes", pattern="nodes"),
        event("playbook_on_task_start", "\r\nTASK [base : Swap] ***", task="Swap", name="Swap"),
        event("runner_on_start", host="cp1", task="Swap"),
        event("runner_on_ok", "ok: [cp1]", host="cp1", task="Swap", res={"changed": False}),
        event("playbook_on_task_start", task="Init"),
        event("playbook_on_stats", changed={"cp1": 3}, failures={}, ok={"cp1": 5}),
        event("verbose", "a\nb"),
    )
    assert said == ["Swap", "Init"]
    assert outcome == Outcome({"cp1": 3}, [])
    assert [line for line in lines if line] == [
        "PLAY [nodes] ***",
        "TASK [base : Swap] ***",
        "ok: [cp1]",
        "a",
        "b",
    ]


def test_a_second_run_that_changes_nothing_says_so() -> None:
    outcome, _, _ = outcome_of(event("playbook_on_stats", changed={}, ok={"cp1": 5}))
    assert outcome.changed == {}


def test_failures_are_kept_in_the_order_they_came() -> None:
    outcome, _, _ = outcome_of(
        failed({"msg": "no"}, host="w1"),
        failed(
            {"unreachable": True, "msg": "Failed to connect to the host via ssh", "changed": False},
            kind="runner_on_unreachable",
            host="w2",
        ),
    )
    assert outcome.failures == [
        Failure("w1", "Init", "no"),
        Failure("w2", "Init", "Failed to connect to the host via ssh"),
    ]


def test_what_a_task_ignores_is_no_failure() -> None:
    outcome, _, _ = outcome_of(failed({"msg": "no"}, ignore_errors=True))
    assert outcome.failures == []


def test_only_failures_are_kept_on_disk() -> None:
    kinds = ("runner_on_ok", "playbook_on_stats", "runner_on_failed", "runner_on_unreachable")
    kept = [_take(failed({}, kind), Outcome(), print, print) for kind in kinds]
    assert kept == [False, False, True, True]


def test_a_module_s_words_are_its_message_and_both_streams() -> None:
    res = {"msg": "non-zero return code", "rc": 1, "stderr": "[ERROR Port-6443]", "stdout": "pre"}
    assert message(res) == "non-zero return code\n[ERROR Port-6443]\npre"
    assert message({"msg": "no", "stderr": "", "stdout": None}) == "no"


def test_a_long_output_does_not_hide_the_cause() -> None:
    progress = "\n".join(f"[progress] {i}" for i in range(40))
    said = message({"msg": "non-zero return code", "stderr": "the cause", "stdout": progress})
    assert "the cause" in said
    assert len(said.splitlines()) <= 20


def test_a_loop_says_what_its_failed_item_said() -> None:
    item = {"rc": 3, "msg": "non-zero return code", "stdout": "", "_ansible_item_label": "kubelet"}
    said = message(
        {
            "msg": "One or more items failed",
            "changed": False,
            "results": [
                {**item, "failed": False, "rc": 0, "stderr": "fine"},
                {**item, "failed": True, "stderr": "held by dpkg"},
            ],
        }
    )
    assert "held by dpkg" in said
    assert "fine" not in said


def test_a_result_that_is_hidden_says_that_it_is() -> None:
    hidden = "the output has been hidden due to the fact that 'no_log: true' was specified"
    assert "no_log" in message({"censored": hidden, "changed": False})


def test_every_failure_becomes_a_finding_that_names_its_node() -> None:
    outcome = Outcome({}, [Failure("w1", "Join", "no route"), Failure("w2", "Join", "late")])
    found = _findings("site.yml", outcome, Path("/x"))
    assert [(f.where, f.what, f.why) for f in found] == [
        ("w1", "Join", "no route"),
        ("w2", "Join", "late"),
    ]


def test_a_run_that_names_no_failure_says_where_to_look() -> None:
    (finding,) = _findings("site.yml", Outcome(), Path("/x"))
    assert finding.id == "converge.ansible"
    assert "/x/artifacts" in finding.why
