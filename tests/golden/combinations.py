"""Every provider with every supply and every shape of lab, on a host where that goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from labwright import render
from labwright.phases.fetch import stock
from labwright.providers import PROVIDERS
from labwright.supplies import SUPPLIES
from tests.fakes import BESIDE, HOSTS, STOCK, planned, run_of, upstream

FILES = Path(__file__).parent / "files"

TOPOLOGIES: Mapping[str, Mapping[str, Any]] = {
    "one-node": {"workers": 0, "schedule_on_control_planes": True},
    "three-nodes": {},
    "beside": {"workers": 1, "tools": 1, "nas": 1},
    "custom": {
        "name": "class-7",
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

# What a custom lab asks of each supply.
CUSTOM: Mapping[str, Mapping[str, Any]] = {
    "packages": {
        "kubernetes": "1.35",
        "mirrors": {"registries": {"docker.io": "http://192.168.58.1:5000"}},
    },
    "upstream": {
        "kubernetes": "1.35",
        "guest": "debian-12",
        "versions": {"rancher": "2.15", "cert-manager": "1.21"},
        "mirrors": {
            "apt": {
                "kubernetes": {"url": "http://mirror.lan/k8s", "key": "mirror.asc"},
                "debian": "http://mirror.lan/debian/",
            },
            "registries": {
                "registry.k8s.io": "http://192.168.58.1:5000",
                "docker.io": "https://hub.mirror.lan/v2/docker",
            },
            "charts": {"rancher": "http://mirror.lan/charts"},
        },
    },
}

HOSTS_CUSTOM: Mapping[str, Any] = {
    "network": {
        "load_balancer": "10.0.0.200-10.0.0.209",
        "pods": "10.100.0.0/16",
        "services": "10.200.0.0/16",
    },
    "nodes": {"cp1": {"cpus": 4}},
}

COMBINATIONS = [
    f"{provider}-{supply}-{topology}"
    for provider in PROVIDERS
    for supply in SUPPLIES
    for topology in TOPOLOGIES
]


def rendered(combination: str) -> dict[str, str]:
    """Give the files of ``<provider>-<supply>-<topology>``: path → text."""
    provider, supply, topology = combination.split("-", 2)
    # As a host withholds it, so that this shows in the goldens.
    host = replace(HOSTS[provider], caps=HOSTS[provider].caps - {"CAP_SYS_RESOURCE"})
    raw = {"provider": provider, "supply": supply, **TOPOLOGIES[topology]}
    if topology == "custom":
        raw |= CUSTOM[supply]
    if topology == "custom" and provider == "hosts":
        # Its network and its machines are there already.
        raw |= HOSTS_CUSTOM
        del raw["box"]
    if supply == "packages":
        return render.files(planned(raw, host), BESIDE if topology == "beside" else STOCK)
    plan = upstream(raw, host)
    return render.files(plan, stock(run_of(Path("nowhere"), plan)))
