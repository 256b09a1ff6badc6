"""The add-ons, each proved by using it."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from tests.nodes.addons import LOGGED_IN, TIMED_OUT, Uses, load_balancer_range, traefik_nodes

if TYPE_CHECKING:
    from tests.nodes.conftest import Lab
    from tests.nodes.probes import Deployment


@pytest.mark.addon("cert-manager")
def test_a_certificate_is_issued_in_the_name_of_the_labs_authority(lab: Lab, uses: Uses) -> None:
    issued = x509.load_pem_x509_certificate(uses.answer("cert-manager"))
    authority = x509.load_pem_x509_certificate((lab.folder / "tls" / "ca.crt").read_bytes())
    issued.verify_directly_issued_by(authority)
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [uses.host]


@pytest.mark.addon("load-balancer")
def test_a_service_gets_an_address_of_the_labs_range(lab: Lab, uses: Uses) -> None:
    first, last = load_balancer_range(lab)
    assert first <= IPv4Address(uses.answer("load-balancer")["address"]) <= last


@pytest.mark.addon("load-balancer")
def test_its_address_answers_on_every_node_and_here(lab: Lab, uses: Uses) -> None:
    answer = uses.answer("load-balancer")
    wrong = {n: said for n, said in answer["heard"].items() if said not in lab.lock["nodes"]}
    assert answer["heard"].keys() == {"", *lab.lock["nodes"]}
    assert not wrong, f"{answer['address']} answers {wrong}"


@pytest.mark.addon("local-path")
def test_a_pod_reads_what_another_wrote_to_a_volume(uses: Uses) -> None:
    said, storage_class = uses.answer("local-path")
    assert (said, storage_class) == (uses.namespace, "local-path")


@pytest.mark.addon("metrics-server")
def test_metrics_of_every_node(lab: Lab, uses: Uses) -> None:
    assert set(uses.answer("metrics-server")) == set(lab.members)


@pytest.mark.addon("network-policy")
def test_a_network_policy_lets_in_whom_it_names_and_nobody_else(uses: Uses) -> None:
    answer = uses.answer("network-policy")
    (served,) = set(answer["free"].values())
    assert answer["restricted"] == {"friend": served, "stranger": TIMED_OUT}


@pytest.mark.addon("network-policy")
def test_all_is_open_again_without_a_network_policy(uses: Uses) -> None:
    answer = uses.answer("network-policy")
    assert answer["free again"] == answer["free"]


@pytest.mark.addon("registry")
def test_every_node_trusts_the_registry(uses: Uses) -> None:
    trusted = uses.answer("registry")["trusted"]
    assert trusted == dict.fromkeys(trusted, "200")


@pytest.mark.addon("registry")
def test_every_node_runs_an_image_that_one_of_them_pushed(lab: Lab, uses: Uses) -> None:
    nodes = [node["name"] for node in lab.facts["cluster_nodes"]]
    assert uses.answer("registry")["said"] == dict.fromkeys(nodes, uses.namespace)


@pytest.mark.addon("registry")
def test_an_image_is_deleted_from_the_registry_and_the_nodes(uses: Uses) -> None:
    answer = uses.answer("registry")
    assert answer["gone"] == ["404", "404"]
    assert answer["left"] == dict.fromkeys(answer["left"], "")


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


@pytest.mark.addon("rancher")
def test_rancher_answers_by_its_name_with_a_certificate_of_the_lab(uses: Uses) -> None:
    said = uses.answer("rancher")
    assert said["ping"] == (200, "pong")
    assert said["ping from a node"] == "pong"


@pytest.mark.addon("rancher")
def test_pods_know_the_name_of_rancher(lab: Lab, deployment: Deployment) -> None:
    deployment.wait(60)
    host = lab.facts["rancher"]["hostname"]
    (address,) = [e["address"] for e in lab.facts["names"] if host in e["names"]]
    said = lab.kubectl(f"-n {deployment.namespace} exec daemonset/probe -- nslookup {host}")
    assert address in said


@pytest.mark.addon("rancher")
def test_rancher_takes_the_first_password(uses: Uses) -> None:
    said = uses.answer("rancher")
    if said["login"] == 401 and said["accepted"]:
        pytest.skip("the first password was changed since it was accepted: no login to check with")
    assert said["login"] in LOGGED_IN, f"the login answers {said['login']}"


@pytest.mark.addon("rancher")
def test_no_wizard_is_left_in_rancher(lab: Lab, uses: Uses) -> None:
    said = uses.answer("rancher")
    assert said["wizard"] == "false"
    if "cluster" in said:
        assert said["server-url"] == lab.facts["rancher"]["url"]


@pytest.mark.addon("rancher")
def test_rancher_knows_the_lab(lab: Lab, uses: Uses) -> None:
    said = uses.answer("rancher")
    if "cluster" not in said:
        pytest.skip(f"the login answers {said['login']}")
    assert (said["cluster"], said["nodes"]) == ("active", set(lab.lock["nodes"]))
