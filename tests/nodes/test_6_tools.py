"""The tools node, each of its tools proved by using it."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

import pytest

from tests.nodes.tools import USER, Workshop

if TYPE_CHECKING:
    from tests.nodes.conftest import Lab

pytestmark = pytest.mark.role("tools")

ENGINES = ["docker", "podman"]


def test_an_image_is_built_of_a_dockerfile(workshop: Workshop) -> None:
    assert workshop.answer("image")["exposes"] == '{"8080/tcp":{}}'


@pytest.mark.parametrize("engine", ENGINES)
def test_the_image_serves(workshop: Workshop, engine: str) -> None:
    # The first word was copied into the image, the second was written by its RUN.
    assert workshop.answer(engine)["http"] == f"{workshop.name} built"


@pytest.mark.parametrize("engine", ENGINES)
def test_the_container_runs_as_the_user_of_its_image(workshop: Workshop, engine: str) -> None:
    assert workshop.answer(engine)["user"] == str(USER)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_container_finds_another_by_name(workshop: Workshop, engine: str) -> None:
    assert workshop.answer(engine)["name"] == f"{workshop.name} built"


@pytest.mark.parametrize("tool", [*ENGINES, "lxc"])
def test_containers_stay_in_their_range(lab: Lab, workshop: Workshop, tool: str) -> None:
    (node,) = lab.having("tools")
    address = workshop.answer(tool)["address"]
    assert address, f"{tool} gave its container no address"
    assert IPv4Address(address) in IPv4Network(lab.node_facts(node)["container_network"])


def test_compose_services_reach_each_other(workshop: Workshop) -> None:
    assert workshop.answer("compose") == {"ended": "0", "http": f"{workshop.name} built"}


def test_a_system_container_runs(workshop: Workshop) -> None:
    said = workshop.answer("lxc")
    assert (said["hostname"], said["init"]) == (workshop.name, "init")


def test_kubectl_reaches_the_cluster(lab: Lab, workshop: Workshop) -> None:
    nodes = " ".join(sorted(f"node/{name}" for name in lab.members))
    said = workshop.answer("access")
    assert said == dict.fromkeys(said, nodes)
    assert len(said) == 2


def test_helm_reaches_the_cluster(workshop: Workshop) -> None:
    said = workshop.answer("helm")
    assert isinstance(json.loads(said["releases"]), list)


@pytest.mark.addon("registry")
def test_the_cluster_runs_an_image_that_was_pushed_here(workshop: Workshop) -> None:
    said = workshop.answer("registry")
    assert said["http"] == f"{workshop.name} built"
    assert said["ran"].endswith(said["digest"])
    assert said["gone"] == "404"
