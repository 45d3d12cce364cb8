"""The numbers and tables that clients and scripts rely on, written out a second time: whoever changes one changes a promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import CODES, GatewayError
from gateway.http.answers import error_answer
from gateway.service.admission import deadline_seconds
from gateway.settings import load_settings
from gateway.wire.messages import EmbeddingGenerate, Limits
from gateway.wire.sessions import WireSettings

ERRORS = """
invalid_message 400 no
unknown_type 400 no
invalid_request 400 no
input_too_long 400 no
invalid_cursor 400 no
invalid_config 400 no
type_unsupported 400 no
unauthorized 401 no
forbidden 403 no
not_found 404 no
model_not_found 404 no
id_reused 409 no
model_exists 409 no
version_conflict 409 no
subscription_exists 409 no
subscription_taken 409 no
result_expired 409 no
resource_constraint 409 no
model_not_enabled 403 no
quota_exceeded 402 no
budget_exceeded 402 no
rate_limited 429 yes
too_many_in_flight 429 yes
no_model_available 503 yes
overloaded 503 yes
draining 503 yes
unavailable 503 yes
provider_unavailable 502 yes
provider_error 502 no
reload_failed 502 no
deadline_exceeded 504 yes
cancelled 499 no
internal 500 yes
"""


def test_every_code_has_its_status_and_says_whether_to_retry() -> None:
    table = {code: (int(status), retry == "yes") for code, status, retry in map(str.split, ERRORS.strip().splitlines())}
    assert table == CODES


@pytest.mark.parametrize("code", sorted(CODES))
def test_over_http_a_code_has_the_same_status_and_the_wait_in_whole_seconds(code: str) -> None:
    status, headers, _ = error_answer(GatewayError(code, "what to do", retry_after_ms=1200))
    sent = dict(headers)
    assert (status, sent[b"retry-after"], sent[b"retry-after-ms"]) == (CODES[code][0], b"2", b"1200")
    assert sent[b"x-should-retry"] == (b"true" if CODES[code][1] else b"false")
    assert b"retry-after" not in dict(error_answer(GatewayError(code, "what to do"))[1])


def test_the_times_and_sizes_of_a_connection() -> None:
    wire = WireSettings()
    assert (wire.open_seconds, wire.drain_seconds, wire.unauthenticated_bytes) == (5, 30, 64 * 1024)
    assert wire.sweep_seconds <= 0.5, "a revoked key's sessions are found by the sweep, within a second"
    link = wire.link
    assert (link.ping_interval, link.ping_timeout, link.drain_seconds) == (20, 20, 1)
    assert link.stall_seconds + link.slow_close_seconds < 5, "a peer that takes nothing is gone in five seconds"


def test_the_limits_of_a_session() -> None:
    assert Limits() == Limits(
        max_message_bytes=16 * 1024 * 1024,
        max_inputs=10_000,
        max_input_chars=200_000,
        max_in_flight=256,
        max_in_flight_inputs=20_000,
        idempotency_seconds=86_400,
    )


def test_what_a_request_is_when_it_says_nothing_more() -> None:
    plain = EmbeddingGenerate(id="r", input="a text")
    assert (plain.encoding, plain.truncate, plain.cache, plain.stream, plain.dry_run) == (
        "float32",
        "error",
        "use",
        False,
        False,
    )
    assert deadline_seconds(plain) == 60


def test_the_settings_that_scripts_rely_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LISTEN", "DATA_DIR", "WORKERS", "DATABASE_URL", "REDIS_URL", "CONFIG"):
        monkeypatch.delenv(f"EMBERLOG_{name}", raising=False)
    plain = load_settings()
    assert (plain.listen, plain.data_dir, plain.workers) == ("127.0.0.1:8080", tmp_path / ".emberlog", 1)
    assert plain.embedded_postgres
    assert plain.embedded_valkey
    given = {
        "LISTEN": "127.0.0.1:9", "DATA_DIR": "/d", "DATABASE_URL": "postgresql://h/d", "REDIS_URL": "none",
        "SECRET_KEY_FILE": "/k", "TLS_CERT": "/c", "TLS_KEY": "/t", "TRUSTED_PROXIES": "10.0.0.0/8, 127.0.0.1",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(f"EMBERLOG_{name}", value)
    settings = load_settings()
    assert (settings.redis_off, settings.embedded_postgres, settings.embedded_valkey) == (True, False, False)
    assert (settings.secret_key_file, settings.tls_cert, settings.tls_key) == (Path("/k"), Path("/c"), Path("/t"))
    assert settings.trusted_proxies == ["10.0.0.0/8", "127.0.0.1"]
