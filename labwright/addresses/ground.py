"""What decides where a lab goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from labwright.lock import Locked
from labwright.model import HostFacts, Place, Spec


@dataclass(frozen=True, slots=True)
class Ground:
    """All that decides a lab's place.

    ``permitted`` are the ranges that lab networks may lie in, and ``strict`` says that the provider
    refuses any other; ``owner`` names the lab's own network. ``labs`` are the user's other labs,
    ``before`` what this one had, and ``made`` says that its machines may have it still.
    ``inside`` are networks that only the machines are in; ``management`` are the ranges for one
    that Vagrant reaches them on, which is called ``management_owner``.
    """

    spec: Spec
    host: HostFacts
    permitted: Sequence[IPv4Network]
    owner: str
    strict: bool = False
    locked: Locked = field(default_factory=Locked)
    labs: Sequence[Place] = ()
    before: Place | None = None
    made: bool = False
    inside: Sequence[IPv4Network] = ()
    management: Sequence[IPv4Network] = ()
    management_owner: str = ""
