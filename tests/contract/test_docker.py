"""The docker command does what tools/docker.py takes it to do, on whatever daemon answers."""

from __future__ import annotations

import io
import secrets
import socket
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from labwright import known
from labwright.errors import BootError
from labwright.tools.docker import Docker
from labwright.tools.shell import Shell, ToolError
from tests.contract.needs import want


@dataclass(frozen=True)
class Place:
    """A lab that only this test knows, and two networks that nobody has."""

    folder: Path
    network: str
    image: str
    subnet: IPv4Network
    other: IPv4Network

    @property
    def gateway(self) -> str:
        return str(self.subnet.network_address + 1)


@pytest.fixture(scope="module")
def docker() -> Docker:
    want("docker")
    docker = Docker(Shell())
    version, why = docker.api()
    if version is None:
        pytest.skip(f"no Docker daemon answers: {why}")
    return docker


@pytest.fixture
def place(docker: Docker, tmp_path: Path) -> Iterator[Place]:
    taken = [IPv4Network(subnet) for _, subnet in docker.networks()]
    ranges = IPv4Network("10.213.0.0/16").subnets(new_prefix=24)
    free = (n for n in ranges if not any(n.overlaps(t) for t in taken))
    name = f"t{secrets.token_hex(6)}"
    image = f"labwright-test/{name}:1"
    here = Place(tmp_path / ".lab" / name, f"labwright-{name}", image, next(free), next(free))
    try:
        yield here
    finally:
        docker.remove(here.folder)
        Shell().run(["docker", "rmi", "-f", image], check=False)


def make(docker: Docker, place: Place) -> bool:
    return docker.ensure_network(place.network, place.folder, str(place.subnet), place.gateway)


def test_the_daemon_says_its_api(docker: Docker) -> None:
    version, why = docker.api()
    assert version
    assert tuple(int(part) for part in version.split(".")) >= (1, 41)
    assert why == ""


def test_no_daemon_is_a_fact_with_a_reason(tmp_path: Path) -> None:
    want("docker")
    nobody = Docker(Shell({"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}))
    version, why = nobody.api()
    assert version is None
    assert "docker.sock" in why
    assert nobody.owned(tmp_path) == {"containers": [], "networks": []}


def test_no_docker_is_a_fact_with_a_reason(tmp_path: Path) -> None:
    class Bare(Shell):
        def run(self, argv, **more):  # type: ignore[no-untyped-def]
            return super().run([tmp_path / argv[0], *argv[1:]], **more)

    version, why = Docker(Bare()).api()
    assert version is None
    assert "could not be started" in why


def test_a_network_is_made_once(docker: Docker, place: Place) -> None:
    assert docker.network(place.network) is None
    assert make(docker, place)
    assert docker.network(place.network) == (str(place.subnet), str(place.folder))
    assert (place.network, str(place.subnet)) in docker.networks()
    assert not make(docker, place)


def test_the_host_has_the_address_that_was_asked_for(docker: Docker, place: Place) -> None:
    make(docker, place)
    form = "{{(index .IPAM.Config 0).Gateway}}"
    words = ["docker", "network", "inspect", "--format", form, place.network]
    assert Shell().run(words).out.strip() == place.gateway


def test_a_network_elsewhere_is_refused(docker: Docker, place: Place) -> None:
    make(docker, place)
    gateway = str(place.other.network_address + 1)
    with pytest.raises(BootError) as caught:
        docker.ensure_network(place.network, place.folder, str(place.other), gateway)
    (finding,) = caught.value.findings
    assert finding.id == "boot.network"
    assert str(place.subnet) in finding.what
    assert str(place.other) in finding.what


def test_a_network_of_another_folder_is_refused(docker: Docker, place: Place) -> None:
    make(docker, place)
    with pytest.raises(BootError) as caught:
        docker.ensure_network(
            place.network, place.folder.with_name("x"), str(place.subnet), place.gateway
        )
    (finding,) = caught.value.findings
    assert finding.id == "boot.name-taken"
    assert str(place.folder) in finding.what


def test_a_range_in_use_is_docker_s_error(docker: Docker, place: Place) -> None:
    make(docker, place)
    with pytest.raises(ToolError):
        docker.ensure_network(f"{place.network}-2", place.folder, str(place.subnet), place.gateway)
    assert docker.network(f"{place.network}-2") is None


def archive(path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo("hello")
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"hi"))
    return path


def test_an_image_is_there_or_not(docker: Docker, place: Place, tmp_path: Path) -> None:
    assert not docker.has_image(place.image)
    docker.import_image(archive(tmp_path / "a.tar"), place.image, ["LABEL x=y", 'CMD ["/hello"]'])
    assert docker.has_image(place.image)
    form = "{{.Config.Labels.x}} {{.Config.Cmd}}"
    words = ["docker", "image", "inspect", "--format", form, place.image]
    assert Shell().run(words).out == "y [/hello]\n"


def test_packets_are_as_large_as_the_network_was_made_for(docker: Docker, place: Place) -> None:
    docker.ensure_network(place.network, place.folder, str(place.subnet), place.gateway, 1380)
    device = next(d for name, _, d in docker.bridges() if name == place.network)
    form = '{{index .Options "com.docker.network.driver.mtu"}}'
    words = ["docker", "network", "inspect", "--format", form, place.network]
    assert Shell().run(words).out.strip() == "1380"
    # The host's own end: a bridge has the least of what hangs on it, and that is nothing yet.
    assert (Path("/sys/class/net") / device).exists()


def test_an_image_goes_unless_it_is_used(docker: Docker, place: Place, tmp_path: Path) -> None:
    repository = place.image.partition(":")[0]
    for tag in ("1", "2"):
        docker.import_image(archive(tmp_path / "a.tar"), f"{repository}:{tag}")
    assert set(docker.images_of(repository)) == {f"{repository}:1", f"{repository}:2"}
    label = f"--label=labwright.folder={place.folder}"
    words = ["docker", "create", label, f"--name={place.network}-x", place.image, "/hello"]
    Shell().run(words)
    assert docker.machines(place.folder) == {f"{place.network}-x"}
    assert not docker.remove_unused_image(place.image)
    assert docker.remove_unused_image(f"{repository}:2")
    assert docker.images_of(repository) == [place.image]


def test_a_container_that_got_no_port_goes_and_others_stay(
    docker: Docker, place: Place, tmp_path: Path
) -> None:
    docker.import_image(archive(tmp_path / "a.tar"), place.image)
    names = [f"{place.network}-{node}" for node in ("w1", "w2", "w3")]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name, folder in zip(names, (place.folder, place.folder, tmp_path), strict=True):
            label = f"--label=labwright.folder={folder}"
            words = ["docker", "run", label, f"--name={name}", f"--publish=127.0.0.1:{port}:22"]
            result = Shell().run([*words, place.image, "/hello"], check=False)
            said = known.find("\n".join(result.tail(20)))
            assert "known.docker.port-taken" in {finding.id for finding in said}
    try:
        docker.remove_strays(place.folder, [names[0], names[2]])
        assert docker.machines(place.folder) == {names[1]}
        assert docker.machines(tmp_path) == {names[2]}
    finally:
        docker.remove_container(names[2])


def test_removing_takes_what_is_the_lab_s_and_nothing_else(
    docker: Docker, place: Place, tmp_path: Path
) -> None:
    docker.import_image(archive(tmp_path / "a.tar"), place.image)
    make(docker, place)
    neighbour = place.folder.with_name(f"{place.folder.name}-2")

    def create(folder: Path) -> str:
        labels = f"--label=labwright.folder={folder}"
        options = [labels, f"--network={place.network}", "--volume=/data"]
        words = ["docker", "create", *options, place.image, "/hello"]
        return Shell().run(words).out.strip()

    ours, theirs = create(place.folder), create(neighbour)
    try:
        form = "{{(index .Mounts 0).Name}}"
        volume = Shell().run(["docker", "inspect", "--format", form, ours]).out.strip()
        owned = docker.owned(place.folder)
        assert [c for c in owned["containers"] if ours.startswith(c)]
        assert (len(owned["containers"]), len(owned["networks"])) == (1, 1)
        docker.remove(place.folder)
        assert docker.owned(place.folder) == {"containers": [], "networks": []}
        assert docker.network(place.network) is None
        volumes = Shell().run(["docker", "volume", "ls", "-q"]).out.split()
        assert volume
        assert volume not in volumes
        assert len(docker.owned(neighbour)["containers"]) == 1
        docker.remove(place.folder)
    finally:
        docker.remove_container(theirs)
    docker.remove_container(theirs)
    assert docker.owned(neighbour)["containers"] == []
