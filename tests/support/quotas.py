"""The quota view in plain Python, and a bank that grants leases as the database does: what the real ones are checked against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta

from domain.events import EmbeddingFailed, EmbeddingGenerated
from tests.support.projecting import Recorded, Row


def plain_quota(events: Sequence[Recorded], skip: Collection[int] = ()) -> list[Row]:
    """The quota view of these events but those at the positions `skip`, in the order of its key."""
    view: defaultdict[Row, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for position, event in enumerate(events, 1):
        data = event.data
        if position in skip or not isinstance(data, EmbeddingGenerated | EmbeddingFailed):
            continue
        if data.day is not None:
            day = date.fromisoformat(data.day)
        else:
            day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=data.at)).date()
        row = view[event.tenant, day, data.agent, data.model, data.instance or ""]
        row[0] += data.billed_tokens
        row[1] += isinstance(data, EmbeddingGenerated) or data.billed_tokens > 0 or data.characters > 0
        row[2] += data.nano_usd or 0
        row[3] += data.nano_usd is None
    oldest = max((e.at for e in events), default=datetime.now(UTC)).astimezone(UTC).date() - timedelta(days=62)
    return [(*key, *row) for key, row in sorted(view.items()) if key[1] >= oldest]
