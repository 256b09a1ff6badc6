"""The lab under test: its lock, its nodes over ssh, and kubectl on its control plane."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml


@dataclass(frozen=True)
class Lab:
    """What lab.lock and the inventory promise, and how to reach the nodes."""

    folder: Path

    @cached_property
    def lock(self) -> Mapping[str, Any]:
        """The plan as it was written down."""
        return yaml.safe_load((self.folder / "lab.lock").read_text("utf-8"))

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What the roles were told, by name without ``lab_``."""
        tree = yaml.safe_load((self.folder / "inventory" / "hosts.yml").read_text("utf-8"))
        shared = tree["nodes"]["vars"]
        return {name.removeprefix("lab_"): value for name, value in shared.items()}

    @cached_property
    def hosts(self) -> Mapping[str, Any]:
        """A testinfra host for each node."""
        return {name: self._host(name) for name in self.lock["nodes"]}

    @property
    def first(self) -> Any:
        """The first control plane node."""
        return self.hosts[self.planes[0]]

    @property
    def planes(self) -> list[str]:
        """The names of the control plane nodes."""
        return [n for n, node in self.lock["nodes"].items() if node["role"] == "control_plane"]

    def address(self, name: str) -> str:
        """The planned address of a node."""
        return str(self.lock["nodes"][name]["address"]).partition("/")[0]

    def kubectl(self, words: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator and give its output; fail with its words."""
        command = f"kubectl --kubeconfig /etc/kubernetes/admin.conf {words}"
        if stdin is not None:
            command = f"{command} <<'LABWRIGHT'\n{stdin}\nLABWRIGHT"
        with self.first.sudo():
            result = self.first.run(command)
        assert result.rc == 0, f"kubectl {words}: {result.stderr.strip()}"
        return str(result.stdout)

    def get(self, words: str) -> Any:
        """Give what ``kubectl get`` says, parsed."""
        return json.loads(self.kubectl(f"get {words} -o json"))

    def _host(self, name: str) -> Any:
        return testinfra.get_host(f"ssh://{name}", ssh_config=str(self.folder / "ssh_config"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lab", help="the folder .lab/<name> of a lab that is up")


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    return Lab(Path(request.config.getoption("--lab")))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a check that asks for ``node`` once for each node, in the order of the plan."""
    if "node" in metafunc.fixturenames:
        lab = Lab(Path(metafunc.config.getoption("--lab")))
        metafunc.parametrize("node", list(lab.lock["nodes"]))


@pytest.fixture
def host(lab: Lab, node: str) -> Any:
    return lab.hosts[node]
