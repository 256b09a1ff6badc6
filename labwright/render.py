"""Plan → files, as text. Nothing here reads the world; writing is the workdir's."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from labwright import catalog, lock
from labwright.addresses import SPARE_PORTS
from labwright.lock import Stocked
from labwright.model import SUPPLY_PORT, AptSource, Bastion, Machine, Node, Plan, Role
from labwright.names import management_name, network_name
from labwright.providers import PROVIDERS
from labwright.supplies.base import ROLE_ARTIFACTS, ROLE_PACKAGES, named

ROOT = Path(__file__).resolve().parent.parent
# Of every node, in Kubernetes' range of node ports.
REGISTRY_PORT = 30500
# Where a registry's API is, if not under the registry's own name
# (https://github.com/containerd/containerd/blob/main/docs/hosts.md).
API_HOSTS = {"docker.io": "registry-1.docker.io"}


def files(plan: Plan, stock: Stocked) -> dict[str, str]:
    """Give every file of a lab that is known before it boots: path below .lab/<name> → text."""
    boots = PROVIDERS[plan.provider].caps.boots
    return {
        **({"Vagrantfile": vagrantfile(plan)} if boots else {}),
        "inventory/hosts.yml": inventory(plan, stock),
        "lab.lock": lock.text(lock.content(plan, stock)),
    }


def vagrantfile(plan: Plan) -> str:
    """Render Vagrantfile.j2 with the partial of the plan's provider."""
    provider = PROVIDERS[plan.provider]
    env = Environment(
        loader=FileSystemLoader([ROOT, ROOT / "templates"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Ruby, where every value goes through the `ruby` filter
    )
    env.filters["ruby"] = ruby
    nodes = [{"node": n, **provider.vagrant(n)} for n in plan.nodes]
    return env.get_template("Vagrantfile.j2").render(
        plan=plan,
        nodes=nodes,
        network=network_name(plan.name),
        management=management_name(plan.name),
        spare_ports=SPARE_PORTS,
    )


def ruby(value: object) -> str:
    """Write a value as a Ruby literal; in a JSON string ``#`` would start an interpolation."""
    return json.dumps(value, ensure_ascii=False).replace("#", "\\#")


def inventory(plan: Plan, stock: Stocked) -> str:
    """Give Ansible's inventory: the facts that roles branch on, no connection yet."""
    groups: dict[str, Any] = {
        "control_planes": {"hosts": {n.name: None for n in plan.control_planes}},
        "workers": {"hosts": {n.name: None for n in plan.workers}},
        **{role: {"hosts": {n.name: None for n in plan.having(role)}} for role in ROLE_PACKAGES},
    }
    url = f"http://{plan.host_address}:{SUPPLY_PORT}"
    hosts = {n.name: _host_facts(plan, stock, url, n) for n in plan.nodes}
    shared = {
        **supply_facts(plan, stock, url),
        "lab_subnet": str(plan.subnet),
        "lab_mtu": plan.mtu,
        "lab_pod_cidr": str(plan.pods),
        "lab_service_cidr": str(plan.services),
        "lab_dns_service_ip": str(plan.dns_service),
        "lab_dns_enabled": "dns" in plan.addons,
        "lab_addons": {
            addon.name: {
                "enabled": addon.name in plan.addons,
                "version": plan.versions.get(addon.component, ""),
            }
            for addon in catalog.load().addons.values()
        },
        "lab_left_out": {
            choice.what.removeprefix("add-on "): choice.why
            for choice in plan.choices
            if choice.what.startswith("add-on ") and choice.chosen == "none"
        },
        "lab_rancher": _rancher(plan),
        "lab_domain": plan.domain,
        "lab_names": _names(plan),
        "lab_load_balancer_range": "-".join(map(str, plan.load_balancer)),
        # Beside the inventory: certificates are made per lab, and their keys are in no fact.
        "lab_tls": "{{ inventory_dir }}/../tls",
        **_registry(plan),
        "lab_control_plane_endpoint": plan.endpoint,
        "lab_schedule_on_control_planes": plan.schedule_on_control_planes,
        # Roles put back on such a machine what they change.
        **({"lab_machine_owner": plan.owner} if plan.owner else {}),
        "lab_cluster_nodes": [
            {
                "name": n.name,
                "address": str(n.address.ip),
                "role": n.role,
                "pod_cidr": str(n.pods),
            }
            for n in plan.cluster
        ],
    }
    tree = {"nodes": {"hosts": hosts, "vars": shared, "children": groups}}
    return _HEAD + yaml.safe_dump(tree, sort_keys=False)


def _host_facts(plan: Plan, stock: Stocked, url: str, node: Node) -> dict[str, Any]:
    """Give the facts of one node: its place, and what only nodes of its role are told."""
    facts: dict[str, Any] = {"lab_node_address": str(node.address.ip), "lab_node_role": node.role}
    if node.pods:
        return {**facts, "lab_node_pod_cidr": str(node.pods)}
    versions = stock.role_packages.get(node.role, {})
    wanted = {name: versions[name] for name in named(node.role) if name in versions}
    return {
        **facts,
        "lab_role_packages": wanted,
        **(
            {"lab_apt_sources": apt_sources(plan, url, node.role)}
            if ROLE_ARTIFACTS[node.role] in plan.keys
            else {}
        ),
        **({"lab_container_network": str(plan.containers)} if node.role == "tools" else {}),
    }


def _rancher(plan: Plan) -> dict[str, str]:
    """Give what the role of Rancher is told; the chart and the password are files of the lab."""
    if plan.rancher is None:
        return {}
    pin = plan.pins.charts.get("rancher") if plan.pins else None
    own = plan.rancher.chart
    return {
        "hostname": plan.rancher.hostname,
        "url": plan.rancher.url,
        "tls": plan.rancher.tls,
        "chart_sha256": own.sha256 if own else pin.sha256 if pin else "",
        "password_file": plan.rancher.password_file,
    }


def _names(plan: Plan) -> list[dict[str, Any]]:
    """Give what every node's /etc/hosts says of the lab."""
    nodes = [{"address": str(n.address.ip), "names": [n.name]} for n in plan.nodes]
    services = [{"address": str(s.address), "names": [s.host]} for s in plan.services_at]
    return [*nodes, *services]


def _registry(plan: Plan) -> dict[str, Any]:
    """Give where the lab's own registry answers, and what nodes trust there; nothing without it."""
    own = [f"{s.host}:{REGISTRY_PORT}" for s in plan.services_at if s.name == "registry"]
    return {
        "lab_registry_address": "".join(own),
        "lab_registries": [{"registry": name, "ca": "/etc/labwright/ca.crt"} for name in own],
    }


def supply_facts(plan: Plan, stock: Stocked, url: str) -> dict[str, Any]:
    """Give the facts that baking a node and converging it have in common.

    ``url`` is where the node reaches the supply's folders by HTTP.
    """
    return {
        "lab_name": plan.name,
        "lab_kubernetes_version": plan.versions["kubernetes"],
        "lab_apt_sources": apt_sources(plan, url),
        "lab_packages": dict(stock.packages),
        "lab_images": [
            {
                "name": name,
                "ref": image["ref"],
                "digest": image["digest"],
                "archive_url": f"{url}/images/{image['archive']}" if "archive" in image else "",
            }
            for name, image in stock.images.items()
        ],
        "lab_image_refs": {name: image["ref"] for name, image in stock.images.items()},
        "lab_helm_url": f"{url}/helm/bin/helm" if "helm" in plan.keys else "",
        "lab_image_repository": plan.image_repository,
        "lab_registry_mirrors": [
            {"registry": name, "url": mirror, "server": f"https://{API_HOSTS.get(name, name)}"}
            for name, mirror in plan.wanted.registries.items()
        ],
        "lab_containerd_config_version": 2 if plan.versions["containerd"].startswith("1.") else 3,
        "lab_cgroup": plan.facts.cgroup,
        "lab_cgroup_driver": plan.facts.cgroup_driver,
        "lab_own_kernel": plan.facts.own_kernel,
        "lab_restrict_oom_score_adj": plan.facts.restrict_oom_score_adj,
        "lab_conntrack_tunable": plan.facts.conntrack_tunable,
        "lab_kube_proxy_mode": plan.kube_proxy,
        "lab_nfs": plan.facts.nfs,
        "lab_patience": plan.patience,
        "lab_upstream_dns": [str(address) for address in plan.nameservers],
    }


def apt_sources(plan: Plan, url: str, role: Role = "worker") -> list[dict[str, Any]]:
    """Give a node's package sources: the built repositories that are served, or the vendors'."""
    if "apt" in plan.keys:
        served = {"labwright": "apt"}
        if role in ROLE_ARTIFACTS:
            served[f"labwright-{role}"] = ROLE_ARTIFACTS[role]
        return [
            _apt_source(AptSource(name, f"{url}/{goal}/", ("./",)), key="", trusted=True)
            for name, goal in served.items()
        ]
    keys = plan.pins.keys if plan.pins else {}
    return [_apt_source(s, key=keys.get(s.name, ""), trusted=False) for s in plan.wanted.apt]


def _apt_source(source: AptSource, *, key: str, trusted: bool) -> dict[str, Any]:
    return {
        "name": source.name,
        "uris": [source.uri],
        "suites": list(source.suites),
        "components": list(source.components),
        "trusted": trusted,
        "key": key,
        "keyring": source.keyring,
    }


def machines(reached: Mapping[str, Machine]) -> str:
    """Give the second half of the inventory: how ssh reaches each node, known after boot."""
    hosts = {
        name: {
            "ansible_host": m.host,
            "ansible_port": m.port,
            "ansible_user": m.user,
            "ansible_ssh_private_key_file": m.key,
            "ansible_ssh_common_args": "-o IdentitiesOnly=yes",
        }
        for name, m in reached.items()
    }
    return _HEAD + yaml.safe_dump({"nodes": {"hosts": hosts}}, sort_keys=False)


def existing_machines(users: Mapping[str, str], config: Path) -> str:
    """Give the same for machines that are reached in ways of the user's own: by ``config``.

    ``users`` is who logs in on each.
    """
    arguments = f"-F {shlex.quote(str(config))}"
    hosts = {
        name: {"ansible_host": name, "ansible_user": user, "ansible_ssh_common_args": arguments}
        for name, user in users.items()
    }
    return _HEAD + yaml.safe_dump({"nodes": {"hosts": hosts}}, sort_keys=False)


def ssh_config(reached: Mapping[str, Machine], known_hosts: Path) -> str:
    """Give an ssh configuration with one entry a node, for people and for the checks."""
    return "\n".join(
        _entry(name, m.host, m.port, m.user, m.key, known_hosts) for name, m in reached.items()
    )


def existing_config(reached: Mapping[str, Machine], known_hosts: Path) -> str:
    """Give the same for machines that exist, with those that ssh goes through.

    Host keys go by the names here: a machine that got another address is the same machine.
    """
    hops = bastions(reached)
    entries = [
        _entry(name, hop.host, hop.port, hop.user, hop.key, known_hosts, f"HostKeyAlias {name}")
        for name, hop in hops.items()
    ]
    through = {hop: name for name, hop in hops.items()}
    for name, m in reached.items():
        jump = [f"ProxyJump {through[m.bastion]}"] if m.bastion else []
        more = (f"HostKeyAlias {name}", *jump)
        entries.append(_entry(name, m.host, m.port, m.user, m.key, known_hosts, *more))
    return "\n".join(entries)


def bastions(reached: Mapping[str, Machine]) -> dict[str, Bastion]:
    """Name the machines that ssh goes through, each once."""
    hops = dict.fromkeys(m.bastion for m in reached.values() if m.bastion)
    return {f"bastion{number}": hop for number, hop in enumerate(hops, start=1)}


def _entry(
    name: str, host: str, port: int, user: str, key: str, known_hosts: Path, *more: str
) -> str:
    lines = [
        f"HostName {host}",
        f"Port {port}",
        *([f"User {user}"] if user else []),
        *([f'IdentityFile "{key}"', "IdentitiesOnly yes"] if key else []),
        "PasswordAuthentication no",
        "StrictHostKeyChecking yes",
        f'UserKnownHostsFile "{known_hosts}"',
        "LogLevel ERROR",
        *more,
    ]
    return f"Host {name}\n" + "".join(f"  {line}\n" for line in lines)


_HEAD = "# Written by Labwright from lab.yaml; changes here are lost.\n"
