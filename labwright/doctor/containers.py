"""Rules about Docker and the kernel that container nodes share with the host."""

from __future__ import annotations

from labwright.doctor.facts import Checkup
from labwright.doctor.rule import Hit, Rule, lab_up_starts, rule
from labwright.model import ProviderName

DOCKER: tuple[ProviderName, ...] = ("docker",)
# Drivers that copy whole layers, or that Docker has dropped.
SLOW_DRIVERS = frozenset({"vfs", "devicemapper", "aufs", "overlay"})
ROOT_LEAST, ROOT_GOOD = 2 * 1024, 6 * 1024
# A kubelet alone takes dozens; Linux's default of 128 is used up by one busy node.
INSTANCES, WATCHES = 512, 65536
OPEN_FILES = 16384


@rule(
    "docker.denied",
    "Docker runs and refuses this user",
    "error",
    DOCKER,
    "https://docs.docker.com/engine/security/#docker-daemon-attack-surface",
)
def denied(c: Checkup) -> Hit | None:
    """Nothing that --fix would do: who is in the group docker is as good as root."""
    if "permission denied" not in c.host.docker_why.lower():
        return None
    return Hit(
        "this user may not use Docker",
        c.host.docker_why,
        "run as root; or, knowing that members of the group docker are as good as root: "
        "sudo usermod -aG docker $USER, then log in again",
    )


@rule(
    "docker.stopped",
    "Docker is installed and does not run",
    "warning",
    DOCKER,
    "https://docs.docker.com/engine/daemon/start/",
)
def stopped(c: Checkup) -> Hit | None:
    """`lab.up` starts it, after asking."""
    if c.host.docker_api or "dockerd" not in c.host.tools or denied.check(c):
        return None
    return Hit("Docker does not run", c.host.docker_why, lab_up_starts(c, "docker"))


@rule(
    "docker.missing",
    "Docker is not here, and nothing that `lab.up` could install it with",
    "error",
    DOCKER,
    "https://docs.docker.com/engine/install/",
)
def missing(c: Checkup) -> Hit | None:
    """Where there is apt, `lab.up` installs docker.io, after asking."""
    if c.host.docker_api or {"dockerd", "apt-get"} & set(c.host.tools) or denied.check(c):
        return None
    return Hit(
        "Docker is not installed",
        "no daemon answers, and neither dockerd nor apt-get is on the PATH",
        "install Docker 20.10 or later",
    )


@rule(
    "docker.rootless",
    "the Docker daemon runs without root",
    "error",
    DOCKER,
    "https://docs.docker.com/engine/security/rootless/",
)
def rootless(c: Checkup) -> Hit | None:
    """Nodes need capabilities over the host's kernel that a rootless daemon cannot give."""
    if not c.docker.rootless:
        return None
    return Hit(
        "a rootless Docker cannot run nodes",
        "docker info lists name=rootless",
        "use the system's daemon: docker context use default",
    )


@rule(
    "docker.storage-driver",
    "Docker stores images with a slow or dropped driver",
    "warning",
    DOCKER,
    "https://docs.docker.com/engine/storage/drivers/select-storage-driver/",
)
def storage_driver(c: Checkup) -> Hit | None:
    """A vfs copies each layer whole; three nodes then take gigabytes and minutes."""
    if c.docker.driver not in SLOW_DRIVERS:
        return None
    return Hit(
        f"Docker's storage driver is {c.docker.driver}",
        f"docker info, root {c.docker.root}",
        "put Docker's folder on ext4 or xfs, where it takes overlay2; on overlayfs it cannot",
    )


@rule(
    "docker.disk",
    "little space in Docker's folder",
    "warning",
    DOCKER,
    "https://docs.docker.com/engine/manage-resources/pruning/",
)
def disk(c: Checkup) -> Hit | None:
    """Node images and each node's /var lie there."""
    free = c.docker.root_free
    if free is None or free >= ROOT_GOOD:
        return None
    return Hit(
        f"{free} MiB are free where Docker keeps images and volumes",
        f"{c.docker.root}; three nodes take about 2 GB, and as much again while they are made"
        + ("" if free >= ROOT_LEAST else "; a lab will not fit"),
        "docker system df shows what takes it; ./invokew lab.destroy of labs that are done with",
    )


@rule(
    "docker.sys-resource",
    "this host withholds CAP_SYS_RESOURCE",
    "note",
    DOCKER,
    "https://github.com/moby/moby/issues/42906",
)
def sys_resource(c: Checkup) -> Hit | None:
    """Worked around: capabilities by name, and containerd leaves oom scores alone."""
    if not c.host.root or "CAP_SYS_RESOURCE" in c.host.caps or not c.host.caps:
        return None
    return Hit(
        "this host withholds CAP_SYS_RESOURCE; the lab is set up for that",
        "CapBnd in /proc/self/status; --privileged fails here, and no oom score can be lowered",
        "nothing to do; pods are not protected from the kernel's out-of-memory killer",
    )


@rule(
    "docker.cgroup-v1",
    "the host is on cgroup v1",
    "warning",
    DOCKER,
    "https://github.com/k0sproject/k0s/pull/7264",
    pains=(17,),
)
def cgroup_v1(c: Checkup) -> Hit | None:
    """Kubelet 1.35 to 1.37 start there only when told to, as the lab does, and later ones never."""
    if c.host.cgroup == 2:
        return None
    return Hit(
        "this host is on cgroup v1, which Kubernetes is giving up",
        "/sys/fs/cgroup/cgroup.controllers is not there; Kubernetes up to 1.37 can be told to run",
        "boot with systemd.unified_cgroup_hierarchy=1",
    )


@rule(
    "docker.memory-cgroup",
    "the kernel has no memory control group",
    "error",
    DOCKER,
    "https://github.com/kubernetes/kubernetes/issues/94329",
)
def memory_cgroup(c: Checkup) -> Hit | None:
    """Off by default on Raspberry Pi."""
    if not c.kernel.controllers or "memory" in c.kernel.controllers:
        return None
    return Hit(
        "the kernel's memory control group is off",
        f"there are {', '.join(sorted(c.kernel.controllers))}",
        "add cgroup_enable=memory to the kernel's command line and restart",
    )


@rule(
    "docker.inotify",
    "low limits of inotify",
    "warning",
    DOCKER,
    "https://github.com/k0sproject/k0s/issues/8113",
)
def inotify(c: Checkup) -> Hit | None:
    """One limit per user for the whole host: all nodes' kubelets and containers share it."""
    instances, watches = c.kernel.inotify_instances, c.kernel.inotify_watches
    if instances is None or watches is None or (instances >= INSTANCES and watches >= WATCHES):
        return None
    return Hit(
        "several nodes may use up the host's limit of inotify: `too many open files`",
        f"fs.inotify.max_user_instances={instances}, max_user_watches={watches}; "
        f"{INSTANCES} and {WATCHES} are enough for a few nodes",
        f"sudo sysctl -w fs.inotify.max_user_instances={INSTANCES} "
        f"fs.inotify.max_user_watches={max(watches, WATCHES)}",
    )


@rule(
    "docker.open-files",
    "a low limit of open files",
    "warning",
    DOCKER,
    "https://github.com/containerd/containerd/issues/3201",
)
def open_files(c: Checkup) -> Hit | None:
    """What Docker's containers may open at most, where the daemon is started from here."""
    limit = c.kernel.open_files
    if limit is None or limit >= OPEN_FILES:
        return None
    return Hit(
        "few files may be open at a time",
        f"the hard limit is {limit} (ulimit -Hn)",
        "raise nofile in /etc/security/limits.conf, or start Docker by systemd",
    )


@rule(
    "docker.swap",
    "swap is on",
    "note",
    DOCKER,
    "https://github.com/kubernetes/kubeadm/issues/3017",
)
def swap(c: Checkup) -> Hit | None:
    """Container nodes cannot turn the host's swap off; their kubelets are told to bear it."""
    if not c.kernel.swap:
        return None
    return Hit(
        "swap is on, and pods of container nodes may be swapped out",
        f"{c.kernel.swap} MiB in /proc/meminfo",
        "nothing to do for a lab; sudo swapoff -a for one that is to behave like a server",
    )


@rule(
    "docker.overlay",
    "the kernel has no overlayfs",
    "error",
    DOCKER,
    "https://docs.docker.com/engine/storage/drivers/select-storage-driver/",
)
def overlay(c: Checkup) -> Hit | None:
    """Containerd in the nodes keeps images on it."""
    if c.kernel.overlay:
        return None
    return Hit(
        "the kernel has no overlayfs, which nodes keep images on",
        "not in /proc/filesystems",
        "sudo modprobe overlay",
    )


@rule(
    "docker.bridge-netfilter",
    "bridged traffic is not shown to iptables",
    "warning",
    DOCKER,
    "https://github.com/kubernetes/kubernetes/issues/67431",
)
def bridge_netfilter(c: Checkup) -> Hit | None:
    """A node's own kernel is the host's: nobody inside can load the module."""
    if c.kernel.bridge_netfilter:
        return None
    return Hit(
        "services will not work between pods of one node",
        "/proc/sys/net/bridge/bridge-nf-call-iptables is not there",
        "sudo modprobe br_netfilter",
    )


@rule(
    "docker.forward",
    "the firewall drops what is passed on, and Docker's rules are not there",
    "warning",
    DOCKER,
    "https://docs.docker.com/engine/network/firewall-iptables/",
)
def forward(c: Checkup) -> Hit | None:
    """Docker sets the policy itself and lets its own networks through; others do only the first."""
    if c.network.forward_policy != "DROP" or c.network.docker_chain or not c.host.docker_api:
        return None
    return Hit(
        "the firewall will drop the nodes' traffic",
        "the FORWARD policy is DROP, and there is no chain DOCKER-USER"
        + (f"; {c.network.firewall} is active" if c.network.firewall else ""),
        "restart Docker, which writes its rules anew: sudo systemctl restart docker",
    )


RULES: tuple[Rule, ...] = (
    denied,
    stopped,
    missing,
    rootless,
    storage_driver,
    disk,
    sys_resource,
    cgroup_v1,
    memory_cgroup,
    inotify,
    open_files,
    swap,
    overlay,
    bridge_netfilter,
    forward,
)
