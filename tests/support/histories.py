"""Histories as Hypothesis draws them: few ids, times that meet the bounds of buckets and of what is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from domain.events import EventData
from tests.support.alerting import ALERT_DATA
from tests.support.cataloguing import MODEL_DATA
from tests.support.projecting import Recorded, abandoned, failed, generated, in_thread, reembedded, requested
from tests.support.provider_health import ENDPOINT_DATA
from tests.support.tenanting import TENANT_DATA

START = datetime(2026, 3, 28, 23, 59, 58, tzinfo=UTC)

_ids = st.sampled_from(["x", "y"])
_numbers = st.integers(0, 2**40)
_amounts = st.none() | _numbers
_names = st.sampled_from(["a", "Ä", "z'\"\\"])
EVENT_DATA: st.SearchStrategy[EventData] = st.one_of(
    st.builds(requested, _ids, st.integers(1, 2), _names),
    st.builds(
        lambda i, n, agent, tokens, money, cost, ms, cached: generated(
            i, n, agent, tokens=tokens, billed_tokens=tokens, nano_usd=money, provider_nano_usd=cost, latency_ms=ms,
            cached_inputs=cached, characters=tokens % 5,
        ),
        _ids, st.integers(1, 2), _names, _numbers, _amounts, _amounts, st.integers(0, 50_000), st.integers(0, 3),
    ),
    st.builds(
        lambda i, agent, code, provider, tokens, money, cost: failed(
            i, 1, agent, code=code, provider=provider, billed_tokens=tokens, nano_usd=money, provider_nano_usd=cost,
            characters=tokens,
        ),
        _ids, _names, st.sampled_from(["cancelled", "deadline_exceeded", "provider_error"]),
        st.sampled_from([None, "p", "q"]), st.integers(0, 3), _amounts, _amounts,
    ),
    st.builds(abandoned, _ids, st.integers(1, 2), _names),
    st.builds(reembedded, _ids, _names, provider_nano_usd=_amounts),
)  # fmt: skip
"""What one event says."""


def _threaded(data: EventData) -> EventData:
    return in_thread(Recorded(START, "t", data), "th").data


STEPS = st.sampled_from([0.0, 0.000001, 1.0, 59.0, 3600.0, 86400.0, 29 * 86400.0, 31 * 86400.0])
"""Seconds from one event to the next."""
_TENANTS = st.sampled_from(["t", "T"])
REQUEST_DATA = EVENT_DATA | st.builds(_threaded, EVENT_DATA)
REQUEST_ITEMS = st.tuples(STEPS, _TENANTS, REQUEST_DATA)
"""An event of a request by the step to it, its tenant and its data."""
ITEMS = st.tuples(STEPS, _TENANTS, REQUEST_DATA | ALERT_DATA | MODEL_DATA | TENANT_DATA | ENDPOINT_DATA)
"""The same of any kind that a view reads."""


def recorded(items: list[tuple[float, str, EventData]], since: datetime = START) -> list[Recorded]:
    """The events of `items`, from a time on."""
    history = []
    for seconds, tenant, data in items:
        since += timedelta(seconds=seconds)
        history.append(Recorded(since, tenant, data))
    return history


def histories(most: int = 25) -> st.SearchStrategy[list[Recorded]]:
    """Logs of 1 to `most` events."""
    return st.lists(ITEMS, min_size=1, max_size=most).map(recorded)
