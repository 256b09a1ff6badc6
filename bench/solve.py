"""How long the solver takes, as a ratio to its floor: parsing catalog.toml with tomllib.

    .venv/bin/python -m bench.solve [rounds]

Each problem is timed in a fresh process state (nothing remembered of the catalog's expressions),
in turn with the floor, because the same machine is half as fast an hour later. The product's
limit is 100 ms for any spec; the last line says how the slowest problem stands to it.
"""

from __future__ import annotations

import statistics
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress

from labwright import catalog, solver
from labwright.solver import space

LIMIT = 0.1
PARTS = ("kubernetes", "containerd", "etcd", "coredns", "pause", "busybox", "guest")
ADDONS = ("rancher", "cert-manager", "traefik", "metrics-server", "local-path", "kube-vip")
DOCKER = {"supply": "upstream", "provider": "docker", "guest": "debian-12", "cgroup": "2"}
# Each wish is at odds with the next, and the facts with most of them.
WISHES = {
    "kubernetes": "1.37",
    "rancher": "2.12",
    "cert-manager": "1.18",
    "containerd": "1.6",
    "etcd": "3.5.15-0",
    "coredns": "1.14.2",
    "pause": "3.2",
    "guest": "ubuntu-24.04",
}
# The slowest of 400 random problems that wish for exact versions of most components.
EXACT = {
    "kubernetes": "1.36.3",
    "metrics-server": "0.8.1",
    "kube-vip": "1.2.3",
    "cni-plugins": "1.1.1",
    "etcd": "3.7.0-0",
    "cert-manager": "1.20.3",
    "coredns": "1.12.1",
    "guest": "ubuntu-24.04",
    "rancher": "2.15.0",
    "pause": "3.10.1",
    "containerd": "1.6.20",
    "runc": "1.1.5",
    "local-path": "0.0.37",
    "busybox": "1.36.1-1",
}
PROBLEMS: Mapping[str, solver.Problem] = {
    "a default lab": solver.Problem((*PARTS, "rancher"), DOCKER, {}),
    "all add-ons, nothing given": solver.Problem((*PARTS, *ADDONS), {}, {}),
    "1.37 + Rancher 2.15": solver.Problem(PARTS, DOCKER, {"kubernetes": "1.37", "rancher": "2.15"}),
    "everything at odds": solver.Problem((*PARTS, *ADDONS), {"provider": "docker"}, WISHES),
    "everything at odds, cgroup 1": solver.Problem(
        (*PARTS, *ADDONS), {**DOCKER, "cgroup": "1"}, WISHES
    ),
    "fourteen exact versions": solver.Problem(
        (*PARTS, *ADDONS), {"provider": "libvirt", "cgroup": "1"}, EXACT
    ),
}


def timed(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def forget() -> None:
    for remembered in (space.mask, space.implied, space.nearest_first, catalog.load):
        remembered.cache_clear()


def attempt(known: catalog.Catalog, problem: solver.Problem) -> None:
    with suppress(solver.Unsolvable):
        solver.solve(known, problem)


def main(rounds: int) -> None:
    text = catalog.CATALOG.read_text(encoding="utf-8")
    figures: dict[str, list[float]] = {"tomllib alone": []}
    for _ in range(rounds):
        figures["tomllib alone"].append(timed(lambda: tomllib.loads(text)))
        for name, problem in PROBLEMS.items():
            forget()
            figures.setdefault("load", []).append(timed(catalog.load))
            seconds = timed(lambda p=problem: attempt(catalog.load(), p))  # type: ignore[misc]
            figures.setdefault(name, []).append(seconds)
    middle = {name: statistics.median(values) for name, values in figures.items()}
    print(f"median of {rounds}; ratio to the floor:")
    for name, seconds in middle.items():
        print(f"{name:<30}{seconds * 1000:7.1f} ms {seconds / middle['tomllib alone']:6.2f}")
    slowest = max(seconds for name, seconds in middle.items() if name in PROBLEMS)
    print(f"the slowest takes {slowest / LIMIT:.2f} of the limit")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
