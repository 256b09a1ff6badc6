"""The keys of lab.yaml, their types and their defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from labwright.model import Role, Size

MAX_WORKERS = 50
_UNITS = {"M": 1, "G": 1024, "T": 1024**2}
_MIB = {"": 1} | {unit + end: size for unit, size in _UNITS.items() for end in ("", "I", "IB")}


def _mebibytes(value: object) -> object:
    """Read ``2048``, ``2048MiB`` or ``2GiB`` as MiB; leave anything else to the type check."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]*)\s*", value)
        if match and match[2].upper() in _MIB:
            return int(match[1]) * _MIB[match[2].upper()]
        raise ValueError("write a number of MiB, or a size such as 2GiB or 2048MiB")
    return value


_RFC1918 = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


def _private(network: IPv4Network) -> IPv4Network:
    if not any(network.subnet_of(block) for block in _RFC1918):
        raise ValueError("take a private network: inside 10/8, 172.16/12 or 192.168/16")
    return network


def _text(value: object) -> object:
    """YAML reads an unquoted 1.20 as the number 1.2: refuse it instead of guessing."""
    if isinstance(value, float):
        # 1.20 reaches us as 1.2, and of what is in a catalog only Kubernetes begins so low.
        likely = f"{value:.2f}" if 1 < value < 2 else f"{value}"
        raise ValueError(f'put the version in quotes, as in "{likely}": YAML read a number')
    return value


_SIZE_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": r"^\d+\s*[A-Za-z]*$"},
    ]
}
Mebibytes = Annotated[int, BeforeValidator(_mebibytes), WithJsonSchema(_SIZE_SCHEMA)]
Network = Annotated[IPv4Network, AfterValidator(_private)]
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,28}[a-z0-9])?$")]
Version = Annotated[str, BeforeValidator(_text), Field(pattern=r"^(auto|\d+\.\d+(\.\d+)?)$")]
Wish = Annotated[str, BeforeValidator(_text), Field(pattern=r"^\d+(\.\d+)*(-\d+)?$")]
Auto = Literal["auto"]
_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


def _address(value: str) -> str:
    """Take an address without a secret in it: lab.yaml, the lock and the nodes would show it."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("write a whole address, such as http://mirror.example:8080")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("an address here has no password, query or fragment; ~/.netrc is read")
    return value.rstrip("/")


Address = Annotated[str, AfterValidator(_address)]
Supply = Annotated[str, Field(pattern=r"^(auto|upstream|packages|bundle:.+)$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False, frozen=True)


class NodeFile(_Model):
    """CPUs, memory and disk of a node; what is left out comes from the defaults."""

    cpus: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    memory: Annotated[Mebibytes, Field(ge=512, le=1024 * 1024)] | None = None
    disk: Annotated[Mebibytes, Field(ge=4096, le=4 * 1024 * 1024)] | None = None


class NetworkFile(_Model):
    """The lab's own network and the two ranges inside the cluster."""

    subnet: Annotated[Auto | Network, Field(union_mode="left_to_right")] = "auto"
    pods: Annotated[Auto | Network, Field(union_mode="left_to_right")] = "auto"
    services: Annotated[Auto | Network, Field(union_mode="left_to_right")] = "auto"
    load_balancer: AddressRange | None = None


def _range(value: object) -> object:
    """Read ``10.0.0.200-10.0.0.249`` as its first and last address."""
    if not isinstance(value, str):
        return value
    first, _, last = (part.strip() for part in value.partition("-"))
    try:
        found = IPv4Address(first), IPv4Address(last or first)
    except ValueError:
        raise ValueError("write the first and the last address with a dash between") from None
    if found[0] > found[1]:
        raise ValueError("the first address is behind the last")
    return found


_DASHED = {"type": "string", "pattern": r"^[0-9.]+\s*(-\s*[0-9.]+)?$"}
AddressRange = Annotated[
    tuple[IPv4Address, IPv4Address], BeforeValidator(_range), WithJsonSchema(_DASHED)
]


def _host(value: str) -> str:
    if re.fullmatch(r"[0-9.]+", value):
        try:
            IPv4Address(value)
        except ValueError:
            raise ValueError("that is no IPv4 address: four numbers from 0 to 255") from None
    return value


# What ssh would take for an option or a user is no host.
SshHost = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._]*$", max_length=253),
    AfterValidator(_host),
]
SshUser = Annotated[str, Field(pattern=r"^(|[A-Za-z_][-A-Za-z0-9._]*)$", max_length=64)]
Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
_BLOB = "AAAA[A-Za-z0-9+/]+={0,2}"
HostKey = Annotated[
    str, Field(pattern=rf"^(|SHA256:[A-Za-z0-9+/]{{43}}|(ssh|ecdsa)-[-a-z0-9]+ {_BLOB}( .*)?)$")
]
KeyPath = Annotated[str, Field(pattern=r'^[^"\n]*$')]


def _hop(value: object) -> object:
    """Read ``user@host:port`` as what it says."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(?:([^@]+)@)?([^@:]+)(?::(\d+))?", value)
    if not match:
        raise ValueError("write user@host:port, or its parts as keys")
    return {"address": match[2], "user": match[1] or "", "port": int(match[3] or 22)}


class BastionFile(_Model):
    """A machine that ssh goes through on its way to others."""

    address: SshHost
    user: SshUser = ""
    port: Port = 22
    key: KeyPath = ""
    host_key: HostKey = ""


Hop = Annotated[BastionFile, BeforeValidator(_hop, json_schema_input_type=str | BastionFile)]


class SshFile(_Model):
    """How ssh reaches the machines that do not say otherwise."""

    user: SshUser = ""
    port: Port = 22
    key: KeyPath = ""
    bastion: Hop | None = None


class MachineFile(_Model):
    """A machine that is there already, and how it is reached."""

    address: SshHost
    user: SshUser | None = None
    port: Port | None = None
    key: KeyPath | None = None
    bastion: Hop | None = None
    node_address: IPv4Address | None = None
    host_key: HostKey = ""


def _machine(value: object) -> object:
    """Read a plain text as an address."""
    return {"address": value} if isinstance(value, str) else value


NamedMachine = Annotated[
    MachineFile, BeforeValidator(_machine, json_schema_input_type=str | MachineFile)
]


# An address, or a path: also one that begins with the letter of a drive.
_PLACE = r"^([^:]*|[A-Za-z]:[\\/].*|(https?|file)://\S.*)$"


class BoxFile(_Model):
    """A Vagrant box for the providers that boot virtual machines."""

    name: Annotated[str, Field(min_length=1)]
    # Exactly one: a constraint would be another box on another day.
    version: Annotated[
        str, BeforeValidator(_text), Field(pattern=r"^(|[0-9]+(\.[0-9A-Za-z]+)*)$", max_length=100)
    ] = ""
    url: Annotated[str, Field(pattern=_PLACE)] = ""
    checksum: Annotated[str, Field(pattern=r"^(|sha256:[0-9a-f]{64})$")] = ""


class AptMirrorFile(_Model):
    """A mirror of one package source, and the file of the key that signs there."""

    url: Address
    key: str = ""


def _mirror(value: object) -> object:
    """Read a plain address as a mirror that the vendor's own key signs."""
    return {"url": value} if isinstance(value, str) else value


class MirrorsFile(_Model):
    """Other places for what vendors publish."""

    apt: dict[
        str,
        Annotated[
            AptMirrorFile, BeforeValidator(_mirror, json_schema_input_type=str | AptMirrorFile)
        ],
    ] = {}
    registries: dict[str, Address] = {}
    charts: dict[str, Address] = {}


class RancherFile(_Model):
    """Rancher's chart, name, certificate and first password."""

    chart: str = ""
    hostname: Annotated[str, Field(pattern=rf"^(|{_LABEL}(\.{_LABEL})+)$", max_length=253)] = ""
    tls: Literal["lab", "rancher"] = "lab"
    password_file: str = ""


class LabFile(_Model):
    """A lab.yaml: every key is optional."""

    name: Name = "lab"
    provider: Literal["auto", "virtualbox", "libvirt", "docker", "hosts"] = "auto"
    supply: Supply = "auto"
    kubernetes: Version = "auto"
    versions: dict[str, Wish] = {}
    guest: str = "auto"
    mirrors: MirrorsFile = MirrorsFile()
    network: NetworkFile = NetworkFile()
    control_planes: Annotated[int, Field(ge=1, le=1, strict=True)] = 1
    workers: Annotated[int, Field(ge=0, le=MAX_WORKERS, strict=True)] = 2
    tools: Annotated[int, Field(ge=0, le=1, strict=True)] = 0
    nas: Annotated[int, Field(ge=0, le=1, strict=True)] = 0
    schedule_on_control_planes: bool = False
    kube_proxy: Literal["auto", "iptables", "nftables"] = "auto"
    defaults: NodeFile = NodeFile()
    nodes: dict[str, NodeFile] = {}
    addons: list[str] = ["dns", "network-policy"]
    rancher: RancherFile = RancherFile()
    box: BoxFile | None = None
    machines: dict[str, NamedMachine] = {}
    ssh: SshFile = SshFile()

    def count(self, key: Literal["workers", "tools", "nas"]) -> int:
        """Give how many nodes of a kind there are: as told, or as many as there are machines."""
        if self.machines and key not in self.model_fields_set:
            start = "w" if key == "workers" else key
            return sum(bool(re.fullmatch(rf"{start}\d+", name)) for name in self.machines)
        return int(getattr(self, key))


# What a node gets when neither its own entry nor `defaults` says so. kubeadm wants 2 CPUs and
# 1700 MB on a control plane; a worker runs little until the user puts something on it. On a tools
# node images are built.
SIZES: Mapping[Role, Size] = {
    "control_plane": Size(cpus=2, memory=2048, disk=20 * 1024),
    "worker": Size(cpus=1, memory=1536, disk=20 * 1024),
    "tools": Size(cpus=2, memory=2048, disk=20 * 1024),
    "nas": Size(cpus=1, memory=1024, disk=20 * 1024),
}


def node_names(file: LabFile) -> list[tuple[str, Role]]:
    """Give the nodes' names and roles: cp1 …, w1 …, then those beside the cluster."""
    counts: Mapping[tuple[str, Role], int] = {
        ("cp", "control_plane"): file.control_planes,
        ("w", "worker"): file.count("workers"),
        ("tools", "tools"): file.count("tools"),
        ("nas", "nas"): file.count("nas"),
    }
    return [
        (f"{start}{number}", role)
        for (start, role), count in counts.items()
        for number in range(1, count + 1)
    ]
