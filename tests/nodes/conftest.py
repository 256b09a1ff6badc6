"""The lab under test: its lock, its nodes over ssh, and kubectl on its control plane.

A look over ssh costs a tenth of a second and more, so each node is asked once for all that the
checks want to know of it, and all nodes at the same time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pytest
import testinfra
import yaml

from tests.nodes.addons import uses
from tests.nodes.probes import Deployment
from tests.nodes.tools import workshop

# Pytest finds a fixture by its name in this module.
__all__ = ["uses", "workshop"]

T = TypeVar("T")
ADMIN = "--kubeconfig /etc/kubernetes/admin.conf"

# Where MetalLB's speaker listens on all addresses; the role network lets in the lab's alone.
GUARDED = 9120

# What a node is asked, by the name of the answer.
QUESTIONS = {
    "hostname": "hostname",
    "addresses": "ip -o -4 address show",
    "forwarding": "cat /proc/sys/net/ipv4/ip_forward",
    "file systems": "cat /proc/filesystems",
    "swaps": "tail -n +2 /proc/swaps",
    "sockets": "ss -Htlnp",
    # Of each address of the node, what a server answers at a port that the node's rules guard.
    "guarded": (
        "for address in $(ip -o -4 address show scope global | awk '{ print $4 }'); do "
        "echo ${address%%/*} $(curl -sk -m 3 -o /dev/null -w '%{http_code}' "
        f"https://${{address%%/*}}:{GUARDED}/); done"
    ),
    "containerd": "systemctl is-active containerd; systemctl is-enabled containerd",
    "kubelet": "systemctl is-active kubelet; systemctl is-enabled kubelet",
    "ctr": "ctr version >/dev/null 2>&1 && echo answers",
    # Each answers on the node's own loopback only.
    "kube-controller-manager": "curl -sk https://127.0.0.1:10257/healthz",
    "kube-scheduler": "curl -sk https://127.0.0.1:10259/healthz",
    "packages": "dpkg-query -W -f '${Package} ${Version}\\n'",
    "images": "ctr -n k8s.io images ls",
    "authority": "cat /etc/ssl/certs/labwright.pem",
}
MARK = "=labwright="
# The roles of nodes that Kubernetes knows; the others stand beside the cluster.
MEMBERS = {"control_plane", "worker"}

# What the control plane is asked of the cluster. etcd's own words are on standard error.
ETCD = (
    "exec etcd-$(hostname) -- etcdctl --endpoints=https://127.0.0.1:2379 "
    "--cacert=/etc/kubernetes/pki/etcd/ca.crt "
    "--cert=/etc/kubernetes/pki/etcd/healthcheck-client.crt "
    "--key=/etc/kubernetes/pki/etcd/healthcheck-client.key endpoint health 2>&1"
)
CLUSTER_QUESTIONS = {
    "readyz": f"kubectl {ADMIN} get --raw /readyz 2>&1",
    "etcd": f"kubectl {ADMIN} -n kube-system {ETCD}",
    "nodes": f"kubectl {ADMIN} get nodes -o json",
    "pods": f"kubectl {ADMIN} get pods -n kube-system -o json",
    "leases": f"kubectl {ADMIN} get leases -n kube-node-lease -o json",
    # Its clock, not this computer's, which may be off by more than a lease.
    "now": "date +%s.%N",
}


@dataclass(frozen=True)
class Lab:
    """What lab.lock and the inventory promise, and how to reach the nodes."""

    folder: Path

    @cached_property
    def lock(self) -> Mapping[str, Any]:
        """The plan as it was written down."""
        content: Mapping[str, Any] = yaml.safe_load((self.folder / "lab.lock").read_text("utf-8"))
        return content

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What the roles were told, by name without ``lab_``."""
        return _plain(self._tree["vars"])

    @property
    def patience(self) -> int:
        """How many times longer than usual to wait for what these nodes do."""
        return int(self.facts["patience"])

    def node_facts(self, name: str) -> Mapping[str, Any]:
        """What the roles were told of one node, by name without ``lab_``."""
        return _plain(self._tree["hosts"][name])

    @cached_property
    def _tree(self) -> Mapping[str, Any]:
        tree = yaml.safe_load((self.folder / "inventory" / "hosts.yml").read_text("utf-8"))
        nodes: Mapping[str, Any] = tree["nodes"]
        return nodes

    @cached_property
    def hosts(self) -> Mapping[str, Any]:
        """A testinfra host for each node."""
        config = str(self.folder / "ssh_config")
        return {
            name: testinfra.get_host(f"ssh://{name}", ssh_config=config)
            for name in self.lock["nodes"]
        }

    @cached_property
    def seen(self) -> Mapping[str, Mapping[str, str]]:
        """Each node's answers to QUESTIONS; ``problem`` is set where it could not be asked."""
        return self.ask()

    def ask(self) -> Mapping[str, Mapping[str, str]]:
        """What each node answers to QUESTIONS now."""
        return self.on_every_node(lambda name: self._ask(name, QUESTIONS))

    def cluster(self) -> Mapping[str, str]:
        """What the first control plane answers to CLUSTER_QUESTIONS now."""
        answers = self._ask(self.planes[0], CLUSTER_QUESTIONS)
        assert "problem" not in answers, answers["problem"]
        return answers

    @property
    def planes(self) -> list[str]:
        """The names of the control plane nodes."""
        return self.having("control_plane")

    @property
    def members(self) -> list[str]:
        """The names of the nodes that are in the cluster."""
        return [n for n, node in self.lock["nodes"].items() if node["role"] in MEMBERS]

    def having(self, role: str) -> list[str]:
        """Give the names of the nodes of a role."""
        return [n for n, node in self.lock["nodes"].items() if node["role"] == role]

    def address(self, name: str) -> str:
        """The planned address of a node."""
        return str(self.lock["nodes"][name]["address"]).partition("/")[0]

    def on_every_node(self, ask: Callable[[str], T]) -> dict[str, T]:
        """Ask something of all nodes at the same time; node → answer."""
        return self._on_each(list(self.lock["nodes"]), ask)

    def on_every_member(self, ask: Callable[[str], T]) -> dict[str, T]:
        """Ask something of all nodes of the cluster at the same time; node → answer."""
        return self._on_each(self.members, ask)

    def _on_each(self, names: list[str], ask: Callable[[str], T]) -> dict[str, T]:
        with ThreadPoolExecutor(len(names)) as pool:
            return dict(zip(names, pool.map(ask, names), strict=True))

    def kubectl(self, words: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator and give its output; fail with its words."""
        command = f"kubectl {ADMIN} {words}"
        if stdin is not None:
            command = f"{command} <<'LABWRIGHT'\n{stdin}\nLABWRIGHT"
        result = self.hosts[self.planes[0]].run("sudo sh -c %s", command)
        assert result.rc == 0, f"kubectl {words}: {result.stderr.strip()}"
        return str(result.stdout)

    def get(self, words: str) -> Any:
        """Give what ``kubectl get`` says, parsed."""
        return json.loads(self.kubectl(f"get {words} -o json"))

    def _ask(self, name: str, questions: Mapping[str, str]) -> Mapping[str, str]:
        script = "; ".join(f"echo '{MARK}{key}'; {ask}" for key, ask in questions.items())
        try:
            result = self.hosts[name].run("sudo sh -c %s", script)
        except RuntimeError as error:  # testinfra's word for ssh's exit code 255
            words = re.search(r"ssh: [^'\\\"]+", str(error))
            return {"problem": words[0] if words else "ssh ended with 255"}
        parts = [part.partition("\n") for part in result.stdout.split(MARK)[1:]]
        return {head: body.strip() for head, _, body in parts}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lab", help="the folder .lab/<name> of a lab that is up")


def _plain(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name.removeprefix("lab_"): value for name, value in facts.items()}


_labs: dict[str, Lab] = {}
_failed: list[str] = []


def _lab(config: pytest.Config) -> Lab:
    folder = str(config.getoption("--lab"))
    return _labs.setdefault(folder, Lab(Path(folder)))


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Lab:
    return _lab(request.config)


@pytest.fixture(scope="session", autouse=True)
def deployment(lab: Lab) -> Iterator[Deployment]:
    started = Deployment(lab)
    try:
        yield started
    finally:
        started.remove()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a check that asks for ``node`` once for each node, in the order of the plan.

    One with the marker ``cluster`` leaves out the nodes that are beside it.
    """
    if "node" in metafunc.fixturenames:
        lab = _lab(metafunc.config)
        inside = metafunc.definition.get_closest_marker("cluster")
        metafunc.parametrize("node", lab.members if inside else list(lab.lock["nodes"]))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the checks of what lab.yaml does not ask for: nothing is promised.

    What it asks for and the plan left out is said: `uses` skips that, with the reason.
    """
    lab = _lab(config)
    promised = {name for name, addon in lab.facts["addons"].items() if addon["enabled"]}
    promised |= lab.facts.get("left_out", {}).keys()
    for item in list(items):
        addon, role = item.get_closest_marker("addon"), item.get_closest_marker("role")
        off = addon and addon.args[0] not in promised
        if off or (role and not lab.having(role.args[0])):
            items.remove(item)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out the stages after one that failed: what they would say is not the cause."""
    if _failed and _failed[0] != item.nodeid.partition("::")[0]:
        pytest.skip(f"{Path(_failed[0]).stem} failed")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note the stage of the first failure."""
    if report.failed:
        _failed.append(report.nodeid.partition("::")[0])


@pytest.fixture
def seen(request: pytest.FixtureRequest, lab: Lab, node: str) -> Mapping[str, str]:
    """What one node answered; a node that cannot be asked fails the first check of it."""
    answers = lab.seen[node]
    if "problem" in answers and request.node.originalname != "test_answers_over_ssh":
        pytest.skip(f"{node} does not answer over ssh")
    assert "problem" not in answers, f"{node} does not answer over ssh: {answers['problem']}"
    return answers
