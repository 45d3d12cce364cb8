"""`store` of a request: its vectors are kept in a collection, once its outcome is in the log and before its answer says so.

A crash between the two leaves a request that is billed and was never answered: whoever sends its id again is answered from the log, and
the vectors are kept then. What is put twice under the same ids is there once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from adapters.postgres.vectors import Scalar
from domain.collections import Collection, Collections, check_space
from domain.errors import GatewayError, invalid_request
from gateway.collections.ports import KeepsVectors, reaching, table_of
from gateway.wire.messages import EmbeddingGenerate, Store

MAX_ID = 256
"""Characters of a row's id."""
MAX_METADATA = 4096
"""Bytes of a row's metadata as JSON."""


class Storing:
    """For the request service. `grown` is told of every collection that was put into."""

    def __init__(
        self, collections: Collections, tables: KeepsVectors, grown: Callable[[Collection], None] = lambda _: None
    ) -> None:
        self._collections = collections
        self._tables = tables
        self._grown = grown

    def check(self, tenant: str, message: EmbeddingGenerate, count: int, space: str) -> None:
        """Raise what keeps `count` vectors of `space` from being kept as the request asks: `invalid_request`, `not_found`."""
        store = message.store
        assert store is not None
        if message.stream:
            raise invalid_request(
                "`store` keeps vectors that come in one answer: send it without `stream`, and so many texts that the answer fits one message",
                "stream",
            )
        _check_ids(store, count)
        for index, metadata in enumerate(store.metadata or ()):
            if metadata is not None:
                _check_metadata(metadata, index)
        found = self._collections.find(tenant, store.collection, "store.collection")
        check_space(found, space, "this request", "store.collection")

    async def keep(self, tenant: str, store: Store, rows: NDArray[np.float32], space: str) -> None:
        """Put the rows. Raises `GatewayError`: the request itself is done and billed by then, and its id sent again is not billed again."""
        try:
            found = self._collections.find(tenant, store.collection, "store.collection")
            check_space(found, space, "this request", "store.collection")
            async with reaching(found):
                await self._tables.upsert(table_of(found), store.ids, rows, store.metadata or [None] * len(store.ids))
        except GatewayError as error:
            raise GatewayError(
                error.code,
                f"the texts are embedded and billed, and their vectors were not kept: {error.message}; the same id sent again is not billed "
                "again, and keeps them then",
                details=error.details,
                retry_after_ms=error.retry_after_ms,
            ) from None
        self._grown(found)


def _check_ids(store: Store, count: int) -> None:
    if len(store.ids) != count or (store.metadata is not None and len(store.metadata) != count):
        which = "ids" if len(store.ids) != count else "metadata"
        given = len(store.ids if which == "ids" else store.metadata or ())
        raise invalid_request(
            f"`store.{which}` has {given} entries for {count} texts: one for each, in their order", f"store.{which}"
        )
    seen: dict[str, int] = {}
    for index, row_id in enumerate(store.ids):
        if not 1 <= len(row_id) <= MAX_ID:
            raise invalid_request(f"`store.ids`: expected 1 to {MAX_ID} characters each", "store.ids", index)
        if (first := seen.setdefault(row_id, index)) != index:
            raise invalid_request(
                f"`store.ids`: number {index} is the same as number {first}: one of the two vectors would be lost",
                "store.ids",
                index,
            )


def _check_metadata(metadata: Mapping[str, Scalar], index: int) -> None:
    if any(isinstance(value, float) and not math.isfinite(value) for value in metadata.values()):
        raise invalid_request("`store.metadata` holds a number that is not finite", "store.metadata", index)
    if (size := len(msgspec.json.encode(metadata))) > MAX_METADATA:
        raise invalid_request(
            f"`store.metadata`: {size} bytes of JSON; at most {MAX_METADATA} a row", "store.metadata", index
        )
