"""The images a cluster runs, made here from compiled binaries and Debian's packages.

They are called ``labwright.local/<name>:<tag>``: they stand in for the vendors' images and are not
those. Each is an OCI archive that ``ctr images import`` takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from labwright import oci
from labwright.errors import Finding, SupplyError
from labwright.oci import File
from labwright.recipes.base import Apt, Job, architecture, debian_sources
from labwright.tools.store import remove_tree

REPOSITORY = "labwright.local"
STATIC = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
# kube-proxy calls these; kmod stands behind modprobe.
PROXY_PACKAGES = ("iptables", "conntrack", "ipset", "kmod", "nftables")
# Debian's alternatives are set by scripts that do not run here. nft, as on the nodes: rules of
# the other kind would live beside theirs, unseen.
PROXY_LINKS = {
    f"usr/sbin/{family}tables{action}": File(link="xtables-nft-multi", mode=0o777)
    for family in ("ip", "ip6")
    for action in ("", "-save", "-restore")
}
UNUSED = re.compile(r"usr/(share/(doc|man|info|lintian|bug|gcc|bash-completion)|lib/[^/]+/gconv)")
TMP = {"tmp": File(mode=0o1777)}


@dataclass(frozen=True, slots=True)
class Addon:
    """A program of an add-on: where its project's own image has it, so that one manifest does.

    ``asked`` are the words it tells its version to; one that never does is as its artifact says.
    ``artifact`` holds the program where that is not the image's name.
    """

    path: str
    asked: tuple[str, ...] = ()
    tmp: bool = True
    artifact: str = ""


ADDONS: Mapping[str, Addon] = MappingProxyType(
    {
        "cert-manager-cainjector": Addon("app/cmd/cainjector/cainjector", artifact="cert-manager"),
        "cert-manager-controller": Addon("app/cmd/controller/controller", artifact="cert-manager"),
        "cert-manager-webhook": Addon("app/cmd/webhook/webhook", artifact="cert-manager"),
        "coredns": Addon("coredns", ("-version",), tmp=False),
        "registry": Addon("bin/registry", ("--version",)),
        "kube-network-policies": Addon("bin/netpol", tmp=False),
        "local-path": Addon("usr/bin/local-path-provisioner", ("--version",)),
        "metallb-controller": Addon("controller", artifact="metallb"),
        "metallb-speaker": Addon("speaker", artifact="metallb"),
        "metrics-server": Addon("metrics-server", ("--version",)),
        "traefik": Addon("usr/local/bin/traefik", ("version",)),
    }
)
"""By image; a lab has the artifacts among its inputs that it asks for."""


def build(job: Job) -> None:
    """Make ``<name>.tar`` for each image, and ``images.json``.

    Of the artifact's params, ``<name>_version`` is the version that the plan counts on.
    images.json: name → ``ref``, ``archive`` (file name), ``digest`` (of the manifest), ``size``
    (bytes of the archive).
    """
    job.say("download busybox and what kube-proxy needs")
    named: dict[str, oci.Image] = {}
    for image in _images(job, Packages(job)):
        name, _colon, tag = image.ref.removeprefix(f"{REPOSITORY}/").partition(":")
        _check_version(name, tag, job.artifact.params.get(f"{name}_version", tag))
        named[name] = image
    write(job, named)


def write(job: Job, images: Mapping[str, oci.Image]) -> None:
    """Write an archive for each image, named as given, and images.json: see `build`."""
    arch = architecture(job.shell)
    found: dict[str, dict[str, str | int]] = {}
    for name, image in images.items():
        job.say(f"write image {image.ref}")
        archive = job.out / f"{name}.tar"
        digest = oci.write(replace(image, arch=arch), archive)
        size = archive.stat().st_size
        found[name] = {"ref": image.ref, "archive": archive.name, "digest": digest, "size": size}
    text = json.dumps(found, indent=1, sort_keys=True)
    (job.out / "images.json").write_text(text + "\n", encoding="utf-8")


def _check_version(name: str, found: str, planned: str) -> None:
    # The plan has named the image already; a tag that says another version would be a lie.
    if found != planned:
        raise SupplyError(
            Finding(
                f"supply.{name}-version",
                "error",
                f"{name} is {found} now and no longer {planned}",
                "the archive or module that it comes from has moved on",
                f"set {name} to {found} in labwright/catalog.toml",
            )
        )


def _images(job: Job, packages: Packages) -> Iterator[oci.Image]:
    binaries = job.inputs["kubernetes"] / "bin"
    pause = (job.inputs["kubernetes"] / "pause-version").read_text(encoding="utf-8").strip()
    version = f"v{job.artifact.version}"
    for name in STATIC:
        files = {f"usr/local/bin/{name}": File(binaries / name), **TMP}
        yield oci.Image(ref(name, version), files, entrypoint=(f"/usr/local/bin/{name}",))
    yield oci.Image(
        ref("kube-proxy", version),
        {**packages.closure(*PROXY_PACKAGES), **PROXY_LINKS, **TMP}
        | {"usr/local/bin/kube-proxy": File(binaries / "kube-proxy")},
        entrypoint=("/usr/local/bin/kube-proxy",),
    )
    yield oci.Image(
        ref("pause", pause), {"pause": File(binaries / "pause")}, entrypoint=("/pause",)
    )
    yield _etcd(job)
    yield _busybox(job, packages)
    yield from _addons(job)


def _addons(job: Job) -> Iterator[oci.Image]:
    for name, program in ADDONS.items():
        if (program.artifact or name) in job.inputs:
            yield _addon(job, name, program)


def _addon(job: Job, name: str, program: Addon) -> oci.Image:
    entry = job.inputs[program.artifact or name]
    built = entry / "bin" / Path(program.path).name
    if program.asked:
        said = job.shell.run([built, *program.asked]).out
    else:
        said = (entry / "version").read_text(encoding="utf-8")
    match = re.search(r"\d+\.\d+\.\d+", said)
    tag = f"v{match[0] if match else 'unknown'}"
    files = {program.path: File(built), **(TMP if program.tmp else {})}
    return oci.Image(ref(name, tag), files, entrypoint=(f"/{program.path}",))


def _etcd(job: Job) -> oci.Image:
    entry = job.inputs["etcd"]
    tag = (entry / "version").read_text(encoding="utf-8").strip().removeprefix("v")
    files = {f"usr/local/bin/{path.name}": File(path) for path in (entry / "bin").iterdir()}
    return oci.Image(ref("etcd", tag), files | TMP, entrypoint=("/usr/local/bin/etcd",))


def _busybox(job: Job, packages: Packages) -> oci.Image:
    files, version = busybox(job, packages)
    content = {**files, "etc/passwd": File(packages.users), **TMP}
    return oci.Image(ref("busybox", version), content, cmd=("/bin/sh",))


def busybox(job: Job, packages: Packages) -> tuple[dict[str, File], str]:
    """Return a busybox with a link for each of its programs, and its version."""
    files, version = packages.pick("busybox-static")
    program = files["bin/busybox"]
    applets = job.shell.run([str(program.source), "--list"]).out.split()
    links = {f"bin/{name}": File(link="busybox", mode=0o777) for name in applets}
    return {**links, "bin/busybox": program}, version


class Packages:
    """Debian packages taken apart, none of their scripts run."""

    def __init__(self, job: Job) -> None:
        """Read the archive's lists anew."""
        self._job = job
        remove_tree(job.work / "roots")
        self._apt = Apt(job, job.work / "apt", debian_sources(job.shell))
        self._apt.update()
        self.users = job.work / "passwd"
        self.users.write_text("root:x:0:0:root:/:/bin/sh\n", encoding="utf-8")

    def closure(self, *names: str) -> dict[str, File]:
        """Give what these packages and all they need hold, less what no program reads."""
        archives = self._job.work / "apt/archives"
        remove_tree(archives)
        (archives / "partial").mkdir(parents=True)
        files = self._unpack(names[0], self._apt.closure(*names))
        return {name: file for name, file in files.items() if not UNUSED.match(name)}

    def pick(self, *names: str) -> tuple[dict[str, File], str]:
        """Give what just these packages hold, and the first one's upstream version."""
        folder = self._job.work / "roots" / f"{names[0]}.debs"
        folder.mkdir(parents=True)
        self._apt.get("download", *names, cwd=folder)
        (first,) = folder.glob(f"{names[0]}_*.deb")
        version = re.sub(r"^.*%3a|[-+].*$", "", first.name.split("_")[1])
        return self._unpack(names[0], sorted(folder.glob("*.deb"))), version

    def _unpack(self, name: str, packages: list[Path]) -> dict[str, File]:
        root = self._job.work / "roots" / name
        root.mkdir(parents=True)
        for package in packages:
            self._job.run(["dpkg-deb", "--extract", package, root])
        return oci.tree(root)


def ref(name: str, tag: str) -> str:
    """Return the full name of an image that is made here."""
    return f"{REPOSITORY}/{name}:{tag}"
