"""What every event's data has: its type name, its schema version, the streams it may stand in."""

from __future__ import annotations

from typing import ClassVar

import msgspec

SYSTEM_TENANT = "_system"
"""The tenant of the installation's own events and calls."""

SYSTEM_STREAM = "system"
"""The stream of the installation's own events, and of its keys."""

PRICES_STREAM = "prices"
"""The stream of the price book."""

REQUEST_STREAMS = ("request/{tenant}/{request_id}",)
TENANT_STREAMS = ("tenant/{tenant}",)
MODEL_STREAMS = ("model/{model}",)
ENDPOINT_STREAMS = ("endpoint/{endpoint}",)
DISCOVERY_STREAMS = ("discovery/{source}",)


class EventData(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Base of all event data.

    `TYPE` is the event's name in the log, `SCHEMA` the version in which its data is written today. `STREAMS` are the streams it may
    stand in, with {tenant} (the event's own) and fields of the data; a `DECISION` has a version in its stream, a fact has none.
    Fields in `SEALED` are encrypted with the tenant's key, those in `KEYED` are fingerprints made with it.
    """

    TYPE: ClassVar[str]
    SCHEMA: ClassVar[int] = 1
    STREAMS: ClassVar[tuple[str, ...]] = (SYSTEM_STREAM,)
    DECISION: ClassVar[bool] = False
    SEALED: ClassVar[tuple[str, ...]] = ()
    KEYED: ClassVar[tuple[str, ...]] = ()
