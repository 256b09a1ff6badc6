"""Writes down what goes into a component: a main module of ours, and its line of the catalog.

A module's own go.mod is the start. Its ``replace`` lines that name a folder of its repository mean
modules that are published too; those become requirements of the published versions.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labwright.catalog import CATALOG, minor
from labwright.errors import Finding, SupplyError
from labwright.recipes import gobuild, modules
from labwright.recipes.modules import Program
from labwright.supplies.packages import GO
from labwright.tools.shell import Shell, ToolError
from labwright.tools.store import remove_tree

PROGRAMS_GO = "programs.go"
STAGING = "./staging/"


@dataclass(slots=True)
class MainModule:
    """A go.mod in the making: requirements and replacements by module path."""

    path: str
    go: str = "1.0"
    requires: dict[str, str] = field(default_factory=dict)
    replaces: dict[str, tuple[str, str]] = field(default_factory=dict)
    excludes: dict[tuple[str, str], None] = field(default_factory=dict)

    def take(self, read: Mapping[str, Any], version: str) -> None:
        """Add what the go.mod of a released module says, as ``go mod edit -json`` tells it."""
        self.go = max(self.go, read["Go"], key=_numbers)
        for entry in read.get("Require") or ():
            self.requires.setdefault(entry["Path"], entry["Version"])
        for entry in read.get("Replace") or ():
            self._replace(entry["Old"]["Path"], entry["New"], version)
        for entry in read.get("Exclude") or ():
            self.excludes[entry["Path"], entry["Version"]] = None

    def _replace(self, old: str, new: Mapping[str, str], version: str) -> None:
        if new["Path"].startswith(STAGING):
            # k8s.io/api v0.36.3 is Kubernetes 1.36.3's (kubernetes/kubernetes, staging/README.md).
            published = f"v0.{version.partition('.')[2]}"
            self.replaces[old] = (old, published)
            if old in self.requires:
                self.requires[old] = published
        elif not new["Path"].startswith("."):
            self.replaces[old] = (new["Path"], new["Version"])

    def text(self, said: str) -> str:
        """Return the go.mod, with a first line that says what it is."""
        lines = [f"// {said}", f"module {self.path}", "", f"go {self.go}", ""]
        lines += _block("require", (f"{name} {v}" for name, v in sorted(self.requires.items())))
        replaces = sorted(self.replaces.items())
        lines += _block("replace", (f"{old} => {new} {v}" for old, (new, v) in replaces))
        lines += _block("exclude", (f"{name} {v}" for name, v in self.excludes))
        return "\n".join(lines)


def _block(word: str, lines: Iterable[str]) -> list[str]:
    inside = [f"\t{line}" for line in lines]
    return [f"{word} (", *inside, ")", ""] if inside else []


class Pinner:
    """Asks the module proxy with the pinned toolchain at ``root``; its caches are in ``cache``."""

    def __init__(self, shell: Shell, root: Path, cache: Path, say: Callable[[str], None]) -> None:
        """``say`` is told what takes time."""
        self._shell, self._say = shell, say
        self._env = gobuild.environment(root, cache) | {"GOFLAGS": "-mod=mod -modcacherw"}

    def pin(self, component: str, version: str, work: Path, catalog: Path = CATALOG) -> list[Path]:
        """Pin a component's version and return the files that were written.

        ``work`` is an empty folder. Raises SupplyError: there is no such component or version, or
        the toolchain is too old for it.
        """
        program = _known(component)
        if not re.fullmatch(r"\d+\.\d+\.\d+", version):
            raise SupplyError(_no_version(program, version, ()))
        main = MainModule(program.main_module)
        for module in program.modules:
            self._say(f"ask the Go module proxy for {module} {version}")
            main.take(self._released(program, module, version), version)
        main.requires |= dict.fromkeys(program.modules, f"v{version}")
        main.replaces |= {name: (name, v) for name, v in program.instead.items()}
        if _numbers(main.go) > _numbers(GO):
            raise SupplyError(gobuild.too_old(f"{program.title} {version}", main.go))
        target = modules.folder(component, version)
        self._write(program, main, work, target.parent, f"{program.title} {version}")
        target.mkdir(parents=True, exist_ok=True)
        written = [target / name for name in ("go.mod", "go.sum")]
        for path in written:
            shutil.copyfile(work / path.name, path)
        outdated = [v for v in modules.pinned(component) if _gives_way(component, v, version)]
        for old in outdated:
            remove_tree(modules.folder(component, old))
        text = enter(catalog.read_text("utf-8"), component, version, outdated)
        catalog.write_text(text, encoding="utf-8")
        return [*written, catalog]

    def _released(self, program: Program, module: str, version: str) -> Mapping[str, Any]:
        try:
            said = self._go("mod", "download", "-json", f"{module}@v{version}")
        except ToolError as error:
            raise SupplyError(
                _no_version(program, version, self._versions(module)), error.details
            ) from error
        read: Mapping[str, Any] = json.loads(
            self._go("mod", "edit", "-json", json.loads(said)["GoMod"])
        )
        return read

    def _versions(self, module: str) -> Sequence[str]:
        try:
            return self._go("list", "-m", "-versions", module).split()[1:]
        except ToolError:
            return ()

    def _write(self, program: Program, main: MainModule, work: Path, own: Path, title: str) -> None:
        said = f"Pins what goes into {title}; written by ./invokew dev.pin."
        (work / "go.mod").write_text(main.text(said), encoding="utf-8")
        gobuild.lay_out_own(own, work)
        lines = ["//go:build programs", "", "package programs", "", "import ("]
        lines += [f'\t_ "{package}"' for package in _imported(program)]
        (work / PROGRAMS_GO).write_text("\n".join([*lines, ")", ""]), encoding="utf-8")
        self._say("resolve what it is made of")
        self._go("mod", "tidy", cwd=work)

    def _go(self, *words: str, cwd: Path = Path("/")) -> str:
        return self._shell.run(["go", *words], cwd=cwd, env=self._env, timeout=900).out


def enter(text: str, component: str, version: str, outdated: Sequence[str]) -> str:
    """Return the catalog's text in which a version stands where the outdated one stood.

    A version that the catalog had already, as one that is not compiled here, changes places with
    it. Raises SupplyError: neither is in the catalog.
    """
    start = text.find(f"[components.{component}]")
    after = re.compile(r"(?m)^\[components\.(?!" + re.escape(component) + r"\])").search(
        text, max(start, 0)
    )
    end = after.start() if after else len(text)
    part = text[start:end] if start >= 0 else ""
    old = next((v for v in outdated if f'"{v}"' in part), "")
    if not old and f'"{version}"' in part:
        return text
    if not old:
        raise SupplyError(_not_in_catalog(component))
    marks = {f'"{old}"': f'"{version}"', f'"{version}"': f'"{old}"'}
    return text[:start] + re.sub("|".join(marks), lambda m: marks[m[0]], part) + text[end:]


def _imported(program: Program) -> Iterator[str]:
    """Yield the packages that the main module has to reach, with those of programs beside it."""
    if not program.own:
        yield from program.packages
    for other in modules.PROGRAMS.values():
        if other.beside and modules.PROGRAMS[other.beside] is program:
            yield from (*other.packages, *other.tests)


def _known(component: str) -> Program:
    program = modules.PROGRAMS.get(component)
    if program and not program.beside:
        return program
    raise SupplyError(
        Finding(
            "dev.component",
            "error",
            f"{component} is not compiled from Go modules",
            "components are listed in labwright/recipes/modules.py",
            f"one of {', '.join(n for n, p in modules.PROGRAMS.items() if not p.beside)}",
        )
    )


def _gives_way(component: str, there: str, new: str) -> bool:
    """Whether a pinned version is replaced: Kubernetes is kept at one patch of each minor."""
    return there != new and (component != "kubernetes" or minor(there) == minor(new))


def _no_version(program: Program, version: str, known: Sequence[str]) -> Finding:
    released = [v.removeprefix("v") for v in known if re.fullmatch(r"v\d+\.\d+\.\d+", v)]
    near = sorted(released, key=lambda v: _distance(v, version))[:3]
    return Finding(
        "dev.version",
        "error",
        f"the Go module proxy has no {program.title} {version}",
        f"the nearest that it has: {', '.join(near)}" if near else "it named no version either",
        f"./invokew dev.pin … {near[0]}" if near else "set GOPROXY to a proxy that has it",
    )


def _not_in_catalog(component: str) -> Finding:
    return Finding(
        "dev.catalog",
        "error",
        f"labwright/catalog.toml has no place for a version of {component}",
        "a version takes the place of the one that was pinned before",
        f"write the first version of [components.{component}] by hand, and run this again",
    )


def _distance(one: str, other: str) -> tuple[int, ...]:
    return tuple(abs(a - b) for a, b in zip(_numbers(one), _numbers(other), strict=False))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", version))
