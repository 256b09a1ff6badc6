"""The images of an upstream lab as archives, for a bundle: the registries' own bytes."""

from __future__ import annotations

import json

from labwright.recipes.base import Job
from labwright.tools import registry
from labwright.tools.download import Http


def build(job: Job) -> None:
    """Make ``<name>.tar`` for each pinned image, and ``images.json`` as recipes.images does.

    What was fetched before an interruption is not fetched again. Raises SupplyError.
    """
    plan, found = job.lab, {}
    pins = plan.pins.images if plan.pins else {}
    with Http() as http:
        registries = registry.Registries(http, plan.wanted.registries)
        for name, pin in pins.items():
            job.say(f"pull {pin.ref} ({pin.size / 1e6:.0f} MB)")
            archive = job.out / f"{name}.tar"
            registries.save(pin, archive, job.work / "blobs")
            found[name] = {
                "ref": pin.ref,
                "archive": archive.name,
                "digest": pin.digest,
                "size": pin.size,
            }
    text = json.dumps(found, indent=1, sort_keys=True)
    (job.out / "images.json").write_text(text + "\n", encoding="utf-8")
