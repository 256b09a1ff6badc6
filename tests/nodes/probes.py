"""Pods and a service that the network checks speak to, one pod on each node."""

from __future__ import annotations

import json
import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.nodes.conftest import Lab

PORT = 8080


class Deployment:
    """Starts at once, in the background: pods take seconds to run, and other checks come first."""

    def __init__(self, lab: Lab) -> None:
        self.namespace = f"lab-verify-{secrets.token_hex(3)}"
        self._lab = lab
        pool = ThreadPoolExecutor(1)
        self._applied: Future[str] = pool.submit(self._apply)
        pool.shutdown(wait=False)

    def wait(self, deadline: int) -> None:
        """Wait until every pod runs; fail with what kubectl said."""
        self._applied.result()
        words = f"rollout status daemonset/probe --timeout={deadline}s"
        self._lab.kubectl(f"-n {self.namespace} {words}")

    def remove(self) -> None:
        """Take it away, if it ever came to be."""
        if self._applied.exception() is None:
            self._lab.kubectl(f"delete namespace {self.namespace} --wait=false")

    def _apply(self) -> str:
        image = self._lab.facts["image_refs"]["busybox"]
        return self._lab.kubectl("apply -f -", json.dumps(_manifest(self.namespace, image)))


def _manifest(namespace: str, image: str) -> dict[str, Any]:
    meta = {"name": "probe", "namespace": namespace}
    serve = (
        f"mkdir -p /tmp/www && echo $NODE > /tmp/www/index.html && "
        f"exec httpd -f -p {PORT} -h /tmp/www"
    )
    container = {
        "name": "probe",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", serve],
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    pods = {
        "metadata": {"labels": {"app": "probe"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": meta,
                "spec": {"selector": {"matchLabels": {"app": "probe"}}, "template": pods},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": meta,
                "spec": {"selector": {"app": "probe"}, "ports": [{"port": PORT}]},
            },
        ],
    }
