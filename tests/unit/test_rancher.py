"""Rancher in lab.yaml, plan, lock and facts, and what its installation is given."""

from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from labwright import lock, plan, render, spec
from labwright.errors import Finding, SpecError
from labwright.model import Chart, Plan
from labwright.phases import rancher
from labwright.tools import chartfile
from tests.fakes import STOCK, given, planned, run_of, upstream

ADDONS = ["dns", "traefik", "rancher"]
OWN = Chart("/charts/rancher", "rancher", "2.15.3", "v2.15.3", "< 1.37.0-0", "c4" * 32)
ABOUT = {"name": "rancher", "version": "2.15.3", "kubeVersion": "< 1.37.0-0"}


def refused(raw: dict[str, Any], **more: Any) -> list[Finding]:
    with pytest.raises(SpecError) as caught:
        plan.build(given(raw, **more))
    return list(caught.value.findings)


def folder(path: Path, **about: str) -> Path:
    (path / "templates").mkdir(parents=True)
    (path / "Chart.yaml").write_text(yaml.safe_dump({**ABOUT, **about}), encoding="utf-8")
    (path / "templates" / "a.yaml").write_text("{}\n", encoding="utf-8")
    return path


# ---------------------------------------------------------------------------------------- lab.yaml


@pytest.mark.parametrize(
    ("raw", "identity", "where"),
    [
        ({"addons": ["dns", "rancher"]}, "spec.rancher-needs", "addons"),
        ({"addons": ["traefik", "rancher"]}, "spec.rancher-needs", "addons"),
        ({"addons": ["dns"], "rancher": {"chart": "x"}}, "spec.no-rancher", "rancher"),
        ({"addons": ADDONS, "rancher": {"hostname": "a.example"}}, "spec.rancher-hostname", ""),
        (
            {"addons": ADDONS, "rancher": {"hostname": "no_name"}},
            "spec.string-pattern-mismatch",
            "",
        ),
        ({"addons": ADDONS, "rancher": {"tls": "none"}}, "spec.literal-error", "rancher.tls"),
        ({"addons": ADDONS, "rancher": {"chrat": "x"}}, "spec.unknown-key", "rancher.chrat"),
    ],
)
def test_a_wrong_rancher_is_refused(raw: dict[str, Any], identity: str, where: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec.build(raw)
    (found,) = caught.value.findings
    assert found.id == identity
    assert where in str(found.where)


def test_a_chart_is_beside_the_file(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(
        "addons: [dns, traefik, rancher]\nrancher: {chart: charts/r, password_file: p}\n"
    )
    asked = spec.load(file).rancher
    assert (asked.chart, asked.password_file) == (f"{tmp_path}/charts/r", f"{tmp_path}/p")


# -------------------------------------------------------------------------------------------- plan


def test_rancher_is_not_in_the_packages_supply() -> None:
    (found,) = refused({"supply": "packages", "addons": ADDONS})
    assert found.id == "spec.not-in-supply"
    assert found.what == "Rancher is not in this supply"
    assert "chart: PATH" in found.fix
    assert found.where == "addons.2"


def test_a_chart_of_ones_own_is_in_every_supply() -> None:
    own = Chart("/charts/r", "rancher", "0.1.0", "", ">= 1.20.0-0 < 1.37.0-0", "ab" * 32)
    made = planned({"supply": "packages", "addons": ADDONS}, chart=own)
    assert (made.versions["rancher"], made.versions["kubernetes"]) == ("0.1.0", "1.36.3")
    assert made.rancher is not None
    assert made.rancher.chart is own
    assert [a.id for a in made.artifacts if a.id in {"helm", "rancher", "charts"}] == ["helm"]


def test_the_chart_says_which_kubernetes() -> None:
    raw = {"supply": "upstream", "addons": ADDONS}
    assert upstream(raw, chart=OWN).versions["kubernetes"].startswith("1.36.")
    older = Chart("/charts/r", "rancher", "2.16.0", "", "< 1.35.0-0", "ab" * 32)
    assert upstream(raw, chart=older).versions["kubernetes"].startswith("1.34.")


def test_a_kubernetes_that_the_chart_does_not_take_never_boots() -> None:
    raw = {"supply": "upstream", "addons": ADDONS, "kubernetes": "1.37"}
    found = refused(raw, chart=Chart("/charts/r", "rancher", "9.0.0", "", "< 1.37.0-0", "ab" * 32))
    assert "kubeVersion: < 1.37.0-0" in found[0].why


def test_the_packages_supply_is_too_new_for_a_chart() -> None:
    old = Chart("/charts/r", "rancher", "2.10.0", "", "< 1.32.0-0", "ab" * 32)
    found = refused({"supply": "packages", "addons": ADDONS}, chart=old)
    assert "1.35.4" in f"{found[0].what} {found[0].why} {found[0].fix}"


def test_upstream_rancher_has_its_chart_pinned() -> None:
    made = upstream({"addons": ADDONS})
    assert made.pins is not None
    assert set(made.pins.charts) == {"rancher"}
    assert {"helm", "charts"} <= set(made.keys)
    assert made.versions["kubernetes"].startswith("1.36.")


@pytest.mark.parametrize("kubernetes", ["1.37", "1.37.1"])
def test_a_wrong_pair_never_boots(kubernetes: str) -> None:
    raw = {"supply": "upstream", "addons": ADDONS, "kubernetes": kubernetes}
    assert refused({**raw, "versions": {"rancher": "2.15"}})
    assert refused(raw)


def test_its_name_is_in_the_labs_domain_at_the_ingress() -> None:
    made = planned({"name": "class-7", "addons": ADDONS, "supply": "packages"}, chart=_any())
    (service,) = [s for s in made.services_at if s.name == "rancher"]
    assert service.host == "rancher.class-7.internal"
    assert service.address == made.workers[0].address.ip


def test_another_name_goes_everywhere() -> None:
    raw = {"name": "x", "addons": ADDONS, "rancher": {"hostname": "manager.x.internal"}}
    made = planned({**raw, "supply": "packages"}, chart=_any())
    facts = yaml.safe_load(render.inventory(made, STOCK))["nodes"]["vars"]
    assert facts["lab_rancher"]["url"] == "https://manager.x.internal"
    assert ["manager.x.internal"] in [entry["names"] for entry in facts["lab_names"]]


def test_without_rancher_there_is_nothing_of_it() -> None:
    made = planned()
    facts = yaml.safe_load(render.inventory(made, STOCK))["nodes"]["vars"]
    assert made.rancher is None
    assert facts["lab_rancher"] == {}
    assert "rancher" not in lock.content(made, STOCK)


def test_the_lock_has_the_charts_digest() -> None:
    made = planned({"supply": "packages", "addons": ADDONS}, chart=_any())
    content = lock.content(made, STOCK)
    assert content["rancher"]["chart"] == {"version": "0.1.0", "sha256": "ab" * 32}


@pytest.mark.parametrize(("memory", "warned"), [("1536MiB", True), ("4GiB", False)])
def test_a_node_that_is_too_small_for_rancher(memory: str, warned: bool) -> None:
    raw = {"supply": "upstream", "addons": ADDONS, "nodes": {"w2": {"memory": memory}}}
    assert ("host.rancher-memory" in [w.id for w in planned(raw).warnings]) == warned
    standin = planned({"supply": "packages", "addons": ADDONS}, chart=_any())
    assert "host.rancher-memory" not in [w.id for w in standin.warnings]


def _any() -> Chart:
    return Chart("/charts/r", "rancher", "0.1.0", "", "", "ab" * 32)


# ------------------------------------------------------------------------------------------ charts


def test_a_folder_is_read_and_always_packed_the_same(tmp_path: Path) -> None:
    one = folder(tmp_path / "one")
    (one / ".git").mkdir()
    (one / ".git" / "config").write_text("not of the chart")
    two = folder(tmp_path / "two")
    (two / "templates" / "a.yaml").chmod(0o600)
    found = chartfile.read(one, "rancher.chart")
    assert (found.name, found.version, found.kube_version) == ("rancher", "2.15.3", "< 1.37.0-0")
    assert chartfile.read(two, "rancher.chart").sha256 == found.sha256
    with tarfile.open(fileobj=io.BytesIO(chartfile.packed(one))) as tar:
        assert tar.getnames() == ["chart/Chart.yaml", "chart/templates/a.yaml"]


def test_an_archive_stays_as_it_is(tmp_path: Path) -> None:
    archive = tmp_path / "rancher-2.15.3.tgz"
    archive.write_bytes(chartfile.packed(folder(tmp_path / "one")))
    assert chartfile.packed(archive) == archive.read_bytes()
    assert chartfile.read(archive, "rancher.chart").version == "2.15.3"


@pytest.mark.parametrize(
    ("about", "said"),
    [({"version": "%VERSION%"}, "%VERSION%"), ({"kubeVersion": "newest"}, "newest")],
)
def test_a_chart_that_is_not_ready(tmp_path: Path, about: dict[str, str], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        chartfile.read(folder(tmp_path / "one", **about), "rancher.chart")
    assert said in caught.value.findings[0].why
    assert caught.value.findings[0].where == "rancher.chart"


def test_what_is_no_chart(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tgz").write_text("words")
    for name in ("empty", "text.tgz", "missing"):
        with pytest.raises(SpecError):
            chartfile.read(tmp_path / name, "rancher.chart")


# ------------------------------------------------------------------------------------------- files


def test_the_password_is_made_once_and_its_owners_alone(tmp_path: Path) -> None:
    run = run_of(tmp_path, _with_chart(tmp_path))
    assert rancher.ensure(run) == ["rancher/chart.tgz", "rancher-password"]
    file = run.workdir.path / "rancher-password"
    first = file.read_text()
    assert len(first.strip()) >= 24
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert rancher.ensure(run) == []
    assert file.read_text() == first


def test_two_labs_have_two_passwords(tmp_path: Path) -> None:
    passwords = set()
    for name in ("one", "two"):
        run = run_of(tmp_path / name, _with_chart(tmp_path / name))
        rancher.ensure(run)
        passwords.add((run.workdir.path / "rancher-password").read_text())
    assert len(passwords) == 2


@pytest.mark.parametrize("text", ["tiny", "two lines\nof a password that is long enough", ""])
def test_a_password_that_rancher_would_not_take(tmp_path: Path, text: str) -> None:
    file = tmp_path / "word"
    file.write_text(text)
    run = run_of(tmp_path, _with_chart(tmp_path, password_file=str(file)))
    with pytest.raises(SpecError) as caught:
        rancher.ensure(run)
    said = str(caught.value.findings)
    assert not text or text not in said


def test_a_chart_that_changed_since_it_was_planned(tmp_path: Path) -> None:
    run = run_of(tmp_path, _with_chart(tmp_path))
    (tmp_path / "chart" / "templates" / "a.yaml").write_text("another: one\n")
    with pytest.raises(Exception, match="changed while it was read"):
        rancher.ensure(run)


def test_how_to_get_in_never_has_the_password(tmp_path: Path) -> None:
    made = _with_chart(tmp_path)
    run = run_of(tmp_path, made)
    rancher.ensure(run)
    found = rancher.access(made, run.workdir.path, "ready")
    password = (run.workdir.path / "rancher-password").read_text().strip()
    assert password not in str(found)
    assert found.password_file == run.workdir.path / "rancher-password"
    assert found.hosts == f"{made.workers[0].address.ip} rancher.lab.internal"
    assert found.trust.endswith("tls/ca.crt")


def _with_chart(root: Path, **more: str) -> Plan:
    chart = chartfile.read(folder(root / "chart", version="0.1.0", kubeVersion=""), "rancher.chart")
    raw = {"supply": "packages", "addons": ADDONS, "rancher": {**more}}
    return planned(raw, chart=chart)
