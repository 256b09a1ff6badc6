"""The nodes' own apt repository: Kubernetes as packages, and all that has to be added to base."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from labwright.recipes.base import DATA, Apt, Job, architecture, debian_sources, stanzas
from labwright.supplies.base import ROOTS
from labwright.tools.store import remove_tree

DEB_REVISION = "1"
BUILT = 946684800
"""One date for all that is packed, 2000-01-01: the same bytes on every computer and day."""


@dataclass(frozen=True, slots=True)
class Deb:
    """A package as the vendors' repositories have it.

    ``programs`` are those of an artifact by its name, ``folder`` where they go on a node; the
    package has the version of the first artifact. ``fields`` are further control fields, in which
    ``{name}`` stands for an artifact's version; ``empty`` are folders that it makes besides.
    """

    summary: str
    programs: Mapping[str, tuple[str, ...]]
    fields: Mapping[str, str] = field(default_factory=dict)
    folder: str = "usr/bin"
    empty: tuple[str, ...] = ()


# Names and relations are those of pkgs.k8s.io and of Docker's repository (kubernetes/release,
# cmd/krel/templates/latest/metadata.yaml).
DEBS: Mapping[str, Deb] = MappingProxyType(
    {
        "kubectl": Deb("command line of Kubernetes", {"kubernetes": ("kubectl",)}),
        "kubelet": Deb(
            "node agent of Kubernetes",
            {"kubernetes": ("kubelet",)},
            {
                "Depends": "ethtool, iproute2, iptables, kubernetes-cni (>= 1.2.0), mount, socat, "
                "util-linux"
            },
        ),
        "kubeadm": Deb(
            "tool that makes machines into a Kubernetes cluster",
            {"kubernetes": ("kubeadm",)},
            {"Depends": "cri-tools (>= 1.30.0)"},
        ),
        "kubernetes-cni": Deb(
            "network plugins of containers", {"cni-plugins": ()}, folder="opt/cni/bin"
        ),
        "cri-tools": Deb("client of container runtimes", {"cri-tools": ("crictl",)}),
        "containerd.io": Deb(
            "container runtime",
            {"containerd": (), "runc": ("runc",)},
            {
                # Debian's docker.io asks for both under their own names.
                "Provides": "containerd (= {containerd}), runc (= {runc})",
                "Conflicts": "containerd, runc",
                "Replaces": "containerd, runc",
                "Recommends": "ca-certificates",
            },
            empty=("etc/containerd",),
        ),
    }
)
GUEST_PACKAGES = (
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
    own = [_package(job, name, deb) for name, deb in DEBS.items()]
    job.say("download the nodes' packages")
    sources = debian_sources(job.shell)
    remove_tree(job.work / "apt/archives")
    apt = Apt(job, job.work / "apt", sources, _root(job) / "status")
    apt.update()
    take([*own, *apt.closure(*GUEST_PACKAGES, *map(str, own))], job.out)
    index(job, apt.released())


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


def _package(job: Job, name: str, deb: Deb) -> Path:
    """Make ``<name>_<version>_<arch>.deb``; the same input gives the same bytes."""
    arch = architecture(job.shell)
    versions = {a: job.artifact.params[f"{a}_version"] for a in deb.programs}
    version = f"{next(iter(versions.values()))}-{DEB_REVISION}"
    tree = job.work / name
    remove_tree(tree)
    if (DATA / "debs" / name).exists():
        shutil.copytree(DATA / "debs" / name, tree)
    for folder in ("DEBIAN", deb.folder, *deb.empty):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    size = 0
    for source in _programs(job, deb):
        shutil.copyfile(source, tree / deb.folder / source.name)
        size += source.stat().st_size
    control = {
        "Package": name,
        "Version": version,
        "Architecture": arch,
        "Maintainer": "Labwright <labwright@localhost>",
        "Section": "admin",
        "Priority": "optional",
        "Installed-Size": str(size // 1024 + 1),
        **{field: value.format_map(versions) for field, value in deb.fields.items()},
        "Description": f"{deb.summary}\n Compiled by Labwright from Go modules.",
    }
    text = "".join(f"{field}: {value}\n" for field, value in control.items())
    (tree / "DEBIAN/control").write_text(text, encoding="utf-8")
    for path in tree.rglob("*"):
        run = path.is_dir() or (path.parent.name in {"bin", "DEBIAN"} and path.name != "control")
        path.chmod(0o755 if run else 0o644)
    tree.chmod(0o755)
    target = job.work / f"{name}_{version}_{arch}.deb"
    job.say(f"pack {target.name}")
    # zstd unpacks several times as fast as xz, on each node, at a fifth more bytes; one thread,
    # because the number of threads shows in the bytes.
    flags = ["--root-owner-group", "-Zzstd", "-z9", "--threads-max=1"]
    env = {"SOURCE_DATE_EPOCH": str(BUILT)}
    job.run(["dpkg-deb", *flags, "--build", tree, target], env=env)
    return target


def _programs(job: Job, deb: Deb) -> Iterator[Path]:
    """Find what goes into a package: the programs it names of an artifact, or all of them."""
    for artifact, names in deb.programs.items():
        there = job.inputs[artifact] / "bin"
        yield from (there / name for name in names) if names else sorted(there.iterdir())


def _release(folder: Path, names: Sequence[str], date: int) -> str:
    # apt-ftparchive would write today's date into it.
    day = datetime.fromtimestamp(date, UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")
    lines = ["Origin: Labwright", "Label: Labwright", f"Date: {day}", "SHA256:"]
    for name in names:
        content = (folder / name).read_bytes()
        lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}")
    return "\n".join(lines) + "\n"
