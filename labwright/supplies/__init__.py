"""Where software comes from. One module a supply, in the order of preference.

A bundle is no module here: it holds what one of these once gave, and says which.
"""

from __future__ import annotations

from collections.abc import Mapping

from labwright.model import SupplyName
from labwright.supplies.base import Supply
from labwright.supplies.packages import Packages
from labwright.supplies.upstream import Upstream

SUPPLIES: Mapping[SupplyName, Supply] = {"upstream": Upstream(), "packages": Packages()}
