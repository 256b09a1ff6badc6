"""Rancher's role against the stand-in, on a real lab: it comes, it is used, and nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import Folder, gone

pytestmark = pytest.mark.e2e

STANDIN = Path(__file__).resolve().parents[1] / "standin" / "rancher"
CHECKS = (
    "test_rancher_answers_by_its_name_with_a_certificate_of_the_lab",
    "test_rancher_takes_the_first_password",
    "test_no_wizard_is_left_in_rancher",
    "test_rancher_knows_the_lab",
)
# As a server whose pod is gone leaves it: while it is there, no namespace of the cluster ends.
UNANSWERED = {
    "apiVersion": "apiregistration.k8s.io/v1",
    "kind": "APIService",
    "metadata": {"name": "v1.ext.cattle.io"},
    "spec": {
        "group": "ext.cattle.io",
        "version": "v1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": True,
        "service": {"name": "imperative-api-extension", "namespace": "cattle-system"},
    },
}
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "shops.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"kind": "Shop", "plural": "shops"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }
        ],
    },
}


def ask_for(one: Folder, *addons: str, **more: Any) -> None:
    file = one.path / "lab.yaml"
    before = yaml.safe_load(file.read_text("utf-8"))
    raw = {key: before[key] for key in ("name", "workers", "schedule_on_control_planes")}
    raw |= {"supply": "packages", "addons": ["dns", "traefik", *addons], **more}
    file.write_text(yaml.safe_dump(raw), "utf-8")


def objects(one: Folder) -> dict[str, Any]:
    """Give all that is in the cluster and stays by itself, with what marks and holds it."""
    kinds = one.kubectl("api-resources", "--verbs=list", "--no-headers", "-o", "name").split()
    passing = {"events", "events.events.k8s.io", "pods", "replicasets.apps"}
    passing |= {"controllerrevisions.apps", "leases.coordination.k8s.io", "endpoints"}
    asked = ",".join(k for k in kinds if k not in passing and "endpointslices" not in k)
    found = json.loads(one.kubectl("get", asked, "-A", "-o", "json"))["items"]
    return {
        f"{i['kind']} {i['metadata'].get('namespace', '')}/{i['metadata']['name']}": (
            i["metadata"].get("finalizers"),
            sorted(
                key
                for part in ("labels", "annotations")
                for key in i["metadata"].get(part) or {}
                if "cattle.io" in key
            ),
        )
        for i in found
        # An IPAddress says in its parentRef which Service it belongs to, and has no namespace.
        if "lab-verify-" not in str((i["metadata"], (i.get("spec") or {}).get("parentRef")))
    }


def test_rancher_comes_is_used_and_goes_without_a_trace(one: Folder) -> None:
    ask_for(one)
    one.invoke("lab.up", "--yes")
    # What is a user's stays, even where its name is like those that Rancher gives.
    one.kubectl("create", "namespace", "p-shop")
    one.kubectl("create", "clusterrole", "p-shop-edit", "--verb=get", "--resource=pods")
    one.kubectl("apply", "-f", "-", stdin=json.dumps(DEFINITION))
    before = objects(one)

    ask_for(one, "rancher", rancher={"chart": str(STANDIN)})
    one.invoke("lab.up", "--yes")
    report = (one.lab / "report" / "verify.xml").read_text("utf-8")
    assert [name for name in CHECKS if name not in report] == []
    password = (one.lab / "rancher-password").read_text("utf-8").strip()
    assert password not in one.invoke("lab.rancher").out
    held = [p for p in one.lab.rglob("*") if p.is_file() and password.encode() in p.read_bytes()]
    assert held == [one.lab / "rancher-password"]
    assert "nothing to change" in one.invoke("lab.up", "--yes").out

    assert set(objects(one)) - set(before)
    one.kubectl("apply", "-f", "-", stdin=json.dumps(UNANSWERED))
    one.kubectl("label", "clusterrole", "p-shop-edit", "cattle.io/creator=norman")
    ask_for(one)
    one.invoke("lab.up", "--yes")
    after = objects(one)
    differs = {key for key in before.keys() | after if before.get(key) != after.get(key)}
    assert {key: (before.get(key), after.get(key)) for key in differs} == {}
    assert one.kubectl("auth", "can-i", "create", "namespaces").strip() == "yes"
    one.invoke("lab.destroy", "--yes")
    assert not list(gone(one))
