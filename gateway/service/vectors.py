"""Where a request's vectors come from: the process's cache, the shared cache, then the dispatcher; and back into the caches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set

import numpy as np
from numpy.typing import NDArray

from adapters.memory.vector_cache import LruVectorCache
from domain.ports.vector_cache import VectorCache
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.ports import Item
from gateway.service.pending import Pending


class Vectors:
    """Fills requests. `shared` is None where there is no Redis; for tenants in `shredded` nothing is put into a cache. `send` sees to it that
    texts that no cache had are embedded: it calls `submit` once their endpoint is settled.
    """

    def __init__(
        self,
        lru: LruVectorCache,
        shared: VectorCache | None,
        dispatcher: Dispatcher,
        shredded: Set[str],
        send: Callable[[Pending, list[int]], None],
    ) -> None:
        self._send = send
        self._lru = lru
        self._shared = shared
        self._dispatcher = dispatcher
        self._shredded = shredded

    def announce(self, pending: Pending) -> None:
        """Tell its lane that the request is being committed and will come."""
        size, model = pending.selection.dimensions, pending.selection.model
        # The model's own size is not asked for: not every server that serves it knows the field.
        asked = None if size == model.dimensions else size
        pending.lane = self._dispatcher.lane(pending.candidate, asked, pending.message.input_type)
        pending.lane.announce()

    def retract(self, pending: Pending) -> None:
        """Its lane need not wait for the request any more."""
        if pending.lane is not None:
            pending.lane.retract()
            pending.lane = None

    def withdraw(self, pending: Pending) -> None:
        """The request wants no more vectors of the model that it is at."""
        self.retract(pending)
        self._dispatcher.withdraw(pending)

    def fill(self, pending: Pending) -> None:
        """Fill the request from the caches it may use, then send what is missing to a provider."""
        if pending.message.cache != "use":
            self.embed(pending, list(range(pending.count)))
            return
        missing = self._from_lru(pending)
        if missing and self._shared is not None:
            keys = [pending.keys[i] for i in missing]
            self._shared.get_many(keys, lambda found: self._from_shared(pending, missing, found))
        else:
            self.embed(pending, missing)

    async def recall(self, pending: Pending) -> list[int]:
        """Fill the request from the caches alone; returns the indexes still missing."""
        missing = self._from_lru(pending)
        if not missing or self._shared is None:
            return missing
        found: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()

        def done(values: list[bytes | None]) -> None:
            if not found.done():
                found.set_result(values)

        self._shared.get_many([pending.keys[i] for i in missing], done)
        return self._take(pending, missing, await found)

    def embed(self, pending: Pending, missing: list[int]) -> None:
        """Let these texts be embedded; with none missing the request is complete."""
        if not missing:
            self.retract(pending)
            pending.progressed()
            return
        if pending.unsent:
            pending.progressed()  # a stream gives out at once what the cache had
        self._send(pending, missing)

    def submit(self, pending: Pending, indexes: list[int]) -> None:
        """Queue these texts for a call to its endpoint. Raises what `Dispatcher.submit` does."""
        if pending.lane is None:
            self.announce(pending)
        lane, pending.lane = pending.lane, None
        assert lane is not None
        at, candidate = lane.candidate, pending.candidate
        if at.model.id != candidate.model.id or at.endpoint.name != candidate.endpoint.name:
            lane.retract()
            raise AssertionError("a request is in the lane of another model or endpoint than its own")
        keys, texts, tokens, estimated = pending.keys, pending.texts, pending.tokens, pending.estimated
        self._dispatcher.submit(lane, pending, [Item(i, keys[i], texts[i], tokens[i], estimated) for i in indexes])

    def keep(self, pending: Pending, indexes: list[int], rows: NDArray[np.float32]) -> None:
        """Put these rows into the caches, copied: a view would pin the whole provider call's array."""
        if pending.message.cache == "off" or pending.tenant in self._shredded:
            return
        items = [(pending.keys[index], row.tobytes()) for index, row in zip(indexes, rows, strict=True)]
        for key, vector in items:
            self._lru.put(key, vector)
        if self._shared is not None:
            self._shared.put_many(items)

    def keep_early(self, pending: Pending, indexes: list[int], rows: NDArray[np.float32]) -> None:
        """The same for rows of a stream, which are forgotten once they are out; see `forget`."""
        fresh = [place for place, index in enumerate(indexes) if index not in pending.hits]
        if fresh and pending.message.cache != "off":
            pending.kept += (new := [indexes[place] for place in fresh])
            self.keep(pending, new, rows[fresh])

    def forget(self, pending: Pending) -> None:
        """The request fails and is not billed: nothing that was embedded for it stays in a cache."""
        keys = [pending.keys[index] for index in pending.kept]
        for key in keys:
            self._lru.drop(key)
        if self._shared is not None:
            self._shared.drop_many(keys)
        pending.kept.clear()

    def keep_all(self, pending: Pending) -> None:
        """The same for a whole request, unless it came from the cache. A stream's rows were kept as they went out."""
        if pending.rows is not None and pending.cached < pending.count:
            self.keep(pending, list(range(pending.count)), pending.rows)

    @staticmethod
    def _hit(pending: Pending, index: int, vector: bytes) -> None:
        pending.fill(index, np.frombuffer(vector, dtype=np.float32))
        pending.cached += 1
        if pending.message.stream:
            pending.hits.add(index)

    def _from_lru(self, pending: Pending) -> list[int]:
        missing = []
        for index, key in enumerate(pending.keys):
            vector = self._lru.get(key)
            if vector is None:
                missing.append(index)
            else:
                self._hit(pending, index, vector)
        return missing

    def _from_shared(self, pending: Pending, missing: list[int], found: list[bytes | None]) -> None:
        if pending.running:
            self.embed(pending, self._take(pending, missing, found))

    def _take(self, pending: Pending, missing: list[int], found: list[bytes | None]) -> list[int]:
        if not pending.running:
            return missing
        size = pending.selection.dimensions * 4
        still = []
        for index, vector in zip(missing, found, strict=True):
            if vector is None or len(vector) != size:
                still.append(index)
            else:
                self._lru.put(pending.keys[index], vector)
                self._hit(pending, index, vector)
        return still
