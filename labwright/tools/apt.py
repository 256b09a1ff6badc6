"""Debian packages on the host: which are missing, and how they get there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from labwright.errors import Finding, HostError
from labwright.tools.shell import Shell, ToolError


def command(packages: Sequence[str]) -> list[str]:
    """Give the command that installs packages, as a person would type it."""
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    return [*sudo, "apt-get", "install", "-y", "--no-install-recommends", *packages]


def install(shell: Shell, packages: Sequence[str], on_line: Callable[[str], None]) -> None:
    """Install packages with a fresh index.

    Raises HostError with apt's last lines.
    """
    words = command(packages)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        update = [*words[: words.index("apt-get") + 1], "update"]
        shell.run(update, env=quiet, on_line=on_line, check=False, terminal=True)
        shell.run(words, env=quiet, on_line=on_line, terminal=True)
    except ToolError as error:
        raise HostError(
            Finding(
                "host.apt",
                "error",
                "the host's packages could not be installed",
                "apt-get failed",
                " ".join(words),
            ),
            error.details,
        ) from error
