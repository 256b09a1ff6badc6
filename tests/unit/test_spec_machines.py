"""The keys of lab.yaml for machines that are there already."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from labwright import spec
from labwright.errors import SpecError
from labwright.model import Bastion, Machine

TWO = {"cp1": "10.0.0.11", "w1": "10.0.0.12"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEHkQ9y2m0m9cM8X4pNqXv3a1d8L6v2uKzqS0b1Jf7Qe"


def refused(raw: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        spec.build(raw)
    assert all(f.what for f in caught.value.findings)
    return [(f.where, f.id) for f in caught.value.findings]


def test_how_machines_are_reached_is_said_once_or_each() -> None:
    made = spec.build(
        {
            "ssh": {"user": "admin", "key": "/k", "port": 2222, "bastion": "jo@jump.lan:2022"},
            "machines": {
                "cp1": "10.0.0.11",
                "w1": {
                    "address": "w1.lan",
                    "user": "root",
                    "port": 22,
                    "key": "/other",
                    "node_address": "10.0.0.12",
                    "host_key": KEY,
                    "bastion": {"address": "gate", "key": "/gate"},
                },
            },
        }
    )
    assert made.provider == "hosts"
    cp1, w1 = made.machines
    hop = Bastion("jump.lan", 2022, "jo", "/k")
    assert cp1.machine == Machine("cp1", "10.0.0.11", 2222, "admin", "/k", hop)
    assert w1.machine == Machine(
        "w1", "w1.lan", 22, "root", "/other", Bastion("gate", 22, "", "/gate")
    )
    assert (w1.node_address, w1.host_key) == (IPv4Address("10.0.0.12"), KEY)


def test_keys_are_beside_lab_yaml_or_at_home(tmp_path: Path) -> None:
    raw = {"machines": {**TWO, "cp1": {"address": "a", "key": "~/k"}}, "ssh": {"key": "k"}}
    cp1, w1 = spec.build(raw, str(tmp_path / "lab.yaml")).machines
    assert (cp1.machine.key, w1.machine.key) == (str(Path.home() / "k"), str(tmp_path / "k"))


def test_nodes_are_as_many_as_machines() -> None:
    raw = {"machines": {"cp1": "a", "w1": "b", "w2": "c", "w3": "d", "nas1": "e"}}
    assert [n.name for n in spec.build(raw).nodes] == ["cp1", "w1", "w2", "w3", "nas1"]


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ({"provider": "hosts"}, [("machines", "spec.no-machines")]),
        ({"ssh": {"user": "x"}}, [("ssh", "spec.no-machines")]),
        ({"machines": TWO, "provider": "docker"}, [("machines", "spec.machines-unused")]),
        ({"machines": TWO, "workers": 2}, [("machines", "spec.no-machine")]),
        (
            {"machines": {"cp1": "a", "w2": "b"}},
            [("machines", "spec.no-machine"), ("machines.w2", "spec.unknown-node")],
        ),
        ({"machines": {"cp1": "a"}}, [("workers", "spec.no-workers")]),
        ({"machines": {"cp1": "a", "w1": "a"}}, [("machines.w1", "spec.same-machine")]),
        (
            {"machines": TWO, "network": {"subnet": "10.0.0.0/24"}},
            [("network.subnet", "spec.subnet-of-machines")],
        ),
        (
            {"machines": TWO, "addons": ["dns", "load-balancer"]},
            [("network.load_balancer", "spec.no-load-balancer-range")],
        ),
        ({"machines": {**TWO, "w1": {"adress": "x"}}}, [
            ("machines.w1.address", "spec.missing"), ("machines.w1.adress", "spec.unknown-key")]),
        ({"machines": {**TWO, "w1": "-oProxyCommand=x"}},
         [("machines.w1.address", "spec.string-pattern-mismatch")]),
        ({"machines": {**TWO, "w1": {"address": "a", "user": "-l"}}},
         [("machines.w1.user", "spec.string-pattern-mismatch")]),
        ({"machines": {**TWO, "w1": {"address": "a", "host_key": "SHA256:x"}}},
         [("machines.w1.host_key", "spec.string-pattern-mismatch")]),
        ({"machines": TWO, "ssh": {"bastion": "a@b@c"}}, [("ssh.bastion", "spec.value-error")]),
        ({"machines": TWO, "ssh": {"port": 0}}, [("ssh.port", "spec.greater-than-equal")]),
        ({"network": {"load_balancer": "10.0.0.9-10.0.0.1"}},
         [("network.load_balancer", "spec.value-error")]),
        ({"network": {"load_balancer": "some"}}, [("network.load_balancer", "spec.value-error")]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(raw: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert refused(raw) == found


def test_one_machine_may_serve_two_ports() -> None:
    same = {"cp1": {"address": "a", "port": 2201}, "w1": {"address": "a", "port": 2202}}
    assert len(spec.build({"machines": same}).machines) == 2
