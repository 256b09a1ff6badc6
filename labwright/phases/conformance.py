"""Run Kubernetes' own conformance tests on a lab that is up, and leave the lab as it was."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labwright import conformance, keys
from labwright.errors import Finding, LabError, VerifyError
from labwright.events import mask
from labwright.phases.base import Run
from labwright.phases.boot import any_answers
from labwright.phases.converge import supplied
from labwright.phases.fetch import ensure, stock
from labwright.phases.preflight import with_host_packages
from labwright.phases.retire import ADMIN
from labwright.supplies import packages
from labwright.tools.ociserve import Registry
from labwright.tools.ssh import Ssh
from labwright.tools.workdir import write

NAMESPACE = "labwright-conformance"
IMAGES = "conformance-images"
DEADLINE = 3 * 3600.0
"""Seconds for all tests."""
PULL = 900.0
"""Seconds until the tests' own image is there and they start."""
RESULTS = "/tmp/results"  # noqa: S108 - in a pod of its own
PROJECT = "registry.k8s.io"
"""The registry that all images of the tests are named by."""
_HOSTS = f"/etc/containerd/certs.d/{PROJECT}"
# As containerd's documentation of its registries has it; a mirror that the lab has is put aside.
_MIRROR = f"""\
set -eu
sudo mkdir -p {_HOSTS}
cd {_HOSTS}
test -e aside || ! test -e hosts.toml || sudo mv hosts.toml aside
sudo tee hosts.toml >/dev/null
"""
_TOML = 'server = "https://{project}"\n\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'
# Prints which names of images go. An image has three, and the third, its id, may be that of one of
# the lab's own images too, as with pause: crictl would remove all names of both.
SURPLUS = """
  BEGIN { split(refs, listed, " "); for (i in listed) ours[listed[i]] }
  NR == 1 { next }
  $1 ~ /^sha256:/ { id[$1] = $3; next }
  $1 ~ /@sha256:/ { digest[$1] = $3; next }
  $1 in ours { gone[$3]; print $1; next }
  { kept[$3] }
  END {
    for (name in digest)
      if (digest[name] in gone && index(name, project "/") == 1) print name
    for (name in id)
      if (id[name] in gone && !(id[name] in kept)) print name
  }
"""
_FORGET = f"""\
sudo rm -f {_HOSTS}/hosts.toml
! test -e {_HOSTS}/aside || sudo mv {_HOSTS}/aside {_HOSTS}/hosts.toml
sudo rmdir --ignore-fail-on-non-empty {_HOSTS}
sudo ctr --namespace k8s.io images list |
  awk -v project={PROJECT} -v refs='REFS' '{SURPLUS}' |
  xargs --no-run-if-empty sudo ctr --namespace k8s.io images rm >/dev/null
"""


@dataclass(frozen=True, slots=True)
class Collect:
    """Ends with the tests and their images in the store, where the lab is built from packages."""

    name: str = "collect"

    def title(self, run: Run) -> str:
        """Name the version."""
        return f"Get the conformance tests of Kubernetes {run.plan.versions['kubernetes']}"

    def skip(self, run: Run) -> str | None:
        """Skip where the nodes fetch the project's own image."""
        if run.plan.supply != "packages":
            return "the nodes pull the project's own images"
        places = _places(run)
        lacking = [a for a in _artifacts(run) if not run.tools.store.has(places[a.id])]
        return None if lacking else "the store has them"

    def outline(self, run: Run) -> list[str]:
        """Name what would be built."""
        return [f"build {artifact.title}" for artifact in _artifacts(run)]

    def execute(self, run: Run) -> None:
        """Build what is missing. Raises SupplyError, HostError."""
        places = _places(run)
        own = _artifacts(run)
        needs = {need for artifact in own for need in artifact.needs}
        wanted = [*(a for a in run.plan.artifacts if a.id in needs), *own]
        lacking = [a for a in wanted if not run.tools.store.has(places[a.id])]
        with_host_packages(run, lacking)
        for artifact in lacking:
            ensure(run, artifact, places=places)
        run.conclude(", ".join(artifact.id for artifact in lacking))


@dataclass(frozen=True, slots=True)
class Conform:
    """Ends with a report of the tests in ``report/conformance``.

    ``focus`` and ``skip_tests`` are regular expressions on the names of conformance tests, and
    ``processes`` is how many run side by side.
    """

    focus: str = ""
    skip_tests: str = ""
    processes: int = 4
    name: str = "conformance"

    def title(self, run: Run) -> str:
        """Name the version."""
        return f"Run the conformance tests of Kubernetes {run.plan.versions['kubernetes']}"

    def skip(self, run: Run) -> str | None:
        """Never: what it finds is what is asked for."""
        return None

    def outline(self, run: Run) -> list[str]:
        """Name the report."""
        return [f"run the tests in a pod, write {folder(run)}"]

    def execute(self, run: Run) -> None:
        """Run the tests. Raises VerifyError: one of them failed, or they did not run."""
        if not any_answers(run):
            what, why = f"no machine of lab {run.workdir.name} answers", "they are halted"
            raise VerifyError(Finding("conformance.halted", "error", what, why, "./invokew lab.up"))
        started = time.monotonic()
        with _images(run), _pod(run, self):
            _follow(run)
            target = _fetch(run)
        try:
            tests = conformance.read(target)
        except ValueError as error:
            what = "the report of the conformance tests cannot be read"
            raise VerifyError(
                Finding("conformance.report", "error", what, str(error), where=str(target))
            ) from error
        seconds = time.monotonic() - started
        head = _head(run, self, seconds)
        write(folder(run) / "table.md", mask(conformance.table(tests, head)))
        counted = conformance.count(tests)
        if not tests:
            what, fix = f"no conformance test's name matches {self.focus}", "choose another --focus"
            raise VerifyError(Finding("conformance.none", "error", what, fix=fix))
        if failed := [test for test in tests if test.outcome == "failed"]:
            raise VerifyError(
                Finding(
                    "conformance.failed",
                    "error",
                    f"{test.sig} {test.name}",
                    test.why,
                    f"its whole output is in {folder(run) / 'e2e.log'}",
                )
                for test in failed
            )
        skipped = f", {counted['skipped']} skipped" if counted["skipped"] else ""
        run.conclude(f"{counted['passed']} passed{skipped}")


def folder(run: Run) -> Path:
    """Return the folder of the report: ``junit.xml``, ``e2e.log`` and ``table.md``."""
    return run.workdir.path / "report/conformance"


def _artifacts(run: Run) -> tuple[Any, ...]:
    return packages.conformance(run.plan.versions["kubernetes"])


def _places(run: Run) -> dict[str, str]:
    places = dict(run.plan.keys)
    for artifact in _artifacts(run):
        needs = {need: places[need] for need in artifact.needs}
        places[artifact.id] = keys.key(artifact, needs, keys.REVISION[artifact.recipe])
    return places


def _head(run: Run, asked: Conform, seconds: float) -> dict[str, str]:
    plan = run.plan
    workers = len(plan.workers)
    chosen = (f"`{asked.focus}`" if asked.focus else "all") + (
        f" without `{asked.skip_tests}`" if asked.skip_tests else ""
    )
    return {
        "Kubernetes": plan.versions["kubernetes"],
        "containerd": plan.versions["containerd"],
        "supply": plan.supply,
        "provider": plan.provider,
        "nodes": f"{len(plan.control_planes)} control plane, {workers} workers",
        "tests": f"{chosen}, {asked.processes} side by side",
        "time": f"{seconds / 60:.0f} min",
    }


@contextlib.contextmanager
def _images(run: Run) -> Iterator[None]:
    """Have the nodes pull the images that were built here, and take them away again."""
    if run.plan.supply != "packages":
        yield
        return
    place = run.tools.store.path(_places(run)[IMAGES])
    listed: Mapping[str, Any] = json.loads((place / "images.json").read_text("utf-8"))
    ssh = Ssh(run.tools.shell, run.workdir.ssh_config)
    nodes = [node.name for node in run.plan.nodes if node.in_cluster]
    forget = _FORGET.replace("REFS", " ".join(image["ref"] for image in listed.values()))
    with supplied(run, {}, Registry(place)) as url, ThreadPoolExecutor(len(nodes)) as pool:
        toml = _TOML.format(project=PROJECT, url=url)
        try:
            list(pool.map(lambda node: ssh.run(node, _MIRROR, timeout=60, stdin=toml), nodes))
            yield
        finally:
            list(pool.map(lambda node: _quietly(ssh, node, forget), nodes))


@contextlib.contextmanager
def _pod(run: Run, asked: Conform) -> Iterator[None]:
    """Start the tests in a pod, and take all of theirs away at the end."""
    _kubectl(run, "apply -f -", stdin=json.dumps(_manifest(run, asked)))
    try:
        yield
    finally:
        run.step("remove what the tests have left")
        # Of tests that were cut short the namespaces are left.
        for words in (
            f"delete namespace {NAMESPACE} --ignore-not-found --timeout=120s",
            "delete namespace --selector e2e-framework --ignore-not-found --timeout=300s",
            f"delete clusterrolebinding {NAMESPACE} --ignore-not-found",
        ):
            with contextlib.suppress(LabError):
                _kubectl(run, words, timeout=330)


def _manifest(run: Run, asked: Conform) -> dict[str, Any]:
    """Return the pod that runs the tests, with all it needs to be allowed to."""
    busybox = stock(run).images["busybox"]["ref"]
    version = run.plan.versions["kubernetes"]
    named = {"name": NAMESPACE, "namespace": NAMESPACE}
    volume = [{"name": "results", "mountPath": RESULTS}]
    env = {
        "E2E_FOCUS": conformance.focus(asked.focus),
        "E2E_SKIP": asked.skip_tests,
        "E2E_PROVIDER": "skeleton",
        "E2E_EXTRA_GINKGO_ARGS": f"--procs={asked.processes} -v",
        "RESULTS_DIR": RESULTS,
    }
    items = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": NAMESPACE},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{"kind": "ServiceAccount", **named}],
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": named,
            "spec": {
                "serviceAccountName": NAMESPACE,
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                # Tests taint nodes, and let pods of high priority push others out.
                "priorityClassName": "system-cluster-critical",
                "tolerations": [{"operator": "Exists"}],
                "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
                "volumes": [{"name": "results", "emptyDir": {}}],
                "containers": [
                    {
                        "name": "tests",
                        "image": f"{PROJECT}/conformance:v{version}",
                        "imagePullPolicy": "IfNotPresent",
                        "env": [{"name": k, "value": v} for k, v in env.items()],
                        "volumeMounts": volume,
                    },
                    {
                        "name": "results",
                        "image": busybox,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sleep", "1000000"],
                        "volumeMounts": volume,
                    },
                ],
            },
        },
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _follow(run: Run) -> None:
    """Wait until the tests have ended. Raises VerifyError: they do not start, or take too long."""
    begin = time.monotonic()
    running = False
    while True:
        state = _state(run)
        if "terminated" in state:
            return
        now = time.monotonic() - begin
        if "running" in state:
            running = True
            run.step(_progress(run))
        limit = DEADLINE if running else PULL
        if now > limit * run.plan.patience:
            waiting = state.get("waiting", {})
            said = waiting.get("message") or waiting.get("reason") or "nothing"
            what = (
                f"the conformance tests have not ended within {limit / 60:.0f} min"
                if running
                else "the conformance tests do not start"
            )
            fix = (
                "choose fewer with --focus"
                if running
                else "the nodes must reach registry.k8s.io, or a mirror of it in lab.yaml"
            )
            finding = Finding("conformance.late", "error", what, f"last seen: {said}", fix)
            raise VerifyError(finding)
        time.sleep(5)


def _state(run: Run) -> Mapping[str, Any]:
    """Return the state of the tests' container; empty while the API does not say."""
    try:
        pod = json.loads(_kubectl(run, f"-n {NAMESPACE} get pod {NAMESPACE} -o json"))
    except LabError:
        # A test may keep the API busy for a while.
        return {}
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return next((s["state"] for s in statuses if s["name"] == "tests"), {})


_TOTAL = re.compile(r"Will run (\d+) of \d+ specs")
_ENDED = re.compile(r"(?m)^• (\[FAILED\] )?\[")


def _progress(run: Run) -> str:
    # Two lines of a log of many megabytes.
    ask = (
        f"-n {NAMESPACE} exec {NAMESPACE} -c results -- sh -c "
        f'\'grep -m1 -o "Will run [0-9]* of [0-9]* specs" {RESULTS}/e2e.log; '
        f'grep -o "^• *\\[[A-Z]*" {RESULTS}/e2e.log | sort | uniq -c\''
    )
    try:
        said = _kubectl(run, ask)
    except LabError:
        return "the tests run"
    total = _TOTAL.search(said)
    ended = sum(int(n) for n in re.findall(r"(?m)^\s*(\d+) •", said))
    failed = sum(int(n) for n in re.findall(r"(?m)^\s*(\d+) • *\[FAILED", said))
    of = f" of {total[1]}" if total else ""
    return f"{ended}{of} tests have ended" + (f", {failed} failed" if failed else "")


def _fetch(run: Run) -> Path:
    """Copy the report and the log, and return the report's path. Raises VerifyError."""
    target = folder(run)
    target.mkdir(parents=True, exist_ok=True)
    for theirs, ours in (("e2e.log", "e2e.log"), ("junit_01.xml", "junit.xml")):
        ask = f"-n {NAMESPACE} exec {NAMESPACE} -c results -- cat {RESULTS}/{theirs}"
        try:
            write(target / ours, _kubectl(run, ask, timeout=120))
        except LabError as error:
            log = target / "e2e.log"
            said = log.read_text("utf-8").splitlines()[-20:] if log.is_file() else error.details
            what = f"the conformance tests ended without a report ({theirs})"
            raise VerifyError(Finding("conformance.no-report", "error", what), said) from error
    return target / "junit.xml"


def _kubectl(run: Run, words: str, *, stdin: str | None = None, timeout: float = 60) -> str:
    ssh = Ssh(run.tools.shell, run.workdir.ssh_config)
    first = run.plan.control_planes[0].name
    command = f"sudo kubectl {ADMIN} {words}"
    return ssh.run(first, command, timeout=timeout * run.plan.patience, stdin=stdin)


def _quietly(ssh: Ssh, node: str, command: str) -> None:
    with contextlib.suppress(LabError):
        ssh.run(node, command, timeout=120)
