"""Finds programs."""

from __future__ import annotations

import shutil


def which(name: str) -> str | None:
    """Find a program, also where only root's PATH looks."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
