"""Reads under way are bounded, all together and for each tenant."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from domain.errors import GatewayError
from gateway.reads.turns import Turns


def refusal(turns: Turns, tenant: str | None) -> str:
    with pytest.raises(GatewayError) as caught, turns.take(tenant):
        pass
    assert caught.value.retryable
    assert caught.value.retry_after_ms
    return caught.value.code


def test_a_tenant_at_its_bound_leaves_others_theirs_until_all_are_taken() -> None:
    turns = Turns(most=5, most_of_a_tenant=2)
    with ExitStack() as under_way:
        for tenant in ("a", "a", "b", "b"):
            under_way.enter_context(turns.take(tenant))
        assert refusal(turns, "a") == "too_many_in_flight"
        under_way.enter_context(turns.take(None))
        assert refusal(turns, "c") == "overloaded"
    with turns.take("a"), turns.take("a"):
        assert refusal(turns, "a") == "too_many_in_flight"


def test_a_read_that_fails_gives_its_turn_back() -> None:
    turns = Turns(most=1, most_of_a_tenant=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), turns.take("a"):
            raise ZeroDivisionError
    with turns.take("b"):
        assert refusal(turns, "c") == "overloaded"
