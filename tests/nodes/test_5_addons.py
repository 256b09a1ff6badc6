"""The add-ons, each proved by using it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.nodes.addons import Uses, traefik_nodes

if TYPE_CHECKING:
    from tests.nodes.conftest import Lab


@pytest.mark.addon("local-path")
def test_a_pod_reads_what_another_wrote_to_a_volume(uses: Uses) -> None:
    said, storage_class = uses.answer("local-path")
    assert (said, storage_class) == (uses.namespace, "local-path")


@pytest.mark.addon("metrics-server")
def test_metrics_of_every_node(lab: Lab, uses: Uses) -> None:
    assert set(uses.answer("metrics-server")) == set(lab.members)


@pytest.mark.addon("traefik")
def test_an_ingress_answers_on_every_node_with_traefik(lab: Lab, uses: Uses) -> None:
    heard = uses.answer("traefik")["heard"]
    wrong = {n: heard.get(n) for n in traefik_nodes(lab) if heard.get(n) not in lab.members}
    assert not wrong, f"port 80 answers {wrong}"


@pytest.mark.addon("traefik")
def test_an_unknown_host_is_not_found(lab: Lab, uses: Uses) -> None:
    assert uses.answer("traefik")["strange"] == dict.fromkeys(traefik_nodes(lab), "404")


@pytest.mark.addon("traefik")
def test_traefik_is_the_default_ingress_class(uses: Uses) -> None:
    assert uses.answer("traefik")["class"] == "traefik"
