"""One lab from three places: vendors' protocols on this host, the same again from its lock, and a
bundle of it with no way out.

The vendors are real software (a signed apt repository, Debian's docker-registry) behind a server
that can be told to fail, on Docker's own bridge. They hold what the packages supply has built,
under the versions that it truly has.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from labwright.tools import nodes, workdir
from tests.e2e.conftest import Folder, docker, gone, make
from tests.vendors import AptRepos, ChartRepo, Faulty, Registry, SigningKey

pytestmark = pytest.mark.e2e

KUBERNETES_DEBS = ("cri-tools", "kubeadm", "kubectl", "kubelet", "kubernetes-cni")
DOCKER_DEBS = ("containerd.io",)
# What is compiled here at another version than the vendors have it; the stand-ins hold ours.
COMPILED = ("busybox", "containerd", "coredns", "etcd", "kube-network-policies")
# registry.k8s.io has CoreDNS and the test images in folders of their own.
REPOSITORIES = {
    "coredns": "coredns/coredns",
    "busybox": "e2e-test-images/busybox",
    "kube-network-policies": "networking/kube-network-policies",
}
IN_THE_ROOT = ("iproute2", "iputils-ping", "kmod")
# No group of this number need exist: the firewall compares numbers.
GROUP = 47_110
# Docker's networks, labs' networks, pods and services: bridged packets pass the host's rules too.
LAB_RANGES = ("172.16.0.0/12", "192.168.56.0/21", "10.244.0.0/16", "10.96.0.0/16", "127.0.0.0/8")
CHAIN = "LABWRIGHT-TEST"


@dataclass(frozen=True)
class Vendors:
    """The vendors on Docker's bridge; ``registry`` and ``apt.server`` take faults.

    ``versions`` are those of what they hold, by component.
    """

    apt: AptRepos
    registry: Faulty
    key: Path
    charts: ChartRepo
    versions: Mapping[str, str]

    def mirrors(self) -> dict[str, Any]:
        """Give the part of a lab.yaml that names them."""

        def own(url: str) -> dict[str, str]:
            return {"url": url, "key": str(self.key)}

        return {
            "apt": {
                "kubernetes": own(self.apt.url),
                "debian": own(f"{self.apt.url}/debian"),
                "debian-security": own(f"{self.apt.url}/debian-security"),
                "docker": own(f"{self.apt.url}/docker"),
            },
            "registries": {"registry.k8s.io": self.registry.url},
            "charts": {"cert-manager": self.charts.url},
        }

    @contextlib.contextmanager
    def mended(self) -> Iterator[None]:
        """Take back all faults at the end."""
        try:
            yield
        finally:
            self.apt.server.mend()
            self.registry.mend()


def gateway() -> str:
    form = "{{with index .IPAM.Config 0}}{{.Subnet}} {{.Gateway}}{{end}}"
    subnet, _, address = docker("network", "inspect", "--format", form, "bridge").partition(" ")
    # A Docker that was started for the first time tells no gateway of its bridge.
    return address.strip() or str(next(IPv4Network(subnet).hosts()))


@dataclass(frozen=True)
class Built:
    """The packages supply's debs and images in the user's own store, and their versions."""

    apt: Path
    images: Path
    versions: Mapping[str, str]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """What the packages supply has built, or builds now."""
    folder = make(tmp_path_factory.mktemp("packages"), {"supply": "packages"})
    folder.invoke("lab.lock", "--yes")
    lock = read_lock(folder)
    store = workdir.cache() / "store"
    return Built(store / lock["store"]["apt"], store / lock["store"]["images"], lock["versions"])


@pytest.fixture(scope="module")
def vendors(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendors]:
    tmp, address = tmp_path_factory.mktemp("vendors"), gateway()
    with (
        SigningKey() as key,
        AptRepos(key, tmp / "apt", address) as apt,
        Registry(tmp / "registry", address) as registry,
        Faulty(registry.url, address) as door,
        ChartRepo(tmp / "charts", address) as charts,
    ):
        kubernetes, debian, runtime = tmp / "kubernetes", tmp / "debian", tmp / "docker"
        for folder in (kubernetes, debian, runtime, tmp / "nothing"):
            folder.mkdir()
        places = dict.fromkeys(KUBERNETES_DEBS, kubernetes) | dict.fromkeys(DOCKER_DEBS, runtime)
        for deb in built.apt.glob("*.deb"):
            shutil.copy(deb, places.get(deb.name.partition("_")[0], debian))
        # What the root of a node has from the start is in Debian's archive too.
        words = ["apt-get", "download", "--quiet", *IN_THE_ROOT]
        subprocess.run(words, cwd=debian, check=True, capture_output=True)
        apt.kubernetes(f"v{minor(built.versions)}", kubernetes)
        apt.archive("docker/linux/debian", runtime, component="stable")
        apt.archive("debian", debian)
        apt.archive("debian", tmp / "nothing", suite="bookworm-updates")
        apt.archive("debian-security", tmp / "nothing", suite="bookworm-security")
        for name, image in json.loads((built.images / "images.json").read_text()).items():
            tag = image["ref"].rpartition(":")[2]
            tag = tag.removeprefix("v") if name == "busybox" else tag
            pushed = registry.push(
                built.images / image["archive"], f"{REPOSITORIES.get(name, name)}:{tag}"
            )
            assert pushed == image["digest"]
        # A stand-in of that name and version: which chart is asked for is what is tested.
        charts.add("cert-manager", "v1.21.2", {"nothing.yaml": ""})
        (tmp / "key.asc").write_bytes(key.armoured)
        yield Vendors(apt, door, tmp / "key.asc", charts, built.versions)


def asking(vendors: Vendors, **more: Any) -> dict[str, Any]:
    """Give a lab.yaml that takes everything from the vendors."""
    asked = {"supply": "upstream", "kubernetes": vendors.versions["kubernetes"], "workers": 1}
    compiled = {name: vendors.versions[name] for name in COMPILED}
    asked["versions"] = {"cert-manager": "1.21.2", **compiled}
    return {**asked, "mirrors": vendors.mirrors(), **more}


def minor(versions: Mapping[str, str]) -> str:
    """Return the minor of Kubernetes: ``1.36``."""
    return versions["kubernetes"].rpartition(".")[0]


def with_cache(folder: Folder, cache: Path) -> Folder:
    return replace(folder, more_env={"XDG_CACHE_HOME": str(cache)})


def read_lock(folder: Folder) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((folder.path / "lab.lock").read_text("utf-8"))
    return content


def copy_lab(lab: Folder, target: Path) -> None:
    for name in ("lab.yaml", "lab.lock"):
        shutil.copy(lab.path / name, target / name)


def forget_images(folder: Folder) -> None:
    """Remove the images that Docker keeps beside the cache, so that nothing is baked before."""
    docker("image", "rm", "-f", read_lock(folder)["node_image"])


@pytest.fixture
def unbooted(vendors: Vendors, tmp_path: Path) -> Iterator[Folder]:
    """A folder whose lab never gets as far as a machine."""
    yield make(tmp_path, asking(vendors))
    vendors.apt.server.mend()
    vendors.registry.mend()


def refused(folder: Folder, *words: str) -> str:
    """Run a command that must end with SupplyError's code before anything boots."""
    done = folder.invoke(*words, check=False)
    assert done.code == 4, done.out
    assert not list(gone(folder)) or not docker(
        "ps", "-aq", "--filter", f"label=labwright.lab={folder.name}"
    )
    return done.out


def test_a_wrong_signature_is_refused_before_anything_boots(
    vendors: Vendors, unbooted: Folder, tmp_path: Path
) -> None:
    raw = yaml.safe_load((unbooted.path / "lab.yaml").read_text())
    with SigningKey("Somebody else") as stranger:
        (tmp_path / "other.asc").write_bytes(stranger.armoured)
    raw["mirrors"]["apt"]["kubernetes"]["key"] = "other.asc"
    (unbooted.path / "lab.yaml").write_text(yaml.safe_dump(raw))
    out = refused(unbooted, "lab.up", "--yes")
    assert "sign" in out
    assert vendors.apt.url in out


def test_a_missing_image_is_named_before_anything_boots(vendors: Vendors, unbooted: Folder) -> None:
    etcd = vendors.versions["etcd"]
    vendors.registry.missing(f"/v2/etcd/manifests/{etcd}")
    out = refused(unbooted, "lab.up", "--yes")
    assert f"registry.k8s.io/etcd:{etcd}" in out


def test_a_registry_that_recovers_is_waited_for(vendors: Vendors, unbooted: Folder) -> None:
    pause = vendors.versions["pause"]
    vendors.registry.answer(500, path=f"/v2/pause/manifests/{pause}", times=2)
    unbooted.invoke("lab.lock", "--yes")
    assert len(vendors.registry.requests(f"/v2/pause/manifests/{pause}")) >= 3
    assert read_lock(unbooted)["images"]["pause"]["ref"] == f"registry.k8s.io/pause:{pause}"


def test_another_digest_than_the_lock_s_is_refused(unbooted: Folder) -> None:
    unbooted.invoke("lab.lock", "--yes")
    lock = read_lock(unbooted)
    lock["images"]["pause"]["digest"] = "sha256:" + "0" * 64
    (unbooted.path / "lab.lock").write_text(yaml.safe_dump(lock))
    out = refused(unbooted, "lab.up", "--yes")
    assert "registry.k8s.io/pause" in out


@dataclass(frozen=True)
class Made:
    """What became of one lab: its lock, what was on its nodes, and a bundle of it."""

    lab: Folder
    software: Path
    bundle: Path


@pytest.fixture(scope="module")
def upstream(vendors: Vendors, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """An upstream lab on an empty cache, and its bundle; the lab is gone again at the end."""
    tmp = tmp_path_factory.mktemp("upstream")
    lab = with_cache(make(tmp, asking(vendors)), tmp / "cache")
    try:
        lab.invoke("lab.up", "--yes")
        shutil.copy(lab.lab / nodes.RECORD, tmp / "one.json")
        etcd = json.loads(vendors_manifest(vendors, "etcd", vendors.versions["etcd"]))
        layer = etcd["layers"][0]["digest"]
        with vendors.mended():
            vendors.registry.cut(f"/v2/etcd/blobs/{layer}", after=100_000)
            lab.invoke("bundle.make", str(tmp / "bundle"), "--yes")
        seen = vendors.registry.requests(f"/v2/etcd/blobs/{layer}")
        assert any(request.range for request in seen), seen
        yield Made(lab, tmp / "one.json", tmp / "bundle")
    finally:
        lab.invoke("lab.destroy", "--yes", check=False)


def vendors_manifest(vendors: Vendors, name: str, tag: str) -> str:
    accept = "Accept: application/vnd.oci.image.manifest.v1+json"
    url = f"{vendors.registry.url}/v2/{name}/manifests/{tag}"
    words = ["curl", "-sf", "-H", accept, url]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_nodes_pull_through_the_mirror_and_trust_the_key(upstream: Made, vendors: Vendors) -> None:
    hosts = "sudo cat /etc/containerd/certs.d/registry.k8s.io/hosts.toml"
    mirror = upstream.lab.invoke("lab.ssh", "w1", "--command", hosts).out
    assert read_lock(upstream.lab)["supply"] == "upstream"
    assert 'capabilities = ["pull", "resolve"]' in mirror
    sources = "cat /etc/apt/sources.list.d/labwright.sources"
    text = upstream.lab.invoke("lab.ssh", "w1", "--command", sources).out
    assert "Trusted" not in text
    assert "Signed-By: /etc/apt/keyrings/kubernetes.asc" in text
    assert f"core:/stable:/v{minor(vendors.versions)}/deb/" in text
    assert "Signed-By: /etc/apt/keyrings/docker.asc" in text
    assert (upstream.lab.lab / "charts" / "cert-manager-v1.21.2.tgz").is_file()
    software = nodes.load(upstream.software)
    pause = f"registry.k8s.io/pause:{vendors.versions['pause']}"
    assert software["w1"]["images"][pause].startswith("sha256:")


def test_a_second_bundle_of_the_same_finds_all_there(upstream: Made) -> None:
    before = (upstream.bundle / "bundle.json").read_text()
    upstream.lab.invoke("bundle.make", str(upstream.bundle), "--yes")
    assert (upstream.bundle / "bundle.json").read_text() == before
    upstream.lab.invoke("bundle.verify", str(upstream.bundle))


def test_the_same_lock_on_another_clean_cache_gives_the_same_nodes(
    upstream: Made, tmp_path: Path
) -> None:
    upstream.lab.invoke("lab.destroy", "--yes")
    forget_images(upstream.lab)
    copy_lab(upstream.lab, tmp_path)
    again = with_cache(Folder(tmp_path, upstream.lab.name), tmp_path / "cache")
    try:
        again.invoke("lab.up", "--yes", "--locked")
        assert "same packages" in again.invoke("lab.diff", str(upstream.software), ".").out
    finally:
        again.invoke("lab.destroy", "--yes", check=False)


def test_a_locked_lab_refuses_to_drift(upstream: Made, tmp_path: Path) -> None:
    copy_lab(upstream.lab, tmp_path)
    text = (tmp_path / "lab.yaml").read_text("utf-8")
    (tmp_path / "lab.yaml").write_text(text + "network: {pods: 10.200.0.0/16}\n")
    out = refused(Folder(tmp_path, upstream.lab.name), "lab.up", "--yes", "--locked")
    assert "network.pods: 10.244.0.0/16 → 10.200.0.0/16" in out


def test_a_flipped_bit_is_found_before_anything_is_installed(
    upstream: Made, tmp_path: Path
) -> None:
    deb = next((upstream.bundle / "apt").glob("kubelet_*.deb"))
    content = bytearray(deb.read_bytes())
    content[len(content) // 2] ^= 1
    deb.chmod(0o644)
    folder = with_cache(make(tmp_path, {"workers": 1}), tmp_path / "cache")
    try:
        deb.write_bytes(content)
        assert deb.name in refused(folder, "bundle.verify", str(upstream.bundle))
        bundle = f"--supply=bundle:{upstream.bundle}"
        assert deb.name in refused(folder, "lab.up", "--yes", bundle)
    finally:
        content[len(content) // 2] ^= 1
        deb.write_bytes(content)
        deb.chmod(0o444)
        # A lab that was planned keeps its subnet, which the next test's lock has.
        folder.invoke("lab.destroy", "--yes", check=False)


def iptables(*words: str, check: bool = True) -> None:
    subprocess.run(["iptables", "-w", *words], check=check, capture_output=True)


@pytest.fixture
def no_way_out() -> Iterator[None]:
    """Reject whatever the lab's commands and nodes send to anywhere but the lab's own networks."""
    if os.geteuid() != 0:
        pytest.skip("a firewall rule needs root")
    ours = (
        ("OUTPUT", "-m", "owner", "--gid-owner", str(GROUP), "-j", CHAIN),
        ("DOCKER-USER", "-s", "172.16.0.0/12", "-j", CHAIN),
        ("DOCKER-USER", "-s", "192.168.56.0/21", "-j", CHAIN),
    )
    iptables("-N", CHAIN)
    try:
        for network in LAB_RANGES:
            iptables("-A", CHAIN, "-d", network, "-j", "RETURN")
        iptables("-A", CHAIN, "-j", "REJECT")
        for rule in ours:
            iptables("-I", *rule)
        yield
    finally:
        for rule in ours:
            iptables("-D", *rule, check=False)
        iptables("-F", CHAIN)
        iptables("-X", CHAIN)


def archive_of_this_host() -> str:
    words = ["apt-get", "indextargets", "--format", "$(SITE)"]
    out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return out.split()[0]


def test_a_lab_comes_up_from_a_bundle_with_no_way_out(
    upstream: Made, tmp_path: Path, no_way_out: None
) -> None:
    upstream.lab.invoke("lab.destroy", "--yes")
    copy_lab(upstream.lab, tmp_path)
    folder = with_cache(Folder(tmp_path, upstream.lab.name), tmp_path / "cache")
    lab = replace(folder, group=GROUP)
    from_bundle = ("lab.up", "--yes", "--locked", f"--supply=bundle:{upstream.bundle}")
    probe = ["curl", "--silent", "--output", "/dev/null", "--max-time", "10"]
    address = archive_of_this_host()
    assert subprocess.run([*probe, address], check=False).returncode == 0
    assert subprocess.run([*probe, address], check=False, group=GROUP).returncode != 0
    try:
        lab.invoke(*from_bundle)
        cut = f"{' '.join(probe)} {address}"
        assert lab.invoke("lab.ssh", "w1", "--command", cut, check=False).code != 0
        assert "same packages" in lab.invoke("lab.diff", str(upstream.software), ".").out
        helm = subprocess.run(
            [lab.lab / "bin" / "helm", "version", "--short"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert helm.stdout.startswith("v4.")
        again = lab.invoke(*from_bundle).out
        assert "nothing to change" in again
        # Where software was bundled, the lock says what the first lab's said.
        for part in ("packages", "images", "charts", "sources"):
            assert read_lock(folder)[part] == read_lock(upstream.lab)[part]
    finally:
        lab.invoke("lab.destroy", "--yes", check=False)
