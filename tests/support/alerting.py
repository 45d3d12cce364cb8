"""Alerts in a log, and the alerts view folded from it in plain Python."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from domain.alerts import SEVERITIES
from domain.events import AlertAcknowledged, AlertRaised, AlertResolved, AlertSilenced, EventData

if TYPE_CHECKING:  # it imports us
    from tests.support.projecting import Recorded, Row


def raised(alert: str, episode: int = 1, **more: Any) -> AlertRaised:
    fields = {"kind": "quota_high", "severity": "warning", "summary": "much", "at": 1, "labels": {"unit": "tokens"}}
    return AlertRaised(alert=alert, episode=episode, **fields | more)


def alert_event(n: int) -> EventData:
    """The n-th event of a history of four alerts."""
    alert = f"al{n % 4}"
    match n // 4 % 5:
        case 0:
            return raised(alert, 1 + n // 20, used=n, limit=n + 1)
        case 1:
            return AlertAcknowledged(alert=alert, actor="key:a")
        case 2:
            return AlertSilenced(alert=alert, until=n * 1000, actor="key:b")
        case 3:
            return AlertResolved(alert=alert, reason="reset", at=1)
        case _:
            return raised(alert, 2 + n // 20, labels={}, kind="failover")


_ids = st.sampled_from(["al1", "al2"])
_actors = st.sampled_from([None, "key:a"])
ALERT_DATA: st.SearchStrategy[EventData] = st.one_of(
    st.builds(
        raised,
        _ids,
        st.integers(1, 3),
        kind=st.sampled_from(sorted(SEVERITIES)),
        summary=st.sampled_from(["ä", "b\"'\\"]),
        labels=st.dictionaries(st.sampled_from(["x", "yy", "z"]), st.sampled_from(["ä", '"'])),
        used=st.none() | st.integers(0, 2**60),
    ),
    st.builds(AlertAcknowledged, alert=_ids, actor=_actors),
    st.builds(AlertSilenced, alert=_ids, until=st.integers(0, 2**40), actor=_actors),
    st.builds(AlertResolved, alert=_ids, reason=st.sampled_from(["reset", "closed"]), at=st.just(1), actor=_actors),
)


def plain_alerts(events: Sequence[Recorded], skip: Collection[int] = ()) -> list[Row]:
    """The alerts view of these events but those at the positions `skip`, in the order of its key."""
    newest: dict[tuple[str, str], dict[type, tuple[int, Recorded]]] = {}
    for position, event in enumerate(events, 1):
        data = event.data
        if position not in skip and isinstance(data, AlertRaised | AlertResolved | AlertAcknowledged | AlertSilenced):
            newest.setdefault((event.tenant, data.alert), {})[type(data)] = (position, event)
    rows = []
    for key, last in sorted(newest.items()):
        since, raising = last.get(AlertRaised, (0, None))
        r: Any = None if raising is None else raising.data
        row: list[Any] = [None] * 9
        if r is not None:
            row = [r.kind, r.severity, r.summary, _jsonb(r.labels), r.used, r.limit, r.episode, since, raising.at]
        position, event = last.get(AlertAcknowledged, (0, None))
        row += [position, event.at, event.data.actor] if event and position > since else [None] * 3
        position, event = last.get(AlertSilenced, (0, None))
        row += [position, event.data.until, event.data.actor] if event else [None] * 3
        position, event = last.get(AlertResolved, (0, None))
        if event and position > since:
            row += [position, event.at, event.data.reason, event.data.actor]
        else:
            row += [None] * 4
        rows.append((*key, *row))
    return rows


def _jsonb(labels: dict[str, str]) -> str:
    """As Postgres writes it: shorter names first."""
    ordered = sorted(labels.items(), key=lambda item: (len(item[0].encode()), item[0]))
    return json.dumps(dict(ordered), ensure_ascii=False)
