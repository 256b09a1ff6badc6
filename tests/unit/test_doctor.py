"""The doctor's rules: each on a host that it is about, and on hosts that it leaves alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from labwright.doctor import RULES, Checkup, as_json, examine
from labwright.doctor.mend import MENDERS, Command, remedies
from labwright.doctor.rule import ALL, Rule
from labwright.errors import errors
from labwright.phases.diagnosis import FACTS, facts
from tests.checkups import HEALTHY, LAB, kvm, recorded, with_, with_version, without

DOCS = Path(__file__).resolve().parents[2] / "docs"
BY_ID = {rule.id: rule for rule in RULES}

NO_DRIVER = {"vboxdrv": False}


def on(system: str, checkup: Checkup, arch: str = "x86_64") -> Checkup:
    return replace(checkup, host=replace(checkup.host, os_kind=system, arch=arch))


def driverless(**values: Any) -> Checkup:
    bare = with_("host", **NO_DRIVER)
    return replace(bare, virtualbox=replace(bare.virtualbox, **values))


def stopped(checkup: Checkup) -> Checkup:
    host = replace(checkup.host, docker_api=None, docker_why="docker could not be started")
    return replace(checkup, host=host)


# Rule → (a host that it is about, a host that it leaves alone and that is near to it).
CASES: dict[str, tuple[Checkup, Checkup]] = {
    "system.wsl": (with_("system", wsl=True), HEALTHY),
    "vagrant.missing": (without("vagrant", "apt-get"), without("vagrant")),
    "memory.low": (
        with_("system", memory_available=5119),
        with_("system", memory_available=5120),
    ),
    "disk.low": (with_("host", disk_free=14_335), with_("host", disk_free=14_336)),
    "disk.slow": (with_("system", sync_ms=10.1), with_("system", sync_ms=10.0)),
    "clock.unsynchronized": (with_("system", clock=False), with_("system", clock=None)),
    "locale.not-utf8": (with_("system", locale="C", utf8=False), HEALTHY),
    "net.strangers-answer": (with_("network", strangers=("192.0.2.33",)), HEALTHY),
    "net.untrusted-vendors": (with_("network", untrusted=("pkgs.k8s.io",)), HEALTHY),
    "net.no-vendors": (with_("host", upstream={"pkgs.k8s.io": "does not answer"}), HEALTHY),
    "net.proxy-variables": (
        with_("network", proxies={"HTTPS_PROXY": "http://p:3128", "no_proxy": "10.0.0.0/8"}),
        with_("network", proxies={"HTTPS_PROXY": "http://p:3128", "no_proxy": "192.168.0.0/16"}),
    ),
    "net.port-taken": (
        with_("network", listening=(22, 8750)),
        with_("network", listening=(22, 8751)),
    ),
    "dns.none": (
        replace(
            with_("host", nameservers=()),
            network=replace(HEALTHY.network, resolvers=("127.0.0.53",)),
        ),
        with_("network", resolvers=("127.0.0.53",)),
    ),
    "dns.made-up-name": (
        with_("network", made_up="203.0.113.9", search=("corp.example",)),
        HEALTHY,
    ),
    "dns.search-domains": (
        with_("network", search=("a", "b", "c", "d")),
        with_("network", search=("a", "b", "c")),
    ),
    "apt.dead-source": (with_("system", dead_sources=("/etc/apt/sources.list",)), HEALTHY),
    "virtualbox.kvm-holds-cpu": (
        kvm("7.1.12", "6.14.0-24-generic", at_load=True),
        kvm("7.1.12", "6.11.0-29-generic", at_load=None),
    ),
    "virtualbox.kvm-must-enable": (
        kvm("7.2.10", "6.17.0-35-generic", at_load=False),
        kvm("7.2.10", "6.17.0-35-generic", at_load=True),
    ),
    "virtualbox.kvm-6.12": (
        kvm("7.2.14", "6.12.48+deb13-amd64", at_load=True),
        kvm("7.2.14", "6.18.2", at_load=True),
    ),
    "vm.no-virtualization": (
        with_("cpu", virtualization="", under_hypervisor=True),
        with_("cpu", virtualization="svm"),
    ),
    "libvirt.no-virtualization": (
        with_("cpu", virtualization="", under_hypervisor=True),
        with_("cpu", virtualization="svm"),
    ),
    "libvirt.kvm-not-hardware": (
        with_("kvm", modules=("kvm", "kvm_pvm")),
        with_("kvm", modules=("kvm", "kvm_amd")),
    ),
    "libvirt.kvm-does-not-boot": (
        with_("kvm", boots=False, why="qemu did not finish within 8 s"),
        with_("kvm", boots=None, why="not tried"),
    ),
    "libvirt.denied": (with_("libvirt", socket="denied"), with_("libvirt", socket="absent")),
    "libvirt.not-running": (with_("libvirt", socket="absent"), with_("libvirt", socket="denied")),
    "virtualbox.driver-mismatch": (
        with_("virtualbox", driver="7.2.20 r168000"),
        with_("virtualbox", driver="7.2.22_Debian r169920"),
    ),
    "virtualbox.secure-boot": (driverless(secure_boot=True), with_("virtualbox", secure_boot=True)),
    "virtualbox.no-headers": (
        driverless(kernel_headers=False),
        with_("virtualbox", kernel_headers=False),
    ),
    "virtualbox.networks-conf": (
        with_("virtualbox", permitted=(IPv4Network("10.0.0.0/8"),)),
        with_("virtualbox", permitted=(IPv4Network("192.168.0.0/16"),)),
    ),
    "virtualbox.vagrant-too-old": (
        with_version("vagrant", "2.4.8"),
        with_version("vagrant", "2.3.4", with_version("VBoxManage", "7.0.20")),
    ),
    "virtualbox.too-old": (with_version("VBoxManage", "6.1.50"), HEALTHY),
    "virtualbox.arm": (
        on("darwin", with_version("VBoxManage", "7.0.20"), "arm64"),
        on("darwin", with_version("VBoxManage", "7.1.0"), "arm64"),
    ),
    "vagrant.catalogue": (with_("system", boxes=()), HEALTHY),
    "docker.denied": (
        with_("host", docker_api=None, docker_why="permission denied while trying to connect"),
        with_("host", docker_api=None, docker_why="Cannot connect to the Docker daemon"),
    ),
    "docker.stopped": (
        with_("host", docker_api=None, docker_why="Cannot connect to the Docker daemon"),
        with_("host", docker_api=None, docker_why="permission denied while trying to connect"),
    ),
    "docker.missing": (
        stopped(without("dockerd", "apt-get")),
        stopped(without("dockerd")),
    ),
    "docker.rootless": (with_("docker", rootless=True), HEALTHY),
    "docker.storage-driver": (with_("docker", driver="vfs"), with_("docker", driver="overlayfs")),
    "docker.disk": (with_("docker", root_free=6143), with_("docker", root_free=6144)),
    "docker.sys-resource": (
        with_("host", caps=HEALTHY.host.caps - {"CAP_SYS_RESOURCE"}),
        with_("host", caps=HEALTHY.host.caps - {"CAP_SYS_RESOURCE"}, root=False),
    ),
    "docker.cgroup-v1": (with_("host", cgroup=1), HEALTHY),
    "docker.memory-cgroup": (
        with_("kernel", controllers=frozenset({"cpu", "pids"})),
        with_("kernel", controllers=frozenset()),
    ),
    "docker.inotify": (
        with_("kernel", inotify_instances=128),
        with_("kernel", inotify_instances=512, inotify_watches=65536),
    ),
    "docker.open-files": (with_("kernel", open_files=1024), with_("kernel", open_files=16384)),
    "docker.swap": (with_("kernel", swap=976), HEALTHY),
    "docker.overlay": (with_("kernel", overlay=False), HEALTHY),
    "docker.bridge-netfilter": (with_("kernel", bridge_netfilter=False), HEALTHY),
    "docker.forward": (
        with_("network", docker_chain=False, firewall="ufw"),
        with_("network", docker_chain=False, forward_policy="ACCEPT"),
    ),
}


def test_every_rule_has_a_host_for_and_against() -> None:
    assert set(CASES) == set(BY_ID)
    assert len(BY_ID) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_applies_where_it_should_and_nowhere_else(rule: Rule) -> None:
    hit, miss = CASES[rule.id]
    finding = rule.finding(hit)
    assert finding is not None
    assert (finding.id, finding.level) == (f"doctor.{rule.id}", rule.level)
    assert finding.what
    assert finding.why
    assert finding.fix
    assert finding.docs == rule.source
    assert rule.finding(miss) is None
    assert rule.finding(HEALTHY) is None


def test_a_healthy_host_has_no_findings() -> None:
    report = examine(HEALTHY)
    assert report.findings == ()
    assert [verdict.works for verdict in report.verdicts] == [True, True, True]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_an_error_of_a_rule_ends_its_providers_and_no_others(rule: Rule) -> None:
    report = examine(CASES[rule.id][0])
    finding = rule.finding(CASES[rule.id][0])
    for verdict in report.verdicts:
        ours = [f for f in errors(verdict.findings) if f.id.startswith("doctor.")]
        assert (finding in ours) == (rule.level == "error" and verdict.provider in rule.providers)
        assert verdict.works == (not errors(verdict.findings))
    assert (finding in report.host) == (rule.providers == ALL)
    assert finding in report.findings


# --- KVM: what is right depends on three versions


@pytest.mark.parametrize(
    ("virtualbox", "kernel", "at_load", "advice"),
    [
        # Before 6.12 KVM waits for its first guest: nothing to do, whatever VirtualBox.
        ("7.0.20", "6.1.0-30-amd64", None, None),
        ("7.2.22", "6.11.0-29-generic", None, None),
        # Older VirtualBox, newer kernel: KVM must not take the processor (VirtualBox#81).
        ("7.1.10", "6.14.0-24-generic", True, "virtualbox.kvm-holds-cpu"),
        ("7.2.8", "7.1.0", True, "virtualbox.kvm-holds-cpu"),
        ("7.1.10", "6.12.48+deb13-amd64", True, "virtualbox.kvm-holds-cpu"),
        ("7.1.10", "6.14.0-24-generic", False, None),
        # Newer VirtualBox, newer kernel: it must (VirtualBox#711).
        ("7.2.10", "6.17.0-35-generic", False, "virtualbox.kvm-must-enable"),
        ("7.2.22", "7.1.0", False, "virtualbox.kvm-must-enable"),
        ("7.2.22", "6.17.0-35-generic", True, None),
        # 6.12 itself: 7.2.14 was seen to need what 7.2.10 breaks on.
        ("7.2.14", "6.12.48+deb13-amd64", True, "virtualbox.kvm-6.12"),
        ("7.2.10", "6.12.48+deb13-amd64", False, "virtualbox.kvm-6.12"),
    ],
)
def test_the_advice_about_kvm_follows_the_versions(
    virtualbox: str, kernel: str, at_load: bool | None, advice: str | None
) -> None:
    given = [
        finding.id.removeprefix("doctor.")
        for finding in examine(kvm(virtualbox, kernel, at_load)).findings
        if "kvm" in finding.id
    ]
    assert given == ([advice] if advice else [])
    assert not [f for f in examine(kvm(virtualbox, kernel, at_load, "")).findings if "kvm" in f.id]


def test_opposite_advice_is_never_given_for_one_host() -> None:
    holds = examine(CASES["virtualbox.kvm-holds-cpu"][0]).findings
    must = examine(CASES["virtualbox.kvm-must-enable"][0]).findings
    assert "enable_virt_at_load=0`" in holds[0].fix
    assert "take that option out" in must[0].fix


# --- a recorded host


def test_a_micro_machine_as_it_was_measured() -> None:
    """Recorded in a small virtual machine: containers run, nothing else, and a proxy lies."""
    report = examine(recorded("microvm"))
    works = {verdict.provider: verdict.works for verdict in report.verdicts}
    # Emulated, and only where lab.yaml asks for it.
    assert works == {"virtualbox": False, "libvirt": True, "docker": True}
    ids = {finding.id.removeprefix("doctor.") for finding in report.findings}
    assert {
        "net.strangers-answer",
        "net.no-vendors",
        "clock.unsynchronized",
        "vm.no-virtualization",
        "libvirt.kvm-not-hardware",
        "libvirt.kvm-does-not-boot",
        "docker.cgroup-v1",
        "docker.sys-resource",
        "docker.inotify",
        "host.virtualbox.no-vboxmanage",
        "host.libvirt.no-virsh",
        "host.libvirt.emulated",
    } <= ids


def test_a_checkup_survives_being_written_down() -> None:
    for checkup in (HEALTHY, recorded("microvm")):
        assert FACTS.validate_json(FACTS.dump_json(checkup)) == checkup


# --- JSON


@pytest.mark.parametrize("checkup", [HEALTHY, recorded("microvm")], ids=["healthy", "microvm"])
def test_the_json_is_as_its_schema_says(checkup: Checkup) -> None:
    schema = json.loads((DOCS / "doctor.schema.json").read_text("utf-8"))
    told = as_json(examine(checkup), facts(checkup))
    jsonschema.validate(json.loads(json.dumps(told)), schema)
    assert told["works"]


# --- mending


@pytest.mark.parametrize("id_", sorted(MENDERS))
def test_a_remedy_shows_its_commands_and_how_to_undo_them(id_: str) -> None:
    if id_.startswith("doctor."):
        checkup = CASES[id_.removeprefix("doctor.")][0]
    else:
        checkup = with_("host", **NO_DRIVER)
    (remedy,) = [r for r in remedies(checkup, examine(checkup).findings) if r.finding == id_]
    assert remedy.commands
    assert all(command.shown() for command in remedy.commands)
    assert remedy.undo
    # Rights over this computer are never given away.
    assert not any(re.search("usermod|gpasswd|chmod|sudoers", c.shown()) for c in remedy.commands)


def test_membership_in_the_docker_group_is_advised_and_never_done() -> None:
    checkup = CASES["docker.denied"][0]
    (finding,) = [f for f in examine(checkup).findings if f.id == "doctor.docker.denied"]
    assert "as good as root" in finding.fix
    assert remedies(checkup, [finding]) == ()


def test_kvm_is_not_unloaded_under_a_running_machine() -> None:
    checkup = CASES["virtualbox.kvm-holds-cpu"][0]
    used = replace(checkup, kvm=replace(checkup.kvm, users=1))
    assert remedies(checkup, examine(checkup).findings)
    assert remedies(used, examine(used).findings) == ()


def test_networks_conf_keeps_the_default_where_there_was_no_file() -> None:
    far = replace(HEALTHY, wish=replace(HEALTHY.wish, subnet=IPv4Network("10.5.0.0/24")))
    (remedy,) = remedies(far, examine(far).findings)
    assert remedy.commands[-1].text == "* 192.168.56.0/21\n* 10.5.0.0/24\n"
    named = CASES["virtualbox.networks-conf"][0]
    (remedy,) = remedies(named, examine(named).findings)
    assert remedy.commands[-1].text == f"* {LAB}\n"


def test_a_shown_command_does_what_the_remedy_does(tmp_path: Path) -> None:
    command = Command(("tee", str(tmp_path / "a file")), "50% \\ * 10.0.0.0/8\nit's\n")
    assert "\n" not in command.shown()
    subprocess.run(["sh", "-c", command.shown()], check=True, capture_output=True)
    assert (tmp_path / "a file").read_text() == command.text


def test_without_systemd_docker_is_started_by_itself_and_the_clock_left_alone() -> None:
    checkup = CASES["docker.stopped"][0]
    bare = replace(checkup, system=replace(checkup.system, systemd=False, clock=False))
    (remedy,) = remedies(bare, examine(bare).findings)
    assert [command.shown() for command in remedy.commands] == ["dockerd &"]


# --- docs/doctor.md


def row(rule: Rule) -> str:
    providers = "all" if rule.providers == ALL else ", ".join(rule.providers)
    pains = ", ".join(map(str, rule.pains)) or "-"
    where = rule.source.removeprefix("https://").removeprefix("www.")
    cells = (f"`{rule.id}`", rule.level, providers, rule.title, pains, f"[{where}]({rule.source})")
    return f"| {' | '.join(cells)} |"


def test_the_docs_list_every_rule() -> None:
    path = DOCS / "doctor.md"
    text = path.read_text("utf-8")
    head, rest = text.split("<!-- rules -->\n")
    _, tail = rest.split("<!-- end of rules -->\n")
    table = (
        "| rule | level | providers | what it finds | pain | source |\n|---|---|---|---|---|---|\n"
    )
    table += "".join(f"{row(rule)}\n" for rule in RULES)
    wanted = f"{head}<!-- rules -->\n{table}<!-- end of rules -->\n{tail}"
    if os.environ.get("LABWRIGHT_GOLDEN") == "write":
        path.write_text(wanted, "utf-8")
    assert text == wanted, "LABWRIGHT_GOLDEN=write pytest tests/unit/test_doctor.py writes it anew"
