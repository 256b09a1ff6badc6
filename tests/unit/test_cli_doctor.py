"""What the doctor's commands print, ask, and end with."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from invoke.exceptions import Exit

from labwright import cli_doctor
from labwright.console import Console
from labwright.doctor import Checkup, examine
from labwright.doctor.mend import Remedy
from labwright.errors import Finding, SpecError
from labwright.lab import Lab, Options
from labwright.phases import diagnosis
from labwright.phases.diagnosis import Diagnosis
from labwright.tools import checkup, host
from tests.checkups import HEALTHY, recorded, with_

MICROVM = recorded("microvm")
# No overlayfs for containers, and neither libvirt nor what it could be installed with.
HOPELESS = replace(
    MICROVM,
    kernel=replace(MICROVM.kernel, overlay=False),
    host=replace(
        MICROVM.host, tools={n: t for n, t in MICROVM.host.tools.items() if n != "apt-get"}
    ),
)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A folder without labs; and a command takes over the signals: give them back."""
    monkeypatch.chdir(tmp_path)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Measured:
    """A host as it is measured: first one way, and after something was done another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *checkups: Checkup) -> None:
        self.left = list(checkups)
        self.done: list[Remedy] = []
        note = Finding("host.lacking", "note", "lab.up will start Docker")

        def doctor(_lab: Lab) -> Diagnosis:
            seen = self.left.pop(0)
            return Diagnosis(seen, examine(seen), (note,))

        monkeypatch.setattr(Lab, "doctor", doctor)
        monkeypatch.setattr(diagnosis, "of_host", lambda _tools: doctor(Lab(Options())))
        monkeypatch.setattr(diagnosis, "apply", lambda _tools, remedy: self.done.append(remedy))


def run(**options: bool) -> int:
    given: dict[str, Any] = {"as_data": False, "fix": False, "yes": False, **options}
    try:
        cli_doctor.doctor("", **given)
    except Exit as end:
        return int(end.code)
    return 0


def test_one_provider_that_works_is_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Measured(monkeypatch, MICROVM)
    assert run() == 0
    out = capsys.readouterr().out
    assert "docker: can work\n" in out
    assert "virtualbox: cannot work, because VBoxManage is not installed; this processor" in out
    assert "libvirt: can work" in out
    assert "warning: machines of libvirt are emulated here" in out
    assert out.count("a transparent proxy or a captive portal answers") == 1
    assert "  see: https://www.rfc-editor.org/rfc/rfc5737\n" in out
    assert "lab.doctor --fix mends some of this" in out
    assert "note: lab.up will start Docker" in out


def test_no_provider_is_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Measured(monkeypatch, HOPELESS)
    assert run() == 3
    assert "docker: cannot work, because the kernel has no overlayfs" in capsys.readouterr().out


def test_an_error_of_the_host_is_told_once_and_ends_every_provider(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Measured(monkeypatch, with_("system", locale="C", utf8=False))
    assert run() == 3
    out = capsys.readouterr().out
    assert out.count("error: Ansible does not start with this locale") == 1
    assert out.count("cannot work, because Ansible does not start with this locale") == 3


def test_json_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Measured(monkeypatch, HOPELESS)
    assert run(as_data=True) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["works"]) == (1, False)
    assert told["facts"]["kvm"]["modules"] == ["kvm", "kvm_pvm"]
    assert "apt_installed" not in told["facts"]["host"]


def test_fixing_shows_the_commands_asks_and_measures_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    low = with_("kernel", inotify_instances=128)
    measured = Measured(monkeypatch, low, HEALTHY)
    asked: list[str] = []

    def agree(_console: Console, question: str) -> bool:
        asked.append(question)
        return True

    monkeypatch.setattr(Console, "ask", agree)
    assert run(fix=True) == 0
    assert asked == ["Do it?"]
    assert [remedy.finding for remedy in measured.done] == ["doctor.docker.inotify"]
    out = capsys.readouterr().out
    assert "  sysctl -w fs.inotify.max_user_instances=512\n" in out
    assert "  to undo it: rm /etc/sysctl.d/90-labwright.conf; the values before were 128" in out
    assert "warning" not in out


def test_json_and_fix_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(as_data=True, fix=True) == 2
    assert "do not go together" in capsys.readouterr().out


def test_who_says_no_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = Measured(monkeypatch, with_("kernel", inotify_instances=128))
    monkeypatch.setattr(Console, "ask", lambda _self, _question: False)
    assert run(fix=True) == 0
    assert measured.done == []
    assert "left as it is: not confirmed" in capsys.readouterr().out


def test_yes_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Measured(monkeypatch, with_("kernel", inotify_instances=128), HEALTHY)
    monkeypatch.setattr(Console, "ask", lambda _self, _question: pytest.fail("asked"))
    assert run(fix=True, yes=True) == 0
    assert len(measured.done) == 1


def test_without_fix_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Measured(monkeypatch, with_("kernel", inotify_instances=128))
    assert run() == 0
    assert measured.done == []


def test_a_broken_lab_yaml_does_not_hide_the_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lab.yaml").write_text("name: demo\n")
    lab = Lab(Options())
    (tmp_path / "lab.yaml").write_text("name: demo\nwokers: 2\n")
    monkeypatch.setattr(host, "facts", lambda _shell: HEALTHY.host)
    monkeypatch.setattr(checkup, "measure", lambda *_given: HEALTHY)
    found = lab.doctor()
    assert found.report.works
    assert [finding.id for finding in found.lab] == ["spec.unknown-key"]


def test_a_lab_never_made_may_have_a_broken_lab_yaml(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("workers: [\n")
    with pytest.raises(SpecError):
        Lab(Options())
    assert Lab(Options(lenient=True)).name == "lab"
    # Which one is meant may be told of labs that were made, and a name is not guessed.
    with pytest.raises(SpecError):
        Lab(Options(lab="lab.yaml", lenient=True))


def test_support_says_what_is_inside(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Measured(monkeypatch, HEALTHY)
    cli_doctor.support("", str(tmp_path))
    (path,) = tmp_path.glob("labwright-lab-*.tar.gz")
    out = capsys.readouterr().out
    assert "  doctor.json\n" in out
    assert f"{path}: 3 files" in out
    assert "read it before you send it" in out
