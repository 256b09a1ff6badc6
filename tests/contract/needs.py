"""Programs that a contract test runs for real."""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str) -> str:
    """Give a program that every lab needs; without it the test is skipped, in CI it fails."""
    if os.environ.get("CI") and _which(program) is None:
        pytest.fail(f"{program} is not on PATH, and in CI every contract is checked")
    return want(program)


def want(program: str) -> str:
    """Give a program's path, or leave the test out and say why."""
    path = _which(program)
    if path is None:
        pytest.skip(f"{program} is not on PATH")
    return path


def _which(program: str) -> str | None:
    sbin = "/usr/sbin:/sbin:/usr/local/sbin"
    return shutil.which(program) or shutil.which(program, path=sbin)
