"""Bake a node image: the roles that converge a node run once, and every node finds them done."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from labwright import render
from labwright.model import Machine
from labwright.names import domain_name
from labwright.phases.base import Run
from labwright.phases.fetch import folders, recheck, stock
from labwright.providers import PROVIDERS
from labwright.tools import ansible, labs, workdir
from labwright.tools.serve import serving
from labwright.tools.ssh import ensure_key, host_keys

REPOSITORY = "labwright/node"
# Node images that no lab has, and that are kept all the same.
SPARED = 2
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
        if not PROVIDERS[run.plan.provider].caps.boots:
            return "the machines are there already"
        if run.plan.provider != "docker":
            return f"{run.plan.provider} nodes start from a box"
        if machine_names(run) <= run.tools.docker.machines(run.workdir.path):
            return "every machine is there already"
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
        for image in old_images(run):
            if run.tools.docker.remove_unused_image(image):
                run.say(f"remove {image}, which no lab has any more")
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


def machine_names(run: Run) -> set[str]:
    """Name the containers that the plan's nodes are, as templates/vagrant/docker.rb.j2 does."""
    return {domain_name(run.plan.name, node.name) for node in run.plan.nodes}


def old_images(run: Run) -> list[str]:
    """Give the node images that no lab of this user is planned with, but for the newest of them.

    A lab that comes up again after lab.destroy finds its image among those.
    """
    used = {run.plan.node_image, *(place.node_image for place in labs.known())}
    unused = [name for name in run.tools.docker.images_of(REPOSITORY) if name not in used]
    return unused[SPARED:]


_KEYS = "/home/vagrant/.ssh/authorized_keys"
_ADMIT = ("sh", "-c", f"cat >> {_KEYS}")
# What must differ between nodes, and what they do not need: made anew at first boot.
_CLEAN = (
    ("systemctl", "stop", "containerd", "ssh"),
    ("sh", "-c", "rm -f /etc/ssh/ssh_host_*_key* && : > /etc/machine-id"),
    ("sh", "-c", "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/journal/*"),
    ("sh", "-c", f"sed -i /labwright-bake/d {_KEYS}; sync"),
)
