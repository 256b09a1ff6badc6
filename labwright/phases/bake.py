"""Bake a node image: the roles that converge a node run once, and every node finds them done."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from labwright import render
from labwright.model import Machine
from labwright.phases.base import Run
from labwright.phases.fetch import folders, recheck, stock
from labwright.tools import ansible, workdir
from labwright.tools.serve import serving
from labwright.tools.ssh import ensure_key, host_keys

ENTRYPOINT = "/usr/local/sbin/labwright-entrypoint"


@dataclass(frozen=True, slots=True)
class Bake:
    """Ends with the plan's node image in Docker."""

    name: str = "bake"

    def title(self, run: Run) -> str:
        """Say that the roles run."""
        return "Bake the node image"

    def skip(self, run: Run) -> str | None:
        """Skip for virtual machines, whose boxes take the roles at converge, and when baked."""
        if run.plan.provider != "docker":
            return f"{run.plan.provider} nodes start from a box"
        return "baked before" if run.tools.docker.has_image(run.plan.node_image) else None

    def outline(self, run: Run) -> list[str]:
        """Name the image."""
        return [f"bake {run.plan.node_image}"]

    def execute(self, run: Run) -> None:
        """Start a container of the base image, converge it, and commit it."""
        name = "labwright-bake-" + run.plan.node_image.partition(":")[2]
        locks = workdir.cache() / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / name):
            if run.tools.docker.has_image(run.plan.node_image):
                return
            run.say("check what goes in")
            recheck(run)
            base = self._base(run)
            try:
                self._bake(run, name, base)
            finally:
                run.tools.docker.remove_container(name)
        run.conclude(run.plan.node_image)

    def _base(self, run: Run) -> str:
        key = run.plan.keys["base"]
        image = f"labwright/base:{key.removeprefix('base-')}"
        if not run.tools.docker.has_image(image):
            run.say("import the base image")
            run.tools.docker.import_image(run.tools.store.path(key) / "rootfs.tar", image)
        return image

    def _bake(self, run: Run, name: str, base: str) -> None:
        converge(run, name, base, run.plan.node_args, [ENTRYPOINT])
        run.say("commit the image")
        run.tools.docker.commit(name, run.plan.node_image, [f'CMD ["{ENTRYPOINT}"]'])


def converge(
    run: Run, name: str, base: str, node_args: Iterable[str], command: Sequence[str]
) -> None:
    """End with the container ``name``, of the image ``base``, on which the roles have run.

    Raises ConvergeError, HostError.
    """
    docker = run.tools.docker
    docker.remove_container(name)
    # /var stays in the image here; as a volume it would not be committed.
    args = [word for word in node_args if not word.startswith("--volume=/var")]
    run.say("start a container of it")
    docker.run_detached(name, base, args, command)
    own, gateway = docker.address(name)
    with tempfile.TemporaryDirectory(prefix="labwright-") as folder:
        key = ensure_key(run.tools.shell, Path(folder) / "ssh" / "key", "labwright-bake")
        docker.execute(name, *_ADMIT, stdin=Path(f"{key}.pub").read_text("utf-8"))
        machine = Machine("bake", own, 22, "vagrant", str(key))
        known_hosts = Path(folder) / "known_hosts"
        workdir.write(known_hosts, host_keys(run.tools.shell, [machine]))
        with serving(folders(run), gateway, 0) as url:
            inventory = Path(folder) / "inventory"
            workdir.write(inventory / "machines.yml", render.machines({"bake": machine}))
            ansible.play(
                "bake.yml",
                [render.ROOT / "inventory" / "groups.yml", inventory],
                Path(folder) / "ansible",
                known_hosts,
                run.step,
                {**render.supply_facts(run.plan, stock(run), url), "lab_baking": True},
                run.tool,
            )
    for words in _CLEAN:
        docker.execute(name, *words)


_KEYS = "/home/vagrant/.ssh/authorized_keys"
_ADMIT = ("sh", "-c", f"cat >> {_KEYS}")
# What must differ between nodes, and what they do not need: made anew at first boot.
_CLEAN = (
    ("systemctl", "stop", "containerd", "ssh"),
    ("sh", "-c", "rm -f /etc/ssh/ssh_host_*_key* && : > /etc/machine-id"),
    ("sh", "-c", "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/journal/*"),
    ("sh", "-c", f"sed -i /labwright-bake/d {_KEYS}; sync"),
)
