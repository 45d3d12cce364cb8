"""The cost view folded from a log in plain Python: what the projection's SQL is checked against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from domain.events import EmbeddingFailed, EmbeddingGenerated, EmbeddingReembedded
from tests.support.projecting import Recorded, Row

COLUMNS = (
    "requests", "tokens", "billed_tokens", "characters", "nano_usd", "unpriced", "provider_nano_usd", "provider_unpriced",
)  # fmt: skip


def plain_cost(events: Sequence[Recorded], skip: Collection[int] = ()) -> list[Row]:
    """The cost view of these events but those at the positions `skip`, row by row as the table holds it, in the order of its key."""
    view: dict[Row, dict[str, int]] = defaultdict(lambda: dict.fromkeys(COLUMNS, 0))
    for position, event in enumerate(events, 1):
        data = event.data
        if position in skip or not isinstance(data, EmbeddingGenerated | EmbeddingFailed | EmbeddingReembedded):
            continue
        costs = 0 if isinstance(data, EmbeddingReembedded) else data.nano_usd
        if (
            isinstance(data, EmbeddingFailed)
            and not data.billed_tokens
            and data.nano_usd == data.provider_nano_usd == 0
        ):
            continue
        at = event.at.astimezone(UTC)
        hour = datetime(at.year, at.month, at.day, at.hour, tzinfo=UTC)
        for grain, bucket in (("hour", hour), ("day", hour.replace(hour=0)), ("month", hour.replace(day=1, hour=0))):
            row = view[grain, bucket, event.tenant, data.agent, data.model, data.provider or ""]
            row["requests"] += isinstance(data, EmbeddingGenerated)
            if not isinstance(data, EmbeddingReembedded):
                row["billed_tokens"] += data.billed_tokens
                row["characters"] += data.characters
                if isinstance(data, EmbeddingGenerated) or data.billed_tokens:
                    row["tokens"] += data.tokens
            row["nano_usd"] += costs or 0
            row["unpriced"] += costs is None
            row["provider_nano_usd"] += data.provider_nano_usd or 0
            row["provider_unpriced"] += data.provider_nano_usd is None
    return [(*key, *(row[c] for c in COLUMNS)) for key, row in sorted(view.items())]
