"""CoreDNS, by ``go install``: its go.mod has no ``replace``, so the module proxy is enough."""

from __future__ import annotations

from labwright.errors import Finding, SupplyError
from labwright.recipes.base import Job, go_env
from labwright.tools.shell import ToolError

MODULE = "github.com/coredns/coredns"
ANSWER = 45.0
"""Seconds within which the module proxy has to answer a first small question."""
BUILD = 3600.0
"""Seconds for download and compilation together."""


def build(job: Job) -> None:
    """Make ``bin/coredns``. Raises SupplyError soon when the Go module proxy is out of reach."""
    env = go_env(job.work) | {"GO111MODULE": "on", "GOBIN": str(job.work / "bin")}
    module = f"{MODULE}@v{job.artifact.version}"
    job.say("ask the Go module proxy for CoreDNS")
    try:
        job.run(["go", "list", "-m", module], cwd=job.work, env=env, timeout=ANSWER)
    except ToolError as error:
        raise SupplyError(
            Finding(
                "supply.no-go-proxy",
                "error",
                "CoreDNS cannot be fetched from the Go module proxy",
                "without it the lab works, but has no names for services (no cluster DNS)",
                "set GOPROXY to a proxy that this computer reaches and run the command again, "
                "or leave DNS out: addons: [] in lab.yaml",
            ),
            error.details,
        ) from error
    job.say("compile coredns")
    job.run(["go", "install", "-ldflags", "-s -w", module], cwd=job.work, env=env, timeout=BUILD)
    (job.out / "bin").mkdir()
    (job.out / "bin/coredns").hardlink_to(job.work / "bin/coredns")
