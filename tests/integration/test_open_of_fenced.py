"""What a dead instance left open is taken up, but for what only a newer release can read."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import msgspec

from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.instances import open_of_fenced
from domain.events import EmbeddingRequested, encode_data
from domain.ports.event_log import NewEvent
from tests.support.databases import with_user

_OPEN = """
INSERT INTO projections.requests (tenant, request_id, attempt, state, agent, model, instance, requested_position, requested_at)
VALUES ('acme', $1, 1, 'open', 'a', 'm', $2, $3, now())
"""


async def test_an_attempt_of_a_newer_schema_version_is_left_to_a_release_that_knows_it_and_holds_up_no_other(
    migrated_dsn: str,
) -> None:
    owner = await asyncpg.connect(migrated_dsn)
    log = await PostgresEventLog.connect(with_user(migrated_dsn, "emberlog_gateway"))
    try:
        instance = await log.register_instance("dead", 60)
        known = EmbeddingRequested(
            request_id="known", agent="a", attempt=1, at=1, instance=str(instance), fingerprint="f", model="m", space="s",
            inputs=1, reserved_tokens=1,
        )  # fmt: skip
        newer = msgspec.structs.replace(known, request_id="newer")
        # The newer one first: it must not use up the limit either.
        for data, schema in ((newer, EmbeddingRequested.SCHEMA + 1), (known, EmbeddingRequested.SCHEMA)):
            key = uuid4().bytes
            [appended] = await log.append(
                instance,
                [NewEvent(key, key, "acme", f"request/acme/{data.request_id}", data.TYPE, encode_data(data), schema)],
            )
            await owner.execute(_OPEN, data.request_id, str(instance), appended.position)
        assert await open_of_fenced(log.pool, 10) == [], "the instance still holds them"
        await log.fence_instance(instance)
        assert await open_of_fenced(log.pool, 1) == [("acme", known)]
        assert await open_of_fenced(log.pool, 10) == [("acme", known)]
    finally:
        await log.close()
        await owner.close()
