"""The page of events says what the code says."""

from __future__ import annotations

import pytest

from domain.events import TenantCreated
from domain.upcasters import STEPS
from gateway.events_page import page


def _section(name: str) -> str:
    return page().partition(f"## {name}\n")[2].partition("\n## ")[0]


def test_a_type_shows_its_stream_its_kind_and_what_is_sealed_or_keyed() -> None:
    assert "Decision in the stream `agent/{tenant}/{agent}`." in _section("agent.registered")
    assert "| `metadata` | `str \\| None`, *sealed* |" in _section("agent.registered")
    assert "Fact in the stream `request/{tenant}/{request_id}`." in _section("embedding.requested")
    assert "| `fingerprint` | `str`, *keyed* |" in _section("embedding.requested")
    assert "Schema version 1; no upcasters." in _section("tenant.created")


def test_a_type_shows_the_upcasters_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TenantCreated, "SCHEMA", 3)
    for version in (1, 2):
        monkeypatch.setitem(STEPS, ("tenant.created", version), lambda data: data)
    assert "Schema version 3; upcasters 1 to 2 and 2 to 3." in _section("tenant.created")
    assert "| decision | 3 | 1, 2 |" in page()
