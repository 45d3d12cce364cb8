"""Signatures, checked by the library that receivers use."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from adapters.webhooks.retry_after import retry_after
from adapters.webhooks.signing import headers, new_secret, signature

BODY = b'{"type":"alert.raised","data":{"summary":"\xc3\xa4"}}'


def test_a_secret_is_32_random_bytes_with_the_prefix_of_the_standard() -> None:
    secret = new_secret()
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret[6:], validate=True)) == 32
    assert new_secret() != secret


def test_the_receivers_library_takes_our_signature() -> None:
    secret = new_secret()
    Webhook(secret).verify(BODY, headers("msg_1", int(time.time()), BODY, [secret]))


def test_during_a_rotation_the_old_and_the_new_secret_verify() -> None:
    old, new = new_secret(), new_secret()
    sent = headers("msg_1", int(time.time()), BODY, [new, old])
    assert sent["webhook-signature"].count("v1,") == 2
    for secret in (old, new):
        Webhook(secret).verify(BODY, sent)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": str(int(time.time()) - 1000)},
        {"webhook-signature": "v1,AAAA"},
    ],
)
def test_a_message_that_was_changed_or_kept_does_not_verify(change: dict[str, str]) -> None:
    secret = new_secret()
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, headers("msg_1", int(time.time()), BODY, [secret]) | change)


def test_another_secret_does_not_verify() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, headers("msg_1", int(time.time()), BODY, [new_secret()]))


def test_the_signature_of_the_standards_example() -> None:
    # From the specification's reference implementations.
    assert (
        signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1614265330,
            b'{"test": 2432232314}',
        )
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@given(st.binary(), st.binary(min_size=24, max_size=64), st.text("abc-0", min_size=1))
def test_whatever_is_sent_verifies(body: bytes, key: bytes, name: str) -> None:
    text = body.hex().encode()  # the library reads the body as text
    secret = "whsec_" + base64.b64encode(key).decode()
    body = b'"' + text + b'"'
    Webhook(secret).verify(body, headers(name, int(time.time()), body, [secret]))


def test_retry_after_is_seconds_or_a_date_and_at_most_a_day() -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    at = now.timestamp()
    assert retry_after("120", at) == 120
    assert retry_after(" 0 ", at) == 0
    assert retry_after((now + timedelta(minutes=2)).strftime("%a, %d %b %Y %H:%M:%S GMT"), at) == 120
    assert retry_after("Sat, 21 Nov 2020 12:00:00 GMT", at) == 0
    assert retry_after("9" * 400, at) == 86400
    for nothing in (None, "", "soon", "-1", "1.5", "²"):
        assert retry_after(nothing, at) is None
