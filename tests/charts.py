"""Real Helm for tests: on PATH, or as a lab's store has it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from labwright.tools.workdir import cache


def helm() -> str:
    """Give Helm's path, or leave the test out and say why."""
    found = shutil.which("helm")
    stored = [*cache().glob("store/helm-*/helm"), *cache().glob("store/host-*/bin/helm")]
    if not found and not stored:
        pytest.skip("no Helm on PATH nor in the store: ./invokew lab.up with Rancher fetches it")
    return found or str(stored[0])


def template(
    chart: Path, kubernetes: str, values: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], str]:
    """Render a chart for a version of Kubernetes; give its objects and what Helm complained of."""
    words = [helm(), "template", "rancher", str(chart), "--namespace", "cattle-system"]
    words += ["--kube-version", kubernetes, "--values", "-"]
    text = json.dumps(values)
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    objects = list(filter(None, yaml.safe_load_all(done.stdout))) if not done.returncode else []
    return objects, done.stderr


def one(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Give the one object of a kind and a name."""
    found = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]
