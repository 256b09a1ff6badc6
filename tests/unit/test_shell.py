"""Programs are started for real: output, failures, time limits and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from labwright.tools.shell import Result, Shell, ToolError

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 5.0


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def eventually(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def pid_in(file: Path) -> int:
    assert eventually(lambda: file.is_file() and bool(file.read_text())), f"no {file.name}"
    return int(file.read_text())


def gone(pid: int) -> bool:
    return eventually(lambda: not alive(pid))


# Starts a child that says its pid in a file, and waits for it.
FAMILY = "sleep 60 & echo $! > {file}.new; mv {file}.new {file}; echo ready; wait"


def family(file: Path) -> list[str]:
    return ["sh", "-c", FAMILY.format(file=file)]


def test_output_and_code() -> None:
    result = Shell().run(["sh", "-c", "echo out; echo err >&2"])
    assert (result.code, result.out, result.err) == (0, "out\n", "err\n")
    assert result.argv == ("sh", "-c", "echo out; echo err >&2")


def test_input_reaches_the_program() -> None:
    assert Shell().run(["cat"], input="zwölf\n").out == "zwölf\n"


def test_without_input_there_is_nothing_to_read() -> None:
    assert Shell().run(["cat"], timeout=PATIENCE).out == ""


def test_words_are_never_read_by_a_shell() -> None:
    word = "$(echo no); `echo no` *"
    assert Shell().run(["printf", "%s", word]).out == word


def test_environments_add_up() -> None:
    script = 'echo "$ONE $TWO $HOME"'
    result = Shell({"ONE": "1", "TWO": "2"}).run(["sh", "-c", script], env={"TWO": "zwei"})
    assert result.out == f"1 zwei {os.environ['HOME']}\n"


def test_the_folder_to_run_in(tmp_path: Path) -> None:
    assert Shell().run(["pwd", "-P"], cwd=tmp_path).out.strip() == str(tmp_path.resolve())


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert Shell().run(["printf", r"a\377b"]).out == "a\ufffdb"


def test_on_line_hears_both_streams_in_order() -> None:
    heard: list[str] = []
    script = "echo one; echo two >&2; printf three"
    result = Shell().run(["sh", "-c", script], on_line=heard.append)
    assert heard == ["one", "two", "three"]
    assert (result.out, result.err) == ("one\ntwo\nthree", "")


def test_on_line_hears_a_line_when_it_comes(tmp_path: Path) -> None:
    # The program ends only after its first line was heard.
    file = tmp_path / "heard"
    script = f"echo go; while [ ! -e {file} ]; do sleep 0.01; done; echo done"
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        file.touch()

    Shell().run(["sh", "-c", script], on_line=hear, timeout=PATIENCE)
    assert heard == ["go", "done"]


def test_on_line_goes_with_input() -> None:
    heard: list[str] = []
    Shell().run(["cat"], input="a\nb\n", on_line=heard.append)
    assert heard == ["a", "b"]


def test_on_line_goes_with_more_input_than_a_pipe_holds() -> None:
    heard: list[str] = []
    Shell().run(["cat"], input="x" * 99 + "\n" + "y\n" * 200_000, on_line=heard.append, timeout=2)
    assert len(heard) == 200_001


def test_a_program_need_not_read_its_input() -> None:
    for on_line in (None, lambda _line: None):
        result = Shell().run(["true"], input="y\n" * 200_000, on_line=on_line)
        assert result.code == 0


def test_a_code_other_than_0_is_an_error_with_the_last_words() -> None:
    script = "for i in $(seq 40); do echo $i; done; echo why >&2; exit 3"
    with pytest.raises(ToolError) as caught:
        Shell().run(["sh", "-c", script])
    error = caught.value
    assert error.findings[0].id == "tool.failed"
    assert "sh failed with exit code 3" in error.findings[0].what
    assert error.result.code == 3
    assert (len(error.details), error.details[-1], error.details[-2]) == (20, "why", "40")


def test_without_check_a_code_is_a_fact() -> None:
    assert Shell().run(["sh", "-c", "exit 3"], check=False).code == 3


@pytest.mark.parametrize("check", [True, False])
def test_a_missing_program_is_an_error(check: bool) -> None:
    with pytest.raises(ToolError) as caught:
        Shell().run(["labwright-no-such-program", "x"], check=check)
    finding = caught.value.findings[0]
    assert finding.id == "tool.not-started"
    assert "labwright-no-such-program" in finding.what
    assert caught.value.result.code == 127


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="could not be started"):
        Shell().run(["true"], cwd=tmp_path / "nowhere")


@pytest.mark.parametrize("listening", [False, True], ids=["silent", "on_line"])
@pytest.mark.parametrize("check", [True, False])
def test_a_time_limit_ends_children_of_children(
    tmp_path: Path, listening: bool, check: bool
) -> None:
    file = tmp_path / "pid"
    on_line = (lambda _line: None) if listening else None
    with pytest.raises(ToolError) as caught:
        Shell().run(family(file), timeout=0.3, check=check, on_line=on_line)
    assert caught.value.findings[0].id == "tool.timeout"
    assert "did not finish within" in caught.value.findings[0].what
    assert caught.value.details == ("ready",)
    assert gone(pid_in(file))


def test_a_listener_that_fails_leaves_no_process(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def fail(_line: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Shell().run(family(file), on_line=fail)
    assert gone(pid_in(file))


@pytest.mark.parametrize("listening", ["None", "print"])
def test_ctrl_c_leaves_no_child(tmp_path: Path, listening: str) -> None:
    file = tmp_path / "pid"
    driver = """
        import signal, sys
        from labwright.tools.shell import Shell
        # A test run that a script started in the background has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            Shell().run(sys.argv[1:], on_line=ON_LINE)
        except KeyboardInterrupt:
            sys.exit(130)
    """.replace("ON_LINE", listening)
    words = [sys.executable, "-c", textwrap.dedent(driver), *family(file)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        child = pid_in(file)
        assert alive(child)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    assert gone(child)


def test_a_detached_program_outlives_its_starter(tmp_path: Path) -> None:
    log = tmp_path / "log"
    driver = """
        import sys
        from pathlib import Path
        from labwright.tools.shell import Shell
        script = 'echo "$WORD"; exec sleep 60'
        print(Shell({"WORD": "here"}).detach(["sh", "-c", script], Path(sys.argv[1])))
    """
    words = [sys.executable, "-c", textwrap.dedent(driver), str(log)]
    pid = int(Shell().run(words, cwd=ROOT).out)
    try:
        assert alive(pid)
        assert os.getsid(pid) == pid
        assert eventually(lambda: log.read_text() == "here\n")
    finally:
        os.kill(pid, signal.SIGKILL)


def test_handing_over_gives_the_code() -> None:
    assert Shell({"CODE": "7"}).hand_over(["sh", "-c", "exit $CODE"]) == 7


def test_the_tail_has_standard_error_last() -> None:
    result = Result(("x",), 1, "a\nb\n", "c\n", 0.0)
    assert result.tail() == ("a", "b", "c")
    assert result.tail(2) == ("b", "c")
