"""Events like those of real requests, for the benches of the log: facts of about 450 bytes, each with ids of its own."""

from __future__ import annotations

import random
from typing import Any
from uuid import uuid4

import msgspec

from domain.ports.event_log import NewEvent

_FACT: dict[str, Any] = {
    "agent": "agent-7",
    "thread": "thread-1",
    "model": "text-embedding-3-small",
    "provider": "openai",
    "endpoint": "openai-main",
    "space": "text-embedding-3-small@1/1536/unit",
    "inputs": 1,
    "tokens": 37,
    "billed_tokens": 37,
    "nano_usd": 740,
    "provider_nano_usd": 740,
    "unit_pico_usd": 20_000,
    "price": "price-1",
    "latency_ms": 103,
    "queue_ms": 4,
    "provider_ms": 21,
    "dimensions": 1536,
    "attempt": 1,
}
_random = (
    random.Random()
)  # cheaper than the system's randomness, so that the client's figure is the log's; other keys in each process
_ASKED = [
    msgspec.json.encode(_FACT | {"request_id": uuid4().hex, "at": n, "instance": str(uuid4()), "fingerprint": "f" * 22, "reserved_tokens": 40})
    for n in range(1024)
]  # fmt: skip
_ANSWERED = [
    msgspec.json.encode(_FACT | {"request_id": uuid4().hex, "at": n, "agent": f"agent-{n % 8}"}) for n in range(1024)
]


def fact(n: int) -> NewEvent:
    """The n-th event: even ones are requests, odd ones their answers."""
    key = _random.randbytes(16)
    tenant = f"tenant-{n // 2 % 20}"
    kind, data = ("embedding.requested", _ASKED) if n % 2 == 0 else ("embedding.generated", _ANSWERED)
    return NewEvent(key, key, tenant, f"request/{tenant}/{n // 2}", kind, data[n // 2 % 1024], 1, key)


FILL = """
INSERT INTO emberlog.events
    (position, event_id, tenant, stream, version, type, schema_version, recorded_at, data, content_hash)
SELECT position, event_id, tenant, stream, NULL, type, 1, recorded_at, data,
       emberlog.content_hash(position, event_id, tenant, stream, NULL, type, 1::smallint, emberlog.micros(recorded_at), data)
FROM (
    SELECT p AS position, gen_random_uuid() AS event_id, 'tenant-' || p / 2 % 20 AS tenant,
        'request/tenant-' || p / 2 % 20 || '/' || p / 2 AS stream,
        CASE p % 2 WHEN 1 THEN 'embedding.requested' ELSE 'embedding.generated' END AS type,
        timestamptz '2026-01-01' + p * interval '200 microseconds' AS recorded_at,
        convert_from($3, 'UTF8')::jsonb || jsonb_build_object(
            'request_id', md5((p / 2)::text), 'agent', 'agent-' || p / 40 % 8, 'at', 1767225600000000 + p * 200, 'latency_ms', p % 97
        ) AS data
    FROM generate_series($1::bigint, $2::bigint) p
    OFFSET 0
) e
"""
"""Writes the events $1 to $2 as the owner, as `append` would have, but in bulk; $3 is the JSON that their data begins with."""
FILL_DATA = msgspec.json.encode(_FACT)
