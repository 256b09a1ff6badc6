"""Every provider with every shape of lab, rendered on a host where that provider works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from labwright import render
from labwright.providers import PROVIDERS
from tests.fakes import HOSTS, STOCK, planned

FILES = Path(__file__).parent / "files"

TOPOLOGIES: Mapping[str, Mapping[str, Any]] = {
    "one-node": {"workers": 0, "schedule_on_control_planes": True},
    "three-nodes": {},
    "custom": {
        "name": "class-7",
        "kubernetes": "1.20",
        "network": {
            "subnet": "192.168.58.0/24",
            "pods": "10.100.0.0/16",
            "services": "10.200.0.0/16",
        },
        "workers": 3,
        "defaults": {"cpus": 2, "memory": "2GiB"},
        "nodes": {
            "cp1": {"cpus": 8, "memory": "4GiB", "disk": "50GiB"},
            "w3": {"cpus": 1, "memory": 1024, "disk": 20000},
        },
        "addons": [],
        "box": {
            "name": 'o\'reilly/"#{box}"',
            "version": "12.20240212.1",
            "url": "https://boxes.example.org/a b.box",
            "checksum": "sha256:" + "0123456789abcdef" * 4,
        },
    },
}

COMBINATIONS = [f"{provider}-{topology}" for provider in PROVIDERS for topology in TOPOLOGIES]


def rendered(combination: str) -> dict[str, str]:
    """Give the files of ``<provider>-<topology>``: path → text."""
    provider, _, topology = combination.partition("-")
    # As a host withholds it, so that this shows in the goldens.
    host = replace(HOSTS[provider], caps=HOSTS[provider].caps - {"CAP_SYS_RESOURCE"})
    plan = planned({"provider": provider, **TOPOLOGIES[topology]}, host)
    return render.files(plan, STOCK)
