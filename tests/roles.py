"""Templates and variables of roles as Ansible makes them, without a machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader  # type: ignore[import-untyped]
from ansible.template import Templar, trust_as_template  # type: ignore[import-untyped]

ROLES = Path(__file__).resolve().parent.parent / "playbooks" / "roles"


def rendered(role: str, template: str, given: Mapping[str, Any]) -> str:
    """Render a role's template as the role does: its defaults over the lab's facts."""
    defaults = yaml.safe_load((ROLES / role / "defaults" / "main.yml").read_text("utf-8"))
    trusted = {k: trust_as_template(v) if isinstance(v, str) else v for k, v in defaults.items()}
    templar = Templar(DataLoader(), {**given, **trusted})
    text = (ROLES / role / "templates" / template).read_text("utf-8")
    # As the template lookup does it (ansible/plugins/lookup/template.py).
    text = trust_as_template(f"#jinja2: trim_blocks: True, lstrip_blocks: False\n{text}")
    return str(templar.copy_with_new_env().template(text))
