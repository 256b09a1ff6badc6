"""Runs on a control plane: find, apply, await and remove add-ons.

What calls ``main`` is added where this is sent: standard input is this program. The first argument
says what to do, and data is JSON. A manifest is a list of objects.

lacks            {name: manifest} of the add-ons that are wanted; prints a line for each thing to
                 do: "apply NAME" or "remove NAME".
apply NAME       its manifest; prints kubectl's line for each object.
wait DEADLINE    {name: manifest}; ends when their workloads run, or says what keeps them from it.
remove NAME DEADLINE
                 ends when nothing is left of it, or says what is; prints a line for each object.

The cluster itself remembers what was applied: the ConfigMap labwright-addons in kube-system has
the digest of each add-on that came up, and labwright-addon-NAME has the manifest, as a later
version of Labwright may render another and removal must be complete. What Secrets hold is neither
in what is asked of "lacks" and "wait" (sealed, a digest in its place) nor in what is kept.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import subprocess
import sys
import time
from typing import Any

Json = dict[str, Any]
LABEL = "labwright.local/addon"
NAMESPACE = "kube-system"
DIGESTS = "labwright-addons"
KEPT = "labwright-addon-"
MANIFEST = "manifest.json.gz"
SEAL = "sha256:"
SECRET_FIELDS = ("data", "stringData")
WORKLOADS = ("Deployment", "DaemonSet", "StatefulSet")
KINDS = "deployments,daemonsets,statefulsets"
INTERVAL_SECONDS = 1.0
# All that is shown of a failed task's error output.
LINES = 6


def kubectl(*arguments: str, stdin: Json | None = None) -> str:
    """Run kubectl with the KUBECONFIG of the environment; raises CalledProcessError."""
    text = None if stdin is None else json.dumps(stdin)
    command = ("kubectl", "--request-timeout=30s", *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True, input=text).stdout


def get(*arguments: str, stdin: Json | None = None) -> list[Json]:
    """Return the objects that ``kubectl get`` finds, one or many."""
    text = kubectl("get", *arguments, "--ignore-not-found", "--output=json", stdin=stdin)
    found: Json = json.loads(text) if text.strip() else {"kind": "List", "items": []}
    items: list[Json] = found["items"] if found["kind"] == "List" else [found]
    return items


def as_list(objects: list[Json]) -> Json:
    """Return the objects as one that kubectl reads."""
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def labelled(name: str, manifest: list[Json]) -> list[Json]:
    """Return the manifest with every object, and every pod that comes of one, marked as ours."""
    marked: list[Json] = json.loads(json.dumps(manifest))
    for thing in marked:
        bearers = [thing, thing["spec"]["template"]] if thing["kind"] in WORKLOADS else [thing]
        for bearer in bearers:
            metadata = bearer.setdefault("metadata", {})
            metadata["labels"] = {**(metadata.get("labels") or {}), LABEL: name}
    return marked


def sealed(manifest: list[Json]) -> list[Json]:
    """Return the manifest with a digest in the place of each thing that a Secret holds."""
    return [seal(thing) if thing["kind"] == "Secret" else thing for thing in manifest]


def seal(secret: Json) -> Json:
    """Return a Secret with digests of what it holds. What is a digest already stays."""
    held = {field: secret[field] or {} for field in SECRET_FIELDS if field in secret}
    return {**secret, **{f: {k: sealed_word(v) for k, v in h.items()} for f, h in held.items()}}


def sealed_word(value: str) -> str:
    """Return the digest of something secret."""
    known = value.startswith(SEAL)
    return value if known else SEAL + hashlib.sha256(value.encode()).hexdigest()


def secrets(manifest: list[Json]) -> list[str]:
    """Return all that the Secrets of a manifest hold."""
    own = [thing for thing in manifest if thing["kind"] == "Secret"]
    return [v for thing in own for f in SECRET_FIELDS for v in (thing.get(f) or {}).values()]


def digest(name: str, manifest: list[Json]) -> str:
    """Return the sha256 of a manifest, whatever the order of its keys."""
    text = json.dumps(labelled(name, sealed(manifest)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def identity(thing: Json) -> tuple[str, str, str, str]:
    """Return what tells an object from all others: group, kind, namespace, name."""
    group = thing["apiVersion"].rpartition("/")[0]
    metadata = thing["metadata"]
    return group, thing["kind"], metadata.get("namespace", ""), metadata["name"]


def title(thing: Json) -> str:
    """Name an object in a message."""
    _group, kind, namespace, name = identity(thing)
    return f"{kind.lower()} {namespace}/{name}" if namespace else f"{kind.lower()} {name}"


# ------------------------------------------------------------------------------------- records


def config_map(name: str) -> Json | None:
    """Return one of our ConfigMaps, if it is there."""
    return next(iter(get("configmap", name, f"--namespace={NAMESPACE}")), None)


def store(name: str, addon: str, content: Json) -> None:
    """Write one of our ConfigMaps. Not by `apply`, which would keep the content a second time."""
    there = config_map(name)
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {LABEL: addon}}
    whole = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **content}
    kubectl("replace" if there else "create", "--filename=-", stdin=whole)


def digests() -> dict[str, str]:
    """Return the digest of each add-on that came up."""
    return dict((config_map(DIGESTS) or {}).get("data") or {})


def record(name: str, value: str | None) -> None:
    """Note that an add-on came up as this digest, or is no more."""
    content = digests()
    content.pop(name, None)
    if value:
        content[name] = value
    if content:
        store(DIGESTS, "", {"data": content})
    else:
        forget(DIGESTS)


def forget(name: str) -> None:
    """Delete one of our ConfigMaps."""
    kubectl("delete", "configmap", name, f"--namespace={NAMESPACE}", "--ignore-not-found")


def applied(name: str) -> list[Json]:
    """Return the manifest that was applied last; empty when none was."""
    there = config_map(f"{KEPT}{name}")
    return unpacked(there) if there else []


def unpacked(there: Json) -> list[Json]:
    """Return the manifest that a ConfigMap keeps."""
    packed = base64.b64decode(there["binaryData"][MANIFEST])
    manifest: list[Json] = json.loads(gzip.decompress(packed))
    return manifest


def remember(name: str, manifest: list[Json]) -> None:
    """Keep a manifest, before the first of its objects is made."""
    packed = gzip.compress(json.dumps(manifest).encode(), mtime=0)
    content = {"binaryData": {MANIFEST: base64.b64encode(packed).decode()}}
    store(f"{KEPT}{name}", name, content)


# ----------------------------------------------------------------------------------- workloads


def ready(workload: Json) -> bool:
    """Tell whether every pod of a workload is of its newest revision and ready."""
    wanted, there = pods_of(workload)
    status = workload.get("status", {})
    seen = status.get("observedGeneration", 0) >= workload["metadata"]["generation"]
    updated = status.get("updatedNumberScheduled", status.get("updatedReplicas", 0))
    return bool(seen and there >= wanted > 0 and updated >= wanted)


def pods_of(workload: Json) -> tuple[int, int]:
    """Return how many pods a workload wants, and how many of them are ready."""
    status = workload.get("status", {})
    if workload["kind"] == "DaemonSet":
        return status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
    return workload["spec"].get("replicas", 1), status.get("readyReplicas", 0)


def unready(name: str, manifest: list[Json], found: list[Json]) -> list[str]:
    """Say of each workload of a manifest that does not run as it should what it has."""
    there = {identity(thing): thing for thing in found}
    problems = []
    for thing in manifest:
        if thing["kind"] in WORKLOADS:
            workload = there.get(identity(thing))
            if workload is None:
                problems.append(f"{name}: {title(thing)} is missing")
            elif not ready(workload):
                wanted, got = pods_of(workload)
                problems.append(f"{name}: {title(thing)} has {got} of {wanted} pods ready")
    return problems


def troubles(name: str) -> list[str]:
    """Say what keeps the pods of an add-on from being ready: a line or two for the first of them.

    Of a workload without pods, what its own events say.
    """
    pods = get("pods", "--all-namespaces", f"--selector={LABEL}={name}")
    waiting = [pod for pod in pods if "Ready" not in conditions(pod)]
    lines = [line for pod in waiting[:1] for line in trouble(pod)]
    if pods:
        return lines
    owners = get(f"{KINDS},replicasets", "--all-namespaces", f"--selector={LABEL}={name}")
    return [line for owner in owners for line in warnings(owner)][:2]


def conditions(thing: Json) -> list[str]:
    """Return the types of the conditions that are true."""
    found = thing["status"].get("conditions", [])
    return [c["type"] for c in found if c["status"] == "True"]


def trouble(pod: Json) -> list[str]:
    """Say what one pod waits for, and the best clue to why."""
    where = pod["spec"].get("nodeName")
    states = pod["status"].get("containerStatuses", [])
    state: Json = next((s for s in states if not s["ready"]), {})
    what = unscheduled(pod) if not where else said(state) or pod["status"]["phase"]
    head = f"{title(pod)} on {where}: {what}" if where else f"{title(pod)}: {what}"
    return [head, *(last_words(pod, state) or warnings(pod))]


def unscheduled(pod: Json) -> str:
    """Say why a pod has no node."""
    found = pod["status"].get("conditions", [])
    return next((c.get("message", "") for c in found if c["type"] == "PodScheduled"), "no node yet")


def said(state: Json) -> str:
    """Put a container's state in words."""
    for kind, detail in state.get("state", {}).items():
        words = " ".join(str(detail[k]) for k in ("reason", "message") if detail.get(k))
        return words or ("runs, but is not ready" if kind == "running" else kind)
    return ""


def last_words(pod: Json, state: Json) -> list[str]:
    """Return the last line that a container wrote, if it ever ran."""
    if not state.get("restartCount") and "running" not in state.get("state", {}):
        return []
    metadata = pod["metadata"]
    words = ["logs", metadata["name"], f"--namespace={metadata['namespace']}", "--tail=1"]
    words += ["--previous"] if "running" not in state["state"] else []
    try:
        text = kubectl(*words, f"--container={state['name']}").strip()
    except subprocess.CalledProcessError:
        return []
    return [f"its last words: {text[-300:]}"] if text else []


def warnings(thing: Json) -> list[str]:
    """Return the last warning among an object's events, but none that is overcome."""
    metadata = thing["metadata"]
    only = f"--field-selector=involvedObject.uid={metadata['uid']},type=Warning"
    events = get("events", f"--namespace={metadata['namespace']}", only)
    if thing["spec"].get("nodeName"):
        events = [event for event in events if event["reason"] != "FailedScheduling"]
    events.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    return [f"its last event: {e['reason']}: {e['message'].strip()[:300]}" for e in events[-1:]]


# ------------------------------------------------------------------------------------ commands


def lacks(wanted: dict[str, list[Json]]) -> list[str]:
    """Return what is to do: one question to the cluster."""
    found = get(f"configmaps,{KINDS}", "--all-namespaces", f"--selector={LABEL}")
    maps = {thing["metadata"]["name"]: thing for thing in found if thing["kind"] == "ConfigMap"}
    known = maps.get(DIGESTS, {}).get("data") or {}
    # One whose apply was interrupted has a manifest and no digest yet.
    kept = {n.removeprefix(KEPT): unpacked(maps[n]) for n in maps if n.startswith(KEPT)}
    gone = [name for name in {**known, **kept} if name not in wanted]
    gone.sort(key=lambda name: turn(kept.get(name, [])))
    todo = [f"remove {name}" for name in gone]
    for name, manifest in wanted.items():
        if known.get(name) != digest(name, manifest) or unready(name, manifest, found):
            todo.append(f"apply {name}")
    return todo


def turn(manifest: list[Json]) -> int:
    """Return when an add-on is removed, the lowest first.

    While an API of one does not answer, no namespace of another can end; and a volume can only
    be deleted while its provisioner is there.
    """
    kinds = {thing["kind"] for thing in manifest}
    return 0 if "APIService" in kinds else 1 if "PersistentVolumeClaim" in kinds else 2


def apply(name: str, manifest: list[Json]) -> list[str]:
    """Make the objects as the manifest has them, and delete what an older one had beyond that."""
    marked = labelled(name, manifest)
    kept = {identity(thing) for thing in marked}
    before = applied(name)
    stale = [thing for thing in before if identity(thing) not in kept]
    done = delete(stale) if stale else []
    if before != (kept_manifest := sealed(marked)):
        remember(name, kept_manifest)
    try:
        return done + applying(marked)
    except subprocess.CalledProcessError as error:
        # A patch that the API refuses is shown as a whole.
        for word in secrets(marked):
            error.stderr = error.stderr.replace(word, "(secret)")
        raise


def applying(manifest: list[Json]) -> list[str]:
    """Apply the objects; return kubectl's line for each."""
    done = []
    # kubectl reads objects of a new kind only when the API serves it.
    kinds = [thing for thing in manifest if thing["kind"] == "CustomResourceDefinition"]
    if kinds:
        done += kubectl("apply", "--filename=-", stdin=as_list(kinds)).splitlines()
        kubectl("wait", "--for=condition=established", "--filename=-", stdin=as_list(kinds))
    others = [thing for thing in manifest if thing not in kinds]
    return done + kubectl("apply", "--filename=-", stdin=as_list(others)).splitlines()


def wait(wanted: dict[str, list[Json]], deadline: float) -> list[str]:
    """Wait for the workloads; record each add-on that is up. Return what is wrong at the end."""
    start = time.monotonic()
    waiting = dict(wanted)
    while True:
        problems: dict[str, list[str]] = {}
        try:
            found = get(KINDS, "--all-namespaces", f"--selector={LABEL}")
            for name, manifest in list(waiting.items()):
                if not (lines := unready(name, manifest, found)):
                    record(name, digest(name, manifest))
                    del waiting[name]
                else:
                    problems[name] = lines
        except subprocess.CalledProcessError as error:
            problems = {name: [f"kubectl failed: {error.stderr.strip()}"] for name in waiting}
        if not waiting:
            return []
        if time.monotonic() - start > deadline:
            head = f"after {deadline:.0f} s: {'; '.join(p for ps in problems.values() for p in ps)}"
            return [head, *(line for name in waiting for line in troubles(name))]
        time.sleep(INTERVAL_SECONDS)


def delete(manifest: list[Json]) -> list[str]:
    """Begin to delete objects, the last one first: an APIService goes before what it needs."""
    words = ("--filename=-", "--ignore-not-found", "--wait=false")
    try:
        return kubectl("delete", *words, stdin=as_list(manifest[::-1])).splitlines()
    except subprocess.CalledProcessError as error:
        # A kind that the add-on itself brought is gone already, and with it all that is of it.
        lines = error.stderr.strip().splitlines()
        if not lines or any("no matches for kind" not in line for line in lines):
            raise
        return str(error.stdout).splitlines()


def remove(name: str, deadline: float) -> tuple[list[str], list[str]]:
    """Delete all that was applied. Return what was deleted and, too late, what is left."""
    start = time.monotonic()
    manifest = applied(name)
    done = delete(manifest) if manifest else []
    dismiss(name)
    left = remains(manifest) + pods(name)
    while left and time.monotonic() - start < deadline:
        time.sleep(INTERVAL_SECONDS)
        left = remains(manifest) + pods(name)
    if not left:
        record(name, None)
        forget(f"{KEPT}{name}")
    return done, [line for thing in left for line in hanging(thing)]


def dismiss(name: str) -> None:
    """Delete what the workloads of an add-on have made, once these are no more.

    The garbage collector would, but it stands still for up to a minute whenever an API comes or
    goes (https://github.com/kubernetes/kubernetes/issues/101078), as add-ons make them do.
    """
    chosen = ("--all-namespaces", f"--selector={LABEL}={name}")
    kubectl("delete", "replicasets,pods", *chosen, "--wait=false")


def pods(name: str) -> list[Json]:
    """Return the pods of an add-on: until they are gone they hold ports and files."""
    return get("pods", "--all-namespaces", f"--selector={LABEL}={name}")


def remains(manifest: list[Json]) -> list[Json]:
    """Return the objects of a manifest that are still there."""
    if not manifest:
        return []
    try:
        return get("--filename=-", stdin=as_list(manifest))
    except subprocess.CalledProcessError as error:
        unknown = set(re.findall(r'no matches for kind "(\w+)"', error.stderr))
        known = [thing for thing in manifest if thing["kind"] not in unknown]
        if len(known) == len(manifest):
            raise
        return remains(known)


def hanging(thing: Json) -> list[str]:
    """Say what holds an object that is being deleted."""
    metadata = thing["metadata"]
    found = (thing.get("status") or {}).get("conditions") or []
    told = [c["message"] for c in found if thing["kind"] == "Namespace" and c["status"] == "True"]
    keeps = metadata.get("finalizers") or thing.get("spec", {}).get("finalizers") or []
    why = "; ".join(told) or (f"finalizers {', '.join(keeps)}" if keeps else "no reason is given")
    return [f"{title(thing)} is still there: {why}"]


def main(arguments: list[str], data: str) -> int:
    """Do one command; print what was or is to be done, and on standard error what is wrong."""
    lines: list[str] = []
    wrong: list[str] = []
    try:
        match arguments:
            case ["lacks"]:
                lines = lacks(json.loads(data))
            case ["apply", name]:
                lines = apply(name, json.loads(data))
            case ["wait", deadline]:
                wrong = wait(json.loads(data), float(deadline))
            case ["remove", name, deadline]:
                lines, wrong = remove(name, float(deadline))
            case _:
                wrong = [f"not a command: {' '.join(arguments)}"]
    except subprocess.CalledProcessError as error:
        wrong = error.stderr.strip().splitlines() or [str(error)]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stderr.writelines(f"{line}\n" for line in wrong[:LINES])
    return 1 if wrong else 0
