"""libvirt's daemon, domains, disks and networks, by a virsh that keeps them in memory."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from labwright.errors import BootError, HostError
from labwright.tools import libvirt
from labwright.tools.libvirt import Libvirt
from labwright.tools.shell import Result, Shell

KINDS = {"list": "domains", "net-list": "networks", "vol-list": "volumes"}
SHOWN = {
    "dumpxml": "domains",
    "net-dumpxml": "networks",
    "vol-dumpxml": "volumes",
    "vol-info": "volumes",
}
GONE = {"undefine": "domains", "net-undefine": "networks", "vol-delete": "volumes"}


def domain(folder: str) -> str:
    return f"<domain><description>{libvirt.FOLDER_MARK}{folder}</description></domain>"


def volume(path: str, backing: str = "") -> str:
    store = f"<backingStore><path>{backing}</path></backingStore>" if backing else ""
    return f"<volume><target><path>{path}</path></target>{store}</volume>"


def network(address: str, more: str = "") -> str:
    return f"<network {more}><ip address='{address}' netmask='255.255.255.0'/></network>"


BASE = "labwright-VAGRANTSLASH-debian-12_vagrant_box_image_0.0.0_box.img"
THEIRS = "debian-VAGRANTSLASH-bookworm64_vagrant_box_image_12_box.img"


class Daemon(Shell):
    """A libvirt with the domains of two labs, one of them in this test's folder, behind virsh."""

    def __init__(self, tmp: Path) -> None:
        super().__init__()
        self.folder = tmp / ".lab" / "a"
        self.libvirt = Libvirt(self)
        self.asked: list[str] = []
        self.pool = "inactive"
        self.kept: dict[str, dict[str, str]] = {
            "domains": {
                "labwright-a-cp1": domain(str(self.folder)),
                "labwright-a-w1": domain("/elsewhere/.lab/a"),
                "other": "<domain/>",
            },
            "volumes": {
                "labwright-a-cp1.img": volume("/images/cp1", "/images/base"),
                "labwright-a-w2.img": volume("/images/w2"),
                BASE: volume("/images/base"),
                THEIRS: volume("/images/theirs"),
            },
            "networks": {
                "labwright-a": network("192.168.56.1"),
                "labwright-a-nat": network("192.168.121.1", "connections='1'"),
                "plain": "<network/>",
                "six": "<network><ip family='ipv6' address='fd00::1' prefix='64'/></network>",
            },
        }

    def run(self, argv: Sequence[str | Path], **_more: Any) -> Result:
        """Answer as virsh does, from what there is."""
        words = [str(word) for word in argv]
        assert words[:4] == ["virsh", "--quiet", "--connect", "qemu:///system"]
        command, name = words[4], words[5] if len(words) > 5 else ""
        self.asked.append(" ".join(words[4:]))
        code, out = 0, ""
        if command in KINDS:
            tail = " /images/x" if command == "vol-list" else ""
            out = "".join(f" {known}{tail}\n" for known in self.kept[KINDS[command]])
        elif command in SHOWN:
            found = self.kept[SHOWN[command]].get(name)
            code, out = (1, "") if found is None else (0, found)
        elif command in GONE:
            del self.kept[GONE[command]][name]
        elif command == "pool-info":
            out = f"State: {self.pool}"
        elif command == "pool-start":
            self.pool = "running"
        return Result(tuple(words), code, out, "", 0.0)

    def state(self, kind: str) -> list[str]:
        return list(self.kept[kind])


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    monkeypatch.setattr(libvirt, "reached", lambda: "answers")
    return Daemon(tmp_path)


def test_a_lab_knows_its_machines_by_its_folder(daemon: Daemon) -> None:
    assert daemon.libvirt.owned(daemon.folder) == ["labwright-a-cp1"]
    assert daemon.libvirt.owner("other") == ""
    assert daemon.libvirt.owner("none") is None


def test_a_pool_that_does_not_run_is_started(daemon: Daemon) -> None:
    daemon.libvirt.make_ready([], daemon.folder)
    assert "pool-start default" in daemon.asked
    daemon.libvirt.make_ready([], daemon.folder)
    assert daemon.asked.count("pool-start default") == 1


def test_a_disk_without_a_machine_is_no_obstacle(daemon: Daemon) -> None:
    names = ["labwright-a-cp1", "labwright-a-w2"]
    daemon.libvirt.make_ready(names, daemon.folder)
    assert "labwright-a-w2.img" not in daemon.state("volumes")
    assert "labwright-a-cp1.img" in daemon.state("volumes")


@pytest.mark.parametrize(
    ("name", "whose"), [("labwright-a-w1", "/elsewhere/.lab/a"), ("other", "something else")]
)
def test_anothers_machine_is_left_alone(daemon: Daemon, name: str, whose: str) -> None:
    with pytest.raises(BootError) as caught:
        daemon.libvirt.make_ready([name], daemon.folder)
    (finding,) = caught.value.findings
    assert finding.id == "boot.name-taken"
    assert finding.what == f"the domain {name} of libvirt belongs to {whose}"


def test_only_what_is_the_labs_is_removed(daemon: Daemon) -> None:
    names = ["labwright-a-cp1", "labwright-a-w1", "labwright-a-w2"]
    daemon.libvirt.remove(daemon.folder, names, ["labwright-a", "labwright-a-nat", "absent"])
    assert daemon.state("domains") == ["labwright-a-w1", "other"]
    # One that something is connected to is in use; the disk of w1 was never there.
    assert daemon.state("networks") == ["labwright-a-nat", "plain", "six"]
    assert "labwright-a-w2.img" not in daemon.state("volumes")


def test_a_base_goes_with_the_last_disk_on_it(daemon: Daemon) -> None:
    assert daemon.libvirt.remove_base("labwright/debian-12") == []
    daemon.libvirt.remove(daemon.folder, ["labwright-a-w2"], [])
    del daemon.kept["volumes"]["labwright-a-cp1.img"]
    assert daemon.libvirt.remove_base("labwright/debian-12") == [BASE]
    assert daemon.state("volumes") == [THEIRS]


def test_a_libvirt_that_does_not_run_has_nothing(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libvirt, "reached", lambda: "absent")
    assert daemon.libvirt.owned(daemon.folder) == []
    daemon.libvirt.remove(daemon.folder, ["labwright-a-cp1"], ["labwright-a"])
    assert daemon.libvirt.remove_base("labwright/debian-12") == []
    assert daemon.asked == []


def test_a_daemon_that_never_answers_is_an_error_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libvirt, "START_DEADLINE", 0.2)
    monkeypatch.setattr(libvirt, "reached", lambda: "absent")
    monkeypatch.setattr("os.geteuid", lambda: 0)

    class Mute(Shell):
        def detach(self, argv: Sequence[str | Path], log: Path) -> int:
            log.write_text(f"{argv[0]} cannot go on")
            return 1

        def run(self, argv: Sequence[str | Path], **_more: Any) -> Result:
            return Result(tuple(map(str, argv)), 1, "", "", 0.0)

    with pytest.raises(HostError) as caught:
        Libvirt(Mute()).start(tmp_path / "libvirt")
    assert caught.value.findings[0].id == "host.libvirt.not-started"


def test_a_socket_is_asked_and_not_only_seen(tmp_path: Path) -> None:
    assert libvirt.reached(tmp_path) == "absent"
    path = tmp_path / "run/libvirt/libvirt-sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert libvirt.reached(tmp_path) == "answers"
    assert libvirt.reached(tmp_path) == "absent"
