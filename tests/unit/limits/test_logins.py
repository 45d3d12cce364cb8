"""Failed attempts to get in, by client address."""

from __future__ import annotations

import pytest

from domain.errors import GatewayError
from gateway.limits import logins
from gateway.limits.logins import FailedLogins, address_of

WRONG = GatewayError("unauthorized", "no")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(counter: FailedLogins, address: str = "192.0.2.1") -> str:
    return counter.judged(WRONG, address).code


def test_so_many_a_minute_are_told_what_is_wrong_and_the_rest_to_wait() -> None:
    clock = Clock()
    counter = FailedLogins(3, clock)
    assert [told(counter) for _ in range(5)] == ["unauthorized"] * 3 + ["rate_limited"] * 2
    error = counter.judged(WRONG, "192.0.2.1")
    assert error.retry_after_ms == 20_000
    assert error.details == {"scope": "address", "unit": "requests", "limit": 3}
    clock.now += 19.999
    assert told(counter) == "rate_limited"
    clock.now += 0.001
    assert [told(counter) for _ in range(2)] == ["unauthorized", "rate_limited"]
    clock.now += 3600
    assert [told(counter) for _ in range(4)] == ["unauthorized"] * 3 + ["rate_limited"]


def test_one_address_does_not_answer_for_another() -> None:
    counter = FailedLogins(1, Clock())
    assert told(counter, "192.0.2.1") == "unauthorized"
    assert told(counter, "192.0.2.1") == "rate_limited"
    assert told(counter, "192.0.2.2") == "unauthorized"


def test_what_is_wrong_with_a_valid_credential_is_not_counted() -> None:
    counter = FailedLogins(1, Clock())
    for _ in range(3):
        assert counter.judged(GatewayError("forbidden", "no"), "192.0.2.1").code == "forbidden"
    assert told(counter) == "unauthorized"


def test_a_bounded_number_of_addresses_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "ADDRESSES", 3)
    counter = FailedLogins(1, Clock())
    for address in "abc":
        told(counter, address)
    assert told(counter, "a") == "rate_limited"
    assert told(counter, "d") == "unauthorized", "b has failed least recently and is forgotten"
    assert [told(counter, address) for address in "acd"] == ["rate_limited"] * 3
    assert told(counter, "b") == "unauthorized"


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("192.0.2.1", 4711), "192.0.2.1"),
        (("::ffff:192.0.2.1", 4711), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 4711), "2001:db8:1:2::"),
        (("2001:db8:1:2::9", 4711), "2001:db8:1:2::"),
        (("2001:db8:1:3::9", 4711), "2001:db8:1:3::"),
        (("fe80::1%eth0", 4711), "fe80::"),
        (("unknown", 0), "unknown"),
        (("x" * 10_000, 0), "x" * 64),
        (None, ""),
    ],
)
def test_an_address_is_the_network_that_one_subscriber_has(client: tuple[str, int] | None, address: str) -> None:
    assert address_of({"type": "http", "client": client}) == address
