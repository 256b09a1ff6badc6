"""The doctor's commands: printing, asking and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

from labwright.cli import end, session
from labwright.console import Console
from labwright.doctor import Checkup, Report, Verdict, as_json, mend
from labwright.errors import Finding, HostError, SpecError
from labwright.lab import Lab, Options
from labwright.phases import diagnosis
from labwright.phases.diagnosis import Diagnosis


def doctor(lab: str, *, as_data: bool, fix: bool, yes: bool) -> None:
    """Print what is wrong with this host, by provider; end with 3 where no provider works."""
    with session(Options(lab=lab, yes=yes, lenient=True)) as (it, console):
        if as_data and fix:
            what, do = "--json and --fix do not go together", "mend first, then ask for JSON"
            raise SpecError(Finding("spec.json-and-fix", "error", what, fix=do))
        found = it.doctor()
        if fix:
            found = _mend(it, found, console)
        if as_data:
            told = as_json(found.report, diagnosis.facts(found.checkup))
            console.raw(json.dumps(told, indent=2, sort_keys=True) + "\n")
        else:
            _print(it, found, console)
        if not found.report.works:
            end(HostError.exit_code)


def support(lab: str, to: str) -> None:
    """Pack what others need to see of a lab, and say what is inside."""
    with session(Options(lab=lab, lenient=True)) as (it, console):
        path, names = it.support(Path(to or ".").expanduser().resolve())
        for name in names:
            console.print(f"  {name}")
        console.print(f"{path}: {len(names)} files, {path.stat().st_size / 1e6:.1f} MB")
        console.print("secrets are masked; read it before you send it")


def _print(it: Lab, found: Diagnosis, console: Console) -> None:
    console.rows(_facts(found.checkup))
    report = found.report
    if report.host:
        console.print()
        console.print("this host:")
        for finding in report.host:
            console.finding(finding)
    for verdict in report.verdicts:
        _verdict(verdict, report, console)
    if found.lab:
        console.print()
        console.print(f"lab {it.name}:")
        for finding in found.lab:
            console.finding(finding)
    if mend.remedies(found.checkup, report.findings):
        console.print()
        console.print("./invokew lab.doctor --fix mends some of this; it shows each command first")


def _verdict(verdict: Verdict, report: Report, console: Console) -> None:
    console.print()
    if verdict.works:
        console.print(f"{verdict.provider}: can work")
    else:
        causes = [f.what for f in verdict.findings if f.level == "error"]
        console.print(f"{verdict.provider}: cannot work, because {'; '.join(causes)}")
    for finding in verdict.findings:
        if finding not in report.host:
            console.finding(finding)


def _mend(it: Lab, found: Diagnosis, console: Console) -> Diagnosis:
    """Offer each remedy, its commands first; measure again where something was done."""
    done = False
    for remedy in mend.remedies(found.checkup, found.report.findings):
        console.print(f"{remedy.title}:")
        for command in remedy.commands:
            console.print(f"  {command.shown()}")
        console.print(f"  to undo it: {remedy.undo}")
        if it.options.yes or it.options.ask("Do it?"):
            diagnosis.apply(it.tools, remedy)
            done = True
        else:
            console.print("  left as it is: not confirmed (answer yes, or give --yes)")
    return it.doctor() if done else found


def _facts(checkup: Checkup) -> list[tuple[str, str]]:
    facts, cpu, kvm = checkup.host, checkup.cpu, checkup.kvm
    docker = f"API {facts.docker_api}" if facts.docker_api else f"no: {facts.docker_why}"
    virtual = cpu.virtualization or "no hardware virtualization"
    boots = {True: "a guest boots", False: "guests do not all boot", None: kvm.why}[kvm.boots]
    system = checkup.system
    disk = f", {system.sync_ms:.1f} ms a synced write" if system.sync_ms is not None else ""
    free = f", {system.memory_available} MiB available" if system.memory_available else ""
    tools = facts.tools.items()
    return [
        ("system", f"{facts.os} {facts.os_version}, kernel {facts.kernel}, {facts.arch}"),
        ("processor", f"{facts.cpus} x {cpu.model or 'unknown'}, {virtual}"),
        ("memory", f"{facts.memory} MiB{free}"),
        ("disk", f"{facts.disk_free} MiB free in the cache folder{disk}"),
        ("programs", ", ".join(f"{n} {t.version or ''}".strip() for n, t in tools)),
        ("Docker", docker + (f", {checkup.docker.driver}" if checkup.docker.driver else "")),
        ("cgroups", f"version {facts.cgroup}"),
        ("KVM", f"{'opens' if facts.kvm else 'no'}; {boots}"),
        ("VirtualBox driver", "loaded" if facts.vboxdrv else "no"),
        ("networks in use", ", ".join(f"{n.network} ({n.owner})" for n in facts.networks)),
        ("name servers", ", ".join(map(str, facts.nameservers)) or "none"),
        *((f"vendor {name}", answer) for name, answer in facts.upstream.items()),
    ]
