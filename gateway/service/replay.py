"""The same id again: find what became of the first, wait for it, repeat its answer, or become the next attempt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from adapters.appender import Appender, AppenderClosed, QueueFull
from domain.catalogue import Candidate, Catalogue
from domain.decoding import decode_data
from domain.errors import GatewayError
from domain.events import (
    EmbeddingAbandoned,
    EmbeddingFailed,
    EmbeddingGenerated,
    EmbeddingReembedded,
    EmbeddingRequested,
    EventData,
)
from domain.fingerprint import printable
from domain.keys import OUTCOME, REEMBEDDED, REQUESTED, request_key
from domain.ports.event_log import AppendStatus, EventLog, InstanceFenced, LogUnavailable, NewEvent, StoredEvent
from domain.ports.provider import ProviderError, ProviderFault, Text
from domain.prices import PriceBook
from domain.selection import Selection
from domain.upcasters import UnknownSchema
from gateway.service import outcomes, refusals
from gateway.service.pending import Listener, Pending, State
from gateway.service.pricing import list_cost
from gateway.wire.messages import EmbeddingResult

if TYPE_CHECKING:
    from gateway.service.service import RequestService

MAX_REEMBEDDINGS = 3
"""How often one id's vectors are embedded again at our cost."""
_POLL_SECONDS = 0.1


class Replays:
    """The slow path of the service: everything here may query the log, one task per resend."""

    def __init__(
        self,
        service: RequestService,
        log: EventLog,
        appender: Appender,
        catalogue: Callable[[], Catalogue],
        prices: PriceBook,
    ) -> None:
        self._service = service
        self._log = log
        self._appender = appender
        self._catalogue = catalogue
        self._prices = prices
        self._waiting: dict[Pending, list[Listener]] = {}

    def rebind(self, appender: Appender) -> None:
        """The service goes on as another instance of the log."""
        self._appender = appender

    # -- resends that wait for the end of the first -----------------------------------------------------------------

    def after(self, first: Pending, listener: Listener) -> None:
        """Answer `listener` once `first` is done: it has given out chunks already, or has been given up."""
        self._waiting.setdefault(first, []).append(listener)

    def awaited(self, first: Pending) -> bool:
        """Whether anybody waits for the end of `first`."""
        return first in self._waiting

    def take(self, first: Pending) -> list[Listener]:
        """Whoever waits for the end of `first`, who wait no longer."""
        return self._waiting.pop(first, [])

    def forget(self, listener: Listener) -> bool:
        """The listener waits no longer; whether it did."""
        waiting = self._waiting.get(listener.pending)
        if waiting is None or listener not in waiting:
            return False
        waiting.remove(listener)
        if not waiting:
            del self._waiting[listener.pending]
        return True

    def done(self, first: Pending) -> None:
        """`first` ended: those who waited for it now take the way of a resend that came later, together, as one request."""
        listeners = self.take(first)
        if not listeners:
            return
        message = first.message
        if message.stream and not all(listener.stream for listener in listeners):
            # Whoever wants one message needs every row kept; the others get them as chunks from there.
            message = msgspec.structs.replace(message, stream=False)
        again = Pending(
            self._service, first.tenant, first.agent, first.key_id, message, first.asked, first.question,
            first.selection, first.candidate, first.fingerprint, min(listener.started for listener in listeners), first.at,
            max(listener.deadline for listener in listeners), first.caller,
        )  # fmt: skip
        again.texts = first.texts
        again.tokens, again.total_tokens, again.keys = first.tokens, first.total_tokens, first.keys
        again.truncated, again.estimated = first.truncated, first.estimated
        again.price, again.priced = first.price, first.priced
        again.stays = first.stays
        again.candidates, again.uncounted = first.candidates, first.uncounted
        again.characters, again.total_characters = first.characters, first.total_characters
        again.listeners = listeners
        for listener in listeners:
            listener.pending = again
        self._service.enter(again)
        self._service.spawn(again, self.resolve(again))

    # -- what became of the first -------------------------------------------------------------------------------------

    async def resolve(self, pending: Pending) -> None:
        """Follow the attempts of this id until there is an answer to repeat, or this request becomes the next attempt."""
        pending.replaying = True
        pending.state = State.COMMITTING
        try:
            while pending.state is State.COMMITTING:
                requested, outcome = await self._attempt(pending)
                if pending.ended:
                    # Its deadline passed meanwhile. An attempt of its own that nobody holds any more must not stay open.
                    if requested is not None and outcome is None and self._own(pending, requested):
                        await self._appender.append(abandoned_event(pending.tenant, requested))
                    return
                if requested is None:
                    raise LogUnavailable("the attempt that the append found is not to be seen")
                if requested.fingerprint != printable(pending.fingerprint):
                    self._service.leave(pending, refusals.id_reused())
                elif outcome is None and pending.instance == requested.instance and self._own(pending, requested):
                    # The append was sent twice because its first answer was lost: the event that was found is this one. That of a
                    # request that whoever waited for it outlived is not: what it had reserved is free again.
                    pending.replaying = False
                    self._service.proceed(pending)
                elif outcome is None:
                    await self._wait_or_abandon(pending, requested)
                elif await self._repeated(pending, outcome):
                    return
                elif pending.state is State.COMMITTING:
                    if not await self._service.readmit(pending):
                        return
                    pending.replaying = False
                    pending.attempt += 1
                    pending.at = time.time_ns() // 1000
                    self._service.commit_requested(pending)
                    return
        except (LogUnavailable, InstanceFenced, AppenderClosed, QueueFull, UnknownSchema) as error:
            self._service.leave(pending, refusals.log_error(error))
        except GatewayError as error:
            self._service.leave(pending, error)

    def _own(self, pending: Pending, requested: EmbeddingRequested) -> bool:
        return requested.instance == self._service.instance and requested.at == pending.at

    async def confirm(self, pending: Pending, data: EventData, event_id: bytes) -> None:
        """The attempt already had an outcome when ours came: ours, sent twice after a lost answer, or that of another process
        which had held us for dead. In the latter case what it wrote is what counts.
        """
        try:
            _, outcome = await self._attempt(pending)
        except LogUnavailable as error:
            self._service.leave(pending, refusals.log_error(error))
            return
        if outcome is not None and outcome.event_id == event_id and outcome.type == data.TYPE:
            self._service.conclude(pending, data, event_id)
        else:
            await self.resolve(pending)

    async def _attempt(self, pending: Pending) -> tuple[EmbeddingRequested | None, StoredEvent | None]:
        keys = [request_key(pending.tenant, pending.message.id, pending.attempt, kind) for kind in (REQUESTED, OUTCOME)]
        while True:
            try:
                found = await self._log.find(keys)
                break
            except LogUnavailable:
                if pending.ended:
                    raise
                await asyncio.sleep(_POLL_SECONDS)  # what is committed is committed: the answer is worth waiting for
        stored = found.get(keys[0])
        if stored is None:
            return None, None
        data = decode_data(stored.type, stored.data, stored.schema_version)
        assert isinstance(data, EmbeddingRequested)
        return data, found.get(keys[1])

    async def _wait_or_abandon(self, pending: Pending, requested: EmbeddingRequested) -> None:
        """No outcome yet: its instance is at work, or dead, in which case the attempt is given up here."""
        ours = requested.instance == self._service.instance
        if not ours and not await self._log.fenced(UUID(requested.instance)):
            await asyncio.sleep(_POLL_SECONDS)
            return
        await self._appender.append(abandoned_event(pending.tenant, requested))

    async def _repeated(self, pending: Pending, outcome: StoredEvent) -> bool:
        """Repeat a binding outcome; False when it binds nothing and the resend is the next attempt."""
        data: EventData = decode_data(outcome.type, outcome.data, outcome.schema_version)
        if isinstance(data, EmbeddingGenerated):
            await self._repeat_result(pending, outcome, data)
            return True
        if isinstance(data, EmbeddingFailed):
            if not data.retryable:
                self._service.leave(pending, GatewayError(data.code, data.message, details=data.details))
                return True
            pending.paid = pending.paid or data.billed_tokens > 0
        return False

    # -- the same vectors again -----------------------------------------------------------------------------------------

    async def _repeat_result(self, pending: Pending, outcome: StoredEvent, data: EmbeddingGenerated) -> None:
        for listener in pending.listeners:
            listener.replayed = True
        catalogue = self._catalogue()
        model = catalogue.models.get(data.model)
        candidates = catalogue.candidates(data.model, pending.tenant)
        if model is None or not candidates:
            raise GatewayError(
                "no_model_available",
                f"model {data.model!r}, which answered this id first, is not served at present",
                retry_after_ms=5000,
            )
        if model.id != pending.selection.model.id:
            await self._service.recount(pending, model)
            if pending.ended:
                return
        pending.selection = Selection(model, data.dimensions, data.space, "replay")
        pending.candidates = candidates
        pending.candidate = next((c for c in candidates if c.endpoint.name == data.endpoint), candidates[0])
        pending.tried.clear()
        pending.keys = self._service.cache_keys(pending, data.space)
        pending.missing, pending.cached, pending.rows = pending.count, 0, None
        pending.unsent.clear()
        pending.dispatched_at = asyncio.get_running_loop().time()
        pending.steps = RepeatedResult(self._service, outcome, data)
        pending.state = State.RUNNING
        vectors = self._service.vectors
        missing = await vectors.recall(pending)
        if missing and pending.running:
            if model.space(data.dimensions, pending.message.input_type) != data.space:
                raise GatewayError(
                    "result_expired",
                    f"the vectors of this id have left the cache, and model {data.model!r} makes others now: use a new id",
                    details={"field": "id"},
                )
            await self._pay_again(pending, data, missing)
        if pending.running:
            vectors.embed(pending, missing)

    async def _pay_again(self, pending: Pending, data: EmbeddingGenerated, missing: list[int]) -> None:
        """Log that we embed again at our cost. Raises `result_expired` when this id has had its share of that."""
        tokens = sum(pending.tokens[i] for i in missing)
        offering = pending.candidate.offering
        charged = self._most(pending, tokens, [pending.texts[i] for i in missing])
        for time_ in range(1, MAX_REEMBEDDINGS + 1):
            event = EmbeddingReembedded(
                request_id=data.request_id,
                agent=pending.agent,
                time=time_,
                at=data.at,
                model=data.model,
                provider=offering.provider,
                endpoint=pending.candidate.endpoint.name,
                space=data.space,
                inputs=len(missing),
                tokens=tokens,
                provider_nano_usd=charged,
            )
            appended = await self._appender.append(
                outcomes.request_event(pending.tenant, data.request_id, time_, data.at, REEMBEDDED, event)
            )
            if appended.status is AppendStatus.APPENDED:
                return
        raise GatewayError(
            "result_expired",
            f"the vectors of this id have left the cache and were embedded again {MAX_REEMBEDDINGS} times: use a new id",
            details={"field": "id"},
        )

    def _most(self, pending: Pending, tokens: int, texts: Sequence[Text]) -> int | None:
        """What a provider charges us for these texts at the dearest endpoint that they may come to. None where that of the first is unknown."""
        now, first = time.time(), pending.candidate.offering
        most = list_cost(self._prices, first, now, tokens, texts)
        if most is None or pending.stays:
            return most
        others = {c.offering.provider: c.offering for c in pending.candidates}
        return max(most, *(list_cost(self._prices, o, now, tokens, texts) or 0 for o in others.values()))


class RepeatedResult:
    """The steps of a replay: nothing is logged or billed; the first answer's event, usage and cost are repeated."""

    def __init__(self, service: RequestService, outcome: StoredEvent, data: EmbeddingGenerated) -> None:
        self._service = service
        self._outcome = outcome
        self._data = data

    def completed(self, pending: Pending) -> None:
        """See `Steps.completed`."""
        self._service.vectors.keep_all(pending)
        now = asyncio.get_running_loop().time()
        result: EmbeddingResult = outcomes.result_message(
            self._data,
            self._outcome.event_id,
            pending.message.encoding,
            replayed=True,
            timings=outcomes.timings(pending, now),
        )
        self._service.answer(pending, result)

    def failed(self, pending: Pending, error: GatewayError, fault: ProviderFault | None = None) -> None:
        """See `Steps.failed`: the answer is bound to its space, whatever happens."""
        self._service.vectors.withdraw(pending)
        self._service.leave(pending, error)

    def elsewhere(self, pending: Pending, fault: ProviderFault, endpoint: str) -> bool:
        """See `Steps.elsewhere`."""
        return self._service.sending.elsewhere(pending, fault, endpoint)

    def hand_over(self, pending: Pending, indexes: list[int], error: ProviderError, endpoint: str) -> None:
        """See `Steps.hand_over`."""
        self._service.sending.hand_over(pending, indexes, error, endpoint)

    def wasted(self, pending: Pending, index: int, tokens: int, candidate: Candidate) -> None:
        """See `Steps.wasted`: what embedding again costs is logged beforehand, at its most."""

    def broken(self, pending: Pending, error: Exception) -> None:
        """See `Steps.broken`."""
        self._service.broken(pending, error)

    def keep(self, pending: Pending, indexes: list[int], rows: NDArray[np.float32]) -> None:
        """See `Steps.keep`."""
        self._service.vectors.keep(pending, indexes, rows)


def abandoned_event(tenant: str, requested: EmbeddingRequested) -> NewEvent:
    """The outcome of an attempt whose instance is dead: nothing billed, what it reserved returned."""
    data = EmbeddingAbandoned(
        request_id=requested.request_id,
        agent=requested.agent,
        attempt=requested.attempt,
        at=requested.at,
        instance=requested.instance,
        model=requested.model,
        space=requested.space,
        inputs=requested.inputs,
        thread=requested.thread,
        task=requested.task,
    )
    return outcomes.request_event(tenant, requested.request_id, requested.attempt, requested.at, OUTCOME, data)
