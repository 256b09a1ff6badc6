"""A program that does not listen to a polite signal is ended all the same, and its children."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from labwright.tools.shell import Shell, ToolError
from tests.unit.test_shell import gone, pid_in

DEAF = """
    import os, pathlib, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.argv[2] == "child" and os.fork():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(12)
        sys.exit()
    pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
    time.sleep(12)
    pathlib.Path(sys.argv[1]).with_name("survived").touch()
"""


@pytest.mark.parametrize("listening", [False, True], ids=["silent", "on_line"])
@pytest.mark.parametrize("who", ["itself", "child"])
def test_a_deaf_program_is_ended(tmp_path: Path, who: str, listening: bool) -> None:
    file = tmp_path / "pid"
    words = [sys.executable, "-S", "-c", textwrap.dedent(DEAF), str(file), who]
    with pytest.raises(ToolError, match="did not finish"):
        Shell().run(words, timeout=1, on_line=(lambda _line: None) if listening else None)
    assert not file.with_name("survived").exists(), "the time limit waited for its own end"
    assert gone(pid_in(file))
