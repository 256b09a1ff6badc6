"""How long the default lab's programs take to compile, as a ratio to plain `go build`.

    .venv/bin/python -m bench.build

The floor compiles the same programs by one `go build` each, one after the other, from the same
pinned modules by the same toolchain and flags. Both start with an empty cache of compiled packages,
in one run. Their modules are there beforehand: what the network does is not measured. Then a second
minor of Kubernetes is compiled in the first one's cache, against the first one's time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from labwright import catalog
from labwright.model import Artifact
from labwright.recipes import Job, gobuild, modules
from labwright.supplies.packages import GO, PARTS
from labwright.tools.shell import Shell
from labwright.tools.store import remove_tree

OF_ADDONS = ("coredns", "kube-network-policies")
SECOND = "1.35.4"


class Bench:
    """Builds below a folder of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._shell = Shell()
        self._cache = root / "go"
        toolchain = self._job("go", GO, "toolchain")
        gobuild.toolchain(toolchain)
        self._go = toolchain.out

    def _job(self, component: str, version: str, name: str) -> Job:
        work, out = (self._root / name / component / part for part in ("work", "out"))
        for folder in (work, out):
            remove_tree(folder)
            folder.mkdir(parents=True)
        inputs = {} if component == "go" else {"go": self._go}
        artifact = Artifact(component, component, version)
        return Job(artifact, work, out, inputs, self._shell, lambda _text: None, None, self._cache)

    def forget(self) -> None:
        """Empty the cache of compiled packages."""
        remove_tree(self._cache / "build")

    def fetch(self, component: str, version: str) -> None:
        """Bring a component's modules, as a build does before it compiles."""
        self._each(component, version, "fetch", lambda _package: ["list", "-deps"])

    def ours(self, component: str, version: str) -> None:
        """Compile as the supply does."""
        gobuild.build(self._job(component, version, "ours"))

    def plain(self, component: str, version: str) -> None:
        """Compile one program after the other."""
        flags = ["-ldflags", " ".join(gobuild.link_flags(modules.PROGRAMS[component], version))]
        target = self._root / "plain" / component / "out"
        self._each(
            component, version, "plain", lambda _package: ["build", "-o", f"{target}/", *flags]
        )

    def _each(
        self, component: str, version: str, name: str, words: Callable[[str], Sequence[str]]
    ) -> None:
        program = modules.PROGRAMS[component]
        job = self._job(component, version, name)
        folder = gobuild.main_module(job, program)
        env = gobuild.environment(self._go / "go", self._cache, cgo=bool(program.tags))
        tags = ["-tags", program.tags.replace(" ", ",")] if program.tags else []
        for package in program.packages:
            command = ["go", *words(package), *tags, package]
            self._shell.run(command, cwd=folder, env=env, timeout=3600)


def timed(act: Callable[[str, str], None], versions: dict[str, str]) -> dict[str, float]:
    """Give the seconds of each component."""
    seconds = {}
    for component, version in versions.items():
        start = time.monotonic()
        act(component, version)
        seconds[component] = time.monotonic() - start
    return seconds


def main() -> None:
    known = catalog.load().components
    versions = {"kubernetes": "1.36.3"}
    for name in (*PARTS[1:], *OF_ADDONS):
        (release,) = (r for r in known[name].releases if "packages" in r.supplies)
        versions[name] = release.version
    with tempfile.TemporaryDirectory(prefix="labwright-bench-") as folder:
        bench = Bench(Path(folder))
        for component, version in (*versions.items(), ("kubernetes", SECOND)):
            bench.fetch(component, version)
        bench.forget()
        plain = timed(bench.plain, versions)
        bench.forget()
        ours = timed(bench.ours, versions)
        second = timed(bench.ours, {"kubernetes": SECOND})["kubernetes"]
    print(f"{'':24} plain s  ours s")
    for name, version in versions.items():
        print(f"{name + ' ' + version:24} {plain[name]:7.1f} {ours[name]:7.1f}")
    total, floor = sum(ours.values()), sum(plain.values())
    print(f"{'all':24} {floor:7.1f} {total:7.1f}  ratio {total / floor:.2f} (limit 1.15)")
    first = ours["kubernetes"]
    print(
        f"{'kubernetes ' + SECOND:24} {'':7} {second:7.1f}  ratio {second / first:.2f} (limit 0.7)"
    )


if __name__ == "__main__":
    main()
