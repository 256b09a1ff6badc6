"""A machine of our own box boots in VirtualBox's emulator, and the first role converges on it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from labwright import render
from labwright.errors import BootError
from labwright.model import Plan
from labwright.phases import fetch
from labwright.phases.base import Run, Tools, run_all
from labwright.phases.boot import Boot
from labwright.supplies.base import OWN_BOXES
from labwright.tools import ansible, workdir
from labwright.tools.docker import Docker
from labwright.tools.shell import Shell
from labwright.tools.ssh import Ssh
from labwright.tools.store import Store
from tests.fakes import STOCK, VIRTUALBOX, planned, run_of
from tests.virtualbox import machinery
from tests.virtualbox.machinery import Machines

pytestmark = pytest.mark.virtualbox

BASE = Path(__file__).with_name("base.yml")
# The card on the lab's network needs VirtualBox's kernel driver (VERR_SUP_DRIVERLESS).
PRIVATE = re.compile(r'    node\.vm\.network "private_network",\n.*\n')
SECOND_CARD = re.compile(r', "--nictype2", "virtio"|      vm\.customize .*"--macaddress2".*\n')
SEEN = "hostname; ls /sys/class/net; basename $(readlink /sys/class/net/eth0/device/driver)"
# Emulated instruction by instruction, beside other work: a quarter of an hour was not enough for a
# boot, and a login takes its time.
PATIENCE = (
    "  config.vm.boot_timeout = 600\n",
    "  config.vm.boot_timeout = 3600\n  config.ssh.connect_timeout = 300\n",
)


def nat_only(text: str) -> str:
    """Take the lab's network out of a rendered Vagrantfile; the rest stays as it is."""
    less = SECOND_CARD.sub("", PRIVATE.sub("", text))
    assert "private_network" not in less
    assert "macaddress2" not in less
    assert PATIENCE[0] in less
    return less.replace(*PATIENCE)


@pytest.fixture
def run(machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of a lab of two nodes, from our own box, on a VirtualBox that emulates."""
    plan = planned(
        {
            "name": "vb",
            "provider": "virtualbox",
            "network": {"subnet": "192.168.58.0/24"},
            "workers": 1,
            "defaults": {"cpus": 1, "memory": 1024},
            "addons": [],
        },
        VIRTUALBOX,
    )
    made = replace(plan, facts=replace(plan.facts, emulated=True))
    assert made.own_box
    ported = (n if n.ssh_port else replace(n, ssh_port=2310 + i) for i, n in enumerate(made.nodes))
    run = lab(tmp_path, replace(made, nodes=tuple(ported)))
    # Our own box is in the user's store, or is built into it now.
    for part in made.artifacts:
        if part.id in {"machine-root", OWN_BOXES["virtualbox"]}:
            fetch.ensure(run, part)
    monkeypatch.setenv("VBOX_START", "emulate")
    machinery.show(machines)
    return run


def lab(folder: Path, plan: Plan) -> Run:
    """Give a run of a plan whose software is in the user's own store."""
    shell = Shell()
    store = Store(workdir.cache() / "store")
    return run_of(folder, plan, tools=Tools(shell, store, Docker(shell)))


def test_the_own_box_boots_and_takes_the_first_role(run: Run, machines: Machines) -> None:
    """The second node cannot be made; the first, which boots beside it, stays."""
    folder, plan = run.workdir, run.plan
    rendered = nat_only(render.vagrantfile(plan))
    head, mark, rest = rendered.partition('config.vm.define "w1"')
    broken = head + mark + rest.replace("vm.memory = 1024", "vm.memory = 2097153")
    folder.write({"Vagrantfile": broken})
    with pytest.raises(BootError) as caught:
        run_all([Boot()], run)
    found = [(f.id, f.where) for f in caught.value.findings]
    assert found == [("known.virtualbox.bad-size", ""), ("boot.machine", "w1")], str(caught.value)
    assert run.vagrant.states() == {"cp1": "running", "w1": "absent"}

    one = replace(plan, nodes=plan.nodes[:1])
    alone = lab(folder.path.parents[1], one)
    folder.write(
        {
            "Vagrantfile": nat_only(render.vagrantfile(one)),
            "inventory/hosts.yml": render.inventory(one, STOCK),
        }
    )
    run_all([Boot()], alone)
    values = machines.info("labwright-vb-cp1")
    assert values["VMState"] == "running"
    assert (values["nictype1"], values["nic2"], values["ioapic"]) == ("virtio", "none", "on")
    assert (values["usb"], values["audio"], values["effparavirtprovider"]) == ("off", "none", "kvm")
    assert values["Forwarding(0)"] == f"ssh,tcp,127.0.0.1,{one.nodes[0].ssh_port},,22"

    inventories = [render.ROOT / "inventory", folder.inventory]
    changes = []
    for _ in range(2):
        outcome = ansible.play(
            str(BASE),
            inventories,
            folder.path / "ansible",
            folder.known_hosts,
            lambda _text: None,
            {"ansible_timeout": 300, "ansible_ssh_timeout": 300},
        )
        changes.append(sum(outcome.changed.values()))
    assert changes[0] > 0
    assert changes[1] == 0

    ssh = Ssh(Shell(), folder.ssh_config)
    seen = ssh.run("cp1", SEEN, timeout=600)
    assert seen.split() == ["cp1", "eth0", "lo", "virtio_net"]
    assert machinery.SERIES in machines.manage("--version")
    run.vagrant.halt(lambda _line: None)
    assert run.vagrant.states()["cp1"] == "poweroff"
