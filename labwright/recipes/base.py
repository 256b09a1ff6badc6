"""What every recipe gets and uses: the job, its finished steps, and an apt of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import MappingProxyType

from labwright.errors import Finding, SupplyError
from labwright.model import Artifact, Plan
from labwright.tools.shell import Result, Shell

SUITE = "bookworm"
DATA = Path(__file__).parent / "data"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

HOST_PACKAGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "go": (),
        "kubernetes": ("ca-certificates", "gcc", "libc6-dev"),
        "runc": ("ca-certificates", "gcc", "libc6-dev", "libseccomp-dev", "pkg-config"),
        **dict.fromkeys(
            (
                *("conformance", "containerd", "cni-plugins", "cri-tools", "etcd"),
                *("cert-manager", "coredns", "kube-network-policies", "local-path"),
                *("metallb", "metrics-server", "registry"),
            ),
            ("ca-certificates",),
        ),
        "traefik": (),
        "base": ("debian-archive-keyring", "mmdebstrap", "uidmap"),
        "machine-root": ("debian-archive-keyring", "mmdebstrap", "uidmap"),
        "box": ("e2fsprogs", "fdisk", "grub-pc-bin", "qemu-utils"),
        "apt": ("apt-utils", "debian-archive-keyring"),
        "apt-role": ("apt-utils", "debian-archive-keyring"),
        "images": ("debian-archive-keyring",),
        "bundle": (),
        "charts": (),
        "collect": ("apt-utils", "debian-archive-keyring"),
        "conformance-images": ("debian-archive-keyring",),
        "helm": (),
        "host": (),
        "pull": (),
    }
)
"""Debian packages that a recipe needs on the host, beyond a plain Debian 12."""


@dataclass(frozen=True, slots=True)
class Job:
    """One artifact to make.

    ``work`` survives an interruption and is where finished steps are found again; ``out`` is
    empty at the start and becomes the entry; ``inputs`` maps each need's id to its entry.
    ``plan`` is the lab that it is made for; most recipes do not depend on it. ``shared`` is a
    folder that outlives the job, where a recipe may keep what makes the next one faster.
    """

    artifact: Artifact
    work: Path
    out: Path
    inputs: Mapping[str, Path]
    shell: Shell
    say: Callable[[str], None]
    plan: Plan | None = None
    shared: Path | None = None

    @property
    def cache(self) -> Path:
        """The folder for what other jobs may use too; nothing may depend on its being filled."""
        return self.shared or self.work / "cache"

    @property
    def lab(self) -> Plan:
        """The plan, for recipes that follow what it has pinned."""
        if self.plan is None:
            raise RuntimeError(f"{self.artifact.recipe} is made for a plan only")
        return self.plan

    def once(self, step: str, act: Callable[[], object], title: str = "") -> None:
        """Do a step unless an earlier run has finished it; ``title`` is said before it starts."""
        stamp = self.work / ".done" / step
        if stamp.exists():
            return
        if title:
            self.say(title)
        act()
        stamp.parent.mkdir(exist_ok=True)
        stamp.touch()

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        input: str | None = None,  # noqa: A002 - the name subprocess gives it
    ) -> Result:
        """Run a program, every word of it kept in ``work/log``. Raises ToolError."""
        with (self.work / "log").open("a", encoding="utf-8") as log:
            print("$", *argv, file=log, flush=True)
            return self.shell.run(
                argv,
                cwd=cwd,
                env=env,
                timeout=timeout,
                input=input,
                on_line=lambda line: print(line, file=log, flush=True),
            )


Recipe = Callable[[Job], None]


def architecture(shell: Shell) -> str:
    """Give the host's architecture as Debian, Go and OCI call it: ``amd64``, ``arm64``."""
    return shell.run(["dpkg", "--print-architecture"]).out.strip()


def host_apt_options(shell: Shell) -> list[str]:
    """Give the host's proxies and date checks as lines of apt configuration."""
    wanted = re.compile(r"Acquire::(https?::|Check-|Force|Retries)\S* \".+\";$")
    lines = shell.run(["apt-config", "dump"]).out.splitlines()
    return [line for line in lines if wanted.match(line)]


def debian_sources(shell: Shell, kind: str = "deb", suite: str = SUITE) -> str:
    """Give a sources.list for a Debian release from where the host itself gets bookworm.

    ``kind`` is ``deb`` or ``deb-src`` (then without updates and security: sources of releases).
    Raises SupplyError: the host's apt knows no bookworm.
    """
    form = "$(CREATED_BY)|$(ORIGIN)|$(REPO_URI)|$(CODENAME)|$(COMPONENT)"
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    found: dict[str, None] = {}
    for line in shell.run(["apt-get", "indextargets", "--format", form]).out.splitlines():
        target, origin, uri, codename, component = line.split("|")
        if (target, origin, component) != ("Packages", "Debian", "main") or "cdrom:" in uri:
            continue
        release, dash, pocket = codename.partition("-")
        if release == SUITE and (kind == "deb" or not pocket):
            # A mirror has all releases side by side.
            found[f"{kind} {signed}{uri} {suite}{dash}{pocket} main"] = None
    if not any(f" {suite} " in line for line in found):
        raise SupplyError(
            Finding(
                "supply.no-bookworm",
                "error",
                f"apt on this computer knows no Debian {SUITE}",
                "the lab's packages come from the archive that this computer itself uses",
                "sudo apt-get update; if that does not help, add Debian 12 to /etc/apt",
            )
        )
    return "".join(f"{line}\n" for line in found)


class Apt:
    """An apt with lists, cache and configuration of its own, below one folder.

    The host's apt is neither read (its hooks would run) nor changed, and no root is needed.
    """

    def __init__(
        self, job: Job, home: Path, sources: str, status: Path = Path("/dev/null")
    ) -> None:
        """Take packages from ``sources``; ``status`` says what counts as installed: nothing."""
        self._job = job
        self._home = home
        for name in ("lists/partial", "archives/partial"):
            (home / name).mkdir(parents=True, exist_ok=True)
        (home / "sources.list").write_text(sources, encoding="utf-8")
        own = {
            "Dir::Etc::Main": "/dev/null",
            "Dir::Etc::Parts": "/dev/null",
            "Dir::Etc::SourceList": home / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": home,
            "Dir::State::Lists": home / "lists",
            "Dir::State::Status": status,
            "Dir::Cache": home,
            "Dir::Cache::Archives": home / "archives",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::http::Timeout": "30",
            "APT::Get::Assume-Yes": "true",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Debug::NoLocking": "true",
        }
        lines = [*host_apt_options(job.shell), *(f'{k} "{v}";' for k, v in own.items())]
        (home / "apt.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def get(self, *words: str, cwd: Path | None = None) -> Result:
        """Run ``apt-get`` with these words. Raises ToolError."""
        env = {"APT_CONFIG": str(self._home / "apt.conf"), "LC_ALL": "C.UTF-8"}
        return self._job.run(["apt-get", *words], cwd=cwd, env=env)

    def update(self) -> None:
        """Fetch the lists; unlike apt itself, fail when one of them could not be had."""
        self.get("update", "--error-on=any")

    def closure(self, *names: str) -> list[Path]:
        """Download packages and all they depend on that is not installed; give the files."""
        archives = self._home / "archives"
        # The root may be newer than a pin; the nodes go back too.
        self.get("install", "--download-only", "--allow-downgrades", *names)
        return sorted(archives.glob("*.deb"))

    def released(self) -> int:
        """Give the newest date of the lists in seconds since 1970: younger than every package."""
        dates = [
            parsedate_to_datetime(line.removeprefix("Date:").strip())
            for path in (self._home / "lists").glob("*Release")
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.startswith("Date:")
        ]
        return int(max(dates).timestamp())


def stanzas(text: str) -> list[dict[str, str]]:
    """Parse Debian control data: one mapping of field to value for each paragraph."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        joined = re.sub(r"\n[ \t]", "\n ", paragraph)
        fields = re.findall(r"(?m)^([\w-]+):[ \t]*((?:.*)(?:\n .*)*)", joined)
        found.append(dict(fields))
    return found
