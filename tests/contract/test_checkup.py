"""The doctor on the computer that runs the tests, and the guest that it boots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labwright.doctor import examine
from labwright.doctor.facts import Wish
from labwright.doctor.mend import Command, Remedy
from labwright.phases.base import Tools
from labwright.phases.diagnosis import apply
from labwright.tools import checkup, host, kvmprobe
from labwright.tools.docker import Docker
from labwright.tools.shell import Shell
from labwright.tools.store import Store
from tests.contract.needs import want


def test_this_computer_is_measured_and_judged() -> None:
    shell = Shell()
    found = checkup.measure(shell, host.facts(shell), Wish())
    assert found.cpu.vendor
    assert found.kernel_version.release > (4, 0)
    assert found.system.memory_available
    assert found.system.sync_ms
    assert "memory" in found.kernel.controllers
    assert found.kernel.inotify_instances
    assert bool(found.docker.driver) == bool(found.host.docker_api)
    if not found.host.kvm:
        assert found.kvm.boots is None
    report = examine(found)
    assert {verdict.provider for verdict in report.verdicts} == {"virtualbox", "libvirt", "docker"}


def test_the_guest_boots_in_an_emulator() -> None:
    """Without KVM: what is shown is that the guest and the way of asking it are right."""
    assert kvmprobe.boots(Shell(), want("qemu-system-x86_64"), "tcg") == (True, "")


def test_a_remedy_is_carried_out(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("remedies are carried out as root, and here sudo would ask for a password")
    shell = Shell()
    tools = Tools(shell, Store(tmp_path / "store"), Docker(shell))
    target = tmp_path / "networks.conf"
    commands = (Command(("tee", "-a", str(target)), "* 10.5.0.0/24\n"),)
    apply(tools, Remedy("x", "write a line", commands, "remove it"))
    assert target.read_text() == "* 10.5.0.0/24\n"
