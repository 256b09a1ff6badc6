"""What happens in a run, told once: to the console, and to the journal as JSON lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from labwright.errors import Finding

Kind = Literal["run", "start", "say", "step", "tool", "skip", "done", "failed", "finding", "end"]


@dataclass(frozen=True, slots=True)
class Event:
    """One event: ``step`` of ``steps`` is 0 outside phases; ``seconds`` is set when one ends."""

    kind: Kind
    text: str = ""
    phase: str = ""
    step: int = 0
    steps: int = 0
    seconds: float | None = None
    finding: Finding | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class Sink(Protocol):
    """Takes events; it must not raise."""

    def __call__(self, event: Event, /) -> None:
        """Take one event."""


def nowhere(_event: Event) -> None:
    """Take an event and tell nobody."""


def tee(*sinks: Sink) -> Sink:
    """Give every event to each of the sinks, in order."""

    def both(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return both


# Shapes of secrets in the words of kubeadm, kubectl, ssh and Rancher; matched whole, in any text.
SECRETS: tuple[re.Pattern[str], ...] = (
    re.compile(r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b"),  # kubeadm bootstrap token
    re.compile(r"(?i)(certificate[- ]?key[\"']?[\s:=]+[\"']?)[0-9a-f]{64}"),
    re.compile(r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"),  # JSON web token
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL),
    re.compile(r"(?i)(client-key-data[\"']?\s*[:=]\s*)[^\s,}]+"),
    re.compile(r"(?i)(?<=\bbearer )\S+"),
    re.compile(r"(?i)(?<=\bbasic )[A-Za-z0-9+/]{8,}={0,2}"),
    re.compile(r"(?i)(--(?:password|token)[= ])\S+"),
    re.compile(r"(?i)(\bauth[\"']?\s*[:=]\s*[\"'])[A-Za-z0-9+/]{8,}={0,2}"),
    re.compile(r"(?i)((?:password|\btoken)[\"']?\s*[:=]\s*)[^\s,}]+"),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),  # user:password of an URL
)
MASK = "•••"


def mask(text: str) -> str:
    """Replace everything in ``text`` that has the shape of a secret."""
    for shape in SECRETS:
        text = shape.sub(rf"\g<1>{MASK}" if shape.groups else MASK, text)
    return text


def masked(value: Any) -> Any:
    """Mask every string inside a JSON-like value."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {key: masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item) for item in value]
    return value


class Journal:
    """Appends events to a file, one JSON object a line, secrets masked.

    Masking lives in this module alone (:func:`masked`); the console uses the same function.
    """

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Write to ``path``, readable by its owner only."""
        self._path = path
        self._now = now
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)

    def __call__(self, event: Event) -> None:
        """Append one event; a full disk must not hide the event that tells of it."""
        record = {"at": self._now().isoformat(timespec="milliseconds"), **_record(event)}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(masked(record), ensure_ascii=False) + "\n")
        except OSError:
            return


def _record(event: Event) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": event.kind}
    if event.phase:
        fields |= {"phase": event.phase, "step": event.step, "steps": event.steps}
    if event.text:
        fields["text"] = event.text
    if event.seconds is not None:
        fields["seconds"] = round(event.seconds, 3)
    if event.finding is not None:
        finding = event.finding
        fields["finding"] = {
            name: getattr(finding, name)
            for name in ("id", "level", "what", "why", "fix", "where", "docs")
            if getattr(finding, name)
        }
    return fields | dict(event.data)
