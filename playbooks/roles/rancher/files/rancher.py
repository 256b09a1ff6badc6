"""Runs on a control plane: find, install and await Rancher.

What calls ``main`` is added where this is sent: standard input is this program. The first argument
says what to do, and data is JSON.

state    {"digest": of what is wanted, or ""}; prints absent, current, install or remove.
prepare  {"password", "tls": {"crt", "key", "ca"} or null}; makes namespace and secrets, and prints
         a line for each that it changed.
install  {"chart": path, "values": {…}}; mends what an interrupted Helm left, and runs Helm.
wait     {"digest", "hostname", "address", "tls", "ca": path, "deadline": seconds}; ends when a
         first login works, or says what keeps it from that.

The ConfigMap labwright-rancher in kube-system remembers the digest of what came up, whether the
first password was accepted: where it no longer is, its owner has changed it; and what was there
before Rancher, which its removal keeps whatever Rancher has written on it.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]
LABEL = "labwright.local/addon"
NAME = "rancher"
NAMESPACE = "cattle-system"
KEPT_IN = "kube-system"
RECORD = "labwright-rancher"
# Rancher's own names (rancher/rancher, pkg/data/management/bootstrap_password.go, role_data.go).
PASSWORD, PASSWORD_KEY, ADMIN_MADE = "bootstrap-secret", "bootstrapPassword", "admincreated"
CERTIFICATE, AUTHORITY = "tls-rancher-ingress", "tls-ca"
# Kinds that the removal knows Rancher's by what is written on them.
MARKABLE = (
    "clusterroles,clusterrolebindings,roles,rolebindings,priorityclasses,"
    "customresourcedefinitions.apiextensions.k8s.io"
)
INTERVAL_SECONDS = 2.0
# How long what seldom heals by itself may last, in seconds.
PATIENCE = 120.0
# No waiting helps against these (kubernetes, pkg/kubelet/images/types.go).
HOPELESS_IMAGE = ("InvalidImageName", "ErrImageNeverPull")
IMAGE = ("ImagePullBackOff", "ErrImagePull", "RegistryUnavailable", *HOPELESS_IMAGE)
# From the third start on it is no accident; the wait between them grows to five minutes.
HOPELESS_STARTS = 2
# All that is shown of a failed task's error output.
LINES = 6


class Trouble(Exception):  # noqa: N818 - what is in the way may pass
    """What is in the way; ``patience`` is for how long it may be."""

    def __init__(self, *lines: str, patience: float = 10.0**9) -> None:
        """Take the lines that say it."""
        super().__init__(*lines)
        self.lines, self.patience = lines, patience


def run(*words: str, stdin: str | None = None) -> str:
    """Run a program with the KUBECONFIG of the environment; raises CalledProcessError."""
    return subprocess.run(words, check=True, capture_output=True, text=True, input=stdin).stdout


def kubectl(*words: str, stdin: Json | None = None) -> str:
    """Run kubectl; raises CalledProcessError."""
    text = None if stdin is None else json.dumps(stdin)
    return run("kubectl", "--request-timeout=30s", *words, stdin=text)


def get(*words: str) -> list[Json]:
    """Return the objects that ``kubectl get`` finds, one or many."""
    text = kubectl("get", *words, "--ignore-not-found", "--output=json")
    found: Json = json.loads(text) if text.strip() else {"kind": "List", "items": []}
    items: list[Json] = found["items"] if found["kind"] == "List" else [found]
    return items


def first(*words: str) -> Json | None:
    """Return one object, if it is there."""
    return next(iter(get(*words)), None)


def put(kind: str, name: str, namespace: str, content: Json) -> list[str]:
    """Make or replace an object; return a line if that changed it.

    Not by `apply`, which would keep a secret's content a second time, in an annotation.
    """
    there = first(kind, name, *([f"--namespace={namespace}"] if namespace else []))
    if there and all(there.get(key) == value for key, value in content.items()):
        return []
    metadata: Json = {"name": name, "labels": {LABEL: NAME}}
    if namespace:
        metadata["namespace"] = namespace
    whole = {"apiVersion": "v1", "kind": kind, "metadata": metadata, **content}
    kubectl("replace" if there else "create", "--filename=-", stdin=whole)
    return [f"{kind.lower()} {name} {'replaced' if there else 'made'}"]


def secret(name: str, kind: str, content: dict[str, str]) -> list[str]:
    """Make or replace a secret; return a line if that changed it."""
    data = {key: base64.b64encode(text.encode()).decode() for key, text in content.items()}
    return put("Secret", name, NAMESPACE, {"type": kind, "data": data})


def kept() -> dict[str, str]:
    """Return what the cluster remembers of Rancher."""
    there = first("configmap", RECORD, f"--namespace={KEPT_IN}") or {}
    return dict(there.get("data") or {})


def keep(**more: str) -> None:
    """Have the cluster remember something."""
    put("ConfigMap", RECORD, KEPT_IN, {"data": {**kept(), **more}})


# ------------------------------------------------------------------------------------- commands


def state(digest: str) -> str:
    """Return what is to do: one question to the cluster."""
    found = get("configmaps,deployments", "--all-namespaces", f"--selector={LABEL}={NAME}")
    by_kind = {thing["kind"]: thing for thing in found}
    record, server = by_kind.get("ConfigMap"), by_kind.get("Deployment")
    if not digest:
        return "remove" if record else "absent"
    current = record is not None and (record.get("data") or {}).get("digest") == digest
    return "current" if current and server and ready(server) else "install"


def prepare(password: str, tls: dict[str, str] | None) -> list[str]:
    """Make the namespace and the secrets that the chart counts on.

    A password is of use until Rancher has made its administrator, and left alone from then on.
    """
    # First of all, so that a lab.yaml without Rancher has it removed from here on.
    keep(digest="", **({} if kept() else {"before": json.dumps(before())}))
    done: list[str] = []
    if not first("namespace", NAMESPACE):
        done += put("Namespace", NAMESPACE, "", {})
    if not first("configmap", ADMIN_MADE, f"--namespace={NAMESPACE}"):
        done += secret(PASSWORD, "Opaque", {PASSWORD_KEY: password})
    if tls:
        pair = {"tls.crt": tls["crt"], "tls.key": tls["key"]}
        done += secret(CERTIFICATE, "kubernetes.io/tls", pair)
        done += secret(AUTHORITY, "Opaque", {"cacerts.pem": tls["ca"]})
    return done


def before() -> list[str]:
    """Return what may bear Rancher's marks later, as `kind namespace/name`."""
    found = get(MARKABLE, "--all-namespaces")
    return sorted(
        f"{t['kind']} {t['metadata'].get('namespace', '')}/{t['metadata']['name']}" for t in found
    )


def install(chart: str, values: Json) -> list[str]:
    """Have Helm install the chart, or bring it to these values."""
    done = mend()
    words = ["upgrade", "--install", NAME, chart, f"--namespace={NAMESPACE}", "--values=-"]
    words += ["--history-max=3", "--timeout=10m"]
    run("helm", *words, stdin=json.dumps(values))
    # By this mark lab.up and lab.addons find it; the chart has no value for labels.
    mark = (f"--namespace={NAMESPACE}", f"{LABEL}={NAME}", "--overwrite")
    kubectl("label", "deployment", NAME, *mark)
    return [*done, f"release {NAME} installed"]


def mend() -> list[str]:
    """Take back what an interrupted Helm left, as it refuses to go on from there.

    Only its record of that revision goes: what is of the release already is taken over.
    """
    try:
        told = json.loads(run("helm", "status", NAME, f"--namespace={NAMESPACE}", "--output=json"))
    except subprocess.CalledProcessError as error:
        if "not found" in error.stderr:
            return []
        raise
    status, version = told["info"]["status"], told["version"]
    if not status.startswith("pending") and status != "uninstalling":
        return []
    name = f"sh.helm.release.v1.{NAME}.v{version}"
    kubectl("delete", "secret", name, f"--namespace={NAMESPACE}")
    return [f"revision {version} was {status}: its record removed"]


def wait(wanted: Json) -> list[str]:
    """Wait until a first login works and remember it; return what is wrong at the end."""
    start = time.monotonic()
    since: dict[str, float] = {}
    steps: tuple[Callable[[Json], None], ...] = (server, certificate, webhooks, ping, login)
    while True:
        trouble = next(filter(None, (tried(step, wanted) for step in steps)), None)
        if trouble is None:
            keep(digest=wanted["digest"])
            return []
        now = time.monotonic()
        since = {trouble.lines[0]: since.get(trouble.lines[0], now)}
        if now - start > wanted["deadline"]:
            return [f"after {now - start:.0f} s: {trouble.lines[0]}", *trouble.lines[1:]]
        if now - since[trouble.lines[0]] >= trouble.patience:
            return [*trouble.lines]
        time.sleep(INTERVAL_SECONDS)


def tried(step: Callable[[Json], None], wanted: Json) -> Trouble | None:
    """Return what keeps a step from being done."""
    try:
        step(wanted)
    except Trouble as trouble:
        return trouble
    except subprocess.CalledProcessError as error:
        return Trouble(f"{error.cmd[0]} failed: {error.stderr.strip()[-300:]}")
    return None


# ---------------------------------------------------------------------------------------- steps


def ready(workload: Json) -> bool:
    """Tell whether every pod of a Deployment is of its newest revision and ready."""
    status, wanted = workload.get("status", {}), workload["spec"].get("replicas", 1)
    seen = status.get("observedGeneration", 0) >= workload["metadata"]["generation"]
    return bool(
        seen
        and status.get("updatedReplicas", 0) >= wanted > 0
        and status.get("readyReplicas", 0) >= wanted
    )


def server(_wanted: Json) -> None:
    """Want Rancher's own pods."""
    there = first("deployment", NAME, f"--namespace={NAMESPACE}")
    if there is None:
        raise Trouble(f"there is no deployment {NAME}: is the chart Rancher's?", patience=0)
    if ready(there):
        return
    pods = get("pods", f"--namespace={NAMESPACE}", f"--selector=app={NAME}")
    for pod in pods:
        about(pod)
    raise Trouble(f"deployment {NAME} has no ready pod", *events("Deployment", "ReplicaSet"))


def about(pod: Json) -> None:
    """Say what one pod waits for; nothing of one that is ready."""
    name, found = pod["metadata"]["name"], pod["status"].get("conditions", [])
    conditions = {c["type"]: c for c in found}
    if conditions.get("Ready", {}).get("status") == "True":
        return
    if conditions.get("PodScheduled", {}).get("status") == "False":
        raise Trouble(f"pod {name} has no node", conditions["PodScheduled"].get("message", ""))
    for container in containers(pod):
        waiting = container["state"].get("waiting", {})
        reason, image = waiting.get("reason", ""), container["image"]
        if reason in IMAGE:
            patience = 0 if reason in HOPELESS_IMAGE else PATIENCE
            hint = "reachable from the nodes? mirrors.registries in lab.yaml names another place"
            lines = [f"image {image} cannot be pulled", *events("Pod", only="Failed"), hint]
            raise Trouble(*lines, patience=patience)
        if starts := container["restartCount"]:
            of_it = (name, f"--container={container['name']}", f"--namespace={NAMESPACE}")
            words = kubectl("logs", *of_it, "--previous", "--tail=2").strip()
            what = f"pod {name}: {container['name']} started {starts + 1} times"
            patience = 0 if starts >= HOPELESS_STARTS else 10.0**9
            raise Trouble(what, f"last words: {words}", patience=patience)
    raise Trouble(f"pod {name} is not ready yet", *events("Pod"))


def containers(pod: Json) -> list[Json]:
    """Return the states of a pod's containers, those first that run before the others."""
    status = pod["status"]
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def events(*kinds: str, only: str = "") -> list[str]:
    """Return the last warning about objects of these kinds."""
    found = get("events", f"--namespace={NAMESPACE}", "--field-selector=type=Warning")
    mine = [e for e in found if e["involvedObject"]["kind"] in kinds]
    mine = [e for e in mine if not only or (e["reason"] == only and "Error:" not in e["message"])]
    mine.sort(key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "")
    return [f"{e['reason']}: {e['message'].strip()[:300]}" for e in mine[-1:]]


def certificate(wanted: Json) -> None:
    """Want the ingress's certificate: ours, or the one that cert-manager issues."""
    there = first("secret", CERTIFICATE, f"--namespace={NAMESPACE}")
    if there and (there.get("data") or {}).get("tls.crt"):
        return
    if wanted["tls"] == "lab":
        raise Trouble(f"secret {CERTIFICATE} is gone: lab.up makes it again", patience=0)
    kind = "certificates.cert-manager.io"
    if not first("customresourcedefinition", kind):
        raise Trouble("cert-manager is not here: nobody issues the certificate", patience=0)
    kinds = f"{kind},certificaterequests.cert-manager.io"
    asked = get(kinds, f"--namespace={NAMESPACE}")
    found = [c for thing in asked for c in thing.get("status", {}).get("conditions", [])]
    said = [c.get("message", "") for c in found if c["status"] != "True"]
    raise Trouble(f"certificate {CERTIFICATE} is not issued yet", *said[-2:])


def webhooks(_wanted: Json) -> None:
    """Want an answer for each webhook in Rancher's namespace: without one, changes are refused."""
    kinds = "validatingwebhookconfigurations,mutatingwebhookconfigurations"
    for configuration in get(kinds):
        for hook in configuration.get("webhooks", []):
            service = hook["clientConfig"].get("service") or {}
            if service.get("namespace") == NAMESPACE and not answers(service["name"]):
                where = f"webhook {configuration['metadata']['name']}"
                raise Trouble(
                    f"{where}: service {service['name']} has no ready pod", *events("Pod")
                )


def answers(service: str) -> bool:
    """Tell whether a service has a ready pod."""
    of_it = f"--selector=kubernetes.io/service-name={service}"
    found = get("endpointslices", f"--namespace={NAMESPACE}", of_it)
    pods = [pod for piece in found for pod in piece.get("endpoints") or []]
    return any(pod.get("conditions", {}).get("ready", True) for pod in pods)


def ping(wanted: Json) -> None:
    """Want Rancher's answer by its name, through the ingress, with a certificate we trust."""
    code, body = ask(wanted, "/ping")
    if body.strip() != "pong":
        raise Trouble(f"{url(wanted, '/ping')} answers {code}: {body.strip()[:200]}")


def login(wanted: Json) -> None:
    """Want the first password to be accepted, once; later its owner may change it."""
    there = first("secret", PASSWORD, f"--namespace={NAMESPACE}") or {}
    password = base64.b64decode((there.get("data") or {}).get(PASSWORD_KEY, "")).decode()
    user = {"username": "admin", "password": password}
    # The second is what newer versions call it; the first goes with them by and by
    # (rancher/rancher v2.15.0, pkg/auth/providers/publicapi/handler.go).
    code, body = ask(wanted, "/v3-public/localProviders/local?action=login", user)
    if code == 404:
        code, body = ask(wanted, "/v1-public/login", {"type": "localProvider", **user})
    if code in {200, 201}:
        ask(wanted, "/v3/tokens?action=logout", {}, str(json.loads(body).get("token", "")))
        keep(login="accepted")
    elif code == 401 and kept().get("login") == "accepted":
        return
    elif code == 401:
        why = "it was set before: by an earlier Rancher in this cluster, or by hand"
        fix = "take rancher out of addons, lab.up, and put it in again: that removes all of it"
        raise Trouble("Rancher does not accept the first password", why, fix, patience=PATIENCE)
    else:
        raise Trouble(f"the login at {url(wanted, '')} answers {code}", patience=PATIENCE)


def url(wanted: Json, path: str) -> str:
    """Return an address of Rancher's."""
    return f"https://{wanted['hostname']}{path}"


def ask(wanted: Json, path: str, body: Json | None = None, token: str = "") -> tuple[int, str]:
    """Ask Rancher; what is secret goes to curl by its standard input."""
    name = wanted["hostname"]
    lines = {
        "url": url(wanted, path),
        "resolve": f"{name}:443:{wanted['address']}",
        "cacert": authority(wanted),
        "max-time": "20",
        "write-out": "\\n%{http_code}",
        "header": "Content-Type: application/json",
    }
    config = [f'{key} = "{value}"' for key, value in lines.items()]
    config += [f"data = {json.dumps(json.dumps(body))}"] if body is not None else []
    config += [f'header = "Authorization: Bearer {token}"'] if token else []
    words = ("curl", "--silent", "--show-error", "--config", "-")
    text, _, code = run(*words, stdin="\n".join(config)).rpartition("\n")
    return int(code), text


def authority(wanted: Json) -> str:
    """Return the file of the authority that signed Rancher's certificate."""
    if wanted["tls"] == "lab":
        return str(wanted["ca"])
    there = first("secret", CERTIFICATE, f"--namespace={NAMESPACE}") or {}
    text = base64.b64decode((there.get("data") or {}).get("ca.crt", "")).decode()
    path = f"{wanted['ca']}.{NAME}"
    Path(path).write_text(text, encoding="utf-8")
    return path


def main(arguments: list[str], data: str) -> int:
    """Do one command; print what was done, and on standard error what is wrong."""
    lines: list[str] = []
    wrong: list[str] = []
    given: Json = json.loads(data)
    try:
        match arguments:
            case ["state"]:
                lines = [state(given["digest"])]
            case ["prepare"]:
                lines = prepare(given["password"], given["tls"])
            case ["install"]:
                lines = install(given["chart"], given["values"])
            case ["wait"]:
                wrong = wait(given)
            case _:
                wrong = [f"not a command: {' '.join(arguments)}"]
    except subprocess.CalledProcessError as error:
        wrong = re.sub(r"\n+", "\n", error.stderr).strip().splitlines() or [str(error)]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stderr.writelines(f"{line}\n" for line in wrong[:LINES] if line)
    return 1 if wrong else 0
