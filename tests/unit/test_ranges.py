"""Version ranges as Helm charts write them. Real Helm agrees in tests/contract."""

from __future__ import annotations

import pytest

from labwright.catalog.ranges import within


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("< 1.37.0-0", "1.36.4 1.0.0", "1.37.0 1.37.1 2.0.0"),
        (">=1.25.0-0", "1.25.0 1.37.1", "1.24.17"),
        (">= 1.20.0-0 < 1.37.0-0", "1.20.0 1.36.9", "1.19.16 1.37.0"),
        (">=1.20, <1.30", "1.20.2 1.29.14", "1.30.0 1.19.0"),
        ("1.20.x || >=1.30.0", "1.20.2 1.30.0 1.36.4", "1.21.0 1.29.9"),
        ("~1.30", "1.30.0 1.30.14", "1.31.0 1.29.9"),
        ("~1.30.2", "1.30.2 1.30.14", "1.30.1 1.31.0"),
        ("~1", "1.0.0 1.99.0", "2.0.0"),
        ("^1.20", "1.20.0 1.36.4", "1.19.0 2.0.0"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"),
        ("1.20 - 1.30", "1.20.0 1.30.14", "1.19.9 1.31.0"),
        ("=1.36.4", "1.36.4", "1.36.3"),
        ("1.36", "1.36.0 1.36.4", "1.37.0"),
        ("!=1.36.4", "1.36.3 1.37.0", "1.36.4"),
        (">1.36.4", "1.36.5", "1.36.4"),
        (">1.36", "1.37.0", "1.36.4"),
        ("<=1.36", "1.36.9", "1.37.0"),
        ("=<v1.36.4", "1.36.4", "1.36.5"),
        ("*", "0.0.1 1.36.4", ""),
        ("", "1.36.4", ""),
    ],
)
def test_a_range(text: str, inside: str, outside: str) -> None:
    assert [v for v in inside.split() if not within(text, v)] == []
    assert [v for v in outside.split() if within(text, v)] == []


@pytest.mark.parametrize("text", ["about 1.30", ">=", "1.2.3.4", "%VERSION%", "<1.30 or so"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        within(text, "1.30.0")


def test_what_is_no_version() -> None:
    with pytest.raises(ValueError, match="not a version"):
        within(">=1.30", "newest")
