"""Where an artifact lives in the store: a name made of everything that decides its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from labwright.model import Artifact

REVISION: Mapping[str, int] = {
    "go": 1,
    "kubernetes": 2,
    "containerd": 1,
    "runc": 1,
    "cni-plugins": 1,
    "cri-tools": 1,
    "etcd": 1,
    "cert-manager": 2,
    "coredns": 2,
    "kube-network-policies": 1,
    "local-path": 2,
    "metrics-server": 3,
    "metallb": 2,
    "registry": 1,
    "traefik": 1,
    "base": 3,
    "machine-root": 2,
    "box": 2,
    "apt": 3,
    "apt-role": 1,
    "images": 2,
    "collect": 1,
    "conformance": 1,
    "conformance-images": 6,
    "pull": 1,
    "charts": 1,
    "helm": 2,
    "host": 2,
}
"""Raise a recipe's number whenever what it puts out changes, so that old entries are not used."""


def key(artifact: Artifact, keys_of_needs: Mapping[str, str], revision: int) -> str:
    """Give ``<id>-<16 hex digits>`` for an artifact made from entries with those keys.

    The title does not count: it changes nothing in the bytes.
    """
    facts = {
        "recipe": artifact.recipe,
        "revision": revision,
        "version": artifact.version,
        "params": dict(artifact.params),
        "needs": dict(keys_of_needs),
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return f"{artifact.id}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def keys(artifacts: Iterable[Artifact]) -> dict[str, str]:
    """Give id → key for artifacts in building order; a need that comes later is a KeyError."""
    found: dict[str, str] = {}
    for artifact in artifacts:
        needs = {need: found[need] for need in artifact.needs}
        found[artifact.id] = key(artifact, needs, REVISION[artifact.recipe])
    return found
