"""What `lab.support` packs, and above all what it does not."""

from __future__ import annotations

import json
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from labwright.errors import HostError, SpecError
from labwright.events import Event, Journal
from labwright.locate import save_plan
from labwright.phases import support
from labwright.phases.base import Run, Tools
from labwright.tools.docker import Docker
from labwright.tools.redact import is_secret, redact, values
from labwright.tools.shell import Result, Shell
from labwright.tools.store import Store
from tests.checkups import HEALTHY
from tests.fakes import planned, run_of

# Planted in files that are packed, in files that are not, and in what nodes say.
TOKEN = "abcdef.0123456789abcdef"
RANCHER = "correct-horse-battery"
KEY_DATA = "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQo="
BEARER = "sha256~kKp1Z0Vn3m8bQ"
CERTIFICATE_KEY = "e3" * 32
PEM_BODY = "MC4CAQAwBQYDK2VwBCIEIBqHd9q4rO0mZxJx3h1k"
PEM = f"-----BEGIN PRIVATE KEY-----\n{PEM_BODY}\n-----END PRIVATE KEY-----\n"
SECRETS = (TOKEN, RANCHER, KEY_DATA, BEARER, CERTIFICATE_KEY, PEM_BODY, "hunter22")

KUBECONFIG = f"""apiVersion: v1
clusters:
- name: labwright-lab
  cluster: {{server: "https://192.168.56.11:6443"}}
users:
- name: kubernetes-admin
  user:
    client-key-data: {KEY_DATA}
"""


class Nodes(Shell):
    """A shell whose ssh is answered by nodes that are careless with secrets; w1 is away."""

    def run(self, argv: Sequence[str | Path], **_more: Any) -> Result:
        words = [str(word) for word in argv]
        if "w1" in words:
            return super().run(
                ["sh", "-c", "echo ssh: connect to host: No route to host; exit 255"]
            )
        said = f"answer to {words[-1]}\nkubeadm join --token {TOKEN} {RANCHER}\n"
        if "--unit kubelet" in words[-1]:
            said += f"E1123 failed: inotify_init: too many open files, bearer {BEARER}\n"
        return Result(tuple(words), 0, said, "", 0.0)


@pytest.fixture
def lab(tmp_path: Path) -> Run:
    """A lab's folder as `lab.up` leaves it, with secrets where they are and where they leaked."""
    shell = Nodes()
    run = run_of(tmp_path, tools=Tools(shell, Store(tmp_path / "store"), Docker(shell)))
    made = planned({"workers": 1})
    save_plan(run.workdir, made)
    root = run.workdir.path
    for name, text in {
        "kubeconfig": KUBECONFIG,
        "ssh/id_ed25519": PEM,
        "ssh/id_ed25519.pub": "ssh-ed25519 AAAA lab",
        "tls/ca.key": PEM,
        "tls/ca.crt": "-----BEGIN CERTIFICATE-----\npublic\n-----END CERTIFICATE-----\n",
        "secrets/rancher": RANCHER,
        "rancher-password": f"{RANCHER}\n",
        "known_hosts": "cp1 ssh-ed25519 AAAA\n",
        "ssh_config": "".join(
            f'Host {name}\n  HostName 127.0.0.1\n  Port 22\n  User vagrant\n  IdentityFile "x"\n'
            for name in ("cp1", "w1")
        ),
        "lab.lock": "versions: {kubernetes: 1.20.2}\n",
        "Vagrantfile": "# rendered\n",
        "inventory/machines.yml": "all: {hosts: {cp1: {ansible_port: 22}}}\n",
        "inventory/secret.yml": f"password: {RANCHER}\n",
        "logs/vagrant.log": f"==> cp1: up\nproxy http://user:hunter22@proxy:3128\n{PEM}",
        "report/verify.xml": "<testsuites/>",
        "ansible/artifacts/1/stdout": f"join --certificate-key {CERTIFICATE_KEY}\n{RANCHER}\n",
        "ansible/artifacts/1/job_events/1.json": json.dumps({"token": TOKEN}),
        "ansible/env/extravars": f"password: {RANCHER}\n",
        "unlisted.txt": "not named, so not packed\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    Journal(run.workdir.journal)(Event("tool", f"Authorization: Bearer {BEARER} {RANCHER}"))
    return run


def packed(path: Path) -> dict[str, str]:
    with tarfile.open(path) as tar:
        files = {m.name: tar.extractfile(m) for m in tar.getmembers()}
    prefix = path.name.removesuffix(".tar.gz") + "/"
    with tarfile.open(path) as tar:
        return {
            name.removeprefix(prefix): file.read().decode()
            for name in files
            if (file := tar.extractfile(name)) is not None
        }


def test_no_planted_secret_leaves_the_computer(lab: Run, tmp_path: Path) -> None:
    path, names = support.pack(lab, HEALTHY, tmp_path / "out.tar.gz")
    files = packed(path)
    assert sorted(files) == names
    for name, text in files.items():
        for secret in SECRETS:
            assert secret not in text, f"{secret} in {name}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_inside(lab: Run, tmp_path: Path) -> None:
    path, names = support.pack(lab, HEALTHY, tmp_path / "out.tar.gz")
    assert {
        "README.txt",
        "known.txt",
        "doctor.json",
        "lab/plan.json",
        "lab/lab.lock",
        "lab/journal.jsonl",
        "lab/Vagrantfile",
        "lab/inventory/machines.yml",
        "lab/logs/vagrant.log",
        "lab/report/verify.xml",
        "lab/ansible/artifacts/1/stdout",
        "nodes/cp1/kubelet.log",
        "nodes/cp1/containerd.log",
        "nodes/cp1/system.txt",
        "nodes/cp1/pods.txt",
        "nodes/w1/kubelet.log",
    } <= set(names)
    words = ("kubeconfig", "id_ed25519", ".key", "password", "secret", "extravars", "job_events")
    assert not [name for name in names if any(word in name for word in words)]
    assert "lab/unlisted.txt" not in names
    files = packed(path)
    # What is not secret stays readable: a support archive of masks would help nobody.
    assert "==> cp1: up" in files["lab/logs/vagrant.log"]
    assert json.loads(files["doctor.json"])["works"]
    assert json.loads(files["lab/plan.json"])["name"] == "lab"
    assert "192.168.56.11" in files["lab/plan.json"]
    assert all(json.loads(line) for line in files["lab/journal.jsonl"].splitlines())
    assert all(name in files["README.txt"] for name in names if name != "README.txt")


def test_what_is_known_of_the_logs_is_said(lab: Run, tmp_path: Path) -> None:
    path, _ = support.pack(lab, HEALTHY, tmp_path / "out.tar.gz")
    told = packed(path)["known.txt"]
    assert "nodes/cp1/kubelet.log: known.kubelet.too-many-files" in told
    assert "\n  last: E1123 failed: inotify_init: too many open files" in told


def test_a_node_that_does_not_answer_is_no_failure(lab: Run, tmp_path: Path) -> None:
    path, _ = support.pack(lab, HEALTHY, tmp_path / "out.tar.gz")
    assert "No route to host" in packed(path)["nodes/w1/kubelet.log"]


def test_before_the_first_up_there_is_the_doctor_alone(tmp_path: Path) -> None:
    _, names = support.pack(run_of(tmp_path), HEALTHY, tmp_path / "out.tar.gz")
    assert names == ["README.txt", "doctor.json", "known.txt"]


def test_of_a_large_log_the_end_is_taken(lab: Run, tmp_path: Path) -> None:
    log = lab.workdir.path / "logs" / "vagrant.log"
    log.write_text("".join(f"line {n:07}\n" for n in range(200_000)))
    path, _ = support.pack(lab, HEALTHY, tmp_path / "out.tar.gz")
    text = packed(path)["lab/logs/vagrant.log"]
    head, first, *_ = text.splitlines()
    assert head.endswith("bytes are left out)")
    assert first.startswith("line ")
    assert text.endswith("line 0199999\n")
    assert len(text) < support.LARGEST + 100


def test_a_link_out_of_the_folder_is_not_followed(lab: Run, tmp_path: Path) -> None:
    outside = tmp_path / "private.log"
    outside.write_text("somebody's own\n")
    (lab.workdir.path / "logs" / "other.log").symlink_to(outside)
    _, names = support.pack(lab, HEALTHY, tmp_path / "out.tar.gz")
    assert "lab/logs/other.log" not in names


def test_an_archive_is_named_after_the_lab(tmp_path: Path) -> None:
    path = support.archive(tmp_path, "demo")
    assert path.parent == tmp_path
    assert path.name.startswith("labwright-demo-")
    assert support.archive(tmp_path / "x.tar.gz", "demo") == tmp_path / "x.tar.gz"


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    precious = tmp_path / "lab.yaml"
    precious.write_text("name: mine\n")
    with pytest.raises(SpecError) as caught:
        support.archive(precious, "lab")
    assert caught.value.findings[0].id == "spec.target-exists"
    into = support.archive(tmp_path / "new", "lab")
    assert into.parent == tmp_path / "new"
    assert into.name.endswith(".tar.gz")
    assert support.archive(tmp_path / "a.tar.gz", "lab") == tmp_path / "a.tar.gz"


def test_where_it_cannot_be_written_that_is_said(lab: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError) as caught:
        support.pack(lab, HEALTHY, tmp_path / "file" / "out.tar.gz")
    assert caught.value.findings[0].id == "host.cannot-write"
    assert "name another place" in caught.value.findings[0].fix


# --- redacting


@pytest.mark.parametrize(
    "name",
    [
        *("kubeconfig", "ca.key", "server.pem", "id_ed25519", "bootstrap-password"),
        *("secrets.yml", "token", "credentials.json"),
    ],
)
def test_names_that_say_secret(name: str) -> None:
    assert is_secret(Path(name))


@pytest.mark.parametrize(
    "name", ["ca.crt", "id_ed25519.pub", "plan.json", "machines.yml", "vagrant.log", "keyboard.txt"]
)
def test_names_that_do_not(name: str) -> None:
    assert not is_secret(Path(name))


def test_of_a_kubeconfig_only_the_credentials_are_secret(lab: Run) -> None:
    found = values(lab.workdir.path)
    assert KEY_DATA in found
    assert RANCHER in found
    assert not any("kubernetes-admin" in value or "192.168" in value for value in found)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("helm install --set bootstrapPassword=Sup3rSecret", "helm install"),
        ('{"auth": "dXNlcjpodW50ZXIyMg=="}', "auth"),
        ("Authorization: Basic dXNlcjpodW50ZXIyMg==", "Authorization"),
        ("docker login --password hunter22 registry", "registry"),
        (f"{PEM[:40]}\n{PEM_BODY}\n(cut here", ""),
        (f"{PEM_BODY}\n-----END PRIVATE KEY-----\nand on", "and on"),
    ],
)
def test_shapes_of_secrets(text: str, kept: str) -> None:
    clean = redact(text, ())
    secrets = ("Sup3rSecret", "dXNlcjpodW50ZXIyMg==", "hunter22", PEM_BODY)
    assert not any(secret in clean for secret in secrets)
    assert kept in clean
