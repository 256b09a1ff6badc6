"""Pack what others need to see of a lab into one archive: what is listed here, nothing else."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from labwright import __version__, known
from labwright.doctor import Checkup, as_json, examine
from labwright.errors import Finding, HostError, LabError, SpecError
from labwright.locate import read_plan
from labwright.phases.base import Run
from labwright.phases.boot import read_machines
from labwright.phases.diagnosis import facts
from labwright.tools.redact import is_secret, redact, values
from labwright.tools.ssh import Ssh
from labwright.tools.workdir import refused

# What is taken of a lab's folder; a name that says secret is left out even where one fits.
TAKEN = (
    "journal.jsonl",
    "plan.json",
    "lab.lock",
    "source",
    "software.json",
    "Vagrantfile",
    "inventory/*.yml",
    "logs/*.log",
    "report/*.xml",
    "ansible/artifacts/*/stdout",
    "ansible/artifacts/*/stderr",
    "ansible/artifacts/*/rc",
)
# The end of a file is what failed last; in bytes.
LARGEST = 2 * 2**20
NODE_DEADLINE = 45.0
LINES = 3000
JOURNAL = "sudo journalctl --no-pager --output short-iso --lines {lines} --unit {unit}"
KUBECTL = "sudo kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout 15s {ask}"
# Nothing here reads a Secret, a ConfigMap or an object's whole text.
ON_NODES: Mapping[str, str] = {
    "kubelet.log": JOURNAL.format(lines=LINES, unit="kubelet"),
    "containerd.log": JOURNAL.format(lines=LINES, unit="containerd"),
    "system.txt": "uname -a; df -h; free -m; ip -brief address; ip route; sudo crictl ps -a "
    "2>/dev/null || sudo ctr -n k8s.io containers ls; systemctl --failed --no-pager",
}
ON_CONTROL_PLANE: Mapping[str, str] = {
    "nodes.txt": KUBECTL.format(ask="get nodes -o wide"),
    "pods.txt": KUBECTL.format(ask="get pods -A -o wide"),
    "events.txt": KUBECTL.format(ask="get events -A --sort-by .lastTimestamp"),
}


def archive(target: Path, lab: str) -> Path:
    """Give the archive's path: in a folder it is named after the lab and the time.

    What does not end in .tar.gz is a folder, there or to be made. Raises SpecError where a file is
    in the way.
    """
    if target.exists() and not target.is_dir():
        what, why = f"{target} is there already", "what is in a file is never overwritten"
        fix = "name a folder, or a .tar.gz that is not there yet"
        raise SpecError(Finding("spec.target-exists", "error", what, why, fix))
    if target.name.endswith(".tar.gz") and not target.is_dir():
        return target
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    return target / f"labwright-{lab}-{stamp}.tar.gz"


def pack(run: Run, checkup: Checkup, target: Path) -> tuple[Path, list[str]]:
    """Write the archive, readable by its owner only; give it and the names inside.

    Raises HostError where it cannot be written.
    """
    secrets = values(run.workdir.path)
    texts = {"doctor.json": _doctor(checkup), **_files(run), **_nodes(run)}
    clean = {name: redact(text, secrets) for name, text in texts.items()}
    clean["known.txt"] = _known(clean)
    clean["README.txt"] = _readme(run, clean)
    try:
        _write(target, dict(sorted(clean.items())))
    except OSError as error:
        raise refused(error, target) from error
    return target, sorted(clean)


def _doctor(checkup: Checkup) -> str:
    data = as_json(examine(checkup), facts(checkup))
    return json.dumps(data, indent=1, sort_keys=True) + "\n"


def _files(run: Run) -> dict[str, str]:
    root = run.workdir.path
    found = sorted(path for pattern in TAKEN for path in root.glob(pattern))
    return {
        f"lab/{path.relative_to(root)}": _tail(path)
        for path in found
        if path.is_file() and not path.is_symlink() and not is_secret(path)
    }


def _tail(path: Path) -> str:
    """Give the end of a file; from a whole line on, so that no mask misses half a secret."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - LARGEST))
        text = file.read().decode(errors="replace")
    return text if size <= LARGEST else _from_a_line_on(text, size - LARGEST)


def _from_a_line_on(text: str, left_out: int) -> str:
    return f"(the first {left_out} bytes are left out)\n" + text.partition("\n")[2]


def _nodes(run: Run) -> dict[str, str]:
    """Ask each node that answers, all at the same time; say so where one does not."""
    machines = list(read_machines(run.workdir))
    if not machines:
        return {}
    ssh = Ssh(run.tools.shell, run.workdir.ssh_config)
    asked = [*_questions(run, machines)]
    with ThreadPoolExecutor(8) as pool:
        said = pool.map(lambda question: _ask(ssh, *question[:2]), asked)
        return {
            f"nodes/{node}/{name}": text for (node, _c, name), text in zip(asked, said, strict=True)
        }


def _questions(run: Run, machines: list[str]) -> Iterator[tuple[str, str, str]]:
    first = _first_control_plane(run)
    for node in machines:
        more = ON_CONTROL_PLANE if node == first else {}
        yield from ((node, command, name) for name, command in {**ON_NODES, **more}.items())


def _first_control_plane(run: Run) -> str:
    try:
        return read_plan(run.workdir).control_planes[0].name
    except HostError:
        return ""


def _ask(ssh: Ssh, node: str, command: str) -> str:
    try:
        said = ssh.run(node, command, NODE_DEADLINE)
    except LabError as error:
        return "\n".join([error.findings[0].what, *error.details]) + "\n"
    more = len(said) - LARGEST
    return said if more <= 0 else _from_a_line_on(said[more:], more)


def _known(texts: Mapping[str, str]) -> str:
    """Say what is known of the words in the logs: the place to begin reading."""
    lines = []
    for name, text in texts.items():
        if name != "doctor.json":
            lines += [_told(name, *seen) for seen in known.last_lines(text)]
    return "".join(lines) or "nothing in these files is known as a failure\n"


def _told(name: str, finding: Finding, line: str) -> str:
    return f"{name}: {finding.id}: {finding.what}\n  last: {line[:300]}\n  {finding.fix}\n"


def _readme(run: Run, texts: Mapping[str, str]) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S %z")
    head = (
        f"Lab {run.workdir.name}, packed by Labwright {__version__} on {when}.\n"
        "Keys, kubeconfig, passwords and certificates' keys are not here; what has the shape of a\n"
        "secret, or is one of this lab's, was masked in every file. Begin with known.txt: what it\n"
        "quotes may be over, as a lab that comes up says some of it too.\n\n"
    )
    return head + "".join(
        f"{name}  {len(text.encode())} bytes\n" for name, text in sorted(texts.items())
    )


def _write(target: Path, texts: Mapping[str, str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        part.touch(mode=0o600)
        with tarfile.open(part, "w:gz") as tar:
            for name, text in texts.items():
                data = text.encode()
                entry = tarfile.TarInfo(f"{target.name.removesuffix('.tar.gz')}/{name}")
                entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
                tar.addfile(entry, io.BytesIO(data))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
