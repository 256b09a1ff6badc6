"""Runs on a control plane: removes Rancher and all that it made, so that nothing is left hanging.

What calls ``main`` is added where this is sent: standard input is this program. It prints a line
for each thing that it did and, where the deadline came first, what is left and why.

Helm knows what the chart made. Rancher made far more at run time: webhooks that refuse every
change once nobody answers them, finalizers that only its own controllers take away, namespaces
that wait for those, and definitions that wait for the objects of them. So what writes goes first,
then what refuses, then what holds, then all the rest.

Only what is Rancher's by its own marks goes: its namespaces by name, or as its clusters, projects
and users name them; definitions of the groups of cattle.io; what Helm put there for a release in
such a namespace; roles with a label, an annotation or an owner of those groups.

A mark alone does not make a thing Rancher's: it labels cluster-admin, without which nobody may do
anything. What is Kubernetes' own, or was there before Rancher, stays and loses its marks.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

Json = dict[str, Any]
NAME = "rancher"
NAMESPACE = "cattle-system"
KEPT_IN = "kube-system"
RECORD = "labwright-rancher"
CHART = "/etc/labwright/rancher.tgz"
# The second is in one annotation, of a project's roles
# (rancher/rancher, pkg/controllers/managementuser/rbac/namespace_handler.go).
GROUPS = ("cattle.io", "cluster.auth.io")
# On what the API server makes, and makes again at its start
# (https://kubernetes.io/docs/reference/access-authn-authz/rbac/#auto-reconciliation).
BOOTSTRAP = "kubernetes.io/bootstrapping"
# As Rancher names a binding whose name it computes; nothing is written on some of them.
COMPUTED = re.compile(r"c?rb-[a-z2-7]{10}")
OWN_PREFIXES = ("cattle-", "cluster-fleet-")
OWN_NAMES = {"fleet-default", "fleet-local", "fleet-system", "rancher-operator-system"}
# Definition → what says which namespaces belong to its objects, beside their names.
OWNERS = {
    "clusters.management.cattle.io": None,
    "projects.management.cattle.io": "backingNamespace",
    "users.management.cattle.io": None,
    "fleetworkspaces.management.cattle.io": None,
}
WRITERS = "deployments,statefulsets,daemonsets,cronjobs,jobs"
WEBHOOKS = "validatingwebhookconfigurations,mutatingwebhookconfigurations"
ROLES = "clusterrolebindings,clusterroles,rolebindings,roles"
# Kinds that Rancher marks or holds wherever they are.
HELD = (
    "namespaces,nodes,secrets,configmaps,serviceaccounts,services,deployments,daemonsets,"
    f"statefulsets,persistentvolumeclaims,persistentvolumes,{ROLES}"
)
MARKED = {"Namespace", "Node"}
HELM = "meta.helm.sh/release-namespace"
INTERVAL_SECONDS = 2.0
# After so long a pod is not waited for any more: what it writes is undone by the next pass.
STOP_SECONDS = 60.0
LINES = 6


def run(*words: str, stdin: str | None = None) -> str:
    """Run a program with the KUBECONFIG of the environment; raises CalledProcessError."""
    return subprocess.run(words, check=True, capture_output=True, text=True, input=stdin).stdout


def kubectl(*words: str, stdin: Json | None = None) -> str:
    """Run kubectl; raises CalledProcessError."""
    text = None if stdin is None else json.dumps(stdin)
    return run("kubectl", "--request-timeout=30s", *words, stdin=text)


def get(*words: str) -> list[Json]:
    """Return the objects that ``kubectl get`` finds; none of a kind that is gone."""
    try:
        text = kubectl("get", *words, "--ignore-not-found", "--output=json")
    except subprocess.CalledProcessError as error:
        if re.search(r"doesn't have a resource type|could not find the requested", error.stderr):
            return []
        raise
    found: Json = json.loads(text) if text.strip() else {"kind": "List", "items": []}
    return list(found["items"]) if found["kind"] == "List" else [found]


def cattle(name: str) -> bool:
    """Tell whether a group, or the prefix of a key, is Rancher's."""
    domain = name.partition("/")[0]
    return any(domain == group or domain.endswith(f".{group}") for group in GROUPS)


def title(thing: Json) -> str:
    """Name an object in a message."""
    metadata = thing["metadata"]
    place = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{thing['kind'].lower()} {place}{metadata['name']}"


def address(thing: Json, resource: str = "") -> list[str]:
    """Return the words by which kubectl finds an object."""
    metadata = thing["metadata"]
    group = thing["apiVersion"].rpartition("/")[0]
    kind = resource or (f"{thing['kind']}.{group}" if group else thing["kind"])
    place = [f"--namespace={metadata['namespace']}"] if metadata.get("namespace") else []
    return [kind, metadata["name"], *place]


def patch(thing: Json, change: Json, resource: str = "") -> None:
    """Change an object that may be gone by now."""
    words = ["patch", *address(thing, resource), "--type=merge", f"--patch={json.dumps(change)}"]
    try:
        kubectl(*words)
    except subprocess.CalledProcessError as error:
        if "NotFound" not in error.stderr and "not found" not in error.stderr:
            raise


def delete(things: Iterable[Json]) -> list[str]:
    """Begin to delete objects; return a line for each."""
    done = []
    for thing in things:
        if not thing["metadata"].get("deletionTimestamp"):
            words = ("--ignore-not-found", "--wait=false", "--cascade=background")
            kubectl("delete", *address(thing), *words)
            done.append(f"{title(thing)} deleted")
    return done


# ------------------------------------------------------------------------------- what is Rancher's


def recorded(key: str) -> set[str]:
    """Return a list that was kept in the cluster; empty where there is none."""
    record = next(iter(get("configmap", RECORD, f"--namespace={KEPT_IN}")), {})
    return set(json.loads((record.get("data") or {}).get(key, "[]")))


def stays(thing: Json, before: set[str]) -> bool:
    """Tell whether an object is Kubernetes' own, or was there before Rancher."""
    metadata = thing["metadata"]
    own = BOOTSTRAP in (metadata.get("labels") or {})
    return own or f"{thing['kind']} {metadata.get('namespace', '')}/{metadata['name']}" in before


def definitions(spaces: Iterable[str], before: set[str]) -> list[Json]:
    """Return the definitions of Rancher's kinds, and those its own releases brought."""
    mine = set(spaces)
    found = [d for d in get("customresourcedefinitions") if not stays(d, before)]
    return [d for d in found if cattle(d["spec"]["group"]) or released(d) in mine]


def released(thing: Json) -> str:
    """Return the namespace of the release that brought an object."""
    return str((thing["metadata"].get("annotations") or {}).get(HELM, ""))


def namespaces() -> set[str]:
    """Return the names of Rancher's namespaces, those remembered from an earlier try included."""
    names = recorded("namespaces")
    known = {d["metadata"]["name"] for d in get("customresourcedefinitions")}
    for resource in known & set(OWNERS):
        for owner in get(resource, "--all-namespaces"):
            names |= {owner["metadata"]["name"], *backing(owner, OWNERS[resource])}
    there = {thing["metadata"]["name"] for thing in get("namespaces")}
    names |= {n for n in there if n.startswith(OWN_PREFIXES) or n in OWN_NAMES}
    return (names & there) - {"default", "kube-system", "kube-public", "kube-node-lease"}


def backing(owner: Json, field: str | None) -> Iterator[str]:
    """Give the namespace that a project's status names."""
    name = (owner.get("status") or {}).get(field or "")
    if name:
        yield str(name)


def remember(spaces: Iterable[str]) -> None:
    """Keep the names: they are known from objects that go before their namespaces do."""
    data = {"data": {"namespaces": json.dumps(sorted(spaces))}}
    words = ["configmap", RECORD, f"--namespace={KEPT_IN}"]
    if get(*words):
        kubectl("patch", *words, "--type=merge", f"--patch={json.dumps(data)}")


def within(thing: Json, spaces: Iterable[str]) -> bool:
    """Tell whether a webhook or an extension server is asked in one of these namespaces."""
    services = [hook["clientConfig"].get("service") or {} for hook in thing.get("webhooks") or []]
    services.append((thing.get("spec") or {}).get("service") or {})
    return any(service.get("namespace") in set(spaces) for service in services)


def refusers(spaces: Iterable[str]) -> list[Json]:
    """Return webhooks and extension servers that nobody answers for any more."""
    found = get(f"{WEBHOOKS},apiservices")
    # An APIService without a service stands for a definition, and goes with it.
    asked = [t for t in found if t["kind"] != "APIService" or t["spec"].get("service")]
    return [t for t in asked if within(t, spaces) or cattle(t["metadata"]["name"])]


def made(thing: Json, spaces: set[str]) -> bool:
    """Tell whether a role, a binding or a class is one that Rancher made."""
    metadata = thing["metadata"]
    keys = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
    owners = [owner["apiVersion"] for owner in metadata.get("ownerReferences") or []]
    subjects = thing.get("subjects") or []
    return (
        any(cattle(key) for key in (*keys, *owners))
        or released(thing) in spaces
        or metadata["name"].startswith("cattle-")
        or bool(subjects and all(s.get("namespace") in spaces for s in subjects))
    )


def dangling(binding: Json, mine: list[Json], there: set[str]) -> bool:
    """Tell whether a binding has a name of Rancher's and a role that goes or is gone."""
    role = binding.get("roleRef", {}).get("name")
    if not role or not COMPUTED.fullmatch(binding["metadata"]["name"]):
        return False
    return role not in there or role in {thing["metadata"]["name"] for thing in mine}


def strays(spaces: set[str], before: set[str]) -> list[Json]:
    """Return what Rancher made outside its namespaces."""
    there = get(f"{ROLES},priorityclasses", "--all-namespaces")
    others = [t for t in there if not stays(t, before)]
    found = [t for t in others if made(t, spaces)]
    roles = {t["metadata"]["name"] for t in there if t["kind"] in {"ClusterRole", "Role"}}
    found += [t for t in others if t not in found and dangling(t, found, roles)]
    kept = get("configmaps,leases", f"--namespace={KEPT_IN}")
    found += [t for t in kept if t["metadata"]["name"].startswith("cattle-")]
    return [t for t in found if t["metadata"].get("namespace") not in spaces]


# ------------------------------------------------------------------------------------------ steps


def stop(spaces: set[str]) -> list[str]:
    """Stop all that writes: a controller would put back what is taken away."""
    done = []
    for space in sorted(spaces):
        found = get(WRITERS, f"--namespace={space}")
        done += delete(thing for thing in found if not thing["metadata"].get("ownerReferences"))
    start = time.monotonic()
    while pods := [p for space in sorted(spaces) for p in get("pods", f"--namespace={space}")]:
        if time.monotonic() - start > STOP_SECONDS:
            for pod in pods:
                force = ("--grace-period=0", "--force", "--ignore-not-found", "--wait=false")
                kubectl("delete", *address(pod), *force)
            break
        time.sleep(INTERVAL_SECONDS)
    return done


def uninstall() -> list[str]:
    """Have Helm take away what the chart made. Its hooks would start pods to do our work."""
    words = ("helm", "uninstall", NAME, f"--namespace={NAMESPACE}", "--no-hooks")
    try:
        run(*words, "--ignore-not-found", "--timeout=2m")
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        # What is left of it is found by its annotation.
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        return [f"helm uninstall: {said.strip()[-200:]}"]
    return [f"release {NAME} uninstalled"]


def release(spaces: set[str], before: set[str]) -> list[str]:
    """Take away finalizers that nobody is left to honour, and marks on what stays."""
    done = []
    for definition in definitions(spaces, before):
        resource = definition["metadata"]["name"]
        for thing in get(resource, "--all-namespaces"):
            if thing["metadata"].get("finalizers"):
                patch(thing, {"metadata": {"finalizers": None}}, resource)
                done.append(f"{title(thing)} let go")
    for thing in get(HELD, "--all-namespaces"):
        kept = thing["kind"] in MARKED or stays(thing, before)
        change = freed(thing) | (unmarked(thing) if kept else {})
        if change:
            patch(thing, {"metadata": change})
            done.append(f"{title(thing)} let go")
    return done


def freed(thing: Json) -> Json:
    """Return the change that leaves an object without finalizers of Rancher's."""
    finalizers = thing["metadata"].get("finalizers") or []
    others = [name for name in finalizers if not cattle(name)]
    return {"finalizers": others or None} if others != finalizers else {}


def unmarked(thing: Json) -> Json:
    """Return the change that leaves an object without labels and annotations of Rancher's."""
    marks = {
        part: {key: None for key in thing["metadata"].get(part) or {} if cattle(key)}
        for part in ("labels", "annotations")
    }
    return {part: keys for part, keys in marks.items() if keys}


def left(spaces: set[str], before: set[str]) -> list[Json]:
    """Return all that is still to go."""
    found = [t for t in get("namespaces") if t["metadata"]["name"] in spaces]
    return [*refusers(spaces), *strays(spaces, before), *found, *definitions(spaces, before)]


def hanging(thing: Json) -> str:
    """Say what holds an object that is being deleted."""
    found = (thing.get("status") or {}).get("conditions") or []
    told = [c["message"] for c in found if c["status"] == "True" and "emaining" in c["type"]]
    keeps = thing["metadata"].get("finalizers") or []
    why = "; ".join(told) or (f"finalizers {', '.join(keeps)}" if keeps else "no reason is given")
    return f"{title(thing)} is still there: {why}"


def remove(deadline: float) -> tuple[list[str], list[str]]:
    """Remove it all. Return what was done and, too late, what is left."""
    start = time.monotonic()
    spaces, before = namespaces(), recorded("before")
    remember(spaces)
    done = stop(spaces)
    done += delete(refusers(spaces))
    if NAMESPACE in spaces:
        done += uninstall()
    while True:
        done += release(spaces, before)
        remaining = left(spaces, before)
        if not remaining:
            break
        done += delete(remaining)
        if time.monotonic() - start > deadline:
            return done, [hanging(thing) for thing in remaining]
        time.sleep(INTERVAL_SECONDS)
    kubectl("delete", "configmap", RECORD, f"--namespace={KEPT_IN}", "--ignore-not-found")
    run("rm", "-f", CHART)
    return done, []


def main(deadline: float) -> int:
    """Remove Rancher; print what was done, and on standard error what is wrong."""
    try:
        lines, wrong = remove(deadline)
    except subprocess.CalledProcessError as error:
        lines, wrong = [], error.stderr.strip().splitlines() or [str(error)]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stderr.writelines(f"{line}\n" for line in wrong[:LINES])
    return 1 if wrong else 0
