"""What each provider finds on a host, and what it makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labwright.model import HostFacts, ProviderName
from labwright.names import network_name
from labwright.providers import PROVIDERS
from labwright.providers.docker import REQUIRED_CAPS
from labwright.tools.host import CAPS, caps_of
from tests.fakes import DEBIAN, HOSTS, LIBVIRT, VIRTUALBOX, planned

MAC = replace(VIRTUALBOX, os_kind="darwin", vboxdrv=False)
# Docker 20.10 knows no such names.
NEWER_THAN_DOCKER = {"BPF", "CHECKPOINT_RESTORE", "PERFMON"}


def test_every_provider_has_a_host_among_the_fakes() -> None:
    assert set(PROVIDERS) == set(HOSTS)
    assert all(name == provider.name for name, provider in PROVIDERS.items())


@pytest.mark.parametrize(
    ("provider", "host", "slugs"),
    [
        ("virtualbox", VIRTUALBOX, []),
        ("virtualbox", MAC, []),
        ("virtualbox", DEBIAN, ["host.virtualbox.no-vboxmanage"]),
        ("virtualbox", replace(VIRTUALBOX, vboxdrv=False), ["host.virtualbox.no-driver"]),
        ("libvirt", LIBVIRT, []),
        ("libvirt", DEBIAN, ["host.libvirt.no-virsh"]),
        ("libvirt", replace(LIBVIRT, os_kind="darwin"), ["host.libvirt.not-here"]),
        ("libvirt", replace(LIBVIRT, arch="aarch64"), ["host.libvirt.not-here"]),
        ("docker", DEBIAN, []),
        # A stopped or absent daemon is mended by preflight: no reason to choose another.
        ("docker", replace(DEBIAN, docker_api=None, docker_why="no", tools={}), []),
        ("docker", MAC, ["host.docker.not-linux"]),
        ("docker", replace(DEBIAN, caps=frozenset()), ["host.docker.caps"]),
        # Without root nobody's own capabilities are the daemon's.
        ("docker", replace(DEBIAN, caps=frozenset(), root=False), []),
    ],
)
def test_what_is_in_the_way(provider: ProviderName, host: HostFacts, slugs: list[str]) -> None:
    found = PROVIDERS[provider].probe(host)
    assert [f.id for f in found] == slugs
    assert all(f.level == "error" and f.what and f.fix for f in found)


@pytest.mark.parametrize("withheld", sorted(REQUIRED_CAPS))
def test_the_capability_withheld_is_named(withheld: str) -> None:
    (finding,) = PROVIDERS["docker"].probe(replace(DEBIAN, caps=DEBIAN.caps - {withheld}))
    assert finding.what == f"this host withholds {withheld}"


def added(host: HostFacts) -> set[str]:
    words = PROVIDERS["docker"].node_args(host)
    return {w.removeprefix("--cap-add=") for w in words if w.startswith("--cap-add=")}


@given(st.sets(st.sampled_from(CAPS)))
def test_containers_get_the_host_s_capabilities_and_no_other(names: set[str]) -> None:
    host = replace(DEBIAN, caps=frozenset(f"CAP_{name}" for name in names))
    assert added(host) == names - NEWER_THAN_DOCKER


def test_a_host_with_every_capability_there_is() -> None:
    got = added(replace(DEBIAN, caps=caps_of((1 << len(CAPS)) - 1)))
    assert got == set(CAPS) - NEWER_THAN_DOCKER
    assert "--privileged" not in PROVIDERS["docker"].node_args(DEBIAN)


def test_the_same_capabilities_give_the_same_words() -> None:
    words = PROVIDERS["docker"].node_args(DEBIAN)
    shuffled = replace(DEBIAN, caps=frozenset(sorted(DEBIAN.caps, reverse=True)))
    assert words == PROVIDERS["docker"].node_args(shuffled)
    assert list(words[: len(DEBIAN.caps)]) == sorted(words[: len(DEBIAN.caps)])


@pytest.mark.parametrize("provider", ["virtualbox", "libvirt"])
def test_machines_need_nothing_of_the_host(provider: ProviderName) -> None:
    assert PROVIDERS[provider].node_args(HOSTS[provider]) == ()


def test_a_node_s_part_of_the_vagrantfile() -> None:
    cp1, w1, _ = planned({"nodes": {"w1": {"cpus": 8, "memory": 3072}}}).nodes
    docker, libvirt, virtualbox = (PROVIDERS[n] for n in ("docker", "libvirt", "virtualbox"))
    assert docker.vagrant(w1) == {"limits": ["--memory=3072m", "--cpu-shares=8192"]}
    assert docker.vagrant(cp1) == {"limits": ["--memory=2048m", "--cpu-shares=2048"]}
    assert libvirt.vagrant(w1) == {"mac": w1.mac}
    assert virtualbox.vagrant(w1) == {"mac": w1.mac.replace(":", "").upper()}


def test_a_lab_s_network_is_not_named_as_vagrant_s_own() -> None:
    assert not network_name("x").startswith("vagrant_network")


def test_virtualbox_permits_every_range_it_is_given() -> None:
    for subnet in PROVIDERS["virtualbox"].caps.subnets:
        assert str(subnet) == "192.168.56.0/21"
