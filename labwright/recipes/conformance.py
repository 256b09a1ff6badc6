"""The images that Kubernetes' conformance tests run, under the names that they ask for.

Their programs are of the module that the lab's Kubernetes is compiled from, and the rest is
Debian's. What each has to hold is told by its Dockerfile in that module, below test/images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType

from labwright.oci import File, Image
from labwright.recipes import images
from labwright.recipes.base import DATA, Job

PROJECT = "registry.k8s.io"
"""The Kubernetes project's registry, whose names the tests ask for."""
TESTS = "e2e-test-images"
# dig, getent, nc, ss, ipcs: the tests call them in agnhost's pods.
TOOLS = (
    *("bind9-dnsutils", "curl", "iperf", "iproute2"),
    *("libc-bin", "netcat-openbsd", "util-linux"),
)
# A test of supplemental groups counts on this user of the image and its group.
USERS = "root:x:0:0:root:/:/bin/sh\nuser-defined-in-image:x:1000:1000::/:/bin/sh\n"
GROUP = (
    "root:x:0:\nuser-defined-in-image:x:1000:\n"
    "group-defined-in-image:x:50000:user-defined-in-image\n"
)
# A test of image volumes looks for this name in the file.
INSTEAD = (
    'NAME="Labwright"\n'
    'PRETTY_NAME="Debian packages, in the place of an image on Alpine Linux"\n'
    "ID=labwright\n"
)
PAGE = "<!DOCTYPE html>\n<title>Welcome to nginx!</title>\n<h1>Welcome to nginx!</h1>\n"


def build(job: Job) -> None:
    """Make an archive for each image, and images.json, as `images.build` does.

    References that the tests name and nothing here can make are in ``foreign``, one a line.
    """
    said = job.shell.run([job.inputs["conformance"] / "bin/e2e.test", "--list-images"]).out
    job.say("download what the tests' images have of Debian")
    make = _Images(job)
    found: dict[str, Image] = {}
    foreign = []
    for asked in sorted(line.strip() for line in said.splitlines() if "/" in line):
        repository, _colon, tag = asked.removeprefix(f"{PROJECT}/").rpartition(":")
        if maker := MAKERS.get(repository):
            found[f"{repository.rpartition('/')[2]}-{tag}"] = replace(maker(make), ref=asked)
        else:
            foreign.append(asked)
    found["conformance"] = make.conformance()
    images.write(job, found)
    (job.out / "foreign").write_text("".join(f"{ref}\n" for ref in foreign), encoding="utf-8")


class _Images:
    """Makes each image; what its name is comes from the tests."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._bin = job.inputs["conformance"] / "bin"
        self._files = job.inputs["conformance"] / "files/test/images"
        self._packages = images.Packages(job)
        self._written = job.work / "written"
        self._written.mkdir(exist_ok=True)

    @cached_property
    def _programs(self) -> Mapping[str, File]:
        programs, _version = images.busybox(self._job, self._packages)
        # Busybox's own drops variables with a dash in their names, which tests look for, and takes
        # its own nc, which knows no UDP, for the one that is installed.
        shell = {"bin/sh": File(link="bash", mode=0o777)}
        return {**programs, **self._packages.closure("bash"), **shell}

    @cached_property
    def _nginx(self) -> Mapping[str, File]:
        return self._packages.closure("nginx-light")

    @cached_property
    def _tools(self) -> Mapping[str, File]:
        # Debian's alternatives would name it so, and busybox's own knows no UDP.
        chosen = {"bin/nc": File(link="nc.openbsd", mode=0o777)}
        return {**self._packages.closure(*TOOLS), **chosen}

    def _text(self, name: str, content: str) -> File:
        path = self._written / name
        path.write_text(content, encoding="utf-8")
        return File(path, mode=0o644)

    @property
    def _root(self) -> Mapping[str, File]:
        """What programs and people expect of any root."""
        users = {
            "etc/passwd": self._text("passwd", USERS),
            "etc/group": self._text("group", GROUP),
        }
        return {**self._programs, **users, **images.TMP}

    def agnhost(self) -> Image:
        """Return the program that plays most parts in the tests' pods, and its tools."""
        files = {
            **self._root,
            **self._tools,
            "agnhost": File(self._bin / "agnhost"),
            "agnhost-2": File(link="agnhost", mode=0o777),
            "uploads": File(),
            **{
                name: File(self._files / "agnhost/porter" / name, mode=0o644)
                for name in ("localhost.crt", "localhost.key")
            },
            **self._coredns,
        }
        return Image("", files, entrypoint=("/agnhost",), cmd=("pause",))

    def picture(self, name: str) -> Image:
        """Return a server of one picture, kitten or nautilus."""
        html = self._files / name / "html"
        shown = {path.name: File(path, mode=0o644) for path in sorted(html.iterdir())}
        files = {
            **self._root,
            **shown,
            "agnhost": File(self._bin / "agnhost"),
            "etc/os-release": self._text("os-release", INSTEAD),
        }
        return Image("", files, entrypoint=("/agnhost",), cmd=("test-webserver",))

    def busybox(self, user: str = "") -> Image:
        """Return a busybox, for a user who is not root where one is given.

        A test compares what /bin/sh says with the words of busybox's own shell.
        """
        shells = {
            "bin/sh": File(link="busybox", mode=0o777),
            "usr/local/bin/sh": File(link="/bin/bash", mode=0o777),
        }
        return Image("", {**self._root, **shells}, cmd=("sh",), user=user)

    def nonewprivs(self) -> Image:
        """Return the program that says as whom it runs, with the bit that makes it root."""
        program = File(self._bin / "nnp", mode=0o6755)
        return Image("", {**self._root, "usr/local/bin/nnp": program}, cmd=("nnp",))

    def nginx(self) -> Image:
        """Return Debian's nginx with one page."""
        config = File(DATA / "conformance/nginx.conf", mode=0o644)
        files = {
            **self._root,
            **self._nginx,
            "etc/nginx/nginx.conf": config,
            "usr/share/nginx/html/index.html": self._text("index.html", PAGE),
            "var/log/nginx": File(),
            "var/lib/nginx": File(),
        }
        return Image("", files, cmd=("nginx",))

    def dns(self) -> Image:
        """Return resolvers that ask as the C library does."""
        return Image("", {**self._root, **self._tools, **self._coredns}, cmd=("sh",))

    def sample_apiserver(self) -> Image:
        """Return an API server to aggregate."""
        files = {"sample-apiserver": File(self._bin / "sample-apiserver"), **images.TMP}
        return Image("", files, entrypoint=("/sample-apiserver",))

    def etcd(self) -> Image:
        """Return the lab's own etcd, for the sample API server."""
        programs = (self._job.inputs["etcd"] / "bin").iterdir()
        files = {f"usr/local/bin/{path.name}": File(path) for path in programs}
        return Image("", {**self._root, **files})

    def pause(self) -> Image:
        """Return the lab's own pause."""
        program = File(self._job.inputs["kubernetes"] / "bin/pause")
        return Image("", {"pause": program}, entrypoint=("/pause",))

    def conformance(self) -> Image:
        """Return what runs the tests, with the interface of the project's own image."""
        kubectl = self._job.inputs["kubernetes"] / "bin/kubectl"
        programs = [self._bin / n for n in ("e2e.test", "ginkgo", "kubeconformance")]
        files = {f"usr/local/bin/{path.name}": File(path) for path in (*programs, kubectl)}
        ref = f"{PROJECT}/conformance:v{self._job.artifact.version}"
        return Image(ref, {**self._root, **files}, entrypoint=("kubeconformance",))

    @property
    def _coredns(self) -> Mapping[str, File]:
        return {"coredns": File(self._job.inputs["coredns"] / "bin/coredns")}


MAKERS: Mapping[str, Callable[[_Images], Image]] = MappingProxyType(
    {
        "etcd": _Images.etcd,
        "pause": _Images.pause,
        f"{TESTS}/agnhost": _Images.agnhost,
        f"{TESTS}/busybox": _Images.busybox,
        f"{TESTS}/glibc-dns-testing": _Images.dns,
        f"{TESTS}/jessie-dnsutils": _Images.dns,
        f"{TESTS}/kitten": lambda make: make.picture("kitten"),
        f"{TESTS}/nautilus": lambda make: make.picture("nautilus"),
        f"{TESTS}/nginx": _Images.nginx,
        f"{TESTS}/nonewprivs": _Images.nonewprivs,
        f"{TESTS}/nonroot": lambda make: make.busybox("1234"),
        f"{TESTS}/sample-apiserver": _Images.sample_apiserver,
    }
)
"""By repository below the project's registry."""
