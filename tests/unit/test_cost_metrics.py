"""What the metrics say of money: every bill is in them, in dollars from integers, and what has no price is counted beside them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.events import EmbeddingFailed, EmbeddingGenerated
from domain.money import NANO_PER_USD
from gateway.telemetry.metrics import RequestMetrics
from tests.support.projecting import failed, generated

SERVED = {"tenant_id": "acme", "model": "m", "provider": "p"}
_AMOUNT = st.none() | st.integers(0, 10**15)


def value(metrics: RequestMetrics, name: str, **labels: str) -> float:
    found = [s.value for family in metrics.collect() for s in family.samples if s.name == name and s.labels == labels]
    return found[0] if found else 0.0


@given(answered=st.lists(_AMOUNT, max_size=6), cancelled=st.lists(_AMOUNT, max_size=6))
def test_every_known_bill_is_in_the_cost_and_every_unknown_one_is_counted(
    answered: list[int | None], cancelled: list[int | None]
) -> None:
    metrics = RequestMetrics()
    for amount in answered:
        data = generated("1", nano_usd=amount, billed_tokens=3)
        assert isinstance(data, EmbeddingGenerated)
        metrics.generated("acme", data, 0.1)
    for amount in cancelled:
        billed = failed("1", provider="p", nano_usd=amount, billed_tokens=2)
        free = failed("1", provider="p")
        for outcome in (billed, free):
            assert isinstance(outcome, EmbeddingFailed)
            metrics.failed("acme", outcome, 0.1)
    known = sum(amount for amount in answered + cancelled if amount is not None)
    assert value(metrics, "embedding_cost_usd_total", **SERVED) == known / NANO_PER_USD
    assert value(metrics, "embedding_unpriced_requests_total", tenant_id="acme", model="m") == (
        answered + cancelled
    ).count(None)
    assert value(metrics, "embedding_tokens_total", **SERVED) == 3 * len(answered) + 2 * len(cancelled)
    assert value(metrics, "embedding_requests_total", **SERVED, status="success") == len(answered)
    assert value(metrics, "embedding_requests_total", **SERVED, status="failure") == 2 * len(cancelled)
