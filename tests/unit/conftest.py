"""How long an example takes is the machine's affair, and no reason to fail."""

from __future__ import annotations

import uuid

import pytest
from ansible.plugins.loader import init_plugin_loader  # type: ignore[import-untyped]
from hypothesis import settings

settings.register_profile("labwright", deadline=None)
settings.load_profile("labwright")


@pytest.fixture(autouse=True)
def _nobody_s_labs(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give a register of labs that is empty: what a user's labs take must change no result."""
    state = tmp_path_factory.getbasetemp() / f"state-{uuid.uuid4().hex}"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))


# Once a process: without it a template finds no lookup.
init_plugin_loader()
