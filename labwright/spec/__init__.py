"""lab.yaml: load, default, validate. Every problem is collected before any is raised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import ValidationError

from labwright.errors import Finding, SpecError
from labwright.model import (
    AptMirror,
    Bastion,
    Box,
    Existing,
    Machine,
    Mirrors,
    NodeSpec,
    ProviderName,
    RancherSpec,
    Role,
    Size,
    Spec,
    SupplyName,
)
from labwright.spec.check import check
from labwright.spec.file import SIZES, BastionFile, LabFile, MachineFile, NodeFile, node_names
from labwright.spec.words import bad_yaml, findings, kind, path_of

__all__ = ["build", "load", "schema", "with_supply"]


def load(path: Path | None) -> Spec:
    """Read a lab.yaml; with ``None`` the built-in defaults.

    Raises SpecError with every problem found, each with its key's path.
    """
    if path is None:
        return build({}, "")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            Finding(
                "spec.unreadable",
                "error",
                f"{path} cannot be read",
                error.strerror or "" if isinstance(error, OSError) else "it is no text in UTF-8",
                "name a file such as lab.yaml",
            )
        ) from error
    try:
        raw = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader underneath
    except yaml.YAMLError as error:
        raise SpecError(bad_yaml(path, error)) from error
    return build({} if raw is None else raw, str(path.resolve()))


def build(raw: object, source: str = "lab.yaml") -> Spec:
    """Make a Spec of parsed YAML; raises SpecError with every problem found."""
    if not isinstance(raw, Mapping):
        what = f"{source or 'lab.yaml'} holds {kind(raw)}, not keys with values"
        raise SpecError(Finding("spec.not-a-mapping", "error", what, fix="start with: name: lab"))
    try:
        file = LabFile.model_validate(raw)
    except ValidationError as error:
        found = findings(error)
        unread = {finding.where for finding in found}
        rest = LabFile.model_validate(_without(raw, [path_of(e["loc"]) for e in error.errors()]))
        raise SpecError([*found, *check(rest, unread)]) from None
    problems = [*check(file)]
    if problems:
        raise SpecError(problems)
    return _spec(file, source)


def with_supply(spec: Spec, supply: str) -> Spec:
    """Take the supply that was named on the command line. Raises SpecError."""
    asked = build({"supply": supply}, str(Path.cwd() / "--supply"))
    return replace(spec, supply=asked.supply, bundle=asked.bundle)


def _without(raw: Mapping[Any, Any], paths: list[tuple[int | str, ...]]) -> dict[Any, Any]:
    """Leave out the refused keys, so that the rules between the others can still speak."""
    heads = {path[0] for path in paths if not _leads_on(raw, path)}
    kept = {key: value for key, value in raw.items() if key not in heads}
    for head in {path[0] for path in paths} - heads:
        deeper = [path[1:] for path in paths if path[0] == head]
        kept[head] = _without(kept[head], deeper)
    return kept


def schema() -> dict[str, Any]:
    """Give the JSON Schema of lab.yaml, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **LabFile.model_json_schema(),
        "title": "Labwright lab.yaml",
    }


def _leads_on(raw: Mapping[Any, Any], path: tuple[int | str, ...]) -> bool:
    """Whether a path leads to a key that is there; a missing one is its parent's fault."""
    below = raw.get(path[0])
    return len(path) > 1 and isinstance(below, Mapping) and (len(path) > 2 or path[1] in below)


def _spec(file: LabFile, source: str) -> Spec:
    supply, _, bundle = file.supply.partition(":")
    return Spec(
        name=file.name,
        provider=_provider(file),
        supply=None if supply == "auto" else cast("SupplyName", supply),
        bundle=_beside(source, bundle),
        kubernetes=None if file.kubernetes == "auto" else file.kubernetes,
        versions=dict(file.versions),
        guest=None if file.guest == "auto" else file.guest,
        mirrors=_mirrors(file, source),
        subnet=_network(file.network.subnet),
        pods=_network(file.network.pods),
        services=_network(file.network.services),
        nodes=tuple(
            NodeSpec(name, role, _size(role, file.nodes.get(name, NodeFile()), file.defaults))
            for name, role in node_names(file)
        ),
        schedule_on_control_planes=file.schedule_on_control_planes,
        addons=tuple(file.addons),
        unasked=frozenset() if "addons" in file.model_fields_set else frozenset(file.addons),
        box=_box(file, source),
        source=source,
        rancher=_rancher(file, source),
        load_balancer=file.network.load_balancer,
        machines=tuple(
            _machine(name, file.machines[name], file, source) for name, _ in node_names(file)
        )
        if file.machines
        else (),
        kube_proxy=None if file.kube_proxy == "auto" else file.kube_proxy,
    )


def _box(file: LabFile, source: str) -> Box | None:
    box = file.box
    return Box(box.name, box.version, _beside(source, box.url), box.checksum) if box else None


def _network(asked: Literal["auto"] | IPv4Network) -> IPv4Network | None:
    return None if isinstance(asked, str) else asked


def _provider(file: LabFile) -> ProviderName | None:
    if file.provider == "auto":
        return "hosts" if file.machines else None
    return file.provider


def _machine(name: str, own: MachineFile, file: LabFile, source: str) -> Existing:
    user = file.ssh.user if own.user is None else own.user
    key = _beside(source, file.ssh.key if own.key is None else own.key)
    hop = own.bastion or file.ssh.bastion
    machine = Machine(
        name,
        own.address,
        own.port or file.ssh.port,
        user,
        key,
        _bastion(hop, key, source) if hop else None,
    )
    return Existing(machine, own.node_address, own.host_key)


def _bastion(hop: BastionFile, key: str, source: str) -> Bastion:
    """Reach a bastion with the machine's own key, where it has none of its own."""
    return Bastion(hop.address, hop.port, hop.user, _beside(source, hop.key) or key, hop.host_key)


def _rancher(file: LabFile, source: str) -> RancherSpec:
    asked = file.rancher
    return RancherSpec(
        chart=_beside(source, asked.chart),
        hostname=asked.hostname,
        tls=asked.tls,
        password_file=_beside(source, asked.password_file),
    )


def _mirrors(file: LabFile, source: str) -> Mirrors:
    return Mirrors(
        apt={
            name: AptMirror(mirror.url, _beside(source, mirror.key))
            for name, mirror in file.mirrors.apt.items()
        },
        registries=dict(file.mirrors.registries),
        charts=dict(file.mirrors.charts),
    )


def _beside(source: str, path: str) -> str:
    """Read a path as relative to lab.yaml; an address and an empty path stay as they are."""
    if not path or "://" in path:
        return path
    return str((Path(source).parent if source else Path.cwd()) / Path(path).expanduser())


def _size(role: Role, own: NodeFile, defaults: NodeFile) -> Size:
    def pick(key: Literal["cpus", "memory", "disk"]) -> int:
        mine, common = getattr(own, key), getattr(defaults, key)
        return cast("int", mine or common or getattr(SIZES[role], key))

    return Size(pick("cpus"), pick("memory"), pick("disk"))


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice; YAML itself keeps the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is here twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, str) else repr(key))
        return super().construct_mapping(node, deep)
