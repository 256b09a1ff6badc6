"""Where software comes from. One module a supply, in the order of preference."""

from __future__ import annotations

from collections.abc import Mapping

from labwright.model import SupplyName
from labwright.supplies.base import Supply
from labwright.supplies.packages import Packages

SUPPLIES: Mapping[SupplyName, Supply] = {"packages": Packages()}
