"""Interruption and bad input, on the smallest lab."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

from labwright.supplies.packages import PARTS
from labwright.tools import workdir
from tests.e2e.conftest import Folder, docker, gone, interrupt, processes

pytestmark = pytest.mark.e2e


def test_ctrl_c_while_converging_ends_with_130_and_the_next_up_goes_on(one: Folder) -> None:
    process = one.start("lab.up", "--yes")
    one.wait_for_event(3600, lambda e: e.get("text") == "Run kubeadm init")
    code, out = interrupt(process)
    assert code == 130, out
    assert "interrupted" in out
    assert "Traceback" not in out
    assert not processes(str(one.lab))
    one.invoke("lab.up", "--yes")
    one.invoke("lab.destroy", "--yes")
    assert not list(gone(one))


def test_without_the_go_module_proxy_there_is_no_dns_and_all_say_so(
    one: Folder, tmp_path: Path
) -> None:
    # A store as it is on a host that could build all but CoreDNS.
    store = tmp_path / "cache" / "labwright" / "store"
    store.mkdir(parents=True)
    for name in ("go", *PARTS, "base", "apt"):
        for entry in (workdir.cache() / "store").glob(f"{name}-*"):
            shutil.copytree(entry, store / entry.name, copy_function=os.link)
    one.more_env.update(XDG_CACHE_HOME=str(tmp_path / "cache"), GOPROXY="off")
    why = "the Go module proxy does not answer"
    assert why in one.invoke("lab.plan").out
    out = one.invoke("lab.up", "--yes").out
    assert f"without cluster DNS: {why}" in out
    assert "this lab has no cluster DNS" in out
    image = yaml.safe_load((one.lab / "lab.lock").read_text("utf-8"))["node_image"]
    assert "coredns" not in one.kubectl("get", "pods", "-n", "kube-system")
    one.invoke("lab.destroy", "--yes")
    docker("image", "rm", image)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("nmae: x\n", 2, "did you mean name?"),
        ("workers: 0\n", 2, "0 workers leave no node"),
        ("workers: 500\nname: a/b\n", 2, "name: 'a/b' is not allowed"),
        ('supply: packages\nkubernetes: "1.34"\n', 2, "has no Kubernetes 1.34"),
        ('kubernetes: "1.37"\nversions: {rancher: "2.15"}\n', 2, "do not go together"),
        ("network: {pods: 10.96.0.0/16, services: 10.96.0.0/20}\n", 2, "overlaps"),
        ("provider: virtualbox\n", 3, "VBoxManage"),
        ("a: [\n", 2, "this is not YAML"),
    ],
)
def test_bad_input_is_a_clear_error(one: Folder, text: str, code: int, words: str) -> None:
    (one.path / "lab.yaml").write_text(text)
    result = one.invoke("lab.up", "--yes", check=False)
    assert (result.code, words in result.out) == (code, True), result.out


def test_a_plan_touches_nothing(one: Folder) -> None:
    before = sorted(p.name for p in one.path.iterdir())
    out = one.invoke("lab.plan", "--files").out
    assert "boot cp1" in out
    assert 'config.vm.define "cp1"' in out
    assert sorted(p.name for p in one.path.iterdir()) == before
