"""What a machine remembers of the time before the lab, and when it is put back."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROLES = Path(__file__).resolve().parents[2] / "playbooks" / "roles"
ASKED = {"paths": ["/etc/kubernetes", "/"], "sysctls": ["net.ipv4.ip_forward", "no.such.key"]}


def load(role: str) -> ModuleType:
    path = ROLES / role / "files" / f"{role}.py"
    found = importlib.util.spec_from_file_location(f"role_{role}", path)
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load("claim")
    home = tmp_path / "labwright"
    for name, file in {
        "MARKER": "lab",
        "BEFORE": "before.json",
        "BEGUN": "packages-begun",
        "OURS": "packages",
    }.items():
        monkeypatch.setattr(module, name, home / file)
    monkeypatch.setattr(module, "HOME", home)
    return module


Installed = Callable[..., None]


@pytest.fixture
def installed(claim: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Installed:
    def now(*names: str) -> None:
        monkeypatch.setattr(claim, "packages", lambda: set(names))

    return now


def take(claim: ModuleType, owner: str = "me", node: str = "w1") -> None:
    claim.claim("lab", owner, node, json.dumps(ASKED))


def test_the_first_claim_notes_what_was_there(claim: ModuleType, installed: Installed) -> None:
    installed("dbus")
    take(claim)
    before: dict[str, Any] = json.loads(claim.BEFORE.read_text("utf-8"))
    assert before["ours"] == ["/etc/kubernetes"]
    assert list(before["sysctls"]) == ["net.ipv4.ip_forward"]
    assert before["hostname"]
    assert json.loads(claim.MARKER.read_text("utf-8")) == {
        "lab": "lab",
        "owner": "me",
        "node": "w1",
    }
    claim.BEFORE.write_text("kept")
    take(claim)
    assert claim.BEFORE.read_text("utf-8") == "kept"


@pytest.mark.parametrize("changed", [{"owner": "you"}, {"node": "w2"}])
def test_another_s_machine_is_not_claimed(
    claim: ModuleType, installed: Installed, changed: dict[str, str]
) -> None:
    installed("dbus")
    take(claim)
    with pytest.raises(SystemExit, match="is w1 of lab lab already"):
        take(claim, **changed)


def test_a_package_of_the_user_s_own_is_not_the_lab_s(
    claim: ModuleType, installed: Installed, capsys: pytest.CaptureFixture[str]
) -> None:
    installed("dbus")
    take(claim)
    installed("dbus", "containerd", "kubelet")
    claim.settle()
    assert capsys.readouterr().out.split() == ["claimed", "containerd", "kubelet"]
    # Between two runs the user installs something, and the second brings one more.
    installed("dbus", "containerd", "kubelet", "vim")
    take(claim)
    installed("dbus", "containerd", "kubelet", "vim", "nfs-ganesha")
    claim.settle()
    assert claim.OURS.read_text("utf-8").split() == ["containerd", "kubelet", "nfs-ganesha"]


def test_what_a_run_that_was_cut_short_has_installed_is_the_lab_s(
    claim: ModuleType, installed: Installed
) -> None:
    installed("dbus")
    take(claim)
    installed("dbus", "containerd")
    take(claim)
    claim.settle()
    assert claim.OURS.read_text("utf-8").split() == ["containerd"]


def test_only_the_lab_s_firewall_rules_go() -> None:
    rules = load("reset").RULES
    ours = (
        "-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-X",
        ":KUBE-FORWARD - [0:0]",
        "-A POSTROUTING -m comment --comment kubernetes -j KUBE-POSTROUTING",
        '-A FORWARD -s 10.244.0.0/16 -m comment --comment "labwright" -j ACCEPT',
        "-A FORWARD -d 10.244.0.0/16 -m comment --comment labwright -j ACCEPT",
        "-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    )
    others = (
        ":FORWARD ACCEPT [0:0]",
        "-A INPUT -p tcp --dport 22 -j ACCEPT",
        "-A INPUT -m comment --comment labwrights -j DROP",
        "COMMIT",
    )
    assert all(map(rules.search, ours))
    assert not any(map(rules.search, others))


def test_a_machine_of_another_lab_is_not_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reset = load("reset")
    monkeypatch.setattr(reset, "HOME", tmp_path)
    reset.main("me")  # No node of anything: nothing to do.
    marker = {"lab": "lab", "owner": "you", "node": "w1"}
    (tmp_path / "lab").write_text(json.dumps(marker))
    with pytest.raises(SystemExit, match="w1 of another lab, lab"):
        reset.main("me")


def test_nobody_is_reset_without_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reset = load("reset")
    monkeypatch.setattr(reset, "HOME", tmp_path)
    (tmp_path / "lab").write_text(json.dumps({"lab": "lab", "owner": "me", "node": "w1"}))
    with pytest.raises(SystemExit, match="nobody is there to be asked"):
        reset.main()


def test_nothing_is_removed_below_what_is_still_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reset = load("reset")
    mounted = "nas:/files /var/lib/kubelet/pods/1/volumes/nfs nfs4 rw 0 0\n"
    asked: list[tuple[str, ...]] = []

    def refuse(*words: str) -> str:
        asked.append(words)
        return ""

    monkeypatch.setattr(reset, "read", lambda _path: mounted)
    monkeypatch.setattr(reset, "run", refuse)
    with pytest.raises(SystemExit) as ended:
        reset.unmount()
    assert "/var/lib/kubelet/pods/1/volumes/nfs" in str(ended.value)
    assert [words[0] for words in asked] == ["umount"]


def test_restoring_takes_back_the_lab_s_lines_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reset = load("reset")
    places = {f"/etc/{name}": tmp_path / name for name in ("hosts", "fstab", "hostname")}
    monkeypatch.setattr(reset, "Path", lambda name: places.get(name, Path(name)))
    ran: list[tuple[str, ...]] = []

    def run(*words: str) -> str:
        ran.append(words)
        return ""

    monkeypatch.setattr(reset, "run", run)
    swap = "/swapfile none swap sw 0 0"
    places["/etc/hosts"].write_text(
        "# BEGIN labwright\n127.0.0.1 localhost\n10.0.0.11 cp1\n# END labwright\n127.0.0.1 mine\n"
    )
    places["/etc/fstab"].write_text(f"# mine\n# {swap}\n/dev/vdb /data ext4 defaults 0 2\n")
    places["/etc/hostname"].write_text("w1\n")
    before = {
        "files": {"/etc/fstab": f"# mine\n{swap}\n", "/etc/hostname": "box\n", "/etc/hosts": ""},
        "hostname": "box",
        "masked": [],
        "sysctls": {"net.ipv4.ip_forward": "0"},
        "swaps": ["/swapfile"],
    }
    reset.restore(before)
    assert places["/etc/hosts"].read_text("utf-8") == "127.0.0.1 mine\n"
    assert places["/etc/fstab"].read_text("utf-8") == (
        f"# mine\n{swap}\n/dev/vdb /data ext4 defaults 0 2\n"
    )
    assert places["/etc/hostname"].read_text("utf-8") == "box\n"
    assert ("hostname", "box") in ran
    assert ("swapon", "/swapfile") in ran
    assert ("sysctl", "-q", "-w", "net.ipv4.ip_forward=0") in ran
