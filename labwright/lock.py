"""lab.lock: what a lab was resolved to, so that it can be made again elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from labwright.catalog import Catalog
from labwright.errors import Finding, SupplyError
from labwright.model import ChartPin, DebPin, ImagePin, Pins, Plan, Role

HEAD = (
    "# Written by Labwright from lab.yaml. Keep it beside that file: with both, `lab.up --locked`\n"
    "# makes the same lab on another computer. `lab.lock --upgrade` moves it on.\n"
)
# What a lock says of where software came from and what it was.
SOFTWARE = ("sources", "packages", "role_packages", "checksums", "images", "charts")
# A difference of more is not listed.
MANY = 10
# What depends on this version of Labwright and not on the lab: another one bakes another image.
OWN = frozenset({"node_image", "store"})


@dataclass(frozen=True, slots=True)
class Stocked:
    """What a supply turned out to hold: its own manifests say so, or the pins of the plan.

    ``packages``: deb name → version, and ``role_packages`` the same of what only nodes of a role
    have; ``images``: name → ``{ref, digest, size}`` and, where the
    host serves it, ``archive`` (file name below ``images``).
    """

    packages: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    role_packages: Mapping[Role, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Locked:
    """An earlier lab.lock, read: ``content`` is the whole of it, empty where there is none."""

    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def versions(self) -> Mapping[str, str]:
        """Component → version."""
        return _texts(self.content.get("versions"))

    @property
    def subnet(self) -> str | None:
        """The network of the lab's own."""
        network = self.content.get("network")
        found = network.get("subnet") if isinstance(network, dict) else None
        return str(found) if found else None

    def word(self, name: str) -> str:
        """Give a plain value: ``supply``, ``provider``, ``guest``; empty where it is not there."""
        return str(self.content.get(name) or "")

    @property
    def pins(self) -> Pins | None:
        """What vendors answered then; ``None`` where the lock has nothing of the kind."""
        if "sources" not in self.content:
            return None
        try:
            return _pins(self.content)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def without(self, components: Collection[str], catalog: Catalog) -> Locked:
        """Forget components, and the pins of their packages and images; none named: all of it.

        The network stays: it is no version.
        """
        if not components:
            return Locked({key: self.content[key] for key in ("network",) if key in self.content})
        known = [catalog.components[name] for name in components if name in catalog.components]
        debs = {deb for component in known for r in component.releases for deb in r.packages}
        images = {
            name
            for name, template in catalog.images.items()
            if any(f"{{{component.name}}}" in template for component in known)
        }
        forget = {
            "versions": set(components),
            "packages": debs,
            "checksums": debs,
            "images": images,
            "charts": set(components),
        }
        kept = {k: v for k, v in self.content.items() if k not in components}
        return Locked({k: _less(v, forget.get(k, set())) for k, v in kept.items()})


def _less(value: Any, names: Collection[str]) -> Any:
    if not names or not isinstance(value, dict):
        return value
    return {name: item for name, item in value.items() if name not in names}


def read(text: str, where: str = "lab.lock") -> Locked:
    """Read a lock. Raises SupplyError when the text is none."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SupplyError(_unreadable(where, str(error).splitlines()[0])) from error
    if not isinstance(content, dict):
        raise SupplyError(_unreadable(where, "it holds no keys with values"))
    return Locked(content)


def text(content: Mapping[str, Any]) -> str:
    """Write a lock's content down."""
    return HEAD + yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, width=100)


class _Dumper(yaml.SafeDumper):
    """A SafeDumper that writes a key as the lines it has."""


def _lines(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)


_Dumper.add_representer(str, _lines)


def content(plan: Plan, stock: Stocked) -> dict[str, Any]:
    """Give all that a lab is resolved to: the plan, and what its supply turned out to hold."""
    return {
        "name": plan.name,
        "provider": plan.provider,
        "supply": plan.origin,
        "guest": plan.guest,
        "versions": dict(sorted(plan.versions.items())),
        "network": {
            "subnet": str(plan.subnet),
            "pods": str(plan.pods),
            "services": str(plan.services),
        },
        "nodes": {
            n.name: {
                "role": n.role,
                "address": str(n.address),
                **({"pods": str(n.pods)} if n.pods else {}),
                "mac": n.mac,
                "cpus": n.size.cpus,
                "memory": n.size.memory,
                "disk": n.size.disk,
            }
            for n in plan.nodes
        },
        "schedule_on_control_planes": plan.schedule_on_control_planes,
        "addons": list(plan.addons),
        **_rancher(plan),
        "mirrors": dict(plan.wanted.registries),
        **_box(plan),
        **_sources(plan),
        "packages": dict(stock.packages),
        **(
            {"role_packages": {role: dict(found) for role, found in stock.role_packages.items()}}
            if stock.role_packages
            else {}
        ),
        "images": {
            name: {"ref": image["ref"], "digest": image["digest"], "size": image["size"]}
            for name, image in stock.images.items()
        },
        "node_image": plan.node_image,
        "store": dict(plan.keys),
    }


def bundled(content: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """Give the content for a lab from a bundle: its software is as the bundle's own lock has it."""
    return {**content, **{key: made[key] for key in SOFTWARE if key in made}}


def drift(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say how ``new`` differs from ``old``, a line each: ``versions.etcd: 3.4.23 → 3.6.8``.

    Software that ``new`` does not name is not known yet, and no difference.
    """
    # A lab without nodes beside its cluster does not have the key.
    none: dict[str, Any] = {"role_packages": {}}
    pairs = {
        key: (old.get(key, none.get(key)), new.get(key)) for key in (*old, *new) if key not in OWN
    }
    known = {key: pair for key, pair in pairs.items() if pair[1] is not None}
    for key in SOFTWARE:
        if not known.get(key, (None, None))[1]:
            known.pop(key, None)
    return [line for key, (was, now) in known.items() for line in _differ(key, was, now)]


def _differ(path: str, was: Any, now: Any) -> Iterator[str]:
    if was == now:
        return
    if isinstance(was, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*was, *now)):
            yield from _differ(f"{path}.{key}", was.get(key), now.get(key))
        return
    yield f"{path}: {_short(was)} → {_short(now)}"


def _short(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict) and len(value) > MANY:
        return f"{len(value)} of them"
    if isinstance(value, dict):
        return " ".join(str(v) for v in value.values() if not isinstance(v, dict)) or "none"
    words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    line = words.splitlines()[0] if words else "none"
    return line if "\n" not in words.strip() else "another text"


def _rancher(plan: Plan) -> dict[str, Any]:
    """Give Rancher's name and, of a chart that lab.yaml names, what it was."""
    if plan.rancher is None:
        return {}
    chart = plan.rancher.chart
    own = {"chart": {"version": chart.version, "sha256": chart.sha256}} if chart else {}
    return {"rancher": {"hostname": plan.rancher.hostname, "tls": plan.rancher.tls, **own}}


def _box(plan: Plan) -> dict[str, Any]:
    """Give the box; one of ours by its name alone: another Labwright builds another."""
    if plan.box is None:
        return {}
    return {"box": {"name": plan.box.name} if plan.own_box else asdict(plan.box)}


def _sources(plan: Plan) -> dict[str, Any]:
    if plan.pins is None:
        return {}
    pins = plan.pins
    return {
        "sources": {
            source.name: {
                "uri": source.uri,
                "suites": list(source.suites),
                "fingerprint": source.fingerprint,
                "key": pins.keys.get(source.name, ""),
            }
            for source in plan.wanted.apt
        },
        "checksums": {
            name: {"sha256": pin.sha256, "source": pin.source}
            for name, pin in pins.packages.items()
        },
        "charts": {
            name: {"version": pin.version, "url": pin.url, "sha256": pin.sha256}
            for name, pin in pins.charts.items()
        },
    }


def _pins(raw: Mapping[str, Any]) -> Pins:
    versions = dict(raw["packages"])
    for more in raw.get("role_packages", {}).values():
        versions |= more
    return Pins(
        keys={name: source["key"] for name, source in raw["sources"].items() if source["key"]},
        packages={
            name: DebPin(str(versions[name]), sums["sha256"], sums["source"])
            for name, sums in raw["checksums"].items()
        },
        images={
            name: ImagePin(image["ref"], image["digest"], int(image["size"]))
            for name, image in raw["images"].items()
        },
        charts={
            name: ChartPin(str(chart["version"]), chart["url"], chart["sha256"])
            for name, chart in raw.get("charts", {}).items()
        },
    )


def _texts(raw: Any) -> dict[str, str]:
    return {str(k): str(v) for k, v in raw.items()} if isinstance(raw, dict) else {}


def _unreadable(where: str, why: str) -> Finding:
    fix = "bring back the one that was written, or remove the file: lab.up writes it anew"
    return Finding("supply.lock-unreadable", "error", f"{where} cannot be read", why, fix, where)
