"""What a `decide` function answers with."""

from __future__ import annotations

import msgspec

from domain.events import EventData


class Decision(msgspec.Struct, frozen=True):
    """An event that was decided on: the tenant it is of, its stream and its data."""

    tenant: str
    stream: str
    data: EventData
