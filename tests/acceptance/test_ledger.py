"""Negative controls: each thing that the acceptance tests hold true of a log is seen to fail on a log where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.bench.vectors import vector_of
from tests.acceptance.ledger import ABANDONED, FAILED, GENERATED, REQUESTED, Event, audit, spent, within
from tests.acceptance.load import check_vectors
from tests.acceptance.provider import DIMENSIONS

_BILL = {"tokens": 10, "billed_tokens": 10, "unit_pico_usd": 20_000, "nano_usd": 200}


def _event(position: int, kind: str, attempt: int = 1, request: str = "r", **data: Any) -> Event:
    body = {"request_id": request, "attempt": attempt, "at": 100 + attempt, **data}
    return Event(position, f"e{position}", "acme", f"request/acme/{request}", kind, body)


def _requested(position: int, attempt: int = 1, **data: Any) -> Event:
    return _event(position, REQUESTED, attempt, **{"reserved_tokens": 10, "reserved_nano_usd": 200, **data})


def _generated(position: int, attempt: int = 1, **data: Any) -> Event:
    return _event(position, GENERATED, attempt, **{**_BILL, **data})


def _failed(position: int, attempt: int = 1, **data: Any) -> Event:
    return _event(position, FAILED, attempt, **{"retryable": True, **data})


def test_a_sound_log_is_summed_up() -> None:
    found = audit([
        _requested(1),
        _failed(2),
        _requested(3, 2),
        _event(4, ABANDONED, 2),
        _requested(5, 3),
        _generated(6, 3),
        _requested(7, request="other"),
    ])  # fmt: skip
    assert list(found.generated) == [("acme", "r")]
    assert (found.open, found.abandoned) == ([("acme", "other")], 1)
    assert (found.nano_usd, found.billed_tokens) == (200, 10)


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([_requested(1), _generated(3)], "positions"),
        ([_requested(1), _generated(2), _requested(3, 2)], "after the binding outcome"),
        ([_requested(1), _generated(2), _generated(3)], "after the binding outcome"),
        ([_requested(1), _failed(2, retryable=False), _requested(3, 2)], "after the binding outcome"),
        ([_requested(1), _requested(2, 2)], "before attempt 1 ended"),
        ([_requested(1), _failed(2), _requested(3, 3)], "counted 1, 2, 3"),
        ([_generated(1)], "without a request"),
        ([_requested(1), _generated(2, 2)], "of another attempt"),
        ([_requested(1), _generated(2, at=5)], "of another time"),
        ([_requested(1), _generated(2, billed_tokens=11, nano_usd=220)], "more tokens are billed"),
        ([_requested(1), _generated(2, nano_usd=201)], "more is charged"),
        ([_requested(1), _generated(2, nano_usd=199)], "tokens times the price"),
        ([_requested(1), _event(2, ABANDONED, nano_usd=1)], "abandoned attempt is charged"),
        ([_requested(1), _failed(2, **_BILL), _requested(3, 2), _generated(4, 2)], "two attempts are billed"),
    ],
)
def test_an_unsound_log_is_refused(events: list[Event], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        audit(events)


def test_an_event_id_that_occurs_twice_is_refused() -> None:
    first, second = _requested(1), _generated(2)
    with pytest.raises(AssertionError, match="occurs twice"):
        audit([first, Event(2, first.event_id, second.tenant, second.stream, second.type, second.data)])


def test_a_caller_who_is_given_the_vector_of_another_text_is_noticed() -> None:
    rows = np.stack([vector_of(text, DIMENSIONS) for text in ("mine", "yours")])
    check_vectors(["mine", "yours"], rows, "right")
    with pytest.raises(AssertionError, match="row 0 is not the vector of its text"):
        check_vectors(["mine", "yours"], rows[::-1], "swapped")


def test_one_unit_over_a_quota_is_seen() -> None:
    events = [
        _requested(1),
        _failed(2, code="cancelled", billed_tokens=3, nano_usd=60),
        _failed(3, 2, code="provider_error"),
        _generated(4, 3),
    ]
    assert spent(events, "acme") == {"tokens": 13, "requests": 2, "nano_usd": 260}
    for unit, used in spent(events, "acme").items():
        assert within(events, "acme", unit, used + 4) == 4
        assert within(events, "acme", unit, used) == 0
        with pytest.raises(AssertionError, match="overspent"):
            within(events, "acme", unit, used - 1)
    assert within(events, "globex", "tokens", 0) == 0
