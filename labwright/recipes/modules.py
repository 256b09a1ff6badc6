"""The Go modules that the ``packages`` supply compiles, and how each is told its version.

What goes into a program is pinned in ``data/go/<component>/<version>``: a main module of ours with
the hash of every module. A released go.mod may have ``replace`` lines, which Go reads in the main
module alone. ``invoke dev.pin`` writes these folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from labwright.recipes.base import DATA


@dataclass(frozen=True, slots=True)
class Program:
    """A component that is compiled from Go modules.

    ``modules`` are required at the component's version, ``packages`` are the import paths of its
    programs. ``stamps`` are the variables that its own build writes the version into: the name is
    a linker's, the value a format with ``version``, ``major`` and ``minor``. ``renamed`` gives a
    program another name than its package's. ``tags`` turns cgo on: such a program is linked
    statically with the C library.

    ``loss`` is what a lab without it lacks and ``addon`` whose program it is; a component without
    either is a part of every lab. ``own`` is the module path of mains that are ours, and
    ``instead`` the version of a requirement that takes the place of the module's own choice.

    ``beside`` names the component whose modules these programs are of: they are pinned with it.
    ``tests`` are packages whose tests become a program, called ``<package>.test``, and ``files``
    patterns of what is kept of the module's own files.
    """

    title: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    stamps: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    tags: str = ""
    loss: str = ""
    addon: str = ""
    own: str = ""
    instead: Mapping[str, str] = field(default_factory=dict)
    beside: str = ""
    tests: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The files that are made of it."""
        tests = (f"{_last(package)}.test" for package in self.tests)
        return (*(self.renamed.get(name, name) for name in map(_last, self.packages)), *tests)

    @property
    def main_module(self) -> str:
        """The path of the module that pins it."""
        return self.own or "labwright.local/programs"


def folder(component: str, version: str) -> Path:
    """Return the folder with ``go.mod`` and ``go.sum`` of one version of a component."""
    return DATA / "go" / (PROGRAMS[component].beside or component) / version


def pinned(component: str) -> tuple[str, ...]:
    """Return the versions of a component that are pinned."""
    return tuple(sorted(path.parent.name for path in folder(component, "").glob("*/go.mod")))


def _last(package: str) -> str:
    """Return a package's name; ``v3`` at the end of a path is the module's major version."""
    *_, before, last = ("", *PurePosixPath(package).parts)
    return before if last[:1] == "v" and last[1:].isdigit() else last


def _below(root: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{root}/{name}" for name in names)


_VERSION = "v{version}"
_KUBERNETES = "k8s.io/kubernetes"
_CLIENT = "k8s.io/client-go/pkg/version"
_COMPONENT = "k8s.io/component-base/version"
_CONTAINERD = "github.com/containerd/containerd/v2"
_CNI = "github.com/containernetworking/plugins"
_ETCD = "go.etcd.io/etcd"
_POLICIES = "labwright.local/kube-network-policies"
_CERT_MANAGER = "github.com/cert-manager/cert-manager"
# Both packages hold a copy of the version; some clients read major and minor alone.
_OF_KUBERNETES = {
    f"{package}.{name}": value
    for package in (_COMPONENT, _CLIENT)
    for name, value in {
        "gitVersion": _VERSION,
        "gitMajor": "{major}",
        "gitMinor": "{minor}",
        "gitTreeState": "archive",
    }.items()
}

PROGRAMS: Mapping[str, Program] = MappingProxyType(
    {
        "kubernetes": Program(
            "Kubernetes",
            (_KUBERNETES,),
            _below(
                f"{_KUBERNETES}/cmd",
                "kubeadm",
                "kubelet",
                "kubectl",
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kube-proxy",
            ),
            _OF_KUBERNETES,
        ),
        # Kubernetes' own tests of a cluster, with all that runs in their pods.
        "conformance": Program(
            "the conformance tests of Kubernetes",
            (),
            (
                *_below(f"{_KUBERNETES}/test/images", "agnhost", "nonewprivs"),
                f"{_KUBERNETES}/test/conformance/image/go-runner",
                "k8s.io/sample-apiserver",
                "github.com/onsi/ginkgo/v2/ginkgo",
            ),
            _OF_KUBERNETES,
            renamed={"go-runner": "kubeconformance", "nonewprivs": "nnp"},
            loss="conformance tests",
            beside="kubernetes",
            tests=(f"{_KUBERNETES}/test/e2e",),
            files=_below(
                "test/images", "agnhost/porter/localhost.*", "kitten/html/*", "nautilus/html/*"
            ),
        ),
        "containerd": Program(
            "containerd",
            (_CONTAINERD,),
            _below(f"{_CONTAINERD}/cmd", "containerd", "containerd-shim-runc-v2", "ctr"),
            {f"{_CONTAINERD}/version.Version": _VERSION},
        ),
        "runc": Program(
            "runc",
            ("github.com/opencontainers/runc",),
            ("github.com/opencontainers/runc",),
            # Its join of namespaces is C, and so is libseccomp.
            tags="seccomp netgo osusergo",
        ),
        "cni-plugins": Program(
            "CNI plugins",
            (_CNI,),
            _below(
                f"{_CNI}/plugins",
                *_below("main", "bridge", "dummy", "host-device", "ipvlan", "loopback", "macvlan"),
                *_below("main", "ptp", "tap", "vlan"),
                *_below("ipam", "dhcp", "host-local", "static"),
                *_below("meta", "bandwidth", "firewall", "portmap", "sbr", "tuning", "vrf"),
            ),
            {f"{_CNI}/pkg/utils/buildversion.BuildVersion": _VERSION},
        ),
        "cri-tools": Program(
            "cri-tools",
            ("sigs.k8s.io/cri-tools",),
            ("sigs.k8s.io/cri-tools/cmd/crictl",),
            {"sigs.k8s.io/cri-tools/pkg/version.Version": "{version}"},
        ),
        "etcd": Program(
            "etcd",
            _below(_ETCD, "server/v3", "etcdctl/v3", "etcdutl/v3"),
            _below(_ETCD, "server/v3", "etcdctl/v3", "etcdutl/v3"),
            renamed={"server": "etcd"},
        ),
        "coredns": Program(
            "CoreDNS",
            ("github.com/coredns/coredns",),
            ("github.com/coredns/coredns",),
            loss="names for services (no cluster DNS)",
            addon="dns",
        ),
        "cert-manager": Program(
            "cert-manager",
            (_CERT_MANAGER,),
            # Its own mains are in modules that no proxy can serve: ../data/go/cert-manager.
            _below(f"{_CERT_MANAGER}/labwright", "controller", "webhook", "cainjector"),
            {f"{_CERT_MANAGER}/pkg/util.AppVersion": _VERSION},
            loss="certificates for what runs on it",
            addon="cert-manager",
            own=f"{_CERT_MANAGER}/labwright",
        ),
        "local-path": Program(
            "local-path-provisioner",
            ("github.com/rancher/local-path-provisioner",),
            ("github.com/rancher/local-path-provisioner",),
            {"main.VERSION": _VERSION},
            loss="default StorageClass",
            addon="local-path",
        ),
        "metrics-server": Program(
            "metrics-server",
            ("sigs.k8s.io/metrics-server",),
            ("sigs.k8s.io/metrics-server/cmd/metrics-server",),
            {f"{_CLIENT}.gitVersion": _VERSION},
            loss="figures for kubectl top",
            addon="metrics-server",
            # Its own, of May 2026, compiled by Go 1.27, writes OpenAPI that the API server cannot
            # read, and kubectl apply fails from then on. This one is Kubernetes 1.36's.
            instead={"k8s.io/kube-openapi": "v0.0.0-20260317180543-43fb72c5454a"},
        ),
        "kube-network-policies": Program(
            "kube-network-policies",
            ("sigs.k8s.io/kube-network-policies",),
            # Its own main finds no queue on some kernels: ../data/go/kube-network-policies.
            _below(_POLICIES, "netpol"),
            loss="enforcement of NetworkPolicy",
            addon="network-policy",
            own=_POLICIES,
        ),
        "metallb": Program(
            "MetalLB",
            ("go.universe.tf/metallb",),
            _below("go.universe.tf/metallb", "controller", "speaker"),
            loss="addresses for services of type LoadBalancer",
            addon="load-balancer",
        ),
        "registry": Program(
            "CNCF Distribution",
            ("github.com/distribution/distribution/v3",),
            ("github.com/distribution/distribution/v3/cmd/registry",),
            {"github.com/distribution/distribution/v3/version.version": _VERSION},
            loss="registry of its own",
            addon="registry",
        ),
    }
)
"""By component; the artifact and the recipe have the same name."""
