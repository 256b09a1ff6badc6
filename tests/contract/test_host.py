"""Facts measured on the computer that runs the tests."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from labwright import spec
from labwright.phases.base import Tools
from labwright.phases.preflight import measure
from labwright.tools import host
from labwright.tools.docker import Docker
from labwright.tools.shell import Result, Shell
from labwright.tools.store import Store
from tests.contract.needs import want


def test_this_computer_is_measured() -> None:
    docker = Docker(Shell())
    facts = host.facts(Shell())
    assert facts.os_kind == platform.system().lower()
    assert facts.arch == platform.machine()
    assert facts.cpus == os.cpu_count()
    assert facts.memory > 100
    assert facts.root == (os.geteuid() == 0)
    assert set(facts.tools) <= set(host.TOOLS)
    assert all(Path(tool.path).is_file() for tool in facts.tools.values())
    assert facts.docker_api == docker.api()[0]
    assert bool(facts.docker_api) != bool(facts.docker_why)
    assert set(facts.upstream) == set(host.VENDORS)
    assert not any(address.is_loopback for address in facts.nameservers)
    if facts.docker_api:
        here = {(n.owner, n.network) for n in facts.networks}
        # The built-in bridge: labs may come and go while this runs.
        bridge = [(f"docker:{n}", IPv4Network(s)) for n, s in docker.networks() if n == "bridge"]
        assert set(bridge) <= here
    assert facts.mtu >= 68
    assert all(0 < port < 65536 for port in facts.listening)


class Deaf(Shell):
    """A shell in which every program fails, and what was asked for is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    def run(self, argv: Sequence[str | Path], **_more: Any) -> Result:
        words = [str(word) for word in argv]
        self.asked.append(words)
        return Result(tuple(words), 1, "", "", 0.0)


@pytest.mark.parametrize("kept", [None, "coredns-0123456789abcdef"], ids=["empty", "outdated"])
def test_the_module_proxy_is_asked_unless_coredns_of_this_plan_is_there(
    tmp_path: Path, kept: str | None
) -> None:
    want("go")
    store, shell = Store(tmp_path / "store"), Deaf()
    if kept:
        store.ensure(kept, lambda _work, out: (out / "coredns").touch())
    facts = measure(Tools(shell, store, Docker(shell)), spec.build({}))
    assert [words[1:3] for words in shell.asked if words[0].endswith("go")] == [["list", "-m"]]
    assert facts.go_modules is False
