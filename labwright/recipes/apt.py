"""The nodes' own apt repository: Kubernetes as packages, and all that has to be added to base."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from labwright.recipes.base import DATA, Apt, Job, architecture, debian_sources, stanzas
from labwright.supplies.base import ROOTS
from labwright.tools.store import remove_tree

DEB_REVISION = "1"
# What the vendor's packages ask for, less cri-tools, which Debian does not have.
DEPENDS: Mapping[str, str] = {
    "kubectl": "",
    "kubelet": "conntrack, containernetworking-plugins, ebtables, ethtool, iproute2, iptables, "
    "mount, socat, util-linux",
    "kubeadm": "containernetworking-plugins, kubectl (>= 1.13.0), kubelet (>= 1.13.0)",
}
SUMMARIES: Mapping[str, str] = {
    "kubectl": "command line of Kubernetes",
    "kubelet": "node agent of Kubernetes",
    "kubeadm": "tool that makes machines into a Kubernetes cluster",
}
GUEST_PACKAGES = (
    "containerd",
    "runc",
    "containernetworking-plugins",
    "conntrack",
    "ethtool",
    "socat",
    "iptables",
    "iproute2",
    "kmod",
    "iputils-ping",
    "nfs-common",
    "curl",
)


def build(job: Job) -> None:
    """Make a flat repository: ``*.deb``, ``Packages``, ``Packages.gz``, ``Release``.

    ``versions.json`` maps each package in it to its version. The repository is not signed: a node
    gets it from the host itself, as a trusted source.
    """
    source = json.loads((job.inputs["kubernetes"] / "source.json").read_text(encoding="utf-8"))
    own = [_package(job, name, source["date"]) for name in DEPENDS]
    job.say("download the nodes' packages")
    sources = debian_sources(job.shell)
    remove_tree(job.work / "apt/archives")
    apt = Apt(job, job.work / "apt", sources, _root(job) / "status")
    apt.update()
    take([*own, *apt.closure(*GUEST_PACKAGES, *map(str, own))], job.out)
    index(job, source["date"])


def build_for_role(job: Job) -> None:
    """Make a repository as ``build`` does of what a node beside the cluster has more than others.

    What is in the repository of all nodes counts as installed: the two are never at odds.
    """
    job.say("download its packages")
    remove_tree(job.work / "apt/archives")
    apt = Apt(job, job.work / "apt", debian_sources(job.shell), installed(job))
    apt.update()
    take(apt.closure(*job.artifact.params["packages"].split()), job.out)
    index(job, apt.released())


def installed(job: Job) -> Path:
    """Write dpkg's ``status`` of a node with its root and all of the repository of all nodes."""
    there: dict[str, str] = {}
    if any(root in job.inputs for root in ROOTS):
        there |= _paragraphs((_root(job) / "status").read_text("utf-8"))
    if "apt" in job.inputs:
        packages = _paragraphs((job.inputs["apt"] / "Packages").read_text("utf-8"))
        there |= {n: f"{words}\nStatus: install ok installed" for n, words in packages.items()}
    path = job.work / "status"
    path.write_text("".join(f"{words}\n\n" for words in there.values()), encoding="utf-8")
    return path


def _root(job: Job) -> Path:
    """Give the entry of the root that the nodes start from."""
    return next(job.inputs[root] for root in ROOTS if root in job.inputs)


def _paragraphs(text: str) -> dict[str, str]:
    """Split Debian control data into the text of each package."""
    found = [words.strip("\n") for words in re.split(r"\n\s*\n", text.strip())]
    return {words.partition("Package: ")[2].partition("\n")[0]: words for words in found if words}


def index(job: Job, date: int) -> dict[str, str]:
    """Index the debs in ``out`` and give name → version; ``date`` in seconds since 1970."""
    job.say("index the repository")
    packages = job.shell.run(["apt-ftparchive", "packages", "."], cwd=job.out).out
    (job.out / "Packages").write_text(packages, encoding="utf-8")
    (job.out / "Packages.gz").write_bytes(gzip.compress(packages.encode(), mtime=0))
    release = _release(job.out, ("Packages", "Packages.gz"), date)
    (job.out / "Release").write_text(release, encoding="utf-8")
    versions = {fields["Package"]: fields["Version"] for fields in stanzas(packages)}
    text = json.dumps(versions, indent=1, sort_keys=True)
    (job.out / "versions.json").write_text(text + "\n", encoding="utf-8")
    return versions


def take(debs: Iterable[Path], out: Path) -> None:
    """Copy debs to where they are served from."""
    for path in debs:
        # apt writes a version's epoch into the name as "1%3a", which each URL would quote again.
        shutil.copyfile(path, out / re.sub(r"_\d+%3a", "_", path.name))


def _package(job: Job, name: str, date: int) -> Path:
    """Make ``<name>_<version>_<arch>.deb``; the same input gives the same bytes."""
    arch = architecture(job.shell)
    version = f"{job.artifact.version}-{DEB_REVISION}"
    tree = job.work / name
    remove_tree(tree)
    if (DATA / "debs" / name).exists():
        shutil.copytree(DATA / "debs" / name, tree)
    for folder in ("DEBIAN", "usr/bin"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(job.inputs["kubernetes"] / "bin" / name, tree / "usr/bin" / name)
    control = {
        "Package": name,
        "Version": version,
        "Architecture": arch,
        "Maintainer": "Labwright <labwright@localhost>",
        "Section": "admin",
        "Priority": "optional",
        "Installed-Size": str((tree / "usr/bin" / name).stat().st_size // 1024 + 1),
        "Depends": DEPENDS[name],
        "Description": f"{SUMMARIES[name]}\n Compiled from Debian's source package kubernetes.",
    }
    text = "".join(f"{field}: {value}\n" for field, value in control.items() if value)
    (tree / "DEBIAN/control").write_text(text, encoding="utf-8")
    for path in tree.rglob("*"):
        run = path.is_dir() or (path.parent.name in {"bin", "DEBIAN"} and path.name != "control")
        path.chmod(0o755 if run else 0o644)
    tree.chmod(0o755)
    deb = job.work / f"{name}_{version}_{arch}.deb"
    job.say(f"pack {deb.name}")
    # zstd unpacks several times as fast as xz, on each node, at a fifth more bytes; one thread,
    # because the number of threads shows in the bytes.
    flags = ["--root-owner-group", "-Zzstd", "-z9", "--threads-max=1"]
    job.run(
        ["dpkg-deb", *flags, "--build", tree, deb],
        env={"SOURCE_DATE_EPOCH": str(date)},
    )
    return deb


def _release(folder: Path, names: Sequence[str], date: int) -> str:
    # apt-ftparchive would write today's date into it.
    day = datetime.fromtimestamp(date, UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")
    lines = ["Origin: Labwright", "Label: Labwright", f"Date: {day}", "SHA256:"]
    for name in names:
        content = (folder / name).read_bytes()
        lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}")
    return "\n".join(lines) + "\n"
