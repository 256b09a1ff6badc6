"""Give the user what reaches the cluster: a kubeconfig and a kubectl."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from labwright.errors import ConvergeError, Finding
from labwright.phases.base import Run
from labwright.tools.nodes import RECORD, dump, record
from labwright.tools.ssh import Ssh
from labwright.tools.workdir import write

# The last that the store has wins.
PROGRAMS = (("kubernetes", "kubectl"), ("host", "kubectl"), ("helm", "helm"))


@dataclass(frozen=True, slots=True)
class Export:
    """Ends with .lab/<name>/kubeconfig and .lab/<name>/bin/kubectl."""

    name: str = "export"

    def title(self, run: Run) -> str:
        """Name the file."""
        return "Write the kubeconfig"

    def skip(self, run: Run) -> str | None:
        """Never: a cluster made anew has a new certificate."""
        return None

    def outline(self, run: Run) -> list[str]:
        """Name the files."""
        return [f"write {run.workdir.kubeconfig}"]

    def execute(self, run: Run) -> None:
        """Fetch the administrator's kubeconfig and give it the lab's name."""
        first = run.plan.control_planes[0].name
        ssh = Ssh(run.tools.shell, run.workdir.ssh_config)
        text = ssh.run(first, "sudo cat /etc/kubernetes/admin.conf")
        config = renamed(yaml.safe_load(text), run.plan.context, run.plan.endpoint)
        write(run.workdir.kubeconfig, yaml.safe_dump(config, sort_keys=False), 0o600)
        self._programs(run, ssh)
        found = record(ssh, [node.name for node in run.plan.nodes])
        write(run.workdir.path / RECORD, dump(found))
        run.conclude(str(run.workdir.kubeconfig))

    def _programs(self, run: Run, ssh: Ssh) -> None:
        """Link the programs that the supply has; without one, kubectl comes from a node."""
        folder, plan, store = run.workdir.path / "bin", run.plan, run.tools.store
        folder.mkdir(parents=True, exist_ok=True)
        for entry, program in PROGRAMS:
            if entry in plan.keys:
                _link(store.path(plan.keys[entry]) / "bin" / program, folder / program)
        kubectl = folder / "kubectl"
        if not kubectl.exists() and sys.platform == "linux":
            ssh.fetch(plan.control_planes[0].name, "/usr/bin/kubectl", kubectl)
        if "charts" in plan.keys:
            _link(store.path(plan.keys["charts"]), run.workdir.path / "charts")


def _link(source: Path, link: Path) -> None:
    if source.exists() and link.resolve() != source.resolve():
        link.unlink(missing_ok=True)
        link.symlink_to(source)


def renamed(config: Any, name: str, endpoint: str) -> dict[str, Any]:
    """Give kubeadm's admin.conf with cluster, user and context named after the lab.

    Raises ConvergeError when it is not a kubeconfig.
    """
    try:
        cluster = config["clusters"][0]["cluster"] | {"server": f"https://{endpoint}"}
        user = config["users"][0]["user"]
    except (KeyError, IndexError, TypeError) as error:
        what = "the control plane's admin.conf is not a kubeconfig"
        raise ConvergeError(Finding("converge.kubeconfig", "error", what)) from error
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
