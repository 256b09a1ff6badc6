"""Secrets are masked, ordinary words are not, and the journal keeps one object a line."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from labwright.errors import Finding
from labwright.events import MASK, Event, Journal, mask, masked, nowhere, tee
from tests.fakes import Recorder

HEX = "0123456789abcdef" * 4
TOKEN = "abcdef.0123456789abcdef"
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJlLW9mLWl0"
PRIVATE_KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7c\nq3Zt0w==\n-----END RSA PRIVATE KEY-----"
)

# What is said, and the part of it that nobody may read.
SAID = {
    "kubeadm token": (f"kubeadm join 192.168.56.11:6443 --token {TOKEN}", TOKEN),
    "token in yaml": (f"bootstrapTokens:\n- token: {TOKEN}", TOKEN),
    "any token in yaml": ("token: s3cr3t-of-rancher", "s3cr3t-of-rancher"),
    "token of an option": ("k3s agent --token=K10deadbeef", "K10deadbeef"),
    "token in json": ('{"token": "s3cr3t-of-rancher"}', "s3cr3t-of-rancher"),
    "certificate key": (f"kubeadm join --certificate-key {HEX}", HEX),
    "certificate key with =": (f"kubeadm join --certificate-key={HEX}", HEX),
    "certificate key in yaml": (f"certificateKey: {HEX}", HEX),
    "certificate key in json": (f'"certificateKey": "{HEX}"', HEX),
    "certificate key as kubeadm says it": (f"[upload-certs] Using certificate key:\n{HEX}", HEX),
    "web token": (f"Authorization is {JWT} here", JWT),
    "bearer": ("Authorization: Bearer kubeconfig-u-x7:9zq", "kubeconfig-u-x7:9zq"),
    "private key": (f"key:\n{PRIVATE_KEY}\n", "MIIEowIBAAKCAQEA7c"),
    "openssh key": (PRIVATE_KEY.replace("RSA", "OPENSSH"), "MIIEowIBAAKCAQEA7c"),
    "plain key": (PRIVATE_KEY.replace("RSA ", ""), "q3Zt0w=="),
    "private key on one line": (json.dumps({"out": PRIVATE_KEY}), "MIIEowIBAAKCAQEA7c"),
    "client key": ("    client-key-data: LS0tLS1CRUdJTg==", "LS0tLS1CRUdJTg=="),
    "client key in json": ('"client-key-data": "LS0tLS1CRUdJTg=="', "LS0tLS1CRUdJTg=="),
    "password in yaml": ("bootstrapPassword: hunter2", "hunter2"),
    "password of an option": ("--set bootstrapPassword=hunter2", "hunter2"),
    "password in json": ('{"password": "hunter2"}', "hunter2"),
    "url": ("http://user:hunter2@proxy.lan:3128/", "hunter2"),
    "url in words": ("cloning https://bot:gh-t0ken@git.lan/x.git failed", "gh-t0ken"),
}

ORDINARY = (
    "Kubernetes 1.20.2, containerd 1.6.20~ds1-1+deb12u1, CoreDNS 1.10.1",
    f"sha256:{HEX}",
    f"--discovery-token-ca-cert-hash sha256:{HEX}",
    "labwright/node:0123456789abcdef",
    "kubernetes-0123456789abcdef is damaged",
    "coredns-74ff55c5b-7xk2p on w1",
    "kube-controller-manager-cp1.labwright.local",
    "labwright.local/coredns:1.10.1",
    "get http://192.168.56.1:8750/apt/Packages",
    "ssh://vagrant@127.0.0.1:2222",
    "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----",
    "certificate-authority-data: LS0tLS1CRUdJTg==",
    "08:00:27:ab:cd:ef at 192.168.56.11/24",
    "error: w1: the kubelet does not answer\n  fix: invoke lab.up",
    "",
)


@pytest.mark.parametrize("shape", SAID)
def test_a_secret_is_masked(shape: str) -> None:
    text, secret = SAID[shape]
    assert secret in text
    assert secret not in mask(text)
    assert MASK in mask(text)


def test_what_is_around_a_secret_stays() -> None:
    assert mask(f"join 10.0.0.1:6443 --token {TOKEN} --v=5") == (
        f"join 10.0.0.1:6443 --token {MASK} --v=5"
    )
    assert mask("http://user:pw@proxy.lan:3128/x") == f"http://{MASK}@proxy.lan:3128/x"
    assert mask(f"a\n{PRIVATE_KEY}\nb") == f"a\n{MASK}\nb"


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_words_stay(text: str) -> None:
    assert mask(text) == text


def test_masking_twice_is_masking_once() -> None:
    for text, _ in SAID.values():
        assert mask(mask(text)) == mask(text)


def test_every_string_inside_a_value_is_masked() -> None:
    value = {"a": [TOKEN, 3, {"b": (f"x {TOKEN}", None)}], "c": True}
    assert masked(value) == {"a": [MASK, 3, {"b": [f"x {MASK}", None]}], "c": True}


def test_tee_gives_each_event_to_all_in_order() -> None:
    one, two = Recorder(), Recorder()
    both = tee(one, nowhere, two)
    events = [Event("say", "a"), Event("say", "b")]
    for event in events:
        both(event)
    assert one.events == two.events == events


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def noon() -> datetime:
    return datetime(2024, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)


def test_the_journal_has_one_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.jsonl"
    journal = Journal(path, now=noon)
    journal(Event("run", "lab.up", data={"lab": "lab", "pid": 7}))
    journal(Event("start", "Boot", "boot", 5, 8))
    journal(Event("tool", "two\nlines", "boot", 5, 8))
    journal(Event("done", "", "boot", 5, 8, seconds=1.23456))
    at = "2024-01-02T12:00:00.123+00:00"
    assert lines(path) == [
        {"at": at, "kind": "run", "text": "lab.up", "lab": "lab", "pid": 7},
        {"at": at, "kind": "start", "phase": "boot", "step": 5, "steps": 8, "text": "Boot"},
        {"at": at, "kind": "tool", "phase": "boot", "step": 5, "steps": 8, "text": "two\nlines"},
        {"at": at, "kind": "done", "phase": "boot", "step": 5, "steps": 8, "seconds": 1.235},
    ]


def test_a_finding_is_written_with_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path)(Event("finding", finding=Finding("a.b", "warning", "what", fix="do")))
    assert lines(path)[0]["finding"] == {
        "id": "a.b",
        "level": "warning",
        "what": "what",
        "fix": "do",
    }


def test_the_journal_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path)(Event("say", "x"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_run_appends(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for word in ("one", "two"):
        Journal(path)(Event("run", word))
    assert [line["text"] for line in lines(path)] == ["one", "two"]


def test_the_journal_masks_every_part_of_an_event(tmp_path: Path) -> None:
    text = f"kubeadm join --token {TOKEN}"
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal(Event("tool", text))
    journal(Event("failed", "x", data={"details": [text], "deep": {"er": text}}))
    journal(Event("finding", finding=Finding("a.b", "error", text, text, text, text)))
    assert TOKEN not in path.read_text("utf-8")
    assert [line["kind"] for line in lines(path)] == ["tool", "failed", "finding"]


def test_a_journal_that_cannot_be_written_hides_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    journal = Journal(folder / "journal.jsonl")
    (folder / "journal.jsonl").unlink()
    folder.rmdir()
    journal(Event("say", "the folder is gone"))
    assert not folder.exists()
