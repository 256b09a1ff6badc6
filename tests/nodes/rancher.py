"""Logs in to Rancher as a user would, and asks what it knows of the lab.

From this computer, so that the password stays here; neither it nor a token is in any message.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.nodes.conftest import Lab

RECORD = "configmap labwright-rancher -n kube-system"
SECONDS = 20.0


class Rancher:
    """Rancher by its own name, trusted by the lab's authority; a session once logged in."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._facts = lab, lab.facts["rancher"]
        self.host = str(self._facts["hostname"])
        self.address = next(e["address"] for e in lab.facts["names"] if self.host in e["names"])
        self.signed_by_the_lab = self._facts["tls"] == "lab"
        self._trust = ssl.create_default_context(cadata=self._authority())
        self._token = ""

    def get(self, path: str) -> Any:
        """Give what Rancher answers to a request that must succeed, parsed."""
        status, body = self.ask("GET", path)
        assert status == 200, f"{path} answers {status}"
        return json.loads(body)

    def login(self) -> int:
        """Log in with the first password and give the status; the session holds from then on."""
        user = {"username": "admin", "password": self._password()}
        status, body = self.ask("POST", "/v3-public/localProviders/local?action=login", user)
        if status == 404:
            new = {"type": "localProvider", **user}
            status, body = self.ask("POST", "/v1-public/login", new)
        self._token = json.loads(body).get("token", "") if status in {200, 201} else ""
        return status

    def logout(self) -> None:
        """End the session."""
        if self._token:
            self.ask("POST", "/v3/tokens?action=logout", {})
            self._token = ""

    def was_accepted(self) -> bool:
        """Whether the first password was good once: then its owner has changed it since."""
        data = self._lab.get(RECORD).get("data") or {}
        return bool(data.get("login") == "accepted")

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Ask at the ingress's address, for Rancher's name and by its certificate."""
        plain = socket.create_connection((self.address, 443), SECONDS)
        connection = http.client.HTTPSConnection(self.host, timeout=SECONDS)
        with self._trust.wrap_socket(plain, server_hostname=self.host) as encrypted:
            connection.sock = encrypted
            headers = {"Content-Type": "application/json", "Connection": "close"}
            if self._token:
                headers["Authorization"] = f"Bearer {self._token}"
            connection.request(
                method, path, json.dumps(body) if body is not None else None, headers
            )
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def _password(self) -> str:
        own = self._facts["password_file"]
        file = Path(own) if own else self._lab.folder / "rancher-password"
        return file.read_text("utf-8").strip()

    def _authority(self) -> str:
        if self.signed_by_the_lab:
            return (self._lab.folder / "tls/ca.crt").read_text("utf-8")
        secret = self._lab.get("secret tls-rancher-ingress -n cattle-system")
        return base64.b64decode(secret["data"]["ca.crt"]).decode()
