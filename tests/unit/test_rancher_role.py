"""The programs that install and remove Rancher, on what a cluster could answer."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.roles import ROLES, rendered

Json = dict[str, Any]
FILES = ROLES / "rancher" / "files"
WANTED = {"hostname": "rancher.lab.internal", "url": "https://rancher.lab.internal", "tls": "lab"}


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"rancher_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def program() -> ModuleType:
    return _load(FILES / "rancher.py")


@pytest.fixture
def removal() -> ModuleType:
    return _load(FILES / "removal.py")


def thing(kind: str, name: str, **more: Any) -> Json:
    namespace = more.pop("namespace", "")
    place = {"namespace": namespace} if namespace else {}
    metadata = {"name": name, **place, **more.pop("metadata", {})}
    return {"apiVersion": more.pop("api", "v1"), "kind": kind, "metadata": metadata, **more}


def answering(*things: Json) -> Callable[..., list[Json]]:
    """Stand for ``get``: what is there by kind, and by name where one is asked for."""

    def get(resources: str, *words: str, **_more: Any) -> list[Json]:
        kinds = {part.partition(".")[0].rstrip("s") for part in resources.split(",")}
        name = next((w for w in words if not w.startswith("-")), "")
        space = next((w.split("=")[1] for w in words if w.startswith("--namespace=")), "")
        return [
            t
            for t in things
            if t["kind"].lower().rstrip("s") in kinds
            and name in ("", t["metadata"]["name"])
            and space in ("", t["metadata"].get("namespace", ""))
        ]

    return get


def failing(stderr: str) -> Callable[..., str]:
    def run(*words: str, **_more: Any) -> str:
        raise subprocess.CalledProcessError(1, words, "", stderr)

    return run


def server(ready: int = 1, **more: Any) -> Json:
    status = {"observedGeneration": 1, "updatedReplicas": 1, "readyReplicas": ready}
    return thing(
        "Deployment", "rancher", namespace="cattle-system",
        metadata={"generation": 1}, spec={"replicas": 1}, status=status, **more,
    )  # fmt: skip


def pod(**state: Any) -> Json:
    waiting = {"name": "rancher", "image": "rancher/rancher:v2.15.0", "restartCount": 0, **state}
    return thing(
        "Pod", "rancher-1", namespace="cattle-system", status={"containerStatuses": [waiting]}
    )


# --------------------------------------------------------------------------------- what is to do


def record(**data: str) -> Json:
    return thing("ConfigMap", "labwright-rancher", namespace="kube-system", data=data)


@pytest.mark.parametrize(
    ("digest", "there", "answer"),
    [
        ("", [], "absent"),
        ("", [record(digest="")], "remove"),
        ("", [record(digest="a"), server()], "remove"),
        ("a", [], "install"),
        ("a", [record(digest="a"), server()], "current"),
        ("a", [record(digest="b"), server()], "install"),
        ("a", [record(digest="a")], "install"),
        ("a", [record(digest="a"), server(ready=0)], "install"),
    ],
)
def test_one_question_says_what_to_do(
    program: ModuleType, digest: str, there: list[Json], answer: str
) -> None:
    vars(program)["get"] = answering(*there)
    assert program.state(digest) == answer


def values(**more: str) -> Json:
    given: Json = yaml.safe_load(
        rendered(
            "rancher", "values.yaml.j2", {"lab_rancher": {**WANTED, **more}, "lab_patience": 1}
        )
    )
    return given


def test_no_secret_is_among_the_values() -> None:
    assert "bootstrapPassword" not in values()
    assert "password" not in str(values()).lower()


@pytest.mark.parametrize(
    ("tls", "source", "private"), [("lab", "secret", True), ("rancher", "rancher", False)]
)
def test_who_signs(tls: str, source: str, private: bool) -> None:
    given = values(tls=tls)
    assert (given["ingress"]["tls"]["source"], given["privateCA"]) == (source, private)


# ---------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("state", "said", "patient"),
    [
        ({"waiting": {"reason": "ImagePullBackOff"}}, "cannot be pulled", True),
        ({"waiting": {"reason": "InvalidImageName"}}, "cannot be pulled", False),
        ({"waiting": {"reason": "ContainerCreating"}}, "is not ready yet", True),
    ],
)
def test_what_a_pod_waits_for(program: ModuleType, state: Json, said: str, patient: bool) -> None:
    reason = "rpc error: no such host"
    event = thing("Event", "e", namespace="cattle-system", reason="Failed", message=reason)
    event["involvedObject"] = {"kind": "Pod"}
    vars(program)["get"] = answering(server(ready=0), pod(state=state), event)
    with pytest.raises(program.Trouble) as caught:
        program.server({})
    assert said in caught.value.lines[0]
    assert any(reason in line for line in caught.value.lines[1:])
    assert (caught.value.patience > 0) == patient


@pytest.mark.parametrize(("restarts", "hopeless"), [(1, False), (2, True), (3, True)])
def test_a_pod_that_starts_again_and_again_has_last_words(
    program: ModuleType, restarts: int, hopeless: bool
) -> None:
    state: Json = {"running": {}}
    vars(program)["get"] = answering(server(ready=0), pod(state=state, restartCount=restarts))
    vars(program)["kubectl"] = lambda *_words, **_more: "fatal: no database\n"
    with pytest.raises(program.Trouble, match=f"started {restarts + 1} times") as caught:
        program.server({})
    assert "fatal: no database" in caught.value.lines[1]
    assert (caught.value.patience == 0) == hopeless


def test_what_runs_before_the_server_is_looked_at_too(program: ModuleType) -> None:
    """Charts after 2.15 copy Rancher's charts from an image of their own."""
    image = "rancher/rancher-assets:v2.16.0"
    state = {"waiting": {"reason": "InvalidImageName"}}
    there = pod(state={"waiting": {"reason": "PodInitializing"}})
    before = {"name": "rancher-charts-copy", "image": image, "restartCount": 0, "state": state}
    there["status"]["initContainerStatuses"] = [before]
    vars(program)["get"] = answering(server(ready=0), there)
    with pytest.raises(program.Trouble, match=f"image {image} cannot be pulled"):
        program.server({})


def test_a_webhook_without_a_pod_is_waited_for(program: ModuleType) -> None:
    hook = {"clientConfig": {"service": {"name": "rancher-webhook", "namespace": "cattle-system"}}}
    configuration = thing("ValidatingWebhookConfiguration", "rancher.cattle.io", webhooks=[hook])
    vars(program)["get"] = answering(configuration)
    with pytest.raises(program.Trouble, match=r"rancher\.cattle\.io"):
        program.webhooks({})
    starting, there = (
        thing(
            "EndpointSlice",
            "rancher-webhook-x7k2p",
            namespace="cattle-system",
            endpoints=[{"conditions": {"ready": ready}}],
        )
        for ready in (False, True)
    )
    vars(program)["get"] = answering(configuration, starting)
    with pytest.raises(program.Trouble, match="no ready pod"):
        program.webhooks({})
    vars(program)["get"] = answering(configuration, starting, there)
    program.webhooks({})


def test_a_webhook_of_somebody_else_is_not(program: ModuleType) -> None:
    hook = {"clientConfig": {"service": {"name": "x", "namespace": "shop"}}}
    vars(program)["get"] = answering(thing("MutatingWebhookConfiguration", "x", webhooks=[hook]))
    program.webhooks({})


def test_a_certificate_that_nobody_issues(program: ModuleType) -> None:
    vars(program)["get"] = answering()
    with pytest.raises(program.Trouble, match="cert-manager is not here"):
        program.certificate({"tls": "rancher"})
    why = "secret tls-rancher was not found"
    status = {"conditions": [{"type": "Ready", "status": "False", "message": why}]}
    asked = thing("Certificate", "tls-rancher-ingress", namespace="cattle-system", status=status)
    definition = thing("CustomResourceDefinition", "certificates.cert-manager.io")
    vars(program)["get"] = answering(asked, definition)
    with pytest.raises(program.Trouble, match="not issued yet") as caught:
        program.certificate({"tls": "rancher"})
    assert caught.value.lines[1] == why


@pytest.mark.parametrize(("login", "fails"), [("accepted", False), ("", True)])
def test_a_password_of_its_owners_is_respected(
    program: ModuleType, login: str, fails: bool
) -> None:
    vars(program)["get"] = answering(record(login=login))
    vars(program)["ask"] = lambda *_words: (401, "{}")
    if not fails:
        program.login({"hostname": "h"})
        return
    with pytest.raises(program.Trouble, match="does not accept the first password"):
        program.login({"hostname": "h"})


def test_an_accepted_login_ends_its_session_and_is_remembered(program: ModuleType) -> None:
    asked: list[tuple[Any, ...]] = []

    def ask(_wanted: Json, path: str, *more: Any) -> tuple[int, str]:
        asked.append((path, *more))
        return (404, "") if path.startswith("/v3-public") else (200, '{"token": "t:1"}')

    kept: Json = {}
    vars(program).update(get=answering(), ask=ask, keep=lambda **more: kept.update(more))
    program.login({"hostname": "h"})
    assert [words[0].partition("?")[0] for words in asked] == [
        "/v3-public/localProviders/local",
        "/v1-public/login",
        "/v3/tokens",
    ]
    assert asked[-1][-1] == "t:1"
    assert kept == {"login": "accepted"}


@pytest.mark.parametrize(
    ("status", "deleted"),
    [
        ("pending-install", 1),
        ("pending-upgrade", 1),
        ("uninstalling", 1),
        ("deployed", 0),
        ("failed", 0),
    ],
)
def test_an_interrupted_helm_is_mended(program: ModuleType, status: str, deleted: int) -> None:
    asked: list[tuple[str, ...]] = []
    text = f'{{"info": {{"status": "{status}"}}, "version": 3}}'
    vars(program)["run"] = lambda *_words, **_more: text
    vars(program)["kubectl"] = lambda *words, **_more: asked.append(words)
    assert len(program.mend()) == deleted
    assert [words[2] for words in asked] == ["sh.helm.release.v1.rancher.v3"] * deleted


def test_without_a_release_there_is_nothing_to_mend(program: ModuleType) -> None:
    vars(program)["run"] = failing("Error: release: not found")
    assert program.mend() == []


def test_a_wrong_kubernetes_is_said_in_helms_words(
    program: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "Error: chart requires kubeVersion: < 1.37.0-0 which is incompatible with v1.37.1"
    vars(program).update(mend=list, run=failing(words))
    assert program.main(["install"], '{"chart": "c", "values": {}}') == 1
    assert "kubeVersion: < 1.37.0-0" in capsys.readouterr().err


def test_a_wait_ends_at_once_where_waiting_is_no_use(program: ModuleType) -> None:
    def hopeless(_wanted: Json) -> None:
        raise program.Trouble("no use", patience=0)

    vars(program).update(server=hopeless)
    assert program.wait({"deadline": 1000, "digest": "a"}) == ["no use"]


# ------------------------------------------------------------------------------------------ removal


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("cattle.io", True),
        ("management.cattle.io", True),
        ("field.cattle.io/projectId", True),
        ("mycattle.io", False),
        ("cattle.io.example.com", False),
        ("cert-manager.io", False),
        ("authz.cluster.auth.io/project-namespaces", True),
    ],
)
def test_what_is_of_cattle_io(removal: ModuleType, name: str, own: bool) -> None:
    assert removal.cattle(name) == own


def test_namespaces_are_known_by_name_or_by_what_rancher_says(removal: ModuleType) -> None:
    def owner(kind: str, name: str, **more: Any) -> Json:
        return thing(kind, name, api="management.cattle.io/v3", **more)

    there = [
        *(
            thing("Namespace", n)
            for n in ("default", "kube-system", "p-shop", "cattle-fleet-system")
        ),
        *(
            thing("Namespace", n)
            for n in ("local", "local-p-abcde", "fleet-local", "fleet-of-mine")
        ),
        *(thing("Namespace", n) for n in ("p-old", "user-abcde")),
        *(
            thing("CustomResourceDefinition", f"{plural}.management.cattle.io")
            for plural in ("clusters", "projects", "users")
        ),
        owner("Cluster", "local"),
        owner("Cluster", "default"),
        owner(
            "Project", "p-abcde", namespace="local", status={"backingNamespace": "local-p-abcde"}
        ),
        owner("User", "user-abcde"),
        thing(
            "ConfigMap",
            "labwright-rancher",
            namespace="kube-system",
            data={"namespaces": '["p-old"]'},
        ),
    ]
    vars(removal)["get"] = answering(*there)
    assert removal.namespaces() == {
        "cattle-fleet-system",
        "local",
        "local-p-abcde",
        "fleet-local",
        "user-abcde",
        "p-old",
    }


@pytest.mark.parametrize(
    ("more", "own"),
    [
        ({"metadata": {"labels": {"cattle.io/creator": "norman"}}}, True),
        ({"metadata": {"annotations": {"field.cattle.io/creatorId": "u"}}}, True),
        ({"metadata": {"annotations": {"meta.helm.sh/release-namespace": "cattle-system"}}}, True),
        ({"metadata": {"annotations": {"meta.helm.sh/release-namespace": "shop"}}}, False),
        ({"metadata": {"ownerReferences": [{"apiVersion": "management.cattle.io/v3"}]}}, True),
        ({"metadata": {"ownerReferences": [{"apiVersion": "apps/v1"}]}}, False),
        ({"subjects": [{"kind": "ServiceAccount", "namespace": "cattle-system"}]}, True),
        ({"subjects": [{"namespace": "cattle-system"}, {"kind": "User"}]}, False),
        ({"subjects": []}, False),
        ({}, False),
    ],
)
def test_a_role_is_ranchers_by_its_marks(removal: ModuleType, more: Json, own: bool) -> None:
    assert removal.made(thing("ClusterRole", "p-shop-edit", **more), {"cattle-system"}) == own


def role(name: str, *labels: str, kind: str = "ClusterRole", **more: Any) -> Json:
    return thing(kind, name, metadata={"labels": dict.fromkeys(labels, "true")}, **more)


AGGREGATES, BOOTSTRAP = "management.cattle.io/aggregates", "kubernetes.io/bootstrapping"


def test_what_is_kubernetes_own_or_was_there_stays_and_loses_its_marks(
    removal: ModuleType,
) -> None:
    admin = role("cluster-admin", AGGREGATES, BOOTSTRAP)
    mine, theirs = (role(name, "cattle.io/creator") for name in ("mine", "theirs"))
    kind = "CustomResourceDefinition"
    own, other = (
        thing(kind, f"{n}.helm.cattle.io", spec={"group": "helm.cattle.io"})
        for n in ("own", "other")
    )
    vars(removal)["get"] = answering(admin, mine, theirs, own, other)
    before = {"ClusterRole /mine", f"{kind} /own.helm.cattle.io"}
    assert removal.strays({"cattle-system"}, before) == [theirs]
    assert removal.definitions(set(), before) == [other]
    patched: list[tuple[str, Json]] = []
    vars(removal)["patch"] = lambda it, change, *_more: patched.append(
        (it["metadata"]["name"], change["metadata"])
    )
    removal.release(set(), before)
    assert patched == [
        ("cluster-admin", {"labels": {AGGREGATES: None}}),
        ("mine", {"labels": {"cattle.io/creator": None}}),
    ]


@pytest.mark.parametrize(
    ("name", "to", "goes"),
    [
        ("crb-abcdefgh23", "p-x-namespaces-edit", True),
        ("rb-abcdefgh23", "gone", True),
        ("crb-abcdefgh23", "mine", False),
        ("shop-readers", "p-x-namespaces-edit", False),
        ("crb-of-the-shop", "gone", False),
    ],
)
def test_a_binding_with_a_computed_name_goes_with_its_role(
    removal: ModuleType, name: str, to: str, goes: bool
) -> None:
    theirs = role("p-x-namespaces-edit", "authz.cluster.auth.io/project-namespaces")
    binding = thing("ClusterRoleBinding", name, roleRef={"name": to}, subjects=[{"kind": "User"}])
    vars(removal)["get"] = answering(theirs, role("mine"), binding)
    assert removal.strays(set(), set()) == ([theirs, binding] if goes else [theirs])


def test_what_was_there_is_written_down_once(program: ModuleType) -> None:
    there = [role("cluster-admin"), role("reader", kind="Role", namespace="shop")]
    written: list[Json] = []

    def put(kind: str, _name: str, _space: str, content: Json) -> list[str]:
        written.extend([content["data"]] if kind == "ConfigMap" else [])
        return []

    vars(program).update(get=answering(*there), put=put)
    program.prepare("p", None)
    assert json.loads(written[0]["before"]) == ["ClusterRole /cluster-admin", "Role shop/reader"]
    vars(program)["get"] = answering(record(**written[0]), *there, role("rancher-made"))
    written.clear()
    program.prepare("p", None)
    assert written[0] == {
        "digest": "",
        "before": '["ClusterRole /cluster-admin", "Role shop/reader"]',
    }


def test_only_finalizers_and_marks_of_ranchers_go(removal: ModuleType) -> None:
    held = thing(
        "Namespace",
        "shop",
        metadata={
            "finalizers": ["controller.cattle.io/namespace-auth", "example.com/mine"],
            "labels": {"field.cattle.io/projectId": "p", "team": "a"},
            "annotations": {"cattle.io/status": "{}", "note": "b"},
        },
    )
    assert removal.freed(held) == {"finalizers": ["example.com/mine"]}
    assert removal.unmarked(held) == {
        "labels": {"field.cattle.io/projectId": None},
        "annotations": {"cattle.io/status": None},
    }
    assert removal.freed(thing("Namespace", "x", metadata={"finalizers": ["a/b"]})) == {}


def test_what_nobody_answers_for_is_known_by_where_it_asks(removal: ModuleType) -> None:
    def hook(name: str, space: str) -> Json:
        config = {"clientConfig": {"service": {"name": "s", "namespace": space}}}
        return thing("ValidatingWebhookConfiguration", name, webhooks=[config])

    service = {"service": {"name": "x", "namespace": "cattle-system"}}
    there = [
        hook("rancher.cattle.io", "elsewhere"),
        hook("capi", "cattle-provisioning-capi-system"),
        hook("mine", "shop"),
        thing("APIService", "v1.ext.cattle.io", spec=service),
        thing("APIService", "v3.management.cattle.io", spec={"service": None}),
        thing(
            "APIService", "v1beta1.metrics.k8s.io", spec={"service": {"namespace": "kube-system"}}
        ),
    ]
    vars(removal)["get"] = answering(*there)
    found = removal.refusers({"cattle-system", "cattle-provisioning-capi-system"})
    assert [t["metadata"]["name"] for t in found] == [
        "rancher.cattle.io",
        "capi",
        "v1.ext.cattle.io",
    ]


def test_what_holds_is_said(removal: ModuleType) -> None:
    conditions = [
        {"type": "NamespaceContentRemaining", "status": "True", "message": "Some are left: x"},
        {"type": "NamespaceDeletionDiscoveryFailure", "status": "False", "message": "no"},
    ]
    space = thing("Namespace", "cattle-system", status={"conditions": conditions})
    assert removal.hanging(space) == "namespace cattle-system is still there: Some are left: x"
    held = thing("Cluster", "local", metadata={"finalizers": ["a/b"]})
    assert removal.hanging(held).endswith("finalizers a/b")


def test_the_programs_are_sent_as_they_are() -> None:
    """What calls ``main`` is put after them: neither may do anything by itself."""
    for name in ("rancher.py", "removal.py"):
        assert "__main__" not in (FILES / name).read_text("utf-8")
