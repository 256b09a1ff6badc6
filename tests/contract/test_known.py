"""Real tools fail here for real, and their words are known."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from labwright import known
from labwright.errors import LabError
from labwright.tools.docker import Docker
from labwright.tools.shell import Shell, ToolError

SUBNET = "10.213.77.0/24"


def explained(error: LabError) -> list[str]:
    known.explain(error)
    return [finding.id for finding in error.findings]


@pytest.fixture
def network() -> Iterator[str]:
    """A Docker network that has a lab's addresses."""
    shell, name = Shell(), f"labwright-test-{uuid.uuid4().hex[:8]}"
    if not Docker(shell).api()[0]:
        pytest.skip("no Docker daemon answers")
    shell.run(["docker", "network", "create", "--subnet", SUBNET, name])
    yield name
    shell.run(["docker", "network", "rm", name], check=False)


def test_docker_refuses_addresses_that_are_taken(network: str) -> None:
    with pytest.raises(ToolError) as caught:
        Shell().run(["docker", "network", "create", "--subnet", SUBNET, f"{network}-too"])
    assert explained(caught.value) == ["known.docker.pool-overlaps", "tool.failed"]


def test_a_full_disk() -> None:
    with pytest.raises(ToolError) as caught:
        Shell().run(["bash", "-c", "echo x > /dev/full"])
    assert explained(caught.value) == ["known.disk.full", "tool.failed"]


def test_ansible_in_a_locale_that_it_does_not_take() -> None:
    ansible = Path(sys.executable).with_name("ansible")
    with pytest.raises(ToolError) as caught:
        Shell({"LC_ALL": "C"}).run([ansible, "--version"])
    assert explained(caught.value) == ["known.ansible.locale", "tool.failed"]
