"""The report of a real pytest run, read as the checks it holds."""

from __future__ import annotations

import sys
import textwrap

import pytest

from labwright.phases.verify import Check, _finding, read
from labwright.tools.shell import Shell

CHECKS = """
    import pytest

    @pytest.fixture
    def seen(node):
        assert node != "w3", f"{node} does not answer over ssh: timed out"

    @pytest.mark.parametrize("node", ["cp1", "w1", "w2", "w3"])
    def test_kubelet_runs(node, seen):
        if node == "w2":
            pytest.skip("no kubelet here <yet> & \\"so on\\"")
        state = {"cp1": "active"}.get(node, "failed")
        assert state == "active", f"kubelet is {state}"

    def test_every_node_is_ready():
        ready = ["cp1", "w1"]
        assert ready == ["cp1", "w1", "w2"]

    def test_etcd_health():
        raise RuntimeError("etcd said nothing")

    def test_dns_names():
        pass
"""


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> list[Check]:
    folder = tmp_path_factory.mktemp("checks")
    (folder / "test_checks.py").write_text(textwrap.dedent(CHECKS))
    report = folder / "report.xml"
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", f"--junit-xml={report}"]
    # No plugin of the developers' own: they are slow to load, and verify has none.
    shell = Shell({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""})
    shell.run([sys.executable, *words, str(folder)], cwd=folder, check=False)
    return list(read(report))


def test_checks_come_in_the_order_they_ran(checks: list[Check]) -> None:
    assert [(c.name, c.node, c.outcome) for c in checks] == [
        ("kubelet runs", "cp1", "passed"),
        ("kubelet runs", "w1", "failed"),
        ("kubelet runs", "w2", "skipped"),
        ("kubelet runs", "w3", "failed"),
        ("every node is ready", "", "failed"),
        ("etcd health", "", "failed"),
        ("dns names", "", "passed"),
    ]


def test_a_check_says_why_in_its_own_words(checks: list[Check]) -> None:
    said = [c.message for c in checks]
    assert said[0] == said[6] == ""
    assert said[1].startswith("kubelet is failed")
    assert said[2] == 'no kubelet here <yet> & "so on"'
    assert "w3 does not answer over ssh: timed out" in said[3]
    assert "'w2'" in said[4]
    assert "etcd said nothing" in said[5]
    assert not any("\n" in message for message in said)


def test_a_failed_check_is_a_finding_that_names_its_node(checks: list[Check]) -> None:
    finding = _finding(checks[1])
    assert (finding.id, finding.level) == ("verify.kubelet-runs", "error")
    assert (finding.what, finding.where) == ("kubelet runs", "w1")
    assert "kubelet is failed" in finding.why
