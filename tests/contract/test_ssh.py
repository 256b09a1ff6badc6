"""Keys, host keys and logins with the real OpenSSH."""

from __future__ import annotations

import getpass
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labwright import render
from labwright.errors import BootError
from labwright.model import Machine
from labwright.tools.shell import Shell, ToolError
from labwright.tools.ssh import Ssh, ensure_key, host_keys, key_lines
from tests.contract.needs import want
from tests.unit.test_shell import eventually

HOME = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOME, 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    try:
        socket.create_connection((HOME, port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def jail() -> Iterator[None]:
    """Give sshd the empty folder that it wants as root; its service makes it elsewhere."""
    path = Path("/run/sshd")
    if os.geteuid() or path.exists():
        yield
        return
    path.mkdir(mode=0o755)
    yield
    path.rmdir()


@pytest.fixture
def machine(tmp_path: Path, jail: None) -> Iterator[Machine]:
    """Run a sshd of our own, with a host key and an authorized key that nobody else has."""
    want("ssh-keygen")
    program = want("sshd")
    key = ensure_key(Shell(), tmp_path / "id_ed25519", "test")
    host = ensure_key(Shell(), tmp_path / "host", "host")
    port = free_port()
    config = tmp_path / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress {HOME}\nHostKey {host}\nPidFile none\n"
        f"AuthorizedKeysFile {tmp_path / 'id_ed25519.pub'}\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    log = (tmp_path / "sshd.log").open("w+")
    with log, subprocess.Popen([program, "-D", "-e", "-f", config], stderr=log) as process:
        try:
            eventually(lambda: process.poll() is not None or listens(port))
            log.seek(0)
            assert process.poll() is None, f"sshd ended: {log.read()}"
            yield Machine("cp1", HOME, port, getpass.getuser(), str(key))
        finally:
            process.terminate()


def test_a_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    want("ssh-keygen")
    path = tmp_path / "ssh" / "id_ed25519"
    assert ensure_key(Shell(), path, "labwright-lab") == path
    first = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    kind, _, comment = path.with_suffix(".pub").read_text().split()
    assert (kind, comment) == ("ssh-ed25519", "labwright-lab")
    ensure_key(Shell(), path, "other")
    assert path.read_text() == first


def test_a_machine_s_host_key_is_the_one_it_has(machine: Machine, tmp_path: Path) -> None:
    shown = key_lines(host_keys(Shell(), [machine]))
    public = (tmp_path / "host.pub").read_text().split()[:2]
    assert [line.split() for line in shown] == [[f"[{HOME}]:{machine.port}", *public]]


def test_ssh_logs_in_by_the_lab_s_own_files(machine: Machine, tmp_path: Path) -> None:
    known, config = tmp_path / "known hosts", tmp_path / "ssh_config"
    known.write_text(host_keys(Shell(), [machine]))
    config.write_text(render.ssh_config({"cp1": machine}, known))
    ssh = Ssh(Shell(), config)
    assert ssh.run("cp1", "echo hello").strip() == "hello"
    with pytest.raises(ToolError, match="exit code 3"):
        ssh.run("cp1", "exit 3")


def test_ssh_refuses_a_machine_with_another_key(machine: Machine, tmp_path: Path) -> None:
    known, config = tmp_path / "known_hosts", tmp_path / "ssh_config"
    other = ensure_key(Shell(), tmp_path / "other", "other").with_suffix(".pub").read_text()
    known.write_text(f"[{HOME}]:{machine.port} {other}")
    config.write_text(render.ssh_config({"cp1": machine}, known))
    with pytest.raises(ToolError) as caught:
        Ssh(Shell(), config).run("cp1", "echo hello")
    assert caught.value.result.code == 255


def test_a_slow_machine_is_given_longer_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = tmp_path / "ssh-keyscan"
    scan.write_text('#!/bin/sh\n[ "$2" -lt 20 ] || echo "slow ssh-ed25519 AAAA after $2"\n')
    scan.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    slow = Machine("cp1", HOME, 22, "vagrant", "/k")
    assert host_keys(Shell(), [slow]) == "slow ssh-ed25519 AAAA after 20\n"


def test_a_machine_that_shows_no_key_is_named() -> None:
    want("ssh-keyscan")
    nobody = Machine("w1", HOME, free_port(), "vagrant", "/k")
    with pytest.raises(BootError) as caught:
        host_keys(Shell(), [nobody, replace(nobody, name="w2")], deadline=0)
    (finding,) = caught.value.findings
    assert finding.id == "boot.no-host-key"
    assert f"at {HOME}:{nobody.port}" in finding.what
    assert finding.what.startswith(("w1 ", "w2 "))
