"""Rancher's charts with the role's values, rendered by real Helm: the stand-in, and Rancher's own.

Rancher's own charts are no part of this project. LABWRIGHT_RANCHER_CHART names a folder with one,
or with a folder (or archive) for each version; without it their tests are left out.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from labwright import catalog
from labwright.catalog.ranges import within
from labwright.errors import SpecError
from labwright.solver import Problem, solve
from labwright.tools import chartfile
from tests.charts import one, template
from tests.roles import rendered

VARIABLE = "LABWRIGHT_RANCHER_CHART"
STANDIN = Path(__file__).resolve().parents[1] / "standin" / "rancher"
HOST = "rancher.lab.internal"
KUBERNETES = [r.version for r in catalog.load().components["kubernetes"].releases]
# Of each minor the newest: a chart's range is one of minors, and Helm takes its time.
MINORS = list({catalog.minor(k): k for k in KUBERNETES}.values())
SUPPORTED = [r.version for r in catalog.load().components["rancher"].releases]


def _own() -> list[Path]:
    folder = Path(os.environ.get(VARIABLE) or "/nonexistent")
    if (folder / "Chart.yaml").is_file():
        return [folder]
    charts = [p.parent for p in folder.glob("**/Chart.yaml") if "charts" not in p.parts[-3:-2]]
    return sorted([*charts, *folder.glob("*.tgz")])


CHARTS = [STANDIN, *_own()]
OWN = [pytest.param(path, id=path.parent.name) for path in CHARTS[1:]] or [
    pytest.param(None, marks=pytest.mark.skip(f"{VARIABLE} names no folder with charts"))
]


def values(tls: str = "lab", **more: Any) -> dict[str, Any]:
    """The very values that the role gives to Helm."""
    wanted = {"hostname": HOST, "url": f"https://{HOST}", "tls": tls}
    text = rendered("rancher", "values.yaml.j2", {"lab_rancher": wanted, "lab_patience": 1})
    return {**yaml.safe_load(text), **more}


def newest(chart: Path) -> str:
    """The newest Kubernetes of the catalog that a chart takes."""
    found = chartfile.read(chart, "test")
    return [k for k in KUBERNETES if within(found.kube_version, k)][-1]


def objects(chart: Path, **given: Any) -> list[dict[str, Any]]:
    made, said = template(chart, newest(chart), values(**given))
    assert made, said
    return made


def container(made: list[dict[str, Any]]) -> Mapping[str, Any]:
    pod = one(made, "Deployment", "rancher")["spec"]["template"]["spec"]
    return next(c for c in pod["containers"] if c["name"] == "rancher")


@pytest.fixture(params=CHARTS, ids=[p.parent.name for p in CHARTS])
def chart(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_the_ingress_has_name_class_and_certificate(chart: Path) -> None:
    spec = one(objects(chart), "Ingress", "rancher")["spec"]
    assert spec["ingressClassName"] == "traefik"
    assert [rule["host"] for rule in spec["rules"]] == [HOST]
    assert spec["tls"] == [{"hosts": [HOST], "secretName": "tls-rancher-ingress"}]
    (path,) = spec["rules"][0]["http"]["paths"]
    assert (path["path"], path["pathType"]) == ("/", "Prefix")
    assert path["backend"]["service"] == {"name": "rancher", "port": {"number": 80}}


def test_nothing_asks_cert_manager_when_the_lab_signs(chart: Path) -> None:
    made = objects(chart)
    assert not [o for o in made if o["apiVersion"].startswith("cert-manager")]
    assert "cert-manager" not in str(one(made, "Ingress", "rancher")["metadata"])


def test_the_labs_authority_is_mounted(chart: Path) -> None:
    made = objects(chart)
    mounts = {m["mountPath"]: m for m in container(made)["volumeMounts"]}
    assert mounts["/etc/rancher/ssl/cacerts.pem"]["subPath"] == "cacerts.pem"
    volumes = one(made, "Deployment", "rancher")["spec"]["template"]["spec"]["volumes"]
    assert "tls-ca" in [v["secret"]["secretName"] for v in volumes if "secret" in v]
    assert "--no-cacerts" not in container(made).get("args", [])


def test_rancher_can_have_cert_manager_sign(chart: Path) -> None:
    made = objects(chart, tls="rancher")
    assert one(made, "Issuer", "rancher")["apiVersion"] == "cert-manager.io/v1"
    ingress = one(made, "Ingress", "rancher")
    assert ingress["metadata"]["annotations"]["cert-manager.io/issuer"] == "rancher"
    assert ingress["spec"]["tls"][0]["secretName"] == "tls-rancher-ingress"


def test_one_replica_whose_first_start_may_be_slow(chart: Path) -> None:
    made = objects(chart)
    assert one(made, "Deployment", "rancher")["spec"]["replicas"] == 1
    probe = container(made)["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 900
    assert container(made)["livenessProbe"]["timeoutSeconds"] == 10


def test_no_wizard_is_left(chart: Path) -> None:
    settings = {e["name"]: e.get("value") for e in container(objects(chart))["env"]}
    assert settings["CATTLE_SERVER_URL"] == f"https://{HOST}"
    assert settings["CATTLE_FIRST_LOGIN"] == "false"
    assert settings["CATTLE_EULA_AGREED"]


def test_the_password_is_in_the_secret_that_the_role_makes(chart: Path) -> None:
    """The role makes it beforehand, as a chart takes it from there; nothing else may hold it."""
    made = objects(chart)
    assert "bootstrap-secret" not in [o["metadata"]["name"] for o in made]
    given = objects(chart, bootstrapPassword="a-password-of-a-test")
    data = one(given, "Secret", "bootstrap-secret")["data"]
    assert base64.b64decode(data["bootstrapPassword"]) == b"a-password-of-a-test"


def test_no_job_is_left_to_remove_it(chart: Path) -> None:
    marks = [o["metadata"].get("annotations") or {} for o in objects(chart)]
    assert "post-delete" not in [mark.get("helm.sh/hook") for mark in marks]


def test_a_wrong_kubernetes_is_refused_by_helm_and_before(chart: Path) -> None:
    found = chartfile.read(chart, "test")
    wrong = [k for k in KUBERNETES if not within(found.kube_version, k)]
    assert wrong
    for kubernetes in (wrong[0], wrong[-1]):
        made, said = template(chart, kubernetes, values())
        assert not made
        assert "kubeVersion" in said


@pytest.mark.parametrize("kubernetes", MINORS)
def test_ranges_are_read_as_helm_reads_them(chart: Path, kubernetes: str) -> None:
    made, _ = template(chart, kubernetes, values())
    assert bool(made) == within(chartfile.read(chart, "test").kube_version, kubernetes)


@pytest.mark.parametrize("path", OWN)
def test_the_catalog_has_the_charts_own_limit(path: Path) -> None:
    """What the solver lets boot with a version, its chart takes."""
    found = chartfile.read(path, "test")
    if found.version not in SUPPORTED:
        pytest.skip(f"the catalog has no Rancher {found.version}")
    for kubernetes in KUBERNETES:
        wishes = {"kubernetes": kubernetes, "rancher": found.version}
        facts = {"supply": "upstream", "provider": "docker", "cgroup": "2"}
        try:
            solve(catalog.load(), Problem(("kubernetes", "rancher"), facts, wishes))
        except SpecError:
            continue
        assert within(found.kube_version, kubernetes), f"{found.version} on {kubernetes}"
