"""The root of a node: a distribution with systemd, sshd and what Ansible needs, no more.

A container's has no kernel; a machine's has one, and what it takes to boot and to be found.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labwright.errors import Finding, SupplyError
from labwright.recipes import archive
from labwright.recipes.archive import Archive
from labwright.recipes.base import DATA, Apt, Job, debian_sources, host_apt_options, stanzas

PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "sudo",
    # Ansible's modules need the whole of Python; its apt module needs the bindings.
    "python3",
    "python3-apt",
    "iproute2",
    "procps",
    "kmod",
    "ca-certificates",
    "netbase",
    "iputils-ping",
    # The other half of the alternative, usrmerge, brings the whole of Perl (47 MB).
    "usr-is-merged",
)
MACHINE_PACKAGES = (
    # ata_piix, nvme and virtio for disks, virtio for cards: all that the providers are told to
    # give, at a third of the size of the kernel for every computer.
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "zstd",
    "udev",
    # What Vagrant configures a second card with where networkd does not run
    # (plugins/guests/debian/cap/configure_networks.rb).
    "ifupdown",
    "isc-dhcp-client",
    "e2fsprogs",
    "cloud-guest-utils",
    "fdisk",
    # There are no Guest Additions to set the clock after the host has slept.
    "systemd-timesyncd",
)
# What Ubuntu calls by another name, or has no need of: its base-files merges /usr by itself.
UBUNTU = {"linux-image-cloud-amd64": "linux-image-virtual", "usr-is-merged": ""}
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
EXCLUDED = ("doc/*", "man/*", "locale/*", "info/*", "lintian/*")
ENTRYPOINT = "usr/local/sbin/labwright-entrypoint"
MODES = {
    "etc/sudoers.d/vagrant": 0o440,
    ENTRYPOINT: 0o755,
    "usr/local/sbin/labwright-grow-root": 0o755,
}
PUBLIC_KEY = "keys/vagrant.pub"


@dataclass(frozen=True, slots=True)
class _Kind:
    """What one sort of root has: packages, scripts run inside, files put there and left out.

    Those of the folders ``early`` are there before any package but the essential ones.
    """

    packages: tuple[str, ...]
    scripts: tuple[str, ...]
    early: tuple[str, ...] = ()
    without: frozenset[str] = frozenset()
    hooks: tuple[str, ...] = (MERGED_USR,)


_CONTAINER = _Kind(PACKAGES, ("rootfs-setup.sh",))
_MACHINE = _Kind(
    (*PACKAGES, *MACHINE_PACKAGES),
    ("rootfs-setup.sh", "machine-setup.sh"),
    ("machine",),
    frozenset({ENTRYPOINT}),
)
_MACHINES = {
    "debian": _MACHINE,
    "ubuntu": _Kind(
        tuple(filter(None, (UBUNTU.get(name, name) for name in _MACHINE.packages))),
        (*_MACHINE.scripts, "ubuntu-setup.sh"),
        (*_MACHINE.early, "ubuntu"),
        _MACHINE.without,
        hooks=(),
    ),
}


def build(job: Job) -> None:
    """Make ``rootfs.tar``, ``packages.json`` (name → version) and dpkg's ``status``.

    The artifact's version is the release. The same packages give the same bytes: dates are cut
    off at that of the archive's lists.
    """
    _build(job, archive.of(job), _CONTAINER)


def build_machine(job: Job) -> None:
    """Make the same as ``build`` does, with a kernel and what a machine boots and logs in with."""
    source = archive.of(job)
    _build(job, source, _MACHINES[source.distribution])


def _build(job: Job, source: Archive, kind: _Kind) -> None:
    (job.work / "sources.list").write_text(source.sources, encoding="utf-8")
    apt = Apt(job, job.work / "apt", source.sources)
    apt.update()
    _pack(job.work / "overlay.tar", _overlay(apt, job, source, kind))
    early = {name: words for folder in kind.early for name, words in _files(folder).items()}
    _pack(job.work / "early.tar", early)
    said = f"{source.distribution.title()} {job.artifact.version}"
    job.say(f"install {said} with {len(kind.packages)} packages and what they need")
    env = {"SOURCE_DATE_EPOCH": str(apt.released()), "LC_ALL": "C.UTF-8"}
    job.run(_mmdebstrap(job, kind), env=env)
    versions = {
        fields["Package"]: fields["Version"]
        for fields in stanzas((job.out / "status").read_text(encoding="utf-8"))
    }
    text = json.dumps(versions, indent=1, sort_keys=True)
    (job.out / "packages.json").write_text(text + "\n", encoding="utf-8")


def _mmdebstrap(job: Job, kind: _Kind) -> list[str | Path]:
    early = [f"--essential-hook=tar-in {job.work / 'early.tar'} /"] if kind.early else []
    scripts = [(DATA / name).read_text(encoding="utf-8") for name in kind.scripts]
    return [
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--variant=minbase",
        f"--include={','.join(kind.packages)}",
        # A key in the user's own folder is not for apt's other user to read.
        '--aptopt=APT::Sandbox::User "root";',
        *(f"--aptopt={line}" for line in host_apt_options(job.shell)),
        *(f"--dpkgopt=path-exclude=/usr/share/{pattern}" for pattern in EXCLUDED),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *(f"--hook-dir={folder}" for folder in kind.hooks),
        *early,
        f"--customize-hook=tar-in {job.work / 'overlay.tar'} /",
        *(f"--customize-hook=chroot \"$1\" sh <<'END'\n{script}END\n" for script in scripts),
        f"--customize-hook=download /var/lib/dpkg/status {job.out / 'status'}",
        job.artifact.version,
        job.out / "rootfs.tar",
        job.work / "sources.list",
    ]


def _pack(path: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), MODES.get(name, 0o644), 0
            tar.addfile(info, io.BytesIO(content))


def _files(folder: str) -> dict[str, bytes]:
    own = DATA / folder
    return {
        str(path.relative_to(own)): path.read_bytes() for path in own.rglob("*") if path.is_file()
    }


def _overlay(apt: Apt, job: Job, source: Archive, kind: _Kind) -> dict[str, bytes]:
    if source.distribution != "debian":
        # Vagrant's key is in Debian's package of it.
        apt = Apt(job, job.work / "debian", debian_sources(job.shell))
        apt.update()
    files = {name: words for name, words in _files("rootfs").items() if name not in kind.without}
    return files | {
        "tmp/vagrant.pub": _vagrant_key(apt, job),
        f"etc/apt/sources.list.d/{source.distribution}.sources": _disabled(source).encode(),
    }


def _disabled(source: Archive) -> str:
    # A node must come up with no internet; whoever wants the rest sets Enabled to yes.
    found = []
    for line in source.sources.splitlines():
        _deb, uri, suite, *components = re.sub(r"\[.*?\]", "", line).split()
        found.append(
            f"Enabled: no\nTypes: deb\nURIs: {uri}\nSuites: {suite}\n"
            f"Components: {' '.join(components)}\nSigned-By: {source.keyring}\n"
        )
    return "\n".join(found)


def _vagrant_key(apt: Apt, job: Job) -> bytes:
    # Vagrant logs in with its well-known key first and then replaces it by one of its own.
    apt.get("download", "vagrant", cwd=job.work)
    (package,) = job.work.glob("vagrant_*.deb")
    if key := archive.file_in(job, package, PUBLIC_KEY):
        return key
    raise SupplyError(
        Finding(
            "supply.no-vagrant-key",
            "error",
            f"Debian's package vagrant ({package.name}) holds no {PUBLIC_KEY}",
            "without Vagrant's well-known public key no node lets Vagrant in",
            "please report this with the package's version",
        )
    )
