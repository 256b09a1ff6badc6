"""Runs on a control plane: bring the nodes into their planned state and wait until all are ready.

Arguments: the planned nodes as JSON, a deadline in seconds, "schedulable" or "dedicated" control planes.
Prints one line for each change. On a missed deadline, prints each node's last condition to stderr and exits 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

CONTROL_PLANE_TAINTS = ("node-role.kubernetes.io/master", "node-role.kubernetes.io/control-plane")
# kubelet renews its lease every 10 s. An older one means that "Ready" is only a memory: the
# control plane takes 40 s to notice that a kubelet is gone.
FRESH_SECONDS = 20.0
INTERVAL_SECONDS = 0.5
# A kubelet that gets its pod addresses reports itself at once, and then only every 10 s. Until it has
# made its CSINode, that report is "not ready": give the addresses later, but not never.
PATIENCE_SECONDS = 15.0

Json = dict[str, Any]


def kubectl(*arguments: str) -> str:
    """Run kubectl with the KUBECONFIG of the environment; raises CalledProcessError."""
    command = ("kubectl", "--request-timeout=10s", *arguments)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


def look() -> dict[str, dict[str, Json]]:
    """Return the objects of each kind by name: Node, Lease and CSINode bear the names of nodes."""
    found: dict[str, dict[str, Json]] = {"Node": {}, "Lease": {}, "CSINode": {}}
    kinds = "nodes,leases,csinodes"
    listing = kubectl("get", kinds, "--namespace=kube-node-lease", "--output=json")
    for item in json.loads(listing)["items"]:
        found[item["kind"]][item["metadata"]["name"]] = item
    return found


def patch_for(plan: Json, node: Json, schedulable: bool) -> Json:
    """Return the part of a node's spec that has to change; empty when it is as planned."""
    patch: Json = {}
    if not node["spec"].get("podCIDR"):
        patch |= {"podCIDR": plan["pod_cidr"], "podCIDRs": [plan["pod_cidr"]]}
    taints = node["spec"].get("taints", [])
    wanted = [taint for taint in taints if taint["key"] not in CONTROL_PLANE_TAINTS]
    if schedulable and wanted != taints:
        patch["taints"] = wanted
    return patch


def problem(plan: Json, node: Json | None, lease: Json | None) -> str:
    """Say why a node is not ready, in one line; empty when it is."""
    if node is None:
        return "is not registered"
    pod_cidr = node["spec"].get("podCIDR")
    if pod_cidr not in (None, plan["pod_cidr"]):
        return f"has the pod addresses {pod_cidr}, planned are {plan['pod_cidr']}"
    conditions = {c["type"]: c for c in node["status"].get("conditions", [])}
    ready = conditions.get(
        "Ready", {"status": "Unknown", "message": "no condition was reported yet"}
    )
    if ready["status"] != "True":
        return f"is not ready: {ready.get('reason', '')} {ready.get('message', '')}".strip()
    if lease is None:
        return "has never renewed its lease"
    age = lease_age(lease)
    if age > FRESH_SECONDS:
        return (
            f"was ready, but kubelet's last sign of life is {age:.0f} s old (or its clock is wrong)"
        )
    return ""


def lease_age(lease: Json) -> float:
    """Return the seconds since a lease was renewed."""
    renewed = datetime.fromisoformat(lease["spec"]["renewTime"].replace("Z", "+00:00"))
    return (datetime.now(UTC) - renewed).total_seconds()


def settle(plans: list[Json], schedulable: bool, impatient: bool) -> list[str]:
    """Patch what differs from the plan; return the problems that are left."""
    found = look()
    problems: list[str] = []
    for plan in plans:
        name = plan["name"]
        node, lease = found["Node"].get(name), found["Lease"].get(name)
        if node and (impatient or name in found["CSINode"]):
            patch = patch_for(plan, node, schedulable)
            if patch:
                kubectl("patch", "node", name, "--patch", json.dumps({"spec": patch}))
                print(f"{name}: {', '.join(patch)}")
        what = problem(plan, node, lease)
        if what:
            problems.append(f"{name} {what}")
    return problems


def main(plans_json: str, deadline: str, mode: str) -> int:
    """Settle until nothing is left to do or the deadline has passed."""
    plans = json.loads(plans_json)
    start = time.monotonic()
    while True:
        passed = time.monotonic() - start
        try:
            problems = settle(plans, mode == "schedulable", passed > PATIENCE_SECONDS)
        except subprocess.CalledProcessError as error:
            problems = [f"kubectl failed: {error.stderr.strip()}"]
        if not problems:
            return 0
        if passed > float(deadline):
            print(
                f"not all nodes were ready within {deadline} s:",
                *problems,
                sep="\n  ",
                file=sys.stderr,
            )
            return 1
        time.sleep(INTERVAL_SECONDS)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
