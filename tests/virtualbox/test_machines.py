"""The real VirtualBox makes what the plan says, and refuses what it must."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labwright import known
from labwright.errors import BootError, LabError, SpecError
from labwright.model import Node, Plan
from labwright.render import vagrantfile
from labwright.tools.shell import Shell, ToolError
from labwright.tools.ssh import ensure_key
from labwright.tools.vagrant import Vagrant
from tests.fakes import VIRTUALBOX, planned
from tests.virtualbox import machinery
from tests.virtualbox.machinery import Machines

pytestmark = pytest.mark.virtualbox

BOX = "labwright/small"
CLONES = [f"c{i}" for i in range(8)]
LAB: Mapping[str, Any] = {
    "name": "vb",
    "provider": "virtualbox",
    "network": {"subnet": "192.168.58.0/24"},
    "box": {"name": BOX},
    "nodes": {"cp1": {"cpus": 2, "memory": "2GiB"}, "w2": {"cpus": 1, "memory": 1024}},
}


def plan(**changes: Any) -> Plan:
    """Plan the lab, with a port for each node."""
    made = planned({**LAB, **changes}, VIRTUALBOX)
    ported = [n if n.ssh_port else replace(n, ssh_port=2300 + i) for i, n in enumerate(made.nodes)]
    return replace(made, nodes=tuple(ported))


class Lab:
    """A rendered lab with the small box added, as it is before its first boot."""

    def __init__(self, machines: Machines, folder: Path, made: Plan) -> None:
        self.plan, self.folder, self.heard = made, folder, list[str]()
        self.names = [node.name for node in made.nodes]
        folder.mkdir(exist_ok=True)
        self.write(vagrantfile(made))
        ensure_key(Shell(), folder / "ssh" / "id_ed25519", "test")
        box = machinery.small_box(machines, folder.parent / "small.box")
        Shell().run(["vagrant", "box", "add", "--name", BOX, box], cwd=folder)
        self.vagrant = Vagrant(folder, "virtualbox")

    def write(self, text: str) -> None:
        (self.folder / "Vagrantfile").write_text(text, "utf-8")

    def up(self, *names: str, at_once: int = 2, fresh: bool = True) -> BootError:
        """Start machines, which cannot end well here; give the error with what is known of it."""
        wanted = list(names or self.names)
        with pytest.raises(BootError) as caught:
            self.vagrant.up_apart(
                wanted, self.heard.append, at_once=at_once, fresh=wanted if fresh else ()
            )
        known.explain(caught.value)
        return caught.value


@pytest.fixture
def lab(machines: Machines, tmp_path: Path) -> Lab:
    return Lab(machines, tmp_path / "lab", plan())


def ids(error: BootError) -> list[str]:
    return [finding.id for finding in error.findings]


def expect(values: Mapping[str, str], node: Node) -> None:
    """Compare a machine with its node's part of the plan, value by value."""
    card = node.mac.replace(":", "").upper()
    wanted = {
        "name": f"labwright-vb-{node.name}",
        "groups": "/labwright/vb",
        "memory": str(node.size.memory),
        "cpus": str(node.size.cpus),
        "ioapic": "on",
        "rtcuseutc": "on",
        "effparavirtprovider": "kvm",
        "nic1": "nat",
        "nictype1": "virtio",
        "cableconnected1": "on",
        "Forwarding(0)": f"ssh,tcp,127.0.0.1,{node.ssh_port},,22",
        "nictype2": "virtio",
        "macaddress2": card,
        "cableconnected2": "on",
        "nic3": "none",
        "audio": "none",
        "usb": "off",
        "vrde": "off",
    }
    assert {name: values.get(name) for name in wanted} == wanted
    assert "Forwarding(1)" not in values
    assert not any(name.startswith("SharedFolderName") for name in values)
    assert values["macaddress1"] != card


def test_up_stops_where_the_kernel_should_make_the_network(lab: Lab, machines: Machines) -> None:
    error = lab.up()
    assert ids(error) == ["known.virtualbox.no-vboxnetctl", "boot.machine", "boot.not-begun"]
    assert error.findings[1].where == "cp1"
    assert "vagrant-cp1.log" in error.findings[1].fix
    assert error.findings[2].what == "not begun after that: w1, w2"
    assert not (lab.folder / "logs" / "vagrant-w1.log").exists()
    assert any(line.startswith("cp1: Importing base box") for line in lab.heard)
    # What failed is gone, and the box that was imported for all of them stays.
    (master,) = machines.names()
    assert not master.startswith("labwright")
    assert lab.vagrant.states() == dict.fromkeys(lab.names, "absent")


def test_side_by_side_the_machines_are_what_the_plan_says(
    lab: Lab, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBOX_NET", "module")
    # Each waits for the others when it is to start, as it would take its time to boot.
    monkeypatch.setenv("VBOX_START", str(len(lab.names)))
    error = lab.up(at_once=len(lab.names))
    # Without the driver nothing starts: that is as far as this goes.
    known_as, *machine_findings = ids(error)
    assert known_as == "known.virtualbox.start-failed"
    assert machine_findings == ["boot.machine"] * len(lab.names)

    started = machines.started()
    assert len(started) == len(lab.plan.nodes)
    for node in lab.plan.nodes:
        values = started[f"labwright-vb-{node.name}"]
        expect(values, node)
        assert (values["nic2"], values["hostonlyadapter2"]) == ("hostonly", "vboxnet0")
    assert len({values["macaddress1"] for values in started.values()}) == len(started)
    # One network for all of them, with the host's address of the plan.
    (interface,) = (machines.state / "interfaces").iterdir()
    assert interface.read_text("utf-8").split() == [str(lab.plan.host_address), "255.255.255.0"]
    # And they are gone with their disks, and nothing else is.
    (master,) = machines.names()
    assert not list((machines.state / "machines" / "labwright").rglob("*.vbox"))
    # The box's disk, and what its own machine would write since the snapshot.
    assert len(machines.disks()) == 2
    assert 'SnapshotName="base"' in machines.manage("snapshot", master, "list", "--machinereadable")


def test_clones_share_the_one_disk_of_the_box(
    lab: Lab, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBOX_NET", "module")
    monkeypatch.setenv("VBOX_START", str(len(lab.names)))
    # Machines that were there before are kept when they do not start.
    error = lab.up(at_once=len(lab.names), fresh=False)
    assert {f.why for f in error.findings if f.id == "boot.machine"} == {"it is kept"}
    assert lab.vagrant.states() == dict.fromkeys(lab.names, "poweroff")
    disks = machines.disks()
    (base,) = (disk for disk in disks if disk["Parent UUID"] == "base")
    clones = [disk for disk in disks if disk["Parent UUID"] == base["UUID"]]
    used = {machines.info(f"labwright-vb-{n}")["IDE-ImageUUID-0-0"] for n in lab.names}
    assert used <= {disk["UUID"] for disk in clones}
    assert len(used) == len(lab.names)
    for node in lab.plan.nodes:
        settings = Path(machines.info(f"labwright-vb-{node.name}")["CfgFile"]).read_text("utf-8")
        # showvminfo does not say how names are resolved.
        assert '<DNS use-host-resolver="true"/>' in settings

    # Another lab.up finds them, makes nothing anew, and one that is not needed goes alone.
    assert lab.up("w1", fresh=False).findings[-1].where == "w1"
    lab.vagrant.destroy(lab.heard.append, ["w2"])
    assert {n for n in machines.names() if n.startswith("labwright")} == {
        "labwright-vb-cp1",
        "labwright-vb-w1",
    }


def test_vagrants_that_are_let_loose_make_a_network_each(
    lab: Lab, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What making one machine at a time is for; and that the tests above would see it missing."""
    lab.up("cp1")  # for the import of the box, which Vagrant itself does once
    monkeypatch.setenv("VBOX_NET", "module")
    monkeypatch.setenv("VBOX_START", str(len(lab.names)))
    up = ["vagrant", "up", "--provider=virtualbox"]
    env = {"VAGRANT_CWD": str(lab.folder)}
    with ThreadPoolExecutor(len(lab.names)) as pool:
        list(pool.map(lambda name: Shell(env).run([*up, name], check=False), lab.names))
    started = machines.started().values()
    assert len(started) == len(lab.names)
    assert len({values["hostonlyadapter2"] for values in started}) > 1


MEMORY = ("memory = 1024", "memory = 2097153", "known.virtualbox.bad-size")
CPUS = ("vm.cpus = 1", "vm.cpus = 65", "known.virtualbox.bad-size")
MAC = ('"--macaddress2", "08', '"--macaddress2", "09', "known.virtualbox.bad-mac")
TYPE = ('"--nictype2", "virtio"', '"--nictype2", "virtio9"', "known.virtualbox.bad-option")
RANGE = ("192.168.58.22", "192.168.99.22", "known.virtualbox.hostonly-range")


@pytest.mark.parametrize(
    ("good", "bad", "finding"),
    [MEMORY, CPUS, MAC, TYPE, RANGE],
    ids=["memory", "cpus", "mac", "nic-type", "range"],
)
def test_a_value_that_virtualbox_refuses_is_explained(
    lab: Lab, machines: Machines, monkeypatch: pytest.MonkeyPatch, good: str, bad: str, finding: str
) -> None:
    """None of these comes out of a plan; here they are put into what was rendered."""
    monkeypatch.setenv("VBOX_NET", "module")
    head, mark, rest = vagrantfile(lab.plan).partition('config.vm.define "w2"')
    assert good in rest
    lab.write(head + mark + rest.replace(good, bad))
    error = lab.up("w2")
    assert ids(error) == [finding, "boot.machine"]
    assert not any(name.startswith("labwright") for name in machines.names())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--memory", 2), "known.virtualbox.bad-size"),
        (("--memory", 2097153), "known.virtualbox.bad-size"),
        (("--cpus", 0), "known.virtualbox.bad-size"),
        (("--cpus", 65), "known.virtualbox.bad-size"),
        (("--macaddress2", "080027"), "known.virtualbox.bad-mac"),
        # A group address: the lowest bit of the first byte is set.
        (("--macaddress2", "0900271639B1"), "known.virtualbox.bad-mac"),
        (("--nictype2", "virtio9"), "known.virtualbox.bad-option"),
        (("--natpf1", "ssh,tcp,127.0.0.1,2301,,22"), "known.virtualbox.nat-rule-taken"),
        (("--natpf1", "web,tcp,127.0.0.1,2300,,80"), "known.virtualbox.nat-rule-taken"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_virtualbox_says_of_bad_values(
    machines: Machines, words: tuple[object, ...], said: str
) -> None:
    machines.manage("createvm", "--name", "m", "--register", "--ostype", "Debian12_64")
    machines.manage("modifyvm", "m", "--natpf1", "ssh,tcp,127.0.0.1,2300,,22")
    with pytest.raises(ToolError) as caught:
        machines.manage("modifyvm", "m", *words)
    known.explain(caught.value)
    assert [finding.id for finding in caught.value.findings] == [said, "tool.failed"]


def test_two_machines_on_one_host_port_are_refused_by_nobody(machines: Machines) -> None:
    """Which is why the planner gives each node a port of its own."""
    for name in ("a", "b"):
        machines.manage("createvm", "--name", name, "--register", "--ostype", "Debian12_64")
        machines.manage("modifyvm", name, "--natpf1", "ssh,tcp,127.0.0.1,2300,,22")
    assert machines.info("a")["Forwarding(0)"] == machines.info("b")["Forwarding(0)"]


def test_many_clones_at_the_same_moment(machines: Machines, tmp_path: Path) -> None:
    """VirtualBox itself takes it; what must be done one by one is Vagrant's."""
    machinery.small_box(machines, tmp_path / "small.box")
    machines.manage("import", machines.state / "box" / "box.ovf")
    (master,) = machines.names()
    machines.manage("snapshot", master, "take", "base")
    link = ("--snapshot", "base", "--options", "link", "--register")
    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(machines.manage, "clonevm", master, "--name", n, *link) for n in CLONES]
        for clone in made:
            clone.result()
    assert machines.names() == {master, *CLONES}
    cards = {machines.info(name)["macaddress1"] for name in CLONES}
    disks = {machines.info(name)["IDE-ImageUUID-0-0"] for name in CLONES}
    assert len(cards) == len(disks) == len(CLONES)


def test_the_plan_asks_for_nothing_that_virtualbox_would_refuse() -> None:
    with pytest.raises(SpecError) as caught:
        plan(nodes={"w1": {"cpus": 65}, "w2": {"memory": 256}})
    assert {f.where for f in caught.value.findings} == {"nodes.w1.cpus", "nodes.w2.memory"}
    with pytest.raises(LabError) as refused:
        plan(network={"subnet": "192.168.99.0/24"})
    assert "192.168.99.0/24" in str(refused.value)
