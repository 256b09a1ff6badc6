"""A Vagrant box of our own: the root of a machine on a disk, in the form that a provider takes.

No loop device and no mount is needed: the file system is filled while it is made, and the boot
loader is laid before it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import stat
import struct
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import MappingProxyType

from labwright.errors import Finding, SupplyError
from labwright.oci import PATH
from labwright.recipes.base import DATA, Job
from labwright.recipes.rootfs import ENTRYPOINT
from labwright.tools.store import remove_tree

SECTOR = 512
BLOCK = 4096
# How a tar archive holds what a file may do, such as ping: as bytes that are no text.
XATTR = "SCHILY.xattr."
_BYTES = ("utf-8", "surrogateescape")
# What qcow2 and VMDK both store and pack as one.
CLUSTER = 64 * 1024
# Where the partition starts; the boot loader is in front of it.
START = 2**20
MIB = 2**20
GRUB = Path("/usr/lib/grub/i386-pc")
GRUB_MODULES = (
    *("biosdisk", "part_msdos", "ext2", "search", "search_label", "configfile", "normal"),
    *("smbios", "test"),
)
LABEL = "labwright-root"
# Code in the first sector ends where the partition table begins.
BOOT_CODE = 440
# Where a VMDK's header says at which sector its description is, and how many it has.
VMDK_DESCRIPTOR = 28


@dataclass(frozen=True, slots=True)
class _Form:
    """How a provider wants its box: the disk's size in MiB, and what makes the files of it."""

    disk: int
    files: Callable[[Job, Path, int], Mapping[str, Path | bytes]]


def build(job: Job) -> None:
    """Make ``package.box``, which ``vagrant box add`` takes, and ``packages.json``.

    ``params["provider"]`` says for which provider; a container's root becomes ``image.tar``, which
    ``docker load`` takes. The same root gives the same bytes.
    """
    (root,) = job.inputs.values()
    if "base" in job.inputs:
        _image(job, root)
    else:
        _box(job)
    shutil.copyfile(root / "packages.json", job.out / "packages.json")


def _image(job: Job, root: Path) -> None:
    """Wrap a root as Docker itself saves one, which every release of it loads."""
    layer = root / "rootfs.tar"
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Cmd": [f"/{ENTRYPOINT}"], "Env": [PATH], "StopSignal": "SIGRTMIN+3"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    tag = job.artifact.params["tag"]
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    job.say("pack the image")
    listed = (json.dumps(manifest) + "\n").encode()
    files = {"config.json": _json(config), "manifest.json": listed}
    _tar(job.out / "image.tar", {**files, "layer.tar": layer})


def _box(job: Job) -> None:
    form = FORMS[job.artifact.params["provider"]]
    root = job.inputs["machine-root"] / "rootfs.tar"
    disk = job.work / "disk.raw"
    _disk(job, root, disk, form.disk)
    job.say("pack the box")
    files = form.files(job, disk, form.disk)
    disk.unlink()
    _tar(job.out / "package.box", files)
    for made in files.values():
        if isinstance(made, Path):
            made.unlink()


def identity(root: Path) -> uuid.UUID:
    """Give the identity of whatever is made of a root: another root, another one."""
    with root.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return uuid.UUID(bytes=digest[:16], version=4)


def _disk(job: Job, root: Path, disk: Path, size: int) -> None:
    """Lay a root on a disk of ``size`` MiB that a BIOS boots."""
    own = identity(root)
    job.say("make the disk")
    disk.unlink(missing_ok=True)
    with disk.open("wb") as file:
        file.truncate(size * MIB)
    table = f"label: dos\nlabel-id: 0x{own.hex[:8]}\nstart={START // SECTOR}, type=83, bootable\n"
    job.run(["sfdisk", "--quiet", disk], input=table)
    _filesystem(job, root, disk, (size * MIB - START) // BLOCK, own)
    core = job.work / "core.img"
    job.run(
        [
            *("grub-mkimage", "--format=i386-pc", f"--directory={GRUB}", f"--output={core}"),
            *("--prefix=(hd0,msdos1)/boot/grub", *GRUB_MODULES, "linux"),
        ]
    )
    with disk.open("r+b") as file:
        file.write((GRUB / "boot.img").read_bytes()[:BOOT_CODE])
        file.seek(SECTOR)
        file.write(core.read_bytes())
    _settle_holes(disk)


def _settle_holes(disk: Path) -> None:
    """Store exactly those clusters that are not all zeros.

    qemu-img asks the file system which parts are holes, and of space that was reserved and never
    written (mke2fs does so) the answer depends on what the page cache holds in that moment.
    """
    zeros, settled = bytes(CLUSTER), disk.with_suffix(".settled")
    with disk.open("rb") as old, settled.open("wb") as new:
        size = disk.stat().st_size
        new.truncate(size)
        place = 0
        while (place := _data(old.fileno(), place)) < size:
            place -= place % CLUSTER
            old.seek(place)
            if (words := old.read(CLUSTER)) != zeros[: len(words)]:
                new.seek(place)
                new.write(words)
            place += CLUSTER
    settled.replace(disk)


def _data(file: int, place: int) -> int:
    """Give where the next part that is no hole begins; far away without any."""
    try:
        return os.lseek(file, place, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return sys.maxsize
        raise


def _filesystem(job: Job, root: Path, disk: Path, blocks: int, own: uuid.UUID) -> None:
    """Fill a file system with the files of a root as any user, and say whose they are after."""
    tree, script = job.work / "root", job.work / "fields"
    remove_tree(tree)
    tree.mkdir()
    # The kernel fills /dev; nobody but root could unpack what is there.
    words = ["tar", "--extract", f"--file={root}", f"--directory={tree}", "--no-same-owner"]
    # mmdebstrap's names begin with a dot, those of an exported container do not.
    job.run([*words, "--anchored", "--exclude=./dev/*", "--exclude=dev/*"])
    job.run(["chmod", "--recursive", "u+rwX", tree])
    with tarfile.open(root) as tar:
        members = [m for m in tar if not m.name.removeprefix("./").startswith("dev/")]
    born = int(max(member.mtime for member in members))
    # mke2fs sorts a folder's names as the locale does, and takes this for the time of day.
    config = str(DATA / "box/mke2fs.conf")
    env = {"LC_ALL": "C", "E2FSPROGS_FAKE_TIME": str(born), "MKE2FS_CONFIG": config}
    options = f"offset={START},hash_seed={own},lazy_itable_init=0,nodiscard"
    job.run(
        [
            *("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-L", LABEL, "-U", str(own)),
            *("-E", options, "-d", tree, disk, str(blocks)),
        ],
        env=env,
    )
    remove_tree(tree)
    lines = [line for member in members for line in _fields(job, member, born)]
    script.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    said = job.run(["debugfs", "-w", "-f", script, f"{disk}?offset={START}"], env=env).out
    # debugfs goes on after a command that failed, and ends as if all were well.
    wrong = [line for line in said.splitlines() if line and not line.startswith("debugfs")]
    if wrong:
        raise SupplyError(
            Finding(
                "supply.filesystem",
                "error",
                f"the file system of {job.artifact.title or 'a box'} could not be filled",
                wrong[0],
                "please report this with the version of e2fsprogs",
            ),
            wrong[-20:],
        )


def _fields(job: Job, member: tarfile.TarInfo, born: int) -> Iterator[str]:
    """Give what debugfs sets of a file: all that depends on who unpacked it, and when."""
    name = member.name.removeprefix("./")
    path = '"/"' if name in {"", "."} else f'"/{name}"'
    values = {"uid": member.uid, "gid": member.gid, "mtime": f"@{int(member.mtime)}"}
    values |= {"ctime": f"@{born}", "atime": f"@{born}"}
    if member.isdir() or member.isreg():
        kind = stat.S_IFDIR if member.isdir() else stat.S_IFREG
        values["mode"] = f"0{kind | member.mode:o}"
    yield from (f"set_inode_field {path} {field} {value}" for field, value in values.items())
    for key, value in sorted(member.pax_headers.items()):
        if key.startswith(XATTR):
            held = job.work / f"xattr-{hashlib.sha256(value.encode(*_BYTES)).hexdigest()[:16]}"
            held.write_bytes(value.encode(*_BYTES))
            yield f"ea_set -f {held} {path} {key.removeprefix(XATTR)}"


def _libvirt(job: Job, disk: Path, size: int) -> Mapping[str, Path | bytes]:
    image = job.work / "box.img"
    # Clusters are packed one by one: the box is small, and is never unpacked as a whole.
    words = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2"]
    job.run([*words, "-o", "compat=1.1", disk, image])
    virtual = -(-size // 1024)
    return {
        "metadata.json": _json(
            {
                "architecture": "amd64",
                "provider": "libvirt",
                "format": "qcow2",
                "virtual_size": virtual,
            }
        ),
        "box.img": image,
    }


def _virtualbox(job: Job, disk: Path, size: int) -> Mapping[str, Path | bytes]:
    own = identity(job.inputs["machine-root"] / "rootfs.tar")
    image = job.work / "box-disk001.vmdk"
    words = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    job.run([*words, disk, image])
    _settle_vmdk(image, own)
    ovf = Template((DATA / "box/box.ovf").read_text("utf-8")).substitute(
        name=f"labwright-{job.artifact.version}",
        disk=image.name,
        disk_size=image.stat().st_size,
        capacity=size * MIB,
    )
    return {
        "metadata.json": _json({"architecture": "amd64", "provider": "virtualbox"}),
        "Vagrantfile": (DATA / "box/Vagrantfile").read_bytes(),
        "box.ovf": ovf.encode(),
        image.name: image,
    }


def _settle_vmdk(image: Path, own: uuid.UUID) -> None:
    """Put a content id of our own in the place of a random one (qemu's block/vmdk.c).

    A number of fewer digits makes the text shorter, so all of its room is written.
    """
    with image.open("r+b") as file:
        start, room = struct.unpack_from("<QQ", file.read(SECTOR), VMDK_DESCRIPTOR)
        file.seek(start * SECTOR)
        text = file.read(room * SECTOR).rstrip(b"\0")
        settled = re.sub(rb"(?m)^CID=[0-9a-f]+$", b"CID=" + own.hex[:8].encode(), text)
        file.seek(start * SECTOR)
        file.write(settled.ljust(room * SECTOR, b"\0"))


FORMS: Mapping[str, _Form] = MappingProxyType(
    {
        # The smallest disk that lab.yaml may ask for: it grows at the first boot.
        "libvirt": _Form(4 * 1024, _libvirt),
        # What is on it is all that is stored. Vagrant lets no linked clone have a larger one.
        "virtualbox": _Form(20 * 1024, _virtualbox),
    }
)


def _json(value: Mapping[str, object]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _tar(path: Path, files: Mapping[str, Path | bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o644
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.size = content.stat().st_size
                with content.open("rb") as file:
                    tar.addfile(info, file)
