"""The names by which a lab's things are known outside it."""

from __future__ import annotations


def network_name(lab: str) -> str:
    """Name the network of a lab, as Docker and libvirt show it.

    Not ``vagrant_network…``: Vagrant removes any such network that no running container uses,
    another halted lab's as well (plugins/providers/docker/action/destroy_network.rb).
    """
    return f"labwright-{lab}"


def management_name(lab: str) -> str:
    """Name the network that Vagrant reaches a lab's nodes on, where it is one of our own."""
    return f"{network_name(lab)}-nat"


def domain_name(lab: str, node: str) -> str:
    """Name a node's machine, as Docker, VirtualBox and libvirt show it."""
    return f"{network_name(lab)}-{node}"
