"""How long `lab.up` takes, as a ratio to the floor: the same three nodes brought up by hand.

    .venv/bin/python -m bench.up [rounds]

The floor starts the same containers from the same baked image, runs `kubeadm init` and two joins
side by side, and waits until all three nodes are Ready: no Vagrant, no Ansible, no proof. Both
are timed in turn in one run, because the same machine is half as fast an hour later. The same lab
from a bundle is timed too: on an empty cache, with nothing baked, and again.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from labwright.locate import read_plan
from labwright.model import Node, Plan
from labwright.tools.workdir import Workdir

ROOT = Path(__file__).resolve().parent.parent
INVOKEW = str(ROOT / "invokew")
NET = "labwright-bench-hand"
ADMIN = "--kubeconfig=/etc/kubernetes/admin.conf"


def run(*words: str, stdin: str | None = None, cwd: Path | None = None, **env: str) -> str:
    more = {**os.environ, **env}
    done = subprocess.run(
        words, input=stdin, cwd=cwd, env=more, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)[:200]}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def inside(node: str, script: str, stdin: str | None = None) -> str:
    return run("docker", "exec", "-i", f"{NET}-{node}", "sh", "-ec", script, stdin=stdin)


def timed(act: Callable[[], object]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start


def by_hand(plan: Plan) -> None:
    """Bring the plan's cluster up with docker and kubeadm alone."""
    options = (f"--subnet={plan.subnet}", f"--gateway={plan.host_address}")
    run("docker", "network", "create", *options, NET)
    for node in plan.nodes:
        run(
            *("docker", "run", "-d", "--name", f"{NET}-{node.name}", "-h", node.name),
            *plan.node_args,
            plan.node_image,
        )
        address = str(node.address.ip)
        run("docker", "network", "connect", "--ip", address, NET, f"{NET}-{node.name}")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda node: prepare(plan, node), plan.nodes))
    first = plan.control_planes[0]
    config = kubeadm_config(plan, first)
    skip = "--skip-phases=preflight,addon/coredns"
    inside(first.name, f"cat > /tmp/k.yaml; kubeadm init {skip} --config /tmp/k.yaml", config)
    join = inside(first.name, "kubeadm token create --print-join-command").strip()
    with ThreadPoolExecutor() as pool:
        command = f"{join} --skip-phases=preflight"
        list(pool.map(lambda node: inside(node.name, command), plan.workers))
    inside(
        first.name,
        f"kubectl {ADMIN} wait --for=condition=Ready node --all --timeout=120s",
    )


def prepare(plan: Plan, node: Node) -> None:
    """Write a node's CNI configuration, routes and kubelet options."""
    bridge = {
        "cniVersion": "0.4.0",
        "name": "hand",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": str(node.pods)}]]},
            }
        ],
    }
    routes = "; ".join(
        f"ip route replace {other.pods} via {other.address.ip}"
        for other in plan.nodes
        if other != node
    )
    script = (
        "until systemctl is-active -q containerd; do sleep 0.1; done; "
        "mkdir -p /etc/cni/net.d; cat > /etc/cni/net.d/10-hand.conflist; "
        f"echo KUBELET_EXTRA_ARGS=--node-ip={node.address.ip} > /etc/default/kubelet; "
        + (routes or "true")
    )
    inside(node.name, script, json.dumps(bridge))


def kubeadm_config(plan: Plan, first: Node) -> str:
    api = "kubeadm.k8s.io/v1beta4"
    ref = {"imageRepository": plan.image_repository}
    documents = [
        {
            "apiVersion": api,
            "kind": "InitConfiguration",
            "localAPIEndpoint": {"advertiseAddress": str(first.address.ip)},
            "nodeRegistration": {"criSocket": "unix:///run/containerd/containerd.sock"},
        },
        {
            "apiVersion": api,
            "kind": "ClusterConfiguration",
            "kubernetesVersion": f"v{plan.versions['kubernetes']}",
            **ref,
            "etcd": {"local": {**ref, "imageTag": plan.versions["etcd"]}},
            "networking": {"serviceSubnet": str(plan.services)},
        },
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": plan.facts.cgroup_driver,
            "failSwapOn": False,
            **({"failCgroupV1": False} if plan.facts.cgroup == 1 else {}),
        },
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "conntrack": {"maxPerCore": 0, "min": 0},
        },
    ]
    return yaml.safe_dump_all(documents)


def clear_hand(plan: Plan) -> None:
    names = [f"{NET}-{node.name}" for node in plan.nodes]
    subprocess.run(["docker", "rm", "-f", "-v", *names], capture_output=True, check=False)
    subprocess.run(["docker", "network", "rm", NET], capture_output=True, check=False)


def from_bundle(root: Path, note: Callable[[str, float], None]) -> None:
    """Bring the lab up from its bundle: on an empty cache, and then on that."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        there = Path(folder) / "lab"
        there.mkdir()
        (there / "lab.yaml").write_text("name: bench\n", encoding="utf-8")
        words = (INVOKEW, "lab.up", "--yes", f"--supply=bundle:{root / 'bundle'}")
        env = {"XDG_CACHE_HOME": str(Path(folder) / "cache")}
        for name in ("bundle, empty cache, baking", "bundle, again"):
            note(name, timed(lambda: run(*words, cwd=there, **env)))
            image = read_plan(Workdir(there, "bench")).node_image
            run(INVOKEW, "lab.destroy", "--yes", cwd=there, **env)
        run("docker", "image", "rm", image)


def main(rounds: int) -> None:
    figures: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        figures.setdefault(name, []).append(seconds)
        print(f"{name:<28}{seconds:7.1f} s", flush=True)

    with tempfile.TemporaryDirectory(prefix="labwright-bench-") as folder:
        root = Path(folder)
        (root / "lab.yaml").write_text("name: bench\n", encoding="utf-8")
        # The first up also fetches and bakes what is missing: it warms up and is not counted.
        run(INVOKEW, "lab.up", "--yes", cwd=root)
        plan = read_plan(Workdir(root, "bench"))
        run(INVOKEW, "bundle.make", str(root / "bundle"), "--yes", cwd=root)
        for _ in range(rounds):
            run(INVOKEW, "lab.destroy", "--yes", cwd=root)
            clear_hand(plan)
            try:
                note("by hand", timed(lambda: by_hand(plan)))
            finally:
                clear_hand(plan)
            note("lab.up from nothing", timed(lambda: run(INVOKEW, "lab.up", "--yes", cwd=root)))
            note("lab.up on what is up", timed(lambda: run(INVOKEW, "lab.up", "--yes", cwd=root)))
            note("lab.plan", timed(lambda: run(INVOKEW, "lab.plan", cwd=root)))
            run(INVOKEW, "lab.destroy", "--yes", cwd=root)
            from_bundle(root, note)
    middle = {name: statistics.median(values) for name, values in figures.items()}
    print(f"\nmedian of {rounds}; ratio to the floor:")
    for name, seconds in middle.items():
        print(f"{name:<28}{seconds:7.1f} s {seconds / middle['by hand']:6.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
