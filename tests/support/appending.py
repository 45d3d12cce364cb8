"""Append the same numbered batches until killed: `python -m tests.support.appending DSN`. Prints each batch's number once it is answered."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Sequence

from adapters.postgres.event_log import PostgresEventLog
from domain.ports.event_log import NewEvent

BATCH = 20


def batch_of(number: int) -> list[NewEvent]:
    """The events of a batch; every process makes the same."""
    return [_event(number * BATCH + n) for n in range(BATCH)]


def _event(number: int) -> NewEvent:
    key = number.to_bytes(16, "big")
    return NewEvent(key, key, "acme", f"request/acme/{number}", "embedding.requested", b'{"number": %d}' % number)


def whole_batches(event_ids: Sequence[bytes]) -> list[int]:
    """The numbers of the batches that make up these events. Raises AssertionError where one is there in part, twice or torn apart."""
    assert len(event_ids) % BATCH == 0, "a batch is there in part"
    numbers = [int.from_bytes(event_id, "big") // BATCH for event_id in event_ids[::BATCH]]
    whole = [event.event_id for number in numbers for event in batch_of(number)]
    assert list(event_ids) == whole, "a batch is there in part, or torn apart"
    assert len(set(numbers)) == len(numbers), "a batch is there twice"
    return numbers


async def append_for_ever(dsn: str) -> None:
    log = await PostgresEventLog.connect(dsn, pool_size=1, readers=1)
    instance = await log.register_instance("appending", 600)
    for number in itertools.count():
        await log.append(instance, batch_of(number))
        print(number, flush=True)


if __name__ == "__main__":
    asyncio.run(append_for_ever(sys.argv[1]))
