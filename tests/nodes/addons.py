"""What the checks of the add-ons use: a volume, an address, an Ingress, and the answers to them.

Used from the start, in the background: a volume is made in seconds, the first metrics come after
some twenty, and other checks come first.
"""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.nodes.probes import PORT, Deployment
from tests.nodes.rancher import Rancher

if TYPE_CHECKING:
    from tests.nodes.conftest import Lab

DEADLINE = 120.0
# What a pod can wait for, as events name it.
OBJECTS = {"claim": "PersistentVolumeClaim", "pod": "Pod"}
PROBE = "labwright/probe"
MOUNT = "/volume"
AUTHORITY = "/etc/labwright/ca.crt"
LOGGED_IN = {200, 201}
# Of the two, policies know the friend alone. What wget says to the other is busybox's.
CLIENTS = ("friend", "stranger")
TIMED_OUT = "timed out"
CERTS = "/etc/containerd/certs.d"
# A pulled image has more names than its own: those by digest, of the same target.
NAMES = (
    "index($1, image) == 1 {wanted[$3]} {target[$1] = $3} "
    "END {for (name in target) if (target[name] in wanted) print name}"
)
PUSHING = Path(__file__).with_name("pushing.py")


class Uses:
    """Uses each enabled add-on once; what came of it, or the error, is asked for by name."""

    def __init__(self, lab: Lab, deployment: Deployment) -> None:
        self.namespace = deployment.namespace
        self.host = f"{deployment.namespace}.test"
        self._lab = lab
        self._over = threading.Event()
        self._answers: dict[str, Future[Any]] = {}
        enabled = {name for name, addon in lab.facts["addons"].items() if addon["enabled"]}
        known = {
            "cert-manager": self._certificate,
            "load-balancer": self._balanced,
            "local-path": self._volume,
            "metrics-server": self._metrics,
            "network-policy": self._policy,
            "rancher": self._rancher,
            "registry": self._registry,
            "traefik": self._ingress,
        }
        # All at the same time: some wait long for the first answer.
        pool = ThreadPoolExecutor(len(known))
        for name, use in known.items():
            if name in enabled:
                self._answers[name] = pool.submit(use)
        pool.shutdown(wait=False)

    def answer(self, name: str) -> Any:
        """Give what using an add-on came to; skip the check where it is not enabled."""
        if name not in self._answers:
            why = self._lab.facts.get("left_out", {}).get(name)
            pytest.skip(why or f"lab.yaml does not ask for {name}")
        return self._answers[name].result()

    def end(self) -> None:
        """End what still waits, so that nothing is made in a namespace that goes."""
        self._over.set()
        for answer in self._answers.values():
            answer.exception()

    def _apply(self, *items: dict[str, Any], space: str = "") -> None:
        space = space or self.namespace
        # The namespace is the probes' to make, and before it has its account no pod may come.
        account = f"get serviceaccount default -n {space} --ignore-not-found -o name"
        there = partial(self._lab.kubectl, account)
        self._until("the namespace", lambda: "" if there() else "it has no service account")
        whole = {"apiVersion": "v1", "kind": "List", "items": list(items)}
        self._lab.kubectl(f"-n {space} apply -f -", json.dumps(whole))

    def _until(self, what: str, trouble: Callable[[], str]) -> None:
        patience = DEADLINE * self._lab.patience
        deadline = time.monotonic() + patience
        while said := trouble():
            assert time.monotonic() < deadline, f"{what}: after {patience:.0f} s {said}"
            assert not self._over.wait(1), f"{what}: {said}"

    def _certificate(self) -> bytes:
        """Give the certificate that the lab's issuer made for a name, PEM."""

        def refused() -> str:
            try:
                self._apply(_certificate(self.host))
            except AssertionError as error:  # Its webhook is not trusted from the first second.
                return str(error)
            return ""

        def unready() -> str:
            there = self._lab.get(f"certificate probe -n {self.namespace}")
            told = there.get("status", {}).get("conditions", [])
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in told)
            return "" if ready else "; ".join(c["message"] for c in told) or "nobody has seen it"

        self._until("a Certificate", refused)
        self._until("the certificate", unready)
        secret = self._lab.get(f"secret probe-tls -n {self.namespace}")
        return base64.b64decode(secret["data"]["tls.crt"])

    def _balanced(self) -> Mapping[str, Any]:
        """Give the ``address`` that a service got, and who heard what of it once all had an answer.

        ``heard``: node → the answer there, and ``""`` → the one on this computer, to which alone
        the address is not the kernel's own business.
        """
        self._apply(_balanced())
        given: list[dict[str, str]] = []
        heard: dict[str, str] = {}

        def waits_for_address() -> str:
            given[:] = self._status("balanced")["loadBalancer"].get("ingress", [])
            return "" if given else "it has none"

        def trouble() -> str:
            heard.update(self._lab.on_every_node(partial(self._ask_url, url)))
            heard[""] = _heard_here(url)
            silent = [
                n or "this computer" for n in heard if heard[n] not in self._lab.lock["nodes"]
            ]
            return f"no answer on {', '.join(silent)}" if silent else ""

        self._until("the address of a service", waits_for_address)
        url = f"http://{given[0]['ip']}/"
        self._until(url, trouble)
        return {"address": given[0]["ip"], "heard": heard}

    def _status(self, service: str) -> Any:
        return self._lab.get(f"service {service} -n {self.namespace}")["status"]

    def _ask_url(self, url: str, node: str) -> str:
        return str(self._lab.hosts[node].run("curl -s -m 5 %s", url).stdout).strip()

    def _volume(self) -> tuple[str, str]:
        """Give what one pod read of what another wrote, and the volume's class."""
        image = self._lab.facts["image_refs"]["busybox"]
        write = f"echo {self.namespace} > {MOUNT}/word"
        # Both at once: only the volume they share can make the reader end.
        read = f"until cat {MOUNT}/word 2>/dev/null; do sleep 0.2; done"
        self._apply(_claim(), _pod("writer", image, write), _pod("reader", image, read))
        self._until("the pods with the volume", partial(self._late, "app=volume", "claim"))
        words = f"-n {self.namespace} logs reader"
        (claim,) = self._lab.get(f"pvc -n {self.namespace}")["items"]
        return self._lab.kubectl(words).strip(), claim["spec"]["storageClassName"]

    def _late(self, label: str, cause: str) -> str:
        """Say which pods have not ended well, and the last event of what they wait for."""
        pods = self._lab.get(f"pods -n {self.namespace} -l {label}")["items"]
        late = [p["metadata"]["name"] for p in pods if p["status"]["phase"] != "Succeeded"]
        if not late:
            return ""
        only = f"involvedObject.kind={OBJECTS[cause]}"
        if cause == "pod":
            only += f",involvedObject.name={late[0]}"
        events = self._lab.get(f"events -n {self.namespace} --field-selector {only}")["items"]
        last = events[-1]["message"] if events else f"the {cause} has no events"
        return f"{' and '.join(late)} did not end: {last}"

    def _metrics(self) -> Mapping[str, str]:
        """Give what `kubectl top` says of each node."""
        wanted = set(self._lab.members)
        found: dict[str, str] = {}

        def trouble() -> str:
            try:
                lines = self._lab.kubectl("top nodes --no-headers").splitlines()
            except AssertionError as error:
                return f"{error}; {self._api_trouble()}"
            found.update({line.split()[0]: line for line in lines if "unknown" not in line})
            missing = sorted(wanted - set(found))
            return f"kubectl top does not know {', '.join(missing)}" if missing else ""

        self._until("metrics", trouble)
        return found

    def _policy(self) -> Mapping[str, Mapping[str, str]]:
        """Return what two clients of a server are told: without policies, with them, and after.

        ``free``, ``restricted`` and ``free again``: client → the server's node, or wget's error.
        The policies let one of the two in.
        """
        space = f"{self.namespace}-policy"
        nodes = [node["name"] for node in self._lab.facts["cluster_nodes"]]
        found: dict[str, Mapping[str, str]] = {}
        served = dict.fromkeys(CLIENTS, nodes[0])

        def trouble(when: str, *expected: Mapping[str, str]) -> str:
            found[when] = said = self._ask_server(space)
            return "" if said in expected else f"the clients are told {said}"

        try:
            # The clients on another node than the server, where there is another.
            self._lab.kubectl(f"create namespace {space}")
            image = self._lab.facts["image_refs"]["busybox"]
            self._apply(*_guarded(nodes[0], nodes[-1], image), space=space)
            ready = f"-n {space} wait pods --all --for=condition=Ready"
            self._lab.kubectl(f"{ready} --timeout={DEADLINE * self._lab.patience:.0f}s")
            self._until("a server without policies", partial(trouble, "free", served))
            self._apply(*_policies(), space=space)
            restricted = {**served, "stranger": TIMED_OUT}
            self._until("a server with policies", partial(trouble, "restricted", restricted))
            self._lab.kubectl(f"-n {space} delete networkpolicies --all")
            self._until("a server without policies", partial(trouble, "free again", served))
        finally:
            self._lab.kubectl(f"delete namespace {space} --ignore-not-found --wait=false")
        return found

    def _ask_server(self, space: str) -> Mapping[str, str]:
        address = self._lab.get(f"pod server -n {space}")["status"]["podIP"]
        # Not wget's own -T: Debian's busybox 1.35 ends in a segmentation fault there.
        ask = f"timeout 3 wget -q -O - http://{address}:{PORT}/ 2>&1"
        ask = f"sh -c '{ask}; [ $? -ne 143 ] || echo {TIMED_OUT}'"
        said = {name: self._lab.kubectl(f"-n {space} exec {name} -- {ask}") for name in CLIENTS}
        # Before the last line is what the shell says of a program that it ended.
        return {name: words.strip().rpartition("\n")[2] for name, words in said.items()}

    def _rancher(self) -> Mapping[str, Any]:
        """Give what Rancher says: to everybody, and to its administrator.

        Without ``cluster`` where the login failed, whose status is ``login``.
        """
        rancher = Rancher(self._lab)
        node = self._lab.hosts[self._lab.planes[0]]
        # By name, which the node has to know. Of Rancher's own authority it knows nothing.
        trust = f"--cacert {AUTHORITY}" if rancher.signed_by_the_lab else "--insecure"
        by_name = f"curl -s -m 20 {trust} https://{rancher.host}/ping"
        said: dict[str, Any] = {
            "ping": rancher.ask("GET", "/ping"),
            "ping from a node": node.run(by_name).stdout,
            "wizard": rancher.get("/v3/settings/first-login")["value"],
            "login": rancher.login(),
            "accepted": rancher.was_accepted(),
        }
        try:
            if said["login"] in LOGGED_IN:
                said |= self._as_admin(rancher)
        finally:
            rancher.logout()
        return said

    def _as_admin(self, rancher: Rancher) -> Mapping[str, Any]:
        wanted, found = set(self._lab.lock["nodes"]), set[str]()

        def trouble() -> str:
            state = rancher.get("/v3/clusters/local").get("state")
            there = rancher.get("/v3/nodes?clusterId=local")["data"]
            found.update(str(n.get("nodeName") or n.get("hostname")) for n in there)
            missing = ", ".join(sorted(wanted - found))
            if state != "active":
                return f"it is {state}"
            return f"it has no {missing}" if missing else ""

        self._until("Rancher's cluster local", trouble)
        return {
            "cluster": "active",
            "nodes": found,
            "server-url": rancher.get("/v3/settings/server-url")["value"],
        }

    def _registry(self) -> Mapping[str, Any]:
        """Push an image that no node has, run it on every node, and take it away again.

        ``trusted``: node → the status it gets without naming an authority; ``said``: node → what
        a pod there read of the image; ``gone``: the statuses of asking for the image at the end;
        ``left``: node → what its containerd still has of it.
        """
        nodes = [node["name"] for node in self._lab.facts["cluster_nodes"]]
        registry = self._lab.facts["registry_address"]
        image = f"{registry}/{PROBE}"
        ask = f"curl -sS -m 10 -o /dev/null -w '%{{http_code}}' https://{registry}/v2/"
        trusted: dict[str, str] = {}

        def trouble() -> str:
            try:
                trusted.update({n: self._run(n, ask) for n in nodes if n not in trusted})
            except AssertionError as error:
                return str(error)
            return ""

        self._until("the registry", trouble)
        found: dict[str, Any] = {"trusted": trusted}
        try:
            found["said"] = self._pulled_words(nodes, image)
        except AssertionError:
            # What kept it from working keeps this from working too, and is the better word.
            with suppress(AssertionError):
                self._unpush(nodes, image)
            raise
        return {**found, **self._unpush(nodes, image)}

    def _pulled_words(self, nodes: list[str], image: str) -> dict[str, str]:
        source = self._lab.facts["image_refs"]["busybox"]
        platform = "linux/$(dpkg --print-architecture)"
        push = f"ctr -n k8s.io images push --hosts-dir {CERTS} --platform {platform}"
        self._run(nodes[-1], f"{push} {image}:{self.namespace}-base {source} 2>&1")
        self._pushing(nodes[-1], "make", f"{self.namespace}-base", self.namespace)
        self._apply(*(_pulled(node, f"{image}:{self.namespace}") for node in nodes))
        self._until("pods from the registry", partial(self._late, "app=pulled", "pod"))
        logs = f"-n {self.namespace} logs pulled-"
        return {node: self._lab.kubectl(f"{logs}{node}").strip() for node in nodes}

    def _unpush(self, nodes: list[str], image: str) -> Mapping[str, Any]:
        tags = (f"{self.namespace}-base", self.namespace)
        gone = self._pushing(nodes[-1], "remove", *tags).split()
        mine = f"ctr -n k8s.io images ls | awk -v image={image} '{NAMES}'"
        forget = f"{mine} | xargs -r ctr -n k8s.io images rm >/dev/null; {mine}"
        left = {node: self._run(node, forget) for node in nodes}
        return {"gone": gone, "left": left}

    def _pushing(self, node: str, what: str, *words: str) -> str:
        registry = self._lab.facts["registry_address"]
        program = f"{PUSHING.read_text('utf-8')}\nsys.exit(main(sys.argv[1:]))"
        command = f"python3 - {what} {registry} {PROBE} {' '.join(words)}"
        return self._run(node, f"{command} <<'LABWRIGHT'\n{program}\nLABWRIGHT")

    def _run(self, node: str, command: str) -> str:
        """Run a command on a node as root; fail with its words."""
        result = self._lab.hosts[node].run("sudo sh -c %s", command)
        said = (result.stderr or result.stdout).strip().splitlines()
        assert result.rc == 0, f"{node}: {said[-1] if said else f'exit code {result.rc}'}"
        return str(result.stdout).strip()

    def _api_trouble(self) -> str:
        """Say what the API server thinks of the metrics server; kubectl does not."""
        status = self._lab.get("apiservice v1beta1.metrics.k8s.io").get("status", {})
        return "; ".join(c.get("message", "") for c in status.get("conditions", []))

    def _ingress(self) -> Mapping[str, Any]:
        """Give the Ingress as it is once every node with Traefik has an answer for it.

        ``heard``: node → the body for the Ingress's host; ``strange``: node → the status for
        another host.
        """
        self._apply(_ingress(self.host))
        nodes = traefik_nodes(self._lab)
        heard: dict[str, str] = {}

        def trouble() -> str:
            heard.update(self._ask(nodes, f"-H 'Host: {self.host}' -f"))
            silent = [n for n in nodes if heard.get(n) not in self._lab.members]
            return f"no answer by way of {', '.join(silent)}" if silent else ""

        self._until("the Ingress", trouble)
        strange = self._ask(nodes, f"-H 'Host: not-{self.host}' -o /dev/null -w '%{{http_code}}'")
        there = self._lab.get(f"ingress probe -n {self.namespace}")
        return {"class": there["spec"].get("ingressClassName"), "heard": heard, "strange": strange}

    def _ask(self, nodes: list[str], words: str) -> dict[str, str]:
        """Ask port 80 of each node from the first control plane."""
        ask = f"curl -s -m 5 {words}"
        script = "; ".join(
            f'echo "{name} $({ask} http://{self._lab.address(name)}/)"' for name in nodes
        )
        lines = self._lab.hosts[self._lab.planes[0]].run("sh -c %s", script).stdout.splitlines()
        parts = [line.partition(" ") for line in lines]
        return {name: said.strip() for name, _, said in parts}


@pytest.fixture(scope="session", autouse=True)
def uses(lab: Lab, deployment: Deployment) -> Iterator[Uses]:
    started = Uses(lab, deployment)
    yield started
    started.end()


def traefik_nodes(lab: Lab) -> list[str]:
    """Give the names of the nodes that Traefik is to run on: those that take ordinary pods."""
    workers = [name for name in lab.members if name not in lab.planes]
    everywhere = lab.facts["schedule_on_control_planes"] or not workers
    return lab.members if everywhere else workers


def load_balancer_range(lab: Lab) -> tuple[IPv4Address, IPv4Address]:
    """Give the first and the last address that services may get."""
    first, _dash, last = lab.facts["load_balancer_range"].partition("-")
    return IPv4Address(first), IPv4Address(last)


def _heard_here(url: str) -> str:
    # Without the proxies of this computer's environment: the address is on its own network.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return str(answer.read().decode()).strip()
    except OSError as error:
        return str(error)


def _certificate(host: str) -> dict[str, Any]:
    issuer = {"kind": "ClusterIssuer", "name": "lab"}
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": "probe"},
        "spec": {"secretName": "probe-tls", "dnsNames": [host], "issuerRef": issuer},
    }


def _balanced() -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": PORT}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "balanced"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "probe"}, "ports": ports},
    }


def _claim() -> dict[str, Any]:
    # No class: it is to be the default one.
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "probe"},
        "spec": spec,
    }


def _pod(name: str, image: str, script: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "volume"}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": name,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", script],
                    "volumeMounts": [{"name": "volume", "mountPath": MOUNT}],
                }
            ],
            "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": "probe"}}],
        },
    }


def _guarded(home: str, abroad: str, image: str) -> Iterator[dict[str, Any]]:
    serve = (
        f"mkdir -p /tmp/www && echo {home} > /tmp/www/index.html && "
        f"exec httpd -f -p {PORT} -h /tmp/www"
    )
    for name, node, script in (
        ("server", home, serve),
        *((client, abroad, "exec tail -f /dev/null") for client in CLIENTS),
    ):
        container: dict[str, Any] = {
            "name": name,
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", script],
        }
        if name == "server":
            # A probe of kubelet: with the policies too, or the pod would not stay ready.
            container["readinessProbe"] = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
                "tolerations": [{"operator": "Exists"}],
                "containers": [container],
            },
        }


def _policies() -> Iterator[dict[str, Any]]:
    friend = {"podSelector": {"matchLabels": {"app": "friend"}}}
    specs: dict[str, dict[str, Any]] = {
        "nobody": {"podSelector": {}, "policyTypes": ["Ingress"]},
        "friend": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [friend], "ports": [{"port": PORT}]}],
        },
    }
    for name, spec in specs.items():
        yield {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name},
            "spec": spec,
        }


def _pulled(node: str, image: str) -> dict[str, Any]:
    container = {
        "name": "pulled",
        "image": image,
        "imagePullPolicy": "Always",
        "command": ["cat", "/word"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"pulled-{node}", "labels": {"app": "pulled"}},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        },
    }


def _ingress(host: str) -> dict[str, Any]:
    backend = {"service": {"name": "probe", "port": {"number": PORT}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "probe"},
        "spec": {"rules": [{"host": host, "http": {"paths": [path]}}]},
    }
