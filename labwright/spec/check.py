"""What no single key of lab.yaml shows: how the keys go together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from ipaddress import IPv4Network

from labwright import catalog
from labwright.errors import Finding
from labwright.model import domain
from labwright.spec.file import LabFile, node_names
from labwright.spec.words import DOCS, likely, listed


def check(file: LabFile, unread: Collection[str] = ()) -> Iterator[Finding]:
    """Find what is wrong between keys.

    ``unread`` are the keys whose own value was refused: no rule that needs one of them speaks,
    as it would judge a default that the user did not write.
    """
    for needs, rule in _RULES.items():
        if not any(_touches(bad, key) for bad in unread for key in needs):
            yield from rule(file)


def _touches(bad: str, key: str) -> bool:
    return bad == key or bad.startswith(f"{key}.") or key.startswith(f"{bad}.")


def _workers(file: LabFile) -> Iterator[Finding]:
    if file.workers == 0 and not file.schedule_on_control_planes:
        yield Finding(
            "spec.no-workers",
            "error",
            "0 workers leave no node for pods to run on",
            "a control plane takes no ordinary pods unless told to",
            "set workers to 1 or more, or for a one-node lab set schedule_on_control_planes: true",
            "workers",
            DOCS,
        )


def _node_names(file: LabFile) -> Iterator[Finding]:
    names = [name for name, _ in node_names(file)]
    for name in file.nodes:
        if name not in names:
            yield Finding(
                "spec.unknown-node",
                "error",
                f"this lab has no node {name!r}",
                f"its nodes are {listed(names)}",
                _more(name) or likely(name, names) or "take one of those names, or raise workers",
                f"nodes.{name}",
            )


def _more(name: str) -> str:
    """Say which key makes a node of that name; empty for one that no key makes alone."""
    return f"{name.removesuffix('1')}: 1" if name in {"tools1", "nas1"} else ""


def _addons(file: LabFile) -> Iterator[Finding]:
    known = catalog.load().addons
    for index, addon in enumerate(file.addons):
        if addon not in known:
            yield Finding(
                "spec.unknown-addon",
                "error",
                f"there is no add-on {addon!r}",
                f"the add-ons are {listed(known)}",
                likely(addon, known) or "take one of those, or leave the list out",
                f"addons.{index}",
            )


def _rancher(file: LabFile) -> Iterator[Finding]:
    asked = file.rancher
    if "rancher" not in file.addons:
        if asked != type(asked)():
            what, why = "Rancher is not among the add-ons", "nothing would read this key"
            fix = "add rancher to addons, or leave the key rancher out"
            yield Finding("spec.no-rancher", "error", what, why, fix, "rancher")
        return
    if (
        asked.hostname
        and asked.tls == "lab"
        and not asked.hostname.endswith(f".{domain(file.name)}")
    ):
        yield Finding(
            "spec.rancher-hostname",
            "error",
            f"{asked.hostname} is not in the lab's domain",
            "the lab's authority is trusted for that domain alone",
            f"take a name such as rancher.{domain(file.name)}, or tls: rancher",
            "rancher.hostname",
        )
    needs = {"dns": "Rancher finds its own parts by name", "traefik": "Rancher answers there"}
    if asked.tls == "rancher":
        needs["cert-manager"] = "rancher.tls: rancher has cert-manager issue the certificate"
    for addon, why in needs.items():
        if addon not in file.addons:
            fix = f"add {addon} to addons"
            fix += ", or take rancher.tls: lab" if addon == "cert-manager" else ""
            what = f"rancher needs the add-on {addon}"
            yield Finding("spec.rancher-needs", "error", what, why, fix, "addons")


def _versions(file: LabFile) -> Iterator[Finding]:
    kinds = {"cluster", "addon"}
    known = [c.name for c in catalog.load().components.values() if c.kind in kinds]
    known.remove("kubernetes")
    for name in file.versions:
        if name == "kubernetes":
            what = "the version of Kubernetes has a key of its own"
            fix = f'kubernetes: "{file.versions[name]}"'
            yield Finding("spec.version-of-kubernetes", "error", what, "", fix, "versions")
        elif name not in known:
            yield _not_known("component", name, known, f"versions.{name}")


def _box(file: LabFile) -> Iterator[Finding]:
    box = file.box
    if box is None or not box.checksum:
        return
    path = box.url.partition("?")[0]
    if not path or path.endswith(".json"):
        yield Finding(
            "spec.box-checksum",
            "error",
            "box.checksum is that of a .box file, and box.url names none",
            "of a box from a catalogue Vagrant checks what the catalogue says, and nothing else",
            "give the address of the .box file, or leave the checksum out",
            "box.checksum",
        )


def _guest(file: LabFile) -> Iterator[Finding]:
    known = ["auto", *catalog.load().guests]
    if file.guest not in known:
        yield _not_known("guest", file.guest, known, "guest")


def _mirrors(file: LabFile) -> Iterator[Finding]:
    known = catalog.load()
    for name in file.mirrors.apt:
        if name not in known.apt:
            yield _not_known("package source", name, known.apt, f"mirrors.apt.{name}")
    for name in file.mirrors.charts:
        if name not in known.charts:
            yield _not_known("chart", name, known.charts, f"mirrors.charts.{name}")


def _not_known(kind: str, name: str, known: Collection[str], where: str) -> Finding:
    return Finding(
        f"spec.unknown-{kind.replace(' ', '-')}",
        "error",
        f"there is no {kind} {name!r}",
        f"there are {listed(known)}",
        likely(name, known) or "take one of those",
        where,
    )


def _pods_size(file: LabFile) -> Iterator[Finding]:
    count = file.control_planes + file.workers
    if file.network.pods.prefixlen > 24 or 2 ** (24 - file.network.pods.prefixlen) < count:
        yield Finding(
            "spec.pods-too-small",
            "error",
            f"{file.network.pods} has no /24 for each of {count} nodes",
            fix="take a larger range, such as 10.244.0.0/16",
            where="network.pods",
        )


def _services_size(file: LabFile) -> Iterator[Finding]:
    if not 12 <= file.network.services.prefixlen <= 24:
        yield Finding(
            "spec.services-size",
            "error",
            f"{file.network.services} is not between a /12 and a /24",
            "kube-apiserver takes no more than 20 bits of services",
            "take a range such as 10.96.0.0/16",
            "network.services",
        )


def _subnet_size(file: LabFile) -> Iterator[Finding]:
    subnet = file.network.subnet
    if isinstance(subnet, IPv4Network) and not 16 <= subnet.prefixlen <= 24:
        yield Finding(
            "spec.subnet-size",
            "error",
            f"{subnet} is not between a /16 and a /24",
            "the nodes' addresses end in .11 and up, .21 and up for workers, .101 and .111",
            "take a /24 such as 192.168.56.0/24, or auto",
            "network.subnet",
        )


def _apart(one: str, other: str) -> Rule:
    """Make the rule that two ranges of ``network`` do not overlap."""

    def rule(file: LabFile) -> Iterator[Finding]:
        mine, theirs = getattr(file.network, one), getattr(file.network, other)
        if isinstance(mine, IPv4Network) and mine.overlaps(theirs):
            yield Finding(
                "spec.overlap",
                "error",
                f"{mine} overlaps network.{other} ({theirs})",
                "an address in both could mean a node, a pod or a service",
                f"move network.{one} or network.{other} to a range of its own",
                f"network.{one}",
            )

    return rule


Rule = Callable[[LabFile], Iterator[Finding]]
_RULES: Mapping[tuple[str, ...], Rule] = {
    ("workers", "schedule_on_control_planes"): _workers,
    ("workers", "control_planes", "tools", "nas", "nodes"): _node_names,
    ("addons",): _addons,
    ("addons", "rancher", "name"): _rancher,
    ("versions",): _versions,
    ("guest",): _guest,
    ("box",): _box,
    ("mirrors",): _mirrors,
    ("network.pods", "workers", "control_planes"): _pods_size,
    ("network.services",): _services_size,
    ("network.subnet",): _subnet_size,
    ("network.pods", "network.services"): _apart("pods", "services"),
    ("network.subnet", "network.pods"): _apart("subnet", "pods"),
    ("network.subnet", "network.services"): _apart("subnet", "services"),
}
