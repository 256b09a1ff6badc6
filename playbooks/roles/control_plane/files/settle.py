"""Runs on a control plane: bring the nodes into their planned state and wait for all of them.

Arguments: the planned nodes as JSON, a deadline in seconds, and "schedulable" or "dedicated" for
the control planes. Prints one line for each change. On a missed deadline, says of each node what
it was last seen to lack, and exits 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

CONTROL_PLANE_TAINT = "node-role.kubernetes.io/control-plane"
# kubelet gives a sign of life every 10 s. An older one means that "Ready" is only a memory: the
# control plane takes 40 s to notice that a kubelet is gone.
FRESH_SECONDS = 20.0
INTERVAL_SECONDS = 0.5
# A kubelet that gets its pod addresses reports itself at once, and then only every 10 s. Until it
# has made its CSINode, that report is "not ready": give the addresses later, but not never.
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


def belongs(thing: Json | None, node: Json) -> bool:
    """Tell whether an object is this node's, and not that of one deleted a moment ago."""
    owners = thing["metadata"].get("ownerReferences", []) if thing else []
    return any(owner["uid"] == node["metadata"]["uid"] for owner in owners)


def patch_for(plan: Json, node: Json, schedulable: bool) -> Json:
    """Return the part of a node's spec that has to change; empty when it is as planned."""
    patch: Json = {}
    if not node["spec"].get("podCIDR"):
        patch |= {"podCIDR": plan["pod_cidr"], "podCIDRs": [plan["pod_cidr"]]}
    taints = node["spec"].get("taints", [])
    wanted = [taint for taint in taints if taint["key"] != CONTROL_PLANE_TAINT]
    if schedulable and wanted != taints:
        patch["taints"] = wanted
    if not schedulable and plan["role"] == "control_plane" and wanted == taints:
        patch["taints"] = [*taints, {"key": CONTROL_PLANE_TAINT, "effect": "NoSchedule"}]
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
    age = silence(ready, lease)
    if age > FRESH_SECONDS:
        return f"was ready, but kubelet was last heard of {age:.0f} s ago (or its clock is wrong)"
    return ""


def silence(ready: Json, lease: Json | None) -> float:
    """Return the seconds since the last sign of life: the lease, which a new node has not yet."""
    signs = [ready["lastHeartbeatTime"]] + ([lease["spec"]["renewTime"]] if lease else [])
    last = max(datetime.fromisoformat(sign) for sign in signs)
    return (datetime.now(UTC) - last).total_seconds()


def settle(plans: list[Json], schedulable: bool, impatient: bool) -> list[str]:
    """Patch what differs from the plan; return the problems that are left."""
    found = look()
    problems: list[str] = []
    for plan in plans:
        name = plan["name"]
        node, lease = found["Node"].get(name), found["Lease"].get(name)
        if node and (impatient or belongs(found["CSINode"].get(name), node)):
            patch = patch_for(plan, node, schedulable)
            if patch:
                kubectl("patch", "node", name, "--patch", json.dumps({"spec": patch}))
                sys.stdout.write(f"{name}: {', '.join(patch)}\n")
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
            listing = "\n  ".join(problems)
            sys.stderr.write(f"not all nodes were ready within {deadline} s:\n  {listing}\n")
            return 1
        time.sleep(INTERVAL_SECONDS)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
