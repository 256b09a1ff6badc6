"""The real Vagrant and the real Ruby take every Vagrantfile that can be rendered."""

from __future__ import annotations

from pathlib import Path

import pytest

from labwright.errors import BootError
from labwright.render import vagrantfile
from labwright.tools import vagrant
from labwright.tools.shell import Shell
from labwright.tools.ssh import ensure_key
from labwright.tools.vagrant import Vagrant
from tests.contract.needs import need
from tests.fakes import planned
from tests.golden.combinations import COMBINATIONS, FILES

ONE_NODE = {"workers": 0, "schedule_on_control_planes": True}


@pytest.fixture
def box(tmp_path: Path) -> Vagrant:
    """Give a lab as it is before its first boot: rendered, with its own key."""
    need("vagrant")
    (tmp_path / "Vagrantfile").write_text(vagrantfile(planned(ONE_NODE)), "utf-8")
    ensure_key(Shell(), tmp_path / "ssh" / "id_ed25519", "test")
    return Vagrant(tmp_path, "docker")


WITH_VAGRANT = [c for c in COMBINATIONS if not c.startswith("hosts-")]


@pytest.mark.parametrize("combination", WITH_VAGRANT)
def test_vagrant_takes_it(combination: str) -> None:
    need("vagrant")
    vagrant.validate((FILES / combination / "Vagrantfile").read_text("utf-8"))


@pytest.mark.parametrize("combination", WITH_VAGRANT)
def test_ruby_takes_it(combination: str) -> None:
    result = Shell().run([need("ruby"), "-wc", FILES / combination / "Vagrantfile"])
    assert (result.out, result.err) == ("Syntax OK\n", "")


@pytest.mark.parametrize(
    ("line", "words"),
    [("c.vm.no_such_key = 1", "no_such_key"), ("c.vm.define 'x' do |", "syntax error")],
)
def test_vagrant_refuses_a_wrong_one_in_its_own_words(line: str, words: str) -> None:
    need("vagrant")
    with pytest.raises(BootError) as caught:
        vagrant.validate(f'Vagrant.configure("2") do |c|\n  c.vm.box = "x"\n  {line}\nend\n')
    assert caught.value.findings[0].id == "boot.vagrantfile"
    assert words in "\n".join(caught.value.details)


def test_before_the_first_boot_there_is_no_machine(box: Vagrant, tmp_path: Path) -> None:
    assert box.states() == {}
    assert not (tmp_path / "logs" / "vagrant.log").exists(), "Vagrant was asked"


def test_a_machine_never_made_is_absent(box: Vagrant, tmp_path: Path) -> None:
    (tmp_path / ".vagrant").mkdir()
    assert box.states() == {"cp1": "absent"}


def test_a_vagrantfile_that_vagrant_cannot_read_is_said(box: Vagrant, tmp_path: Path) -> None:
    (tmp_path / ".vagrant").mkdir()
    (tmp_path / "Vagrantfile").write_text("no_such_word")
    with pytest.raises(BootError) as caught:
        box.states()
    assert "vagrant status failed with exit code" in caught.value.findings[0].what
    assert caught.value.details


def test_a_machine_never_made_cannot_be_reached(box: Vagrant, tmp_path: Path) -> None:
    with pytest.raises(BootError) as caught:
        box.machines()
    (finding,) = caught.value.findings
    assert finding.id == "boot.vagrant"
    assert "vagrant ssh-config failed with exit code" in finding.what
    assert "not yet ready for SSH" in "\n".join(caught.value.details)
    assert str(tmp_path / "logs" / "vagrant.log") in finding.fix


def test_halting_and_destroying_what_was_never_made_is_fine(box: Vagrant) -> None:
    heard: list[str] = []
    box.halt(heard.append)
    box.destroy(heard.append)
    assert any("cp1" in line for line in heard)
