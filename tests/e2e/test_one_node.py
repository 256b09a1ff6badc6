"""Interruption and bad input, on the smallest lab."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Folder, gone, interrupt

pytestmark = pytest.mark.e2e


def test_ctrl_c_while_converging_ends_with_130_and_the_next_up_goes_on(one: Folder) -> None:
    process = one.start("lab.up", "--yes")
    one.wait_for_event(3600, lambda e: e.get("text") == "Run kubeadm init")
    code, out = interrupt(process)
    assert code == 130, out
    assert "interrupted" in out
    assert "Traceback" not in out
    one.invoke("lab.up", "--yes")
    one.invoke("lab.destroy", "--yes")
    assert not list(gone(one))


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("nmae: x\n", 2, "did you mean name?"),
        ("workers: 0\n", 2, "0 workers leave no node"),
        ("workers: 500\nname: a/b\n", 2, "name: 'a/b' is not allowed"),
        ('kubernetes: "1.36"\n', 2, "has no Kubernetes 1.36"),
        ("network: {pods: 10.96.0.0/16}\n", 2, "overlaps"),
        ("provider: virtualbox\n", 3, "VBoxManage"),
        ("a: [\n", 2, "this is not YAML"),
    ],
)
def test_bad_input_is_a_clear_error(one: Folder, text: str, code: int, words: str) -> None:
    (one.path / "lab.yaml").write_text(text)
    result = one.invoke("lab.up", "--yes", check=False)
    assert (result.code, words in result.out) == (code, True), result.out


def test_a_plan_touches_nothing(one: Folder) -> None:
    before = sorted(p.name for p in one.path.iterdir())
    out = one.invoke("lab.plan", "--files").out
    assert "boot cp1" in out
    assert 'config.vm.define "cp1"' in out
    assert sorted(p.name for p in one.path.iterdir()) == before
