"""Meeting machines: whose key is believed, and what ssh's words come to."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labwright import spec
from labwright.errors import BootError, Finding, HostError
from labwright.model import MachineFacts, Plan
from labwright.phases import diagnosis, existing
from labwright.phases.base import Tools
from labwright.phases.teardown import Halt
from labwright.tools import machines
from labwright.tools.docker import Docker
from labwright.tools.machines import Shown
from labwright.tools.shell import Shell
from labwright.tools.store import Store
from tests.fakes import planned, run_of

BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIEHkQ9y2m0m9cM8X4pNqXv3a1d8L6v2uKzqS0b1Jf7Qe"
OTHER = BLOB[:-3] + "AAA"
KEY = Shown("ssh-ed25519", BLOB)
TWO = {"cp1": "192.0.2.11", "w1": "192.0.2.12"}
MEASURED: dict[str, Any] = {
    "hostname": "x", "machine_id": "1", "product_id": "", "os": "debian", "os_version": "12",
    "arch": "x86_64", "container": False, "cpus": 2, "memory": 2000, "disk_total": 9000,
    "disk_free": 8000, "disk_kind": "ext4", "routes": [], "nameservers": ["192.0.2.1"],
    "cards": [{"device": "eth0", "mac": "52:54:00:00:00:01", "mtu": 1500,
               "address": "192.0.2.11/24"}],
    "ssh_address": "192.0.2.11", "cgroup": 2, "caps": "200000", "conntrack_tunable": True,
    "nfs": True, "overlay": True, "swaps": [], "listening": {"22": "sshd"}, "leftovers": [],
    "runtimes": [], "installed": [], "marker": None, "reaches_us": False, "now": 0.0,
}  # fmt: skip


def with_ssh(tmp_path: Path, script: str) -> Shell:
    """Give a shell whose ssh is a script: what is tested is what we make of ssh's words."""
    for name in ("ssh", "ssh-keygen"):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script if name == 'ssh' else 'exit 1'}\n")
        path.chmod(0o755)
    return Shell({"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"})


@pytest.mark.parametrize(
    ("script", "slug"),
    [
        ("exit 81", "no-python"),
        ("exit 82", "no-sudo"),
        ("exit 83", "sudo-asks"),
        ("echo 'u@h: Permission denied (publickey).' >&2; exit 255", "no-login"),
        ("echo 'WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!' >&2; exit 255",
         "host-key-changed"),
        ("echo 'Host key verification failed.' >&2; exit 255", "host-key-changed"),
        ("echo 'connect to host h port 22: Connection refused' >&2; exit 255", "unreachable"),
        ("echo 'Traceback' >&2; exit 1", "not-measured"),
        ("echo '{}'", "unreadable"),
        ("echo hello", "unreadable"),
        ("true", "unreadable"),
    ],
)  # fmt: skip
def test_what_keeps_us_from_measuring(script: str, slug: str, tmp_path: Path) -> None:
    found = machines.measure(with_ssh(tmp_path, script), tmp_path / "c", "w1", [], None)
    assert isinstance(found, Finding)
    assert found.id == f"hosts.{slug}"
    assert "w1" in found.where


def test_what_a_machine_says_becomes_facts(tmp_path: Path) -> None:
    (tmp_path / "said").write_text(json.dumps(MEASURED))
    shell = with_ssh(tmp_path, f"cat > /dev/null; echo a banner; cat {tmp_path / 'said'}")
    found = machines.measure(shell, tmp_path / "c", "w1", ["dbus"], None)
    assert isinstance(found, MachineFacts)
    assert found.caps == {"CAP_SYS_ADMIN"}
    assert found.listening == {22: "sshd"}
    assert found.clock < -1_000_000, "it said 1970"


def test_a_fingerprint_is_the_one_that_ssh_shows(tmp_path: Path) -> None:
    file = tmp_path / "key.pub"
    file.write_text(f"ssh-ed25519 {BLOB} root@w1\n")
    said = Shell().run(["ssh-keygen", "-lf", file], check=False)
    if said.code:
        pytest.skip("ssh-keygen refuses the made-up key")
    assert KEY.fingerprint in said.out
    assert KEY.is_named(KEY.fingerprint)
    assert KEY.is_named(f"ssh-ed25519 {BLOB} root@w1")
    assert not KEY.is_named(f"ssh-ed25519 {OTHER}")


def showing(tmp_path: Path, *, consent: bool, raw: dict[str, Any] | None = None) -> Any:
    """A run on two machines that show a key to ssh and then say what they are like."""
    (tmp_path / "said").write_text(json.dumps(MEASURED))
    script = f"""
for word; do
  case $word in UserKnownHostsFile=*) file=${{word#*\\"}}; file=${{file%\\"}};; esac
done
if [ -n "$file" ]; then echo "host ssh-ed25519 {BLOB}" > "$file"; exit 255; fi
cat > /dev/null; cat {tmp_path / "said"}"""
    shell = with_ssh(tmp_path, script)
    tools = Tools(shell, Store(tmp_path / "store"), Docker(shell))
    run = run_of(tmp_path, tools=tools, consent=lambda _question: consent)
    run.wanted = spec.build({"machines": TWO, **(raw or {})})
    return run


def test_a_strange_machine_is_asked_about_and_then_known(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        existing.begin(showing(tmp_path, consent=False))
    (finding,) = caught.value.findings
    assert finding.id == "hosts.unknown-host-key"
    assert KEY.fingerprint in finding.why
    run = showing(tmp_path, consent=True)
    existing.begin(run)
    assert run.survey
    assert set(run.survey.machines) == {"cp1", "w1"}
    assert run.workdir.known_hosts.read_text("utf-8").splitlines() == [
        f"cp1 ssh-ed25519 {BLOB}",
        f"w1 ssh-ed25519 {BLOB}",
    ]
    again = showing(tmp_path, consent=False)
    existing.begin(again)
    assert again.survey
    assert existing.owner(again) == existing.owner(run) != ""


def test_a_look_keeps_nothing(tmp_path: Path) -> None:
    run = showing(tmp_path, consent=True)
    assert existing.survey(run)
    assert not run.workdir.path.exists()


@pytest.mark.parametrize("named", [KEY.fingerprint, f"ssh-ed25519 {BLOB}"])
def test_a_key_of_lab_yaml_needs_no_question(named: str, tmp_path: Path) -> None:
    each = {name: {"address": address, "host_key": named} for name, address in TWO.items()}
    run = showing(tmp_path, consent=False, raw={"machines": each})
    assert existing.survey(run)


def test_lab_yaml_speaks_for_a_machine_that_was_made_anew(tmp_path: Path) -> None:
    each = {name: {"address": a, "host_key": KEY.fingerprint} for name, a in TWO.items()}
    run = showing(tmp_path, consent=False, raw={"machines": each})
    run.workdir.path.mkdir(parents=True)
    run.workdir.known_hosts.write_text(f"cp1 ssh-ed25519 {OTHER}\n")
    existing.begin(run)
    assert f"cp1 ssh-ed25519 {BLOB}" in run.workdir.known_hosts.read_text("utf-8").splitlines()
    assert OTHER not in run.workdir.known_hosts.read_text("utf-8")


def test_another_key_than_lab_yaml_s_is_an_error_even_with_consent(tmp_path: Path) -> None:
    wrong = {"address": "192.0.2.11", "host_key": f"ssh-ed25519 {OTHER}"}
    run = showing(tmp_path, consent=True, raw={"machines": {**TWO, "cp1": wrong}})
    with pytest.raises(HostError, match=r"machines\.cp1: it shows the host key"):
        existing.survey(run)


def test_a_key_that_is_no_file_is_said_before_anybody_is_spoken_to(tmp_path: Path) -> None:
    run = showing(tmp_path, consent=True, raw={"ssh": {"key": "/no/such/key"}})
    with pytest.raises(HostError) as caught:
        existing.survey(run)
    assert [f.where for f in caught.value.findings] == ["machines.cp1.key", "machines.w1.key"]


def made() -> Plan:
    return planned({"provider": "hosts", "supply": "packages"})


def test_such_machines_are_named_with_their_addresses() -> None:
    assert existing.names(made()) == "cp1 (10.0.0.11), w1 (10.0.0.12), w2 (10.0.0.13)"
    assert existing.names(planned()) == ""


def test_such_machines_are_not_halted(tmp_path: Path) -> None:
    with pytest.raises(BootError, match="not Labwright's to halt"):
        Halt().execute(run_of(tmp_path, made()))


def test_the_doctor_wants_nothing_of_this_host_for_them() -> None:
    assert diagnosis.wish_of(made()) == diagnosis.wish_of(None)
    assert diagnosis.wish_of(replace(made(), machines=())).memory > 0
