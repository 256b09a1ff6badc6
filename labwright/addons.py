"""What the add-ons of a lab are up to, from what the cluster says of their workloads. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labwright.catalog import Addon
from labwright.model import Plan

LABEL = "labwright.local/addon"
# A service's address for people, where it is none of the cluster's own.
ADDRESS = "labwright.local/address"
BALANCER = "load-balancer"
# Workloads and, for addresses, pods and services of every add-on.
ASK = f"get deployments,daemonsets,services,pods --all-namespaces --selector {LABEL} --output json"


@dataclass(frozen=True, slots=True)
class State:
    """One add-on: ``state`` is ready, starting, missing, off, or left over from before."""

    name: str
    title: str
    state: str
    version: str
    address: str


def states(
    plan: Plan, known: Mapping[str, Addon], items: Sequence[Mapping[str, Any]] | None
) -> Iterator[State]:
    """Give every add-on there is; ``items`` is ``None`` where the cluster could not be asked."""
    for addon in known.values():
        own = [i for i in items or () if i["metadata"]["labels"][LABEL] == addon.name]
        enabled = addon.name in plan.addons
        hosts = [s.host for s in plan.services_at if s.name == addon.name]
        told = [*(_range(plan, own) if addon.name == BALANCER else _addresses(own))]
        yield State(
            addon.name,
            addon.title,
            "unknown" if items is None and enabled else _state(own, enabled),
            plan.versions.get(addon.component, "") if enabled else "",
            ", ".join(told or hosts),
        )


def _state(own: Sequence[Mapping[str, Any]], enabled: bool) -> str:
    workloads = [i for i in own if i["kind"] in {"Deployment", "DaemonSet"}]
    if not workloads:
        return "missing" if enabled else "off"
    if not enabled:
        return "left over"
    return "ready" if all(map(_ready, workloads)) else "starting"


def _ready(workload: Mapping[str, Any]) -> bool:
    status = workload["status"]
    if workload["kind"] == "DaemonSet":
        return bool(status.get("numberReady", 0) >= status.get("desiredNumberScheduled", 1))
    return bool(status.get("readyReplicas", 0) >= workload["spec"].get("replicas", 1))


def _range(plan: Plan, own: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Give what services may get: where its own pods are says nothing to anyone."""
    if own:
        yield "-".join(map(str, plan.load_balancer))


def _addresses(own: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Give the addresses of services, and those of pods that have their node's."""
    for item in own:
        balanced = item["status"].get("loadBalancer", {}).get("ingress", [])
        if told := item["metadata"].get("annotations", {}).get(ADDRESS):
            yield str(told)
        elif item["kind"] == "Service" and balanced:
            port = item["spec"]["ports"][0]["port"]
            yield from (f"{given['ip']}:{port}" for given in balanced if "ip" in given)
        elif item["kind"] == "Service" and item["spec"].get("clusterIP", "None") != "None":
            port = item["spec"]["ports"][0]["port"]
            yield f"{item['spec']['clusterIP']}:{port}"
        if item["kind"] == "Pod" and item["spec"].get("hostNetwork") and "hostIP" in item["status"]:
            yield str(item["status"]["hostIP"])
