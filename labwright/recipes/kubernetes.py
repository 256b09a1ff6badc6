"""Kubernetes, compiled from Debian's source package: the whole of it, with its vendor tree.

No registry offers these binaries. Traps, all met on Debian 12 with Go 1.19: the vendored reflect2
is too old for Go 1.18 and later; the OpenAPI definitions are generated, not shipped; the version
has to be linked in under two import paths, or kubeadm takes the kubelet for ``0.0.0-master``.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

from labwright.errors import Finding, SupplyError
from labwright.recipes.base import Apt, Job, debian_sources, go_env
from labwright.tools.store import remove_tree

BINARIES = (
    "kubeadm",
    "kubelet",
    "kubectl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
)
PAUSE_VERSION = "3.2"
REFLECT2 = Path("/usr/share/gocode/src/github.com/modern-go/reflect2")
# client-go and component-base each hold a copy of the version, vendored or not.
VERSION_PACKAGES = tuple(
    f"{prefix}{package}"
    for prefix in ("", "k8s.io/kubernetes/vendor/")
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
)


def build(job: Job) -> None:
    """Make ``bin/<program>`` for each of BINARIES and ``pause``, and ``source.json``."""
    tree = job.work / "gopath/src/k8s.io/kubernetes"
    job.once("download", lambda: _download(job), "download Kubernetes' source package")
    job.once("unpack", lambda: _unpack(job, tree), "unpack the source")
    env = go_env(job.work) | {"GO111MODULE": "off", "HOME": str(job.work), "GOENV": "off"}
    job.once(
        "openapi",
        lambda: job.run(["make", "gen_openapi"], cwd=tree, env=env),
        "generate the API's OpenAPI definitions",
    )
    flags = _link_flags(job, tree)
    (job.work / "bin").mkdir(exist_ok=True)
    for number, name in enumerate(BINARIES, 1):
        command = ["go", "build", "-ldflags", flags, "-o", job.work / "bin" / name, f"./cmd/{name}"]
        job.once(
            name,
            lambda command=command: job.run(command, cwd=tree, env=env),  # type: ignore[misc]
            f"compile {name} ({number} of {len(BINARIES)})",
        )
    _compile_pause(job, tree)
    (job.out / "bin").mkdir()
    for name in (*BINARIES, "pause"):
        (job.out / "bin" / name).hardlink_to(job.work / "bin" / name)
    text = json.dumps(_source(job), indent=1, sort_keys=True)
    (job.out / "source.json").write_text(text + "\n", encoding="utf-8")


def _download(job: Job) -> None:
    remove_tree(job.work / "source")
    (job.work / "source").mkdir()
    apt = Apt(job, job.work / "apt", debian_sources(job.shell, "deb-src"))
    apt.update()
    apt.get("source", "--download-only", "kubernetes", cwd=job.work / "source")


def _unpack(job: Job, tree: Path) -> None:
    (package,) = (job.work / "source").glob("*.dsc")
    remove_tree(tree)
    tree.parent.mkdir(parents=True, exist_ok=True)
    job.run(["dpkg-source", "--extract", package, tree])
    wanted, found = job.artifact.version, _upstream(package.name)
    if found != wanted:
        raise SupplyError(
            Finding(
                "supply.kubernetes-version",
                "error",
                f"Debian's archive has Kubernetes {found}, not {wanted}",
                "an archive keeps only the newest version of a package",
                f"set kubernetes: {found} in lab.yaml",
            )
        )
    vendored = tree / "vendor/github.com/modern-go/reflect2"
    remove_tree(vendored)
    shutil.copytree(REFLECT2, vendored)


def _upstream(name: str) -> str:
    # "1.20.5+really1.20.2-1.1+deb12u1": what follows "really" is what it really is.
    match = re.search(r"_(?:.*\+really)?(\d+\.\d+\.\d+)", name)
    return match[1] if match else "of an unknown version"


def _link_flags(job: Job, tree: Path) -> str:
    major, minor, _patch = job.artifact.version.split(".")
    date = datetime.fromtimestamp(_changelog(job, tree, "Timestamp"), UTC)
    facts = {
        "gitVersion": f"v{job.artifact.version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "archive",
        "gitCommit": _commit(tree),
        # The packaging's date, not today's: the same source gives the same bytes.
        "buildDate": date.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    words = [f"-X {p}.{name}={value}" for p in VERSION_PACKAGES for name, value in facts.items()]
    return " ".join(["-s", "-w", *words])


def _commit(tree: Path) -> str:
    # Filled in by `git archive` when the release's tarball was made.
    match = re.search(r"[0-9a-f]{40}", (tree / "hack/lib/version.sh").read_text(encoding="utf-8"))
    return match[0] if match else "unknown"


def _changelog(job: Job, tree: Path, field: str) -> int:
    words = ["dpkg-parsechangelog", "-l", str(tree / "debian/changelog"), "-S", field]
    return int(job.shell.run(words).out)


def _compile_pause(job: Job, tree: Path) -> None:
    target, source = job.work / "bin/pause", tree / "build/pause/linux/pause.c"
    flags = ["-Os", "-Wall", "-static", "-s", f"-DVERSION=v{PAUSE_VERSION}"]
    job.run(["gcc", *flags, "-o", target, source.name], cwd=source.parent)


def _source(job: Job) -> dict[str, object]:
    files = sorted((job.work / "source").iterdir())
    tree = job.work / "gopath/src/k8s.io/kubernetes"
    (package,) = (path for path in files if path.suffix == ".dsc")
    return {
        "package": "kubernetes",
        "version": package.stem.partition("_")[2],
        "commit": _commit(tree),
        "date": _changelog(job, tree, "Timestamp"),
        "pause": PAUSE_VERSION,
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
