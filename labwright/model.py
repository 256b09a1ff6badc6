"""The frozen values that flow through a run: Spec → Plan → Machine. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Literal

from labwright.errors import Finding

Role = Literal["control_plane", "worker", "tools", "nas"]
# The others stand beside the cluster: no kubelet runs there, and no pod.
CLUSTER_ROLES: frozenset[Role] = frozenset({"control_plane", "worker"})
# Who has which numbers of a lab's subnet, counted from its first address. No two share one:
# `shared` is for an API address of several control planes.
NUMBERS: Mapping[str, range] = {
    "host": range(1, 2),
    "shared": range(10, 11),
    "control_plane": range(11, 21),
    "worker": range(21, 101),
    "tools": range(101, 111),
    "nas": range(111, 121),
    "load_balancer": range(200, 250),
}
# Where this computer gives the nodes what they install, while they are made.
SUPPLY_PORT = 8750
ProviderName = Literal["virtualbox", "libvirt", "docker", "hosts"]
SupplyName = Literal["upstream", "packages", "bundle"]
RancherTls = Literal["lab", "rancher"]
KubeProxyMode = Literal["iptables", "nftables"]
# An init that takes 15 s on this processor took 114 s under emulation (docs/libvirt.md): waits
# are generous already, and half of that ratio on top of them never ended a wait too soon.
EMULATED_PATIENCE = 4


@dataclass(frozen=True, slots=True)
class Box:
    """A Vagrant box named in lab.yaml; ``checksum`` is ``sha256:…`` of the box file."""

    name: str
    version: str = ""
    url: str = ""
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class AptMirror:
    """Where lab.yaml says that a package source is to be had instead.

    ``url`` stands for the vendor's host; ``key`` is the path of the key that signs there, empty
    where the vendor's own signs.
    """

    url: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Other places for what vendors publish.

    ``apt`` goes by the name of a package source in the catalog, ``registries`` by the registry in
    an image's reference, ``charts`` by component; the latter two give URLs.
    """

    apt: Mapping[str, AptMirror] = field(default_factory=dict)
    registries: Mapping[str, str] = field(default_factory=dict)
    charts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Size:
    """What a node gets: ``cpus``, ``memory`` and ``disk`` in MiB."""

    cpus: int
    memory: int
    disk: int


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A node as lab.yaml asks for it, before it has an address."""

    name: str
    role: Role
    size: Size


@dataclass(frozen=True, slots=True)
class Bastion:
    """A machine that ssh goes through; an empty ``user`` or ``key`` is ssh's own choice."""

    host: str
    port: int = 22
    user: str = ""
    key: str = ""
    host_key: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """A node as ssh reaches it; an empty ``user`` or ``key`` is ssh's own choice."""

    name: str
    host: str
    port: int
    user: str
    key: str
    bastion: Bastion | None = None


@dataclass(frozen=True, slots=True)
class Existing:
    """A machine that lab.yaml names as a node.

    ``node_address`` is where the other nodes reach it, ``None`` where that is where ssh arrives;
    ``host_key`` is its public key or that key's fingerprint.
    """

    machine: Machine
    node_address: IPv4Address | None = None
    host_key: str = ""


@dataclass(frozen=True, slots=True)
class RancherSpec:
    """What lab.yaml says of Rancher; an empty text leaves the choice to the planner.

    ``chart`` is the path of a chart of one's own, a folder or an archive. ``tls`` is who signs
    the certificate: the lab's own authority, or Rancher's by way of cert-manager.
    ``password_file`` holds the first password, which is made up otherwise.
    """

    chart: str = ""
    hostname: str = ""
    tls: RancherTls = "lab"
    password_file: str = ""


@dataclass(frozen=True, slots=True)
class Spec:
    """lab.yaml after defaults and validation. ``None`` means: choose for me.

    ``bundle`` is where the bundle supply's bundle is: a folder, an archive or an address.
    ``versions`` maps a component to the version asked for, or to the start of one.
    ``source`` is the path of the file, empty where the built-in defaults serve; ``unasked`` are
    the add-ons that it has by default.
    """

    name: str
    provider: ProviderName | None
    supply: SupplyName | None
    kubernetes: str | None
    versions: Mapping[str, str]
    guest: str | None
    mirrors: Mirrors
    subnet: IPv4Network | None
    pods: IPv4Network | None
    services: IPv4Network | None
    nodes: tuple[NodeSpec, ...]
    schedule_on_control_planes: bool
    addons: tuple[str, ...]
    box: Box | None
    bundle: str = ""
    source: str = ""
    rancher: RancherSpec = RancherSpec()
    load_balancer: tuple[IPv4Address, IPv4Address] | None = None
    machines: tuple[Existing, ...] = ()
    kube_proxy: KubeProxyMode | None = None
    unasked: frozenset[str] = frozenset()


def out_of_place(
    span: tuple[IPv4Address, IPv4Address],
    network: IPv4Network,
    whose: str,
    had: Iterable[tuple[str, IPv4Address]],
) -> str:
    """Say why services cannot be given the addresses of a range; empty where they can.

    ``whose`` says whose network it is; ``had`` are addresses in use, each with who has it.
    """
    first, last = span
    taken = [f"{name} has {address}" for name, address in had if first <= address <= last]
    if not taken and (first <= network[0] or last >= network[-1]):
        return f"it is not inside {network}, {whose} network"
    return "; ".join(taken)


@dataclass(frozen=True, slots=True)
class Tool:
    """A program found on the host; ``version`` is empty when it was not asked for."""

    path: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class HostNetwork:
    """An IPv4 network that the host already uses; ``owner`` says what uses it.

    A network with a name has it there, as in ``docker:labwright-lab``; ``device`` is the card that
    the host has in it.
    """

    network: IPv4Network
    owner: str
    device: str = ""


@dataclass(frozen=True, slots=True)
class HadBox:
    """A box in Vagrant's own list."""

    name: str
    version: str
    provider: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What was measured on this computer. Memory and disk in MiB; caps are CAP_… names.

    ``docker_api`` is ``None`` where no daemon answers, and ``docker_why`` then says why not;
    ``nfs`` says whether its kernel can mount NFS, ``nf_tables`` whether it has nftables, ``None``
    where that cannot be told; ``queues`` says how its kernel can ask a program about a packet, by
    nftables' expression (``nft``) or iptables' target (``xt``), ``None`` where not even one can be
    told;
    ``kvm`` says that its device opens, and ``kvm_boots`` whether guests came up under it: ``None``
    where no lab asked. ``libvirt`` is ``answers``, ``denied`` or ``absent``;
    ``go_modules`` is ``None`` where no Go is installed to ask with; ``upstream`` says for each of
    the vendors' repositories how it answered; ``boxes`` are in Vagrant's list, and
    ``box_sources`` says of a box's address whether it can be had there, of Vagrant's own
    catalogue under an empty one. ``permitted`` are the host-only ranges that
    VirtualBox's networks.conf names, ``None`` where there is none; ``mtu`` is that of ``way_out``,
    the card that packets for the internet take; ``listening`` are the TCP ports taken on any of
    the host's addresses; ``inotify`` is how many instances of it a user's processes may have.
    """

    os_kind: str
    os: str
    os_version: str
    kernel: str
    arch: str
    cpus: int
    memory: int
    disk_free: int
    root: bool
    tools: Mapping[str, Tool]
    docker_api: str | None
    docker_why: str
    cgroup: Literal[1, 2]
    caps: frozenset[str]
    networks: tuple[HostNetwork, ...]
    nameservers: tuple[IPv4Address, ...]
    vboxdrv: bool
    kvm: bool
    apt_installed: frozenset[str]
    go_modules: bool | None = None
    upstream: Mapping[str, str] = field(default_factory=dict)
    nfs: bool = True
    kvm_boots: bool | None = None
    libvirt: str = "absent"
    systemd: bool = True
    boxes: tuple[HadBox, ...] = ()
    box_sources: Mapping[str, str] = field(default_factory=dict)
    permitted: tuple[IPv4Network, ...] | None = None
    mtu: int = 1500
    way_out: str = ""
    listening: frozenset[int] = frozenset()
    nf_tables: bool | None = None
    queues: frozenset[str] | None = None
    inotify: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """What a lab of this user takes of the computer: networks, ports of the host, MAC addresses.

    ``folder`` is the lab's own, and tells labs of one name apart; ``ports`` and ``macs`` go by
    node.
    """

    name: str
    folder: str
    subnet: IPv4Network
    pods: IPv4Network
    services: IPv4Network
    containers: IPv4Network
    ports: Mapping[str, int] = field(default_factory=dict)
    macs: Mapping[str, str] = field(default_factory=dict)
    node_image: str = ""
    management: IPv4Network | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """An IPv4 address of a machine, and the network card that has it."""

    device: str
    mac: str
    mtu: int
    address: IPv4Interface


@dataclass(frozen=True, slots=True)
class Marker:
    """What a machine remembers of the lab that it is a node of; ``owner`` is that lab's own id."""

    lab: str
    owner: str
    node: str


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What was measured on a machine that is there already. Memory and disk in MiB.

    ``ssh_address`` is where our connection arrived; ``listening`` maps a port to its program;
    ``clock`` is how many seconds it is ahead of this computer; ``reaches_us`` says whether it
    could open a connection to this computer.
    """

    hostname: str
    machine_id: str
    product_id: str
    os: str
    os_version: str
    arch: str
    container: bool
    cpus: int
    memory: int
    disk_total: int
    disk_free: int
    disk_kind: str
    cards: tuple[Card, ...]
    routes: tuple[HostNetwork, ...]
    nameservers: tuple[IPv4Address, ...]
    ssh_address: IPv4Address | None
    cgroup: Literal[1, 2]
    caps: frozenset[str]
    conntrack_tunable: bool
    nfs: bool
    overlay: bool
    swaps: tuple[str, ...]
    listening: Mapping[int, str]
    leftovers: tuple[str, ...]
    runtimes: tuple[str, ...]
    installed: frozenset[str]
    marker: Marker | None
    clock: float
    reaches_us: bool


@dataclass(frozen=True, slots=True)
class Survey:
    """What was measured on the machines of a lab, and what kept us from measuring.

    ``here`` are this computer's own addresses and ``here_id`` its machine id; ``us`` is its
    address as the machines reach it, ``None`` where they cannot.
    """

    machines: Mapping[str, MachineFacts]
    problems: tuple[Finding, ...] = ()
    here: frozenset[IPv4Address] = frozenset()
    here_id: str = ""
    us: IPv4Address | None = None

    @property
    def guest(self) -> str:
        """The distribution of the machines, as the catalog names it; empty where they differ."""
        found = {f"{m.os}-{m.os_version}" for m in self.machines.values()}
        return found.pop() if len(found) == 1 else ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One thing a supply is made of: which recipe makes it, from what, at which version."""

    id: str
    recipe: str
    version: str
    needs: tuple[str, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    title: str = ""


@dataclass(frozen=True, slots=True)
class AptSource:
    """A package source as the nodes will have it.

    The key that must sign it is at ``key`` (an address or a path), has the ``fingerprint``, or is
    in the ``keyring`` that the node has already.
    """

    name: str
    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...] = ()
    key: str = ""
    fingerprint: str = ""
    keyring: str = ""


@dataclass(frozen=True, slots=True)
class DebWish:
    """A Debian package that the nodes need: the newest whose version starts with ``version``.

    It is looked for in ``sources``; one that is not ``required`` may be missing there. One with a
    ``role`` is for nodes of that role alone.
    """

    name: str
    sources: tuple[str, ...]
    version: str = ""
    required: bool = True
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a lab takes from repositories and registries, before anyone has asked them.

    ``images`` maps a name to a full reference; ``registries`` a registry to its mirror; ``charts``
    a component to ``(repository, version)``.
    """

    apt: tuple[AptSource, ...] = ()
    debs: tuple[DebWish, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    registries: Mapping[str, str] = field(default_factory=dict)
    charts: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DebPin:
    """A Debian package as a source had it; ``sha256`` in hexadecimal digits."""

    version: str
    sha256: str
    source: str


@dataclass(frozen=True, slots=True)
class ImagePin:
    """One image for one platform: ``digest`` is its manifest's, ``size`` its blobs' bytes."""

    ref: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class ChartPin:
    """A chart as its repository had it; ``sha256`` in hexadecimal digits."""

    version: str
    url: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A Helm chart on this computer; ``kube_version`` is the range of Kubernetes that it takes.

    ``sha256`` is that of the archive which the node gets.
    """

    path: str
    name: str
    version: str
    app_version: str
    kube_version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Pins:
    """What repositories and registries answered: with it the same lab can be made again.

    ``keys`` maps a package source to its ASCII-armoured key.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, DebPin] = field(default_factory=dict)
    images: Mapping[str, ImagePin] = field(default_factory=dict)
    charts: Mapping[str, ChartPin] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a provider knows of its nodes' insides, for the roles and the checks.

    ``emulated`` nodes run without the processor's help, and take their time.
    """

    own_kernel: bool
    cgroup: Literal[1, 2]
    cgroup_driver: Literal["cgroupfs", "systemd"]
    restrict_oom_score_adj: bool
    conntrack_tunable: bool
    nfs: bool = True
    emulated: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A planned node: its place on the lab's own network and its slice of the pod network.

    A node beside the cluster has no pods. ``ssh_port`` is the port of the host's loopback that
    leads to its sshd, 0 where the provider needs none.
    """

    name: str
    role: Role
    size: Size
    address: IPv4Interface
    pods: IPv4Network | None
    mac: str
    ssh_port: int = 0

    @property
    def in_cluster(self) -> bool:
        """Whether Kubernetes knows it."""
        return self.role in CLUSTER_ROLES


@dataclass(frozen=True, slots=True)
class Service:
    """What an add-on offers by name on the lab's network, and the node's address that answers."""

    name: str
    host: str
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class Choice:
    """A decision of the planner and its reason, as ``lab.plan`` prints it."""

    what: str
    chosen: str
    why: str


@dataclass(frozen=True, slots=True)
class Rancher:
    """Rancher as the lab will have it; ``chart`` is lab.yaml's own, if it names one."""

    hostname: str
    tls: RancherTls
    chart: Chart | None = None
    password_file: str = ""

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"https://{self.hostname}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything resolved: the whole lab, before anything is touched.

    ``versions`` maps a component to its version; ``artifacts`` are in building order, and
    ``keys`` gives each its place in the store; ``node_image`` is the Docker image or box name.
    ``wanted`` is what has to be asked of vendors, and ``pins`` their answers; nobody has asked
    yet where that is ``None``. ``bundle`` is the folder of the bundle that the lab is made from,
    and ``origin`` the supply that its software came from first. ``containers`` is the range of
    what a tools node runs itself. ``services_at`` are the add-ons that have a name in the lab's
    domain. ``own_box`` says that ``box`` is one that is built here; ``mtu`` is the size of the
    largest packet that pods send. ``machines`` are those that were there already, and ``owner``
    is the id by which they know this lab; with ``tunnel`` they reach the host through the ssh
    connection to them.
    ``balanced`` is lab.yaml's own range for services of type LoadBalancer. ``management`` is the
    network that Vagrant reaches the nodes on, where the provider lets us choose it.
    """

    name: str
    provider: ProviderName
    supply: SupplyName
    origin: SupplyName
    guest: str
    versions: Mapping[str, str]
    subnet: IPv4Network
    host_address: IPv4Address
    pods: IPv4Network
    services: IPv4Network
    dns_service: IPv4Address
    nodes: tuple[Node, ...]
    facts: NodeFacts
    schedule_on_control_planes: bool
    addons: tuple[str, ...]
    nameservers: tuple[IPv4Address, ...]
    image_repository: str
    artifacts: tuple[Artifact, ...]
    keys: Mapping[str, str]
    node_image: str
    node_args: tuple[str, ...]
    host_cpus: int
    box: Box | None
    choices: tuple[Choice, ...]
    warnings: tuple[Finding, ...]
    wanted: Wanted = field(default_factory=Wanted)
    pins: Pins | None = None
    bundle: str = ""
    containers: IPv4Network = field(default=IPv4Network("172.29.0.0/16"))
    rancher: Rancher | None = None
    services_at: tuple[Service, ...] = ()
    own_box: bool = False
    mtu: int = 1500
    balanced: tuple[IPv4Address, IPv4Address] | None = None
    machines: tuple[Existing, ...] = ()
    owner: str = ""
    tunnel: bool = False
    management: IPv4Network | None = None
    kube_proxy: KubeProxyMode = "iptables"

    @property
    def patience(self) -> int:
        """How many times longer than usual to wait for what the nodes do."""
        return EMULATED_PATIENCE if self.facts.emulated else 1

    @property
    def domain(self) -> str:
        """The lab's own domain."""
        return domain(self.name)

    @property
    def load_balancer(self) -> tuple[IPv4Address, IPv4Address]:
        """The first and the last address that services of type LoadBalancer may have."""
        if self.balanced:
            return self.balanced
        start, numbers = self.subnet.network_address, NUMBERS["load_balancer"]
        return start + numbers[0], start + numbers[-1]

    @property
    def control_planes(self) -> tuple[Node, ...]:
        """The control plane nodes, first to last."""
        return self.having("control_plane")

    @property
    def workers(self) -> tuple[Node, ...]:
        """The worker nodes, first to last."""
        return self.having("worker")

    @property
    def cluster(self) -> tuple[Node, ...]:
        """The nodes that Kubernetes knows, in the order of the plan."""
        return tuple(n for n in self.nodes if n.in_cluster)

    def having(self, role: Role) -> tuple[Node, ...]:
        """Give the nodes of a role, first to last."""
        return tuple(n for n in self.nodes if n.role == role)

    def place(self, folder: str) -> Place:
        """Give what the lab takes of this computer."""
        return Place(
            self.name,
            folder,
            self.subnet,
            self.pods,
            self.services,
            self.containers,
            {n.name: n.ssh_port for n in self.nodes if n.ssh_port},
            {n.name: n.mac for n in self.nodes},
            self.node_image,
            self.management,
        )

    @property
    def endpoint(self) -> str:
        """Where the API answers on the lab's own network: ``address:port``."""
        return f"{self.control_planes[0].address.ip}:6443"

    @property
    def context(self) -> str:
        """The context of this lab in the user's kubeconfig."""
        return f"labwright-{self.name}"


def domain(lab: str) -> str:
    """Name a lab's domain, below the one that ICANN keeps for private use (2024-07-29)."""
    return f"{lab}.internal"
