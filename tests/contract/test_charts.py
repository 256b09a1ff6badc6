"""Charts from a Helm repository, packed by helm where there is one."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labwright.errors import SupplyError
from labwright.tools import charts
from labwright.tools.charts import ChartPin
from labwright.tools.download import Http
from tests.vendors import ChartRepo, Faulty

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: greeting}\n"


@pytest.fixture
def http() -> Iterator[Http]:
    with Http(patience=20, backoff=0.01) as session:
        yield session


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[ChartRepo]:
    with ChartRepo(tmp_path / "charts") as running:
        running.add("rancher", "2.14.3", {"greeting.yaml": CONFIG})
        running.add("rancher", "2.15.1", {"greeting.yaml": CONFIG})
        running.add("cert-manager", "v1.21.0", {"greeting.yaml": CONFIG})
        yield running


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_chart_is_found_and_fetched(
    http: Http, repo: ChartRepo, tmp_path: Path, slash: str
) -> None:
    pin = charts.find(http, repo.url + slash, "rancher", "2.15.1")
    archive = repo.folder / "rancher-2.15.1.tgz"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert pin == ChartPin("rancher", "2.15.1", f"{repo.url}/rancher-2.15.1.tgz", digest)
    assert charts.fetch(http, pin, tmp_path / "chart.tgz") == digest
    with tarfile.open(tmp_path / "chart.tgz") as tar:
        assert "rancher/templates/greeting.yaml" in tar.getnames()


@pytest.mark.parametrize("version", ["1.21.0", "v1.21.0"])
def test_a_leading_v_makes_no_difference(http: Http, repo: ChartRepo, version: str) -> None:
    assert charts.find(http, repo.url, "cert-manager", version).version == "v1.21.0"


@pytest.mark.parametrize(
    ("name", "version", "why"),
    [
        ("rancher", "2.15", "it has 2.15.1, 2.14.3"),
        ("traefik", "1.0.0", "it has no chart of that name"),
    ],
)
def test_what_it_does_not_have_is_said(
    http: Http, repo: ChartRepo, name: str, version: str, why: str
) -> None:
    with pytest.raises(SupplyError) as caught:
        charts.find(http, repo.url, name, version)
    (finding,) = caught.value.findings
    assert finding.what == f"chart {name} {version} is not in {repo.url}"
    assert finding.why == why


def test_an_altered_chart_is_refused(http: Http, repo: ChartRepo, tmp_path: Path) -> None:
    pin = charts.find(http, repo.url, "rancher", "2.15.1")
    repo.server.flip(".tgz", at=50)
    with pytest.raises(SupplyError, match="is not what was promised"):
        charts.fetch(http, pin, tmp_path / "chart.tgz")
    assert not list(tmp_path.glob("chart*.tgz*"))


def test_addresses_may_lie_elsewhere_and_digests_be_missing(http: Http, tmp_path: Path) -> None:
    (tmp_path / "index.yaml").write_text(
        "entries:\n  a:\n  - {version: 1.0.0, urls: ['https://elsewhere.example/a.tgz']}\n"
        "  - {version: 2, urls: [sub/a-2.tgz]}\n  - {version: 3.0.0, urls: []}\n"
    )
    with Faulty(tmp_path) as server:
        there = charts.find(http, f"{server.url}/", "a", "1.0.0")
        assert there == ChartPin("a", "1.0.0", "https://elsewhere.example/a.tgz", "")
        assert charts.find(http, server.url, "a", "2").url == f"{server.url}/sub/a-2.tgz"
        with pytest.raises(SupplyError, match=r"chart a 3\.0\.0 is not in"):
            charts.find(http, server.url, "a", "3.0.0")


@pytest.mark.parametrize("index", ["<html>", "[]", "entries: 5", "entries: {a: [1]}", "a: [", ""])
def test_what_is_no_index_is_said_so(http: Http, tmp_path: Path, index: str) -> None:
    (tmp_path / "index.yaml").write_text(index)
    with Faulty(tmp_path) as server, pytest.raises(SupplyError, match="not the index of a chart"):
        charts.find(http, server.url, "a", "1")
