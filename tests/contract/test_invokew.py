"""The command as it is typed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

INVOKEW = Path(__file__).resolve().parents[2] / "invokew"


@pytest.mark.parametrize("command", ["bundle.make", "lab.ssh", "lab.up"])
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_a_command_s_help_is_asked_for_in_either_order(
    tmp_path: Path, command: str, word: str
) -> None:
    done = subprocess.run(
        [INVOKEW, command, word], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert f"[--core-opts] {command} " in done.stdout
    assert list(tmp_path.iterdir()) == []
