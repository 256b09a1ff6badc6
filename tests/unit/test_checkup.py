"""What the doctor reads: from files of a made-up root, and from servers of its own."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from labwright import authority
from labwright.authority import Scope, Server
from labwright.doctor.facts import Cpu, Wish
from labwright.model import HostNetwork
from labwright.tools import checkup, kvmprobe, libvirt, netprobe, sysprobe
from labwright.tools import networks as networks_in_use
from labwright.tools.shell import Result, Shell
from tests.fakes import DEBIAN

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD Ryzen 7
flags\t\t: fpu svm aes

processor\t: 1
vendor_id\t: other
"""

TCP = """  sl  local_address rem_address   st
   0: 00000000:222E 00000000:0000 0A 00000000:00000000
   1: 0100007F:0016 00000000:0000 0A 00000000:00000000
   2: 00000000:1F90 0101A8C0:A1B2 01 00000000:00000000
"""
TCP6 = """  sl  local_address rem_address   st
   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 0
"""


class Deaf(Shell):
    """A shell that has no programs."""

    def run(self, argv: object, **_more: object) -> Result:
        return Result((), 1, "", "", 0.0)

    def has(self, program: str) -> bool:
        return False


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return root


def test_a_processor() -> None:
    assert checkup.cpu(CPUINFO) == Cpu("AuthenticAMD", "AMD Ryzen 7", "svm", under_hypervisor=False)
    assert checkup.cpu("flags : fpu hypervisor") == Cpu("", "", "", under_hypervisor=True)
    assert checkup.cpu("") == Cpu()


def test_ports_that_are_taken_on_all_addresses() -> None:
    assert netprobe.listening(TCP + TCP6) == (443, 8750)


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("# nothing\n", ()),
        ("* 10.0.0.0/8 192.168.0.0/16\n* 2001::/64\n", ("10.0.0.0/8", "192.168.0.0/16")),
        ("  * 0.0.0.0/0 ::/0\n", ("0.0.0.0/0",)),
        ("10.0.0.0/8\n* nonsense\n", ()),
    ],
)
def test_networks_conf(tmp_path: Path, text: str, networks: tuple[str, ...]) -> None:
    path = tmp_path / "networks.conf"
    assert networks_in_use.permitted(path) is None
    path.write_text(text)
    assert networks_in_use.permitted(path) == tuple(map(IPv4Network, networks))


def test_a_host_is_read_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netprobe, "strangers", lambda _addresses: ())
    monkeypatch.setattr(netprobe, "made_up", lambda: "")
    monkeypatch.setattr(netprobe, "untrusted", lambda _names: ())
    root = lay(
        tmp_path,
        {
            "proc/cpuinfo": CPUINFO,
            "proc/meminfo": "MemAvailable: 4096000 kB\nSwapTotal: 999424 kB\n",
            "proc/cgroups": "#subsys_name hierarchy num enabled\ncpu 0 9 1\nmemory 0 9 0\n",
            "proc/filesystems": "nodev\tproc\n\text4\n",
            "proc/sys/fs/inotify/max_user_instances": "128\n",
            "proc/sys/fs/inotify/max_user_watches": "8192\n",
            "proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2\n",
            "proc/net/tcp": TCP,
            "sys/module/kvm/parameters/enable_virt_at_load": "N\n",
            "sys/module/kvm_amd/refcnt": "2\n",
            "sys/module/vboxdrv/version": "7.0.20 r163906 (0x00330004)\n",
            "etc/vbox/networks.conf": "* 10.0.0.0/8\n",
            "etc/resolv.conf": "domain x.example\nsearch a.example b.example\n"
            "nameserver 127.0.0.53\n",
            "etc/apt/sources.list": "# deb https://apt.kubernetes.io/ kubernetes-xenial main\n",
            "etc/apt/sources.list.d/k8s.list": "deb https://apt.kubernetes.io/ x main\n",
            "etc/apt/sources.list.d/k8s.list.save": "deb https://apt.kubernetes.io/ x main\n",
        },
    )
    (root / "sys/firmware/efi/efivars").mkdir(parents=True)
    (root / "sys/firmware/efi/efivars/SecureBoot-8be4").write_bytes(b"\x06\x00\x00\x00\x01")
    found = checkup.measure(Deaf(), DEBIAN, Wish(), root)
    assert (found.kvm.modules, found.kvm.at_load, found.kvm.users) == (("kvm", "kvm_amd"), False, 2)
    assert (found.kvm.boots, found.kvm.why) == (None, "/dev/kvm does not open")
    assert found.virtualbox.driver.startswith("7.0.20")
    assert found.virtualbox.permitted == (IPv4Network("10.0.0.0/8"),)
    assert found.virtualbox.secure_boot is True
    assert found.virtualbox.kernel_headers is False
    assert found.libvirt.socket == "absent"
    assert found.system.memory_available == 4000
    assert found.system.wsl
    assert found.system.dead_sources == (str(root / "etc/apt/sources.list.d/k8s.list"),)
    assert found.kernel.swap == 976
    assert found.kernel.controllers == {"cpu"}
    assert not found.kernel.overlay
    assert not found.kernel.bridge_netfilter
    assert (found.kernel.inotify_instances, found.kernel.inotify_watches) == (128, 8192)
    assert found.network.search == ("a.example", "b.example")
    assert found.network.resolvers == ("127.0.0.53",)
    assert found.network.listening == (8750,)


def test_libvirt_answers_by_its_socket(tmp_path: Path) -> None:
    (tmp_path / "run/libvirt").mkdir(parents=True)
    path = tmp_path / "run/libvirt/libvirt-sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert libvirt.reached(tmp_path) == "answers"
    # A file that nobody listens at is what a daemon leaves that was killed.
    assert libvirt.reached(tmp_path) == "absent"


def test_the_disk_is_measured_and_nothing_stays(tmp_path: Path) -> None:
    took, rate = sysprobe.disk(tmp_path)
    assert took is not None
    assert took > 0
    assert rate is not None
    assert rate > 0
    assert [*tmp_path.iterdir()] == []
    assert sysprobe.disk(tmp_path / "absent") == (None, None)


@pytest.mark.parametrize(
    ("environment", "utf8"),
    [
        ({"LC_ALL": "C.UTF-8"}, True),
        ({"LANG": "C.utf8"}, True),
        ({"LC_ALL": "C", "LANG": "C.UTF-8"}, False),
        ({}, False),
        ({"LC_ALL": "xx_XX.UTF-8"}, False),
    ],
)
def test_the_locale_that_ansible_sees(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], utf8: bool
) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert sysprobe.own_locale()[1] is utf8


# --- the network


@contextmanager
def serving_tls(folder: Path) -> Iterator[int]:
    """A server on this computer with a certificate that nobody trusts."""
    now = datetime.now(UTC)
    here = IPv4Address("127.0.0.1")
    own = authority.found(Scope("lab", "lab.internal", IPv4Network("192.168.56.0/24")), now)
    pair = authority.issue(own, Server(("localhost",), (here,)), now)
    (folder / "pair.pem").write_text(pair.certificate + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pair.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        context.wrap_socket(connection, server_side=True).close()
                    except OSError:
                        continue

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_who_answers_tls_for_a_stranger_is_seen(tmp_path: Path) -> None:
    with serving_tls(tmp_path) as port:
        assert netprobe.strangers(("127.0.0.1",), port) == ("127.0.0.1",)
        assert netprobe.untrusted(("127.0.0.1",), port) == ("127.0.0.1",)
    assert netprobe.strangers(("127.0.0.1",), port) == ()
    # A server that does not answer is silent, not untrusted.
    assert netprobe.untrusted(("127.0.0.1",), port) == ()


def hang_up(server: socket.socket) -> None:
    server.accept()[0].close()


def test_an_address_of_this_hosts_own_network_is_no_stranger() -> None:
    own = HostNetwork(IPv4Network("192.0.2.0/24"), "route on eth0")
    default = HostNetwork(IPv4Network("0.0.0.0/0"), "route on eth0")
    found = netprobe._foreign(replace(DEBIAN, networks=(own, default)))
    assert found == ("198.51.100.33", "203.0.113.33")


def test_a_server_without_tls_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=hang_up, args=(server,), daemon=True).start()
        assert netprobe.strangers(("127.0.0.1",), port) == ()


def test_proxy_variables_lose_their_password() -> None:
    environment = {
        "https_proxy": "http://user:hunter22@proxy:3128",
        "NO_PROXY": "localhost,10.0.0.0/8",
        "HTTP_PROXY": "",
        "PATH": "/bin",
    }
    assert netprobe.proxies(environment) == {
        "https_proxy": "http://proxy:3128",
        "NO_PROXY": "localhost,10.0.0.0/8",
    }


# --- the guest that is booted


def test_the_boot_sector_is_one() -> None:
    sector = kvmprobe.boot_sector()
    assert len(sector) == 512
    assert sector[-2:] == b"\x55\xaa"


@pytest.mark.parametrize(
    ("script", "came"),
    [("exit 33", True), ("echo no accelerator; exit 1", False), ("exit 0", False)],
)
def test_only_the_guest_itself_can_say_that_it_came_up(
    tmp_path: Path, script: str, came: bool
) -> None:
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    yes, why = kvmprobe.boots(Shell(), str(program))
    assert yes is came
    assert bool(why) is not came


def test_guests_slower_than_emulated_ones_are_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kvmprobe, "SURELY_FAST", 0.0)
    monkeypatch.setattr(kvmprobe, "NO_HELP", 0.0)
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\nexit 33\n")
    program.chmod(0o755)
    yes, why = kvmprobe.boots(Shell(), str(program))
    assert not yes
    assert why.endswith("under emulation")


def test_kvm_is_tried_once_for_each_boot_of_the_computer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def boots(_shell: Shell, qemu: str) -> tuple[bool, str]:
        tried.append(qemu)
        return False, "nothing came"

    boot, memory = tmp_path / "boot_id", tmp_path / "kvm"
    boot.write_text("one\n")
    monkeypatch.setattr(kvmprobe, "boots", boots)
    monkeypatch.setattr(kvmprobe, "BOOT_ID", boot)
    monkeypatch.setattr(Shell, "has", lambda _self, _program: True)
    for _ in range(2):
        assert kvmprobe.remembered(Shell(), memory) is False
    assert len(tried) == 1
    boot.write_text("two\n")
    assert kvmprobe.remembered(Shell(), memory) is False
    assert len(tried) == 2
    monkeypatch.setattr(Shell, "has", lambda _self, _program: False)
    assert kvmprobe.remembered(Shell(), memory) is None


def test_a_guest_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvmprobe, "DEADLINE", 0.2)
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\nsleep 60\n")
    program.chmod(0o755)
    yes, why = kvmprobe.boots(Shell(), str(program))
    assert not yes
    assert why.startswith("0 of 4 came up")
