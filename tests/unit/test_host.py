"""What is read off a host: capability masks, and what programs say of themselves."""

from __future__ import annotations

import gzip
import platform
from pathlib import Path

import pytest

from labwright.tools import host
from labwright.tools.host import CAPS, caps_of, has_nf_tables, mounts_nfs
from labwright.tools.shell import Shell


@pytest.mark.parametrize(
    ("bit", "name"),
    [
        (0, "CAP_CHOWN"),
        (12, "CAP_NET_ADMIN"),
        (21, "CAP_SYS_ADMIN"),
        (24, "CAP_SYS_RESOURCE"),
        (27, "CAP_MKNOD"),
        (34, "CAP_SYSLOG"),
        (38, "CAP_PERFMON"),
        (39, "CAP_BPF"),
        (40, "CAP_CHECKPOINT_RESTORE"),
    ],
)
def test_a_bit_is_a_capability(bit: int, name: str) -> None:
    assert caps_of(1 << bit) == {name}


def test_masks() -> None:
    assert caps_of(0) == frozenset()
    assert len(caps_of(0x1FFFFFFFFFF)) == len(CAPS) == len(set(CAPS)) == 41
    # Docker's own default for a container.
    assert caps_of(0xA80425FB) == {
        f"CAP_{name}"
        for name in (
            *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
            *("NET_BIND_SERVICE", "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"),
        )
    }


def test_bits_of_a_newer_kernel_are_left_out() -> None:
    assert caps_of(1 << 60 | 1) == {"CAP_CHOWN"}


@pytest.mark.parametrize(
    ("known", "module", "mounts"),
    [
        ("nodev\tproc\n\text4\n", "", False),
        ("nodev\tproc\nnodev\tnfs4\n", "", True),
        ("nodev\tnfsd\n", "", False),
        ("\text4\n", "nfs.ko.xz", True),
        ("\text4\n", "nfs.ko", True),
        ("\text4\n", "nfs_acl.ko", False),
    ],
)
def test_a_kernel_mounts_nfs(tmp_path: Path, known: str, module: str, mounts: bool) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/filesystems").write_text(known)
    modules = tmp_path / "lib/modules" / platform.release() / "kernel/fs/nfs"
    modules.mkdir(parents=True)
    if module:
        (modules / module).touch()
    assert mounts_nfs(tmp_path) is mounts


def test_where_no_file_system_is_named_none_is_mounted(tmp_path: Path) -> None:
    assert not mounts_nfs(tmp_path)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("Vagrant 2.4.9", "2.4.9"),
        ("7.2.22r169920", "7.2.22"),
        ("WARNING: The vboxdrv kernel module is not loaded.\n7.0.20_Debianr163906", "7.0.20"),
        ("no such thing", ""),
    ],
)
def test_a_program_says_its_version(tmp_path: Path, said: str, version: str) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
    program.chmod(0o755)
    assert host.version(Shell(), str(program)) == version


@pytest.mark.parametrize(
    ("files", "has"),
    [
        ({"sys/module/nf_tables/refcnt": "1"}, True),
        ({"boot/config-6.1": "CONFIG_NF_TABLES=y\nCONFIG_NF_TABLES_INET=y\n"}, True),
        ({"boot/config-6.1": "# CONFIG_NF_TABLES is not set\nCONFIG_NF_TABLES_INET=y\n"}, False),
        ({"lib/modules/6.1/config": "CONFIG_NET=y\n"}, False),
        (
            {
                "boot/config-6.1": "CONFIG_NF_TABLES=m\n",
                "lib/modules/6.1/kernel/net/netfilter/nf_tables.ko.xz": "",
            },
            True,
        ),
        ({"boot/config-6.1": "CONFIG_NF_TABLES=m\n"}, None),
        ({"boot/config-6.0": "CONFIG_NF_TABLES=y\n"}, None),
        ({"proc/config.gz": "no gzip"}, None),
        ({}, None),
    ],
)
def test_a_kernel_has_nftables(tmp_path: Path, files: dict[str, str], has: bool | None) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert has_nf_tables(tmp_path, "6.1") is has


@pytest.mark.parametrize(("word", "has"), [("=y", True), (" is not set", False)])
def test_a_kernels_own_word_on_nftables_counts_first(tmp_path: Path, word: str, has: bool) -> None:
    for name, content in {
        "proc/config.gz": gzip.compress(f"# or not\nCONFIG_NF_TABLES{word}\n".encode()),
        "boot/config-6.1": b"CONFIG_NF_TABLES=y\n" if not has else b"",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(content)
    assert has_nf_tables(tmp_path, "6.1") is has
