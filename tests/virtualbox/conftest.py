"""One root for all tests of this folder; for each an empty VirtualBox and an empty Vagrant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labwright.tools.shell import Shell
from tests.virtualbox import machinery
from tests.virtualbox.machinery import Machines


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder with VirtualBox in it."""
    if reason := machinery.reason_to_skip(Shell()):
        pytest.skip(reason)
    return machinery.root(Shell())


@pytest.fixture
def machines(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    """VirtualBox with no machine, first on PATH, and a Vagrant with no box."""
    shell = Shell()
    with machinery.virtualbox(shell, root, tmp_path) as made:
        for name, value in made.env.items():
            monkeypatch.setenv(name, value)
        path = f"{machinery.HERE / 'bin'}:{Path(shell.run(['which', 'vagrant']).out).parent}"
        monkeypatch.setenv("PATH", f"{path}:/usr/sbin:/usr/bin:/sbin:/bin")
        home = tmp_path / "vagrant"
        home.mkdir()
        (home / "Vagrantfile").write_text(machinery.SHIM, "utf-8")
        monkeypatch.setenv("VAGRANT_HOME", str(home))
        yield Machines(shell, root, made.state, {})
