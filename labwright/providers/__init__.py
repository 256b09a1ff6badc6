"""What a node can run on. One module a provider; ``PROVIDERS`` in the order of preference."""

from __future__ import annotations

from collections.abc import Mapping

from labwright.model import ProviderName
from labwright.providers.base import Provider
from labwright.providers.docker import Docker
from labwright.providers.hosts import Hosts
from labwright.providers.libvirt import Libvirt
from labwright.providers.virtualbox import VirtualBox

PROVIDERS: Mapping[ProviderName, Provider] = {
    "virtualbox": VirtualBox(),
    "libvirt": Libvirt(),
    "docker": Docker(),
    "hosts": Hosts(),
}
