"""What the checks of a tools node use: images, containers and networks that are made and asked.

Begun at the start, in the background: builds and pulls take seconds, and other checks come first.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.nodes.probes import PORT, Deployment

if TYPE_CHECKING:
    from tests.nodes.conftest import Lab

DEADLINE = 120.0
USER = 1000
APP = "workshop"

DOCKERFILE = f"""\
FROM NAME-base
COPY word /www/word
RUN ["/bin/sh", "-c", "echo built >> /www/word && chown -R {USER} /www"]
USER {USER}
EXPOSE {PORT}
CMD ["httpd", "-f", "-p", "{PORT}", "-h", "/www"]
"""
COMPOSE = f"""\
version: "2.4"
services:
  web:
    image: NAME-web
  asker:
    image: NAME-web
    command: ["sh", "-c", "until wget -q -O - http://web:{PORT}/word; do sleep 0.2; done"]
"""
# Each script prints lines "word what came of it". No port is published: nobody outside is asked.
START = f"""
set -eu
ask() {{ curl -fsS -m 5 --retry 20 --retry-delay 1 --retry-all-errors "$1" | tr '\\n' ' '; }}
one_line() {{ tr '\\n' ' '; }}
cd /var/tmp/NAME
url=:{PORT}/word
"""
IMAGE = f"""
set -eu
mkdir -p /var/tmp/NAME/root/bin && cd /var/tmp/NAME
cp /bin/busybox root/bin/
for program in $(busybox --list); do
    [ -e root/bin/$program ] || ln -s busybox root/bin/$program
done
tar -C root -c . | docker import - NAME-base >/dev/null
echo NAME > word
cat > Dockerfile <<'END'
{DOCKERFILE}END
cat > compose.yml <<'END'
{COMPOSE}END
docker build -q -t NAME-web . >/dev/null
echo "exposes $(docker image inspect -f '{{{{json .Config.ExposedPorts}}}}' NAME-web)"
"""
ENGINE = f"""{START}
ENGINE network create NAME >/dev/null
ENGINE run -d --name NAME --network NAME NAME-web >/dev/null
addresses='{{{{range .NetworkSettings.Networks}}}}{{{{.IPAddress}}}}{{{{end}}}}'
address=$(ENGINE inspect -f "$addresses" NAME)
echo "address $address"
echo "http $(ask $address$url)"
echo "user $(ENGINE exec NAME id -u)"
echo "name $(ENGINE run --rm --network NAME NAME-web wget -q -O - http://NAME$url | one_line)"
"""
COMPOSED = f"""{START}
# The plugin is newer; what an older Debian has is a program of its own.
compose="docker compose"
$compose version >/dev/null 2>&1 || compose=docker-compose
compose() {{ $compose -p NAME -f compose.yml "$@" 2>/dev/null; }}
compose up -d
asker=$(compose ps -q asker)
echo "ended $(timeout 60 docker wait $asker)"
echo "http $(docker logs $asker 2>/dev/null | one_line)"
compose down -t 0 >/dev/null
"""
DOCKER = ENGINE.replace("ENGINE", "docker")
PODMAN = """
set -eu
docker save NAME-base | podman load -q >/dev/null
podman build -q -t NAME-web /var/tmp/NAME >/dev/null
""" + ENGINE.replace("ENGINE", "podman")
LXC = """
set -eu
lxc-create -n NAME -t busybox >/dev/null 2>&1
lxc-start -n NAME
lxc-wait -n NAME -s RUNNING -t 20
echo "hostname $(lxc-attach -n NAME -- hostname)"
echo "init $(lxc-attach -n NAME -- cat /proc/1/comm)"
for try in 1 2 3 4 5 6 7 8 9 10; do
    address=$(lxc-info -n NAME -iH | head -n 1)
    [ -n "$address" ] && break
    sleep 1
done
echo "address $address"
"""
ACCESS = """
set -eu
for user in root $SUDO_USER; do
    echo "$user $(sudo -iu $user kubectl get nodes -o name | sort | tr '\\n' ' ')"
done
"""
HELM = """
set -eu
helm version --short
echo "releases $(helm list --all-namespaces --output json)"
"""
PUSH = f"""{START}
# After a boot it takes a moment until the registry answers.
ask https://REGISTRY/v2/ >/dev/null
docker tag NAME-web IMAGE
docker push -q IMAGE >/dev/null
podman pull -q IMAGE >/dev/null
echo "digest $(docker inspect -f '{{{{index .RepoDigests 0}}}}' IMAGE | cut -d@ -f2)"
podman image rm IMAGE >/dev/null
"""
# What is pulled by its tag is deleted by its digest.
UNPUSH = """
set -eu
place=https://REGISTRY/v2/labwright/tools/manifests
digest=$(docker inspect -f '{{index .RepoDigests 0}}' IMAGE | cut -d@ -f2)
curl -fsS -m 20 -X DELETE "$place/$digest"
echo "gone $(curl -s -m 20 -o /dev/null -w '%{http_code}' "$place/NAME")"
"""
# Nothing here may keep the rest from going.
CLEAN = """
docker rm -fv $(docker ps -aq --filter name=NAME)
docker network rm $(docker network ls -q --filter name=NAME)
docker image rm -f IMAGE NAME-web NAME-base
podman rm -ft 0 NAME
podman network rm -f NAME
podman image rm -f IMAGE NAME-web NAME-base
lxc-stop -n NAME -k
lxc-destroy -n NAME
rm -rf /var/tmp/NAME
"""
LEFT = """
for engine in docker podman; do
    { $engine ps -a; $engine network ls; $engine images; } 2>/dev/null | grep NAME
done
lxc-ls -1 --filter NAME
ls -d /var/tmp/NAME 2>/dev/null
"""


class Workshop:
    """Uses each tool of a tools node once; what came of it, or the error, is asked for by name."""

    def __init__(self, lab: Lab, deployment: Deployment) -> None:
        self.name = deployment.namespace
        self._lab = lab
        self._nodes = lab.having("tools")
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(3)
        self._answers: dict[str, Future[Mapping[str, str]]] = {}
        if not self._nodes:
            return
        self._start("access", lambda: self._script(ACCESS))
        if lab.facts.get("helm_url"):
            self._start("helm", lambda: self._script(HELM))
        self._start("lxc", lambda: self._script(LXC))
        built = self._start("image", lambda: self._script(IMAGE))
        # One after the other: they share two cores, and the first result is the likely cause.
        self._start("docker", lambda: self._after(built, DOCKER))
        docker = self._answers["docker"]
        self._start("compose", lambda: self._after(docker, COMPOSED))
        self._start("podman", lambda: self._after(built, PODMAN))
        if lab.facts["addons"].get("registry", {}).get("enabled"):
            self._start("registry", lambda: self._pull(built))
        self._pool.shutdown(wait=False)

    def answer(self, name: str) -> Mapping[str, str]:
        """Give what using a tool came to; skip the check where the lab does not have it."""
        if name not in self._answers:
            pytest.skip(f"the supply of this lab has no {name}")
        return self._answers[name].result()

    def run(self, script: str) -> Any:
        """Run a script on the tools node as root, with the name of this run in it."""
        for word, meant in (
            ("IMAGE", self.image),
            ("REGISTRY", self._registry),
            ("NAME", self.name),
        ):
            script = script.replace(word, meant)
        return self._lab.hosts[self._nodes[0]].run("sudo sh -c %s", script)

    @property
    def image(self) -> str:
        """What the image is called in the lab's registry."""
        return f"{self._registry}/labwright/tools:{self.name}"

    @property
    def _registry(self) -> str:
        return str(self._lab.facts.get("registry_address", "none"))

    def end(self) -> str:
        """Take away all that was made; give what is left."""
        self._over.set()
        for answer in self._answers.values():
            answer.exception()
        if not self._nodes:
            return ""
        self.run(CLEAN)
        return str(self.run(LEFT).stdout).strip()

    def _start(self, name: str, use: Callable[[], Mapping[str, str]]) -> Future[Mapping[str, str]]:
        return self._answers.setdefault(name, self._pool.submit(use))

    def _script(self, script: str) -> Mapping[str, str]:
        result = self.run(script)
        assert result.rc == 0, str(result.stderr).strip()[-600:] or f"it ended with {result.rc}"
        lines = [line.partition(" ") for line in str(result.stdout).splitlines()]
        return {word: said.strip() for word, _, said in lines}

    def _after(self, before: Future[Mapping[str, str]], script: str) -> Mapping[str, str]:
        before.result()
        return self._script(script)

    def _pull(self, built: Future[Mapping[str, str]]) -> Mapping[str, str]:
        """Push the image, and let a Deployment of the cluster pull and run it."""
        pushed = self._after(built, PUSH)
        words = f"-n {self.name}"
        manifest = json.dumps(_pulling(self.image))
        self._until(lambda: self._lab.kubectl(f"{words} apply -f -", manifest))
        patience = DEADLINE * self._lab.patience
        wait = f"{words} rollout status deployment/{APP} --timeout={patience:.0f}s"
        ask = f"{words} exec deployment/{APP} -- wget -q -O - http://127.0.0.1:{PORT}/word"
        try:
            self._lab.kubectl(wait)
            said = self._lab.kubectl(ask)
            (pod,) = self._lab.get(f"pods {words} -l app={APP}")["items"]
        finally:
            self._lab.kubectl(f"{words} delete deployment {APP} --ignore-not-found")
            gone = self._script(UNPUSH)
            forget = f"sudo ctr -n k8s.io images rm {self.image} {self.image.rpartition(':')[0]}@"
            self._lab.on_every_member(
                lambda name: self._lab.hosts[name].run(f"{forget}{pushed['digest']}")
            )
        ran = pod["status"]["containerStatuses"][0]["imageID"]
        return {**pushed, **gone, "http": " ".join(said.split()), "ran": ran}

    def _until(self, act: Callable[[], object]) -> None:
        """Try until it goes: the namespace is the probes' to make."""
        deadline = time.monotonic() + DEADLINE * self._lab.patience
        while True:
            try:
                act()
            except AssertionError:
                if time.monotonic() > deadline or self._over.wait(1):
                    raise
            else:
                return


@pytest.fixture(scope="session", autouse=True)
def workshop(lab: Lab, deployment: Deployment) -> Iterator[Workshop]:
    started = Workshop(lab, deployment)
    yield started
    left = started.end()
    assert not left, f"these are left of the checks on the tools node: {left}"


def _pulling(image: str) -> dict[str, Any]:
    labels = {"app": APP}
    container = {
        "name": APP,
        "image": image,
        "imagePullPolicy": "Always",
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    pod = {
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": APP},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
