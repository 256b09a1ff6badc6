"""What every supply says of itself. No I/O: recipes make what a supply only describes."""

from __future__ import annotations

from typing import Protocol

from labwright.catalog import Release
from labwright.errors import Finding
from labwright.model import Artifact, HostFacts, SupplyName


class Supply(Protocol):
    """A source of debs and images for one Kubernetes release."""

    @property
    def name(self) -> SupplyName:
        """The name lab.yaml gives it."""

    @property
    def image_repository(self) -> str:
        """The registry name in its images' references."""

    def probe(self, host: HostFacts) -> list[Finding]:
        """Say what keeps this host from using the supply."""

    def artifacts(self, release: Release) -> tuple[Artifact, ...]:
        """Give what the supply is made of, each after all it needs."""
