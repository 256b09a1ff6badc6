"""What the doctor measures beyond HostFacts; ``None`` where nothing could be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from packaging.version import InvalidVersion, Version

from labwright.model import HostFacts

NONE = Version("0")


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor; ``virtualization`` is ``vmx``, ``svm`` or empty where it shows neither."""

    vendor: str = ""
    model: str = ""
    virtualization: str = ""
    under_hypervisor: bool = False


@dataclass(frozen=True, slots=True)
class Kvm:
    """KVM's modules as they are loaded.

    ``at_load`` is kvm.enable_virt_at_load, which kernels before 6.12 do not have; ``users`` counts
    what holds the modules; ``boots`` says whether a guest of a few instructions came through the
    firmware, ``None`` where it was not tried, and ``why`` says why not.
    """

    modules: tuple[str, ...] = ()
    at_load: bool | None = None
    users: int = 0
    boots: bool | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class VirtualBox:
    """``driver`` is the loaded one's version; ``permitted`` what networks.conf says, if there."""

    driver: str = ""
    permitted: tuple[IPv4Network, ...] | None = None
    secure_boot: bool | None = None
    kernel_headers: bool = True


@dataclass(frozen=True, slots=True)
class Libvirt:
    """``socket`` is ``answers``, ``denied`` or ``absent``."""

    socket: str = "absent"


@dataclass(frozen=True, slots=True)
class DockerFacts:
    """What the Docker daemon says of itself; ``root_free`` in MiB."""

    version: str = ""
    driver: str = ""
    root: str = ""
    root_free: int | None = None
    rootless: bool = False


@dataclass(frozen=True, slots=True)
class Kernel:
    """Limits and abilities that container nodes share with the host; ``swap`` in MiB."""

    inotify_instances: int | None = None
    inotify_watches: int | None = None
    open_files: int | None = None
    swap: int = 0
    controllers: frozenset[str] = frozenset()
    overlay: bool = True
    bridge_netfilter: bool = True


@dataclass(frozen=True, slots=True)
class Network:
    """Names, ways out, and what is in the way.

    ``strangers`` are addresses that nobody has and that answered all the same; ``untrusted`` are
    vendors whose certificate this computer does not trust; ``made_up`` is what a name that cannot
    exist resolved to; ``listening`` are TCP ports taken on all addresses. ``proxies`` has the proxy
    variables without user and password; ``firewall`` is what filters beside Docker, if anything.
    """

    resolvers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    made_up: str = ""
    strangers: tuple[str, ...] = ()
    untrusted: tuple[str, ...] = ()
    proxies: Mapping[str, str] = field(default_factory=dict)
    listening: tuple[int, ...] = ()
    forward_policy: str = ""
    docker_chain: bool = False
    firewall: str = ""


@dataclass(frozen=True, slots=True)
class System:
    """The rest: ``memory_available`` in MiB, ``sync_ms`` the 99th percentile of a small synced
    write, ``clock`` whether the clock is kept by a server, ``boxes`` the Vagrant boxes here.
    """

    memory_available: int | None = None
    sync_ms: float | None = None
    write_rate: float | None = None
    clock: bool | None = None
    locale: str = ""
    utf8: bool = True
    wsl: bool = False
    systemd: bool = True
    dead_sources: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What the lab at hand wants of the host: memory in MiB, its subnet, ports on the host."""

    memory: int = 0
    subnet: IPv4Network | None = None
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Checkup:
    """Everything that rules look at."""

    host: HostFacts
    cpu: Cpu = Cpu()
    kvm: Kvm = Kvm()
    virtualbox: VirtualBox = VirtualBox()
    libvirt: Libvirt = Libvirt()
    docker: DockerFacts = DockerFacts()
    kernel: Kernel = Kernel()
    network: Network = Network()
    system: System = System()
    wish: Wish = Wish()

    def version(self, tool: str) -> Version:
        """Give a tool's version; 0 where the tool or its version is unknown."""
        found = self.host.tools.get(tool)
        return parsed(found.version) if found else NONE

    @property
    def kernel_version(self) -> Version:
        """Give the kernel's version without what a distribution adds."""
        return parsed(self.host.kernel.split("-")[0].split("+")[0])


def parsed(text: str) -> Version:
    """Read a version; 0 where it is none."""
    try:
        return Version(text)
    except InvalidVersion:
        return NONE
