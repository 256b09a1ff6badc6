"""The NAS: what is written by NFS is there, for the lab's network and for nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.nodes.probes import Deployment

if TYPE_CHECKING:
    from tests.nodes.conftest import Lab

pytestmark = pytest.mark.role("nas")

EXPORT = "/srv/nfs"
PORT = 2049
NO_CLIENT = "the kernel of these nodes has no NFS client: no pod can mount the export"
DEADLINE = 90


@dataclass(frozen=True)
class Nas:
    """The NAS of a lab, and a name for what this run writes."""

    host: Any
    address: str
    word: str

    def client(self, words: str, *more: str) -> Any:
        """Run a program of libnfs, a client in user space, with the URL of this run's file."""
        url = f"nfs://{self.address}{EXPORT}/{self.word}?version=4"
        return self.host.run(f"sudo timeout 20 {words.replace('URL', '%s')}", url, *more)


@pytest.fixture(scope="module")
def nas(lab: Lab, deployment: Deployment) -> Iterator[Nas]:
    (name,) = lab.having("nas")
    found = Nas(lab.hosts[name], lab.address(name), deployment.namespace)
    yield found
    found.host.run("sudo rm -rf %s", f"{EXPORT}/{found.word}")


@pytest.fixture(scope="module")
def written(nas: Nas) -> str:
    """Write a file by NFS; give its text."""
    nas.host.run_expect([0], "sudo sh -c %s", f"echo {nas.word} > /tmp/{nas.word}")
    result = nas.client(f"nfs-cp /tmp/{nas.word} URL")
    nas.host.run("sudo rm -f %s", f"/tmp/{nas.word}")
    assert result.rc == 0, f"nfs-cp: {result.stderr or result.stdout}"
    return nas.word


def test_what_is_written_by_nfs_is_read_by_nfs(nas: Nas, written: str) -> None:
    result = nas.client("nfs-cat URL")
    assert (result.rc, result.stdout.strip()) == (0, written)


def test_what_is_written_by_nfs_is_on_the_disk(nas: Nas, written: str) -> None:
    assert nas.host.run_expect([0], "sudo cat %s", f"{EXPORT}/{written}").stdout.strip() == written


def test_every_node_reaches_the_server(lab: Lab, nas: Nas) -> None:
    code = f"import socket; socket.create_connection(('{nas.address}', {PORT}), 5)"
    said = lab.on_every_node(lambda name: lab.hosts[name].run("python3 -c %s", code).stderr)
    assert said == dict.fromkeys(said, "")


def test_it_serves_the_labs_address_only(nas: Nas) -> None:
    lines = nas.host.run_expect([0], "ss -Htln").stdout.splitlines()
    served = {line.split()[3] for line in lines if line.split()[3].endswith(f":{PORT}")}
    assert served == {f"{nas.address}:{PORT}"}


def test_a_pod_writes_to_the_nas(lab: Lab, nas: Nas) -> None:
    if not lab.facts["nfs"]:
        pytest.skip(NO_CLIENT)
    folder = f"{nas.word}-pod"
    pod = json.dumps(_pod(nas, lab.facts["image_refs"]["busybox"], folder))
    space = f"-n {nas.word}"
    try:
        lab.kubectl(f"{space} apply -f -", pod)
        ended = f"{space} wait pod/nas --for=condition=Ready --timeout={DEADLINE * lab.patience}s"
        lab.kubectl(ended)
        read = nas.host.run_expect([0], "sudo cat %s", f"{EXPORT}/{folder}/word")
        assert read.stdout.strip() == nas.word
    finally:
        lab.kubectl(f"{space} delete pod nas --ignore-not-found --wait=true")
        nas.host.run("sudo rm -rf %s", f"{EXPORT}/{folder}")


def _pod(nas: Nas, image: str, folder: str) -> dict[str, Any]:
    script = f"mkdir -p /nas/{folder} && echo {nas.word} > /nas/{folder}/word && sleep 600"
    container = {
        "name": "nas",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
        "readinessProbe": {"exec": {"command": ["cat", f"/nas/{folder}/word"]}, "periodSeconds": 1},
        "volumeMounts": [{"name": "nas", "mountPath": "/nas"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "nas"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
            "volumes": [{"name": "nas", "nfs": {"server": nas.address, "path": EXPORT}}],
        },
    }
