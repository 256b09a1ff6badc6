"""What the cluster's answer says of each add-on."""

from __future__ import annotations

from typing import Any

import pytest

from labwright import catalog
from labwright.addons import ADDRESS, LABEL, State, states
from labwright.errors import SpecError
from labwright.model import Chart
from labwright.software import built_key
from tests.fakes import DEBIAN, planned
from tests.unit.test_plan import OFFLINE, choice

KNOWN = catalog.load().addons


def item(kind: str, addon: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"labels": {LABEL: addon}}, "status": {}, "spec": {}, **more}


def deployment(addon: str, wanted: int, ready: int) -> dict[str, Any]:
    spec, status = {"replicas": wanted}, {"readyReplicas": ready}
    return item("Deployment", addon, spec=spec, status=status)


def state_of(name: str, items: list[dict[str, Any]] | None, **raw: Any) -> State:
    found = states(planned(raw), KNOWN, items)
    return next(state for state in found if state.name == name)


def test_every_addon_is_told() -> None:
    assert [s.name for s in states(planned(), KNOWN, [])] == list(KNOWN)


@pytest.mark.parametrize(
    ("addons", "items", "state"),
    [
        (["dns"], [deployment("dns", 2, 2)], "ready"),
        (["dns"], [deployment("dns", 2, 1)], "starting"),
        (["dns"], [], "missing"),
        (["dns"], None, "unknown"),
        ([], [deployment("dns", 2, 2)], "left over"),
        ([], [], "off"),
        ([], None, "off"),
        (["dns"], [deployment("traefik", 1, 1)], "missing"),
    ],
)
def test_a_state(addons: list[str], items: list[dict[str, Any]] | None, state: str) -> None:
    assert state_of("dns", items, addons=addons).state == state


@pytest.mark.parametrize(("ready", "state"), [(2, "ready"), (1, "starting")])
def test_a_daemon_set_is_ready_on_every_node(ready: int, state: str) -> None:
    status = {"desiredNumberScheduled": 2, "numberReady": ready}
    items = [item("DaemonSet", "traefik", status=status)]
    assert state_of("traefik", items, addons=["traefik"]).state == state


def test_addresses_are_those_that_others_reach() -> None:
    service = {"clusterIP": "10.96.0.10", "ports": [{"port": 53}]}
    items = [
        deployment("dns", 1, 1),
        item("Service", "dns", spec=service),
        item("Service", "dns", spec={"clusterIP": "None", "ports": [{"port": 1}]}),
        item("Pod", "dns", status={"hostIP": "192.168.56.21"}),
        item("Pod", "dns", spec={"hostNetwork": True}, status={"hostIP": "192.168.56.22"}),
    ]
    found = state_of("dns", items)
    assert (found.version, found.address) == ("1.14.7", "10.96.0.10:53, 192.168.56.22")


def test_the_load_balancer_is_told_by_what_services_may_get() -> None:
    pod = item(
        "Pod", "load-balancer", spec={"hostNetwork": True}, status={"hostIP": "192.168.56.21"}
    )
    assert state_of("load-balancer", [pod]).address == "192.168.56.200-192.168.56.249"
    assert state_of("load-balancer", []).address == ""


def test_a_service_that_has_a_lab_address_is_told_by_that() -> None:
    service = {"clusterIP": "10.96.0.10", "ports": [{"port": 53}]}
    given = {"loadBalancer": {"ingress": [{"ip": "192.168.56.200"}]}}
    found = state_of("dns", [item("Service", "dns", spec=service, status=given)])
    assert found.address == "192.168.56.200:53"


def test_a_service_may_tell_the_address_for_people() -> None:
    service = item(
        "Service", "registry", spec={"clusterIP": "10.96.9.9", "ports": [{"port": 5000}]}
    )
    service["metadata"]["annotations"] = {ADDRESS: "registry.lab.internal:30500"}
    found = state_of("registry", [service], addons=["registry"])
    assert found.address == "registry.lab.internal:30500"


ALL = [
    "dns",
    "cert-manager",
    "load-balancer",
    "local-path",
    "metrics-server",
    "registry",
    "traefik",
]


def test_an_addon_is_built_and_its_image_with_it() -> None:
    plan = planned({"addons": ALL})
    assert plan.addons == tuple(ALL)
    (images,) = (a for a in plan.artifacts if a.id == "images")
    assert {"cert-manager", "coredns", "local-path", "metallb", "metrics-server", "traefik"} <= set(
        images.needs
    )
    assert choice(plan, "add-on traefik") == ("Traefik 3.7.15", "from the Python package index")
    assert planned({"addons": ["dns"]}).keys["images"] != plan.keys["images"]


def test_what_needs_go_modules_is_left_out_without_them() -> None:
    built = frozenset({built_key("local-path", "0.0.30")})
    plan = planned({"addons": ALL}, OFFLINE, stored=built)
    assert plan.addons == ("local-path", "traefik")
    assert choice(plan, "add-on local-path")[1] == "built before"
    assert choice(plan, "add-on metrics-server") == ("none", "the Go module proxy does not answer")


def test_upstream_pulls_the_images_of_what_is_enabled() -> None:
    raw = {"supply": "upstream", "addons": ["dns", "load-balancer"], "kubernetes": "1.34"}
    images = planned(raw, DEBIAN).wanted.images
    assert images["metallb-speaker"].startswith("quay.io/metallb/speaker:v0.16.")
    assert "metallb-controller" in images
    assert "traefik" not in images
    raw = {"supply": "upstream", "addons": ["dns", "traefik"], "kubernetes": "1.34"}
    images = planned(raw, DEBIAN).wanted.images
    assert images["traefik"].startswith("docker.io/library/traefik:v3.")
    assert "coredns" in images
    assert not {"local-path", "metallb-controller", "metrics-server"} & set(images)


def test_an_addon_that_does_not_go_with_kubernetes_is_refused() -> None:
    raw = {"supply": "upstream", "addons": ["cert-manager"], "kubernetes": "1.37"}
    with pytest.raises(SpecError) as caught:
        planned(raw, DEBIAN)
    assert "cert-manager" in caught.value.findings[0].what


def test_an_addon_with_a_name_of_its_own_is_found_by_it() -> None:
    own = Chart("/charts/rancher", "rancher", "0.1.0", "", "", "ab" * 32)
    made = planned({"supply": "packages", "addons": ["dns", "traefik", "rancher"]}, chart=own)
    found = {s.name: s for s in states(made, KNOWN, [deployment("rancher", 1, 1)])}
    assert (found["rancher"].state, found["rancher"].address) == ("ready", "rancher.lab.internal")
