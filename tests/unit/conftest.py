"""How long an example takes is the machine's affair, and no reason to fail."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("labwright", deadline=None)
settings.load_profile("labwright")
