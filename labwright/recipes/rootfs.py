"""The root of every node: Debian bookworm with systemd, sshd and what Ansible needs, no more."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

from labwright.errors import Finding, SupplyError
from labwright.recipes.base import (
    DATA,
    KEYRING,
    SUITE,
    Apt,
    Job,
    debian_sources,
    host_apt_options,
    stanzas,
)

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
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
EXCLUDED = ("doc/*", "man/*", "locale/*", "info/*", "lintian/*")
MODES = {"etc/sudoers.d/vagrant": 0o440, "usr/local/sbin/labwright-entrypoint": 0o755}
PUBLIC_KEY = "keys/vagrant.pub"


def build(job: Job) -> None:
    """Make ``rootfs.tar``, ``packages.json`` (name → version) and dpkg's ``status``.

    The same packages give the same bytes: dates are cut off at that of the archive's lists.
    """
    sources = debian_sources(job.shell)
    (job.work / "sources.list").write_text(sources, encoding="utf-8")
    apt = Apt(job, job.work / "apt", sources)
    apt.update()
    with tarfile.open(job.work / "overlay.tar", "w") as tar:
        for name, content in sorted(_overlay(apt, job, sources).items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(content), MODES.get(name, 0o644), 0
            tar.addfile(info, io.BytesIO(content))
    job.say(f"install Debian {SUITE} with {len(PACKAGES)} packages and what they need")
    job.run(_mmdebstrap(job), env={"SOURCE_DATE_EPOCH": str(apt.released()), "LC_ALL": "C.UTF-8"})
    versions = {
        fields["Package"]: fields["Version"]
        for fields in stanzas((job.out / "status").read_text(encoding="utf-8"))
    }
    text = json.dumps(versions, indent=1, sort_keys=True)
    (job.out / "packages.json").write_text(text + "\n", encoding="utf-8")


def _mmdebstrap(job: Job) -> list[str | Path]:
    setup = (DATA / "rootfs-setup.sh").read_text(encoding="utf-8")
    return [
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        *(f"--aptopt={line}" for line in host_apt_options(job.shell)),
        *(f"--dpkgopt=path-exclude=/usr/share/{pattern}" for pattern in EXCLUDED),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        f"--hook-dir={MERGED_USR}",
        f"--customize-hook=tar-in {job.work / 'overlay.tar'} /",
        f"--customize-hook=chroot \"$1\" sh <<'END'\n{setup}END\n",
        f"--customize-hook=download /var/lib/dpkg/status {job.out / 'status'}",
        SUITE,
        job.out / "rootfs.tar",
        job.work / "sources.list",
    ]


def _overlay(apt: Apt, job: Job, sources: str) -> dict[str, bytes]:
    own = DATA / "rootfs"
    files = {
        str(path.relative_to(own)): path.read_bytes() for path in own.rglob("*") if path.is_file()
    }
    return files | {
        "tmp/vagrant.pub": _vagrant_key(apt, job),
        "etc/apt/sources.list.d/debian.sources": _disabled(sources).encode(),
    }


def _disabled(sources: str) -> str:
    # A node must come up with no internet; whoever wants the rest of Debian sets Enabled to yes.
    found = []
    for line in sources.splitlines():
        *_options, uri, suite, component = line.split()
        found.append(
            f"Enabled: no\nTypes: deb\nURIs: {uri}\nSuites: {suite}\n"
            f"Components: {component}\nSigned-By: {KEYRING}\n"
        )
    return "\n".join(found)


def _vagrant_key(apt: Apt, job: Job) -> bytes:
    # Vagrant logs in with its well-known key first and then replaces it by one of its own.
    apt.get("download", "vagrant", cwd=job.work)
    (package,) = job.work.glob("vagrant_*.deb")
    archive = job.work / "vagrant.tar"
    job.run(["sh", "-c", 'dpkg-deb --fsys-tarfile "$0" > "$1"', package, archive])
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.endswith(PUBLIC_KEY) and (file := tar.extractfile(member)):
                return file.read()
    raise SupplyError(
        Finding(
            "supply.no-vagrant-key",
            "error",
            f"Debian's package vagrant ({package.name}) holds no {PUBLIC_KEY}",
            "without Vagrant's well-known public key no node lets Vagrant in",
            "please report this with the package's version",
        )
    )
