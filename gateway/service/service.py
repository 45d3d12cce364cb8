"""The request service: takes a request from a session or route to its committed outcome, by callbacks and without a task of its own.

The order is the product's promise: `requested` is committed before a text is sent, the outcome before the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from adapters.appender import Appender, QueueFull
from adapters.memory.vector_cache import LruVectorCache
from domain.catalogue import Candidate, Catalogue, Model
from domain.errors import GatewayError
from domain.events import EmbeddingFailed, EmbeddingGenerated, EventData
from domain.fingerprint import body_fingerprint, tenant_tag, text_fingerprint
from domain.plane import ControlPlane
from domain.ports.event_log import Appended, AppendStatus, EventLog, InstanceFenced, LogUnavailable
from domain.ports.provider import ProviderError, ProviderFault, Text
from domain.ports.tokenizer import Tokenizer
from domain.ports.vector_cache import VectorCache
from domain.prices import PriceBook
from domain.tenancy import Principal
from gateway.collections.storing import Storing
from gateway.dispatch.dispatcher import Dispatcher
from gateway.endpoints.router import Router
from gateway.limits.standing import Standing, standings
from gateway.replies import Reply
from gateway.secrets import seal_metadata
from gateway.service import admission, outcomes, refusals
from gateway.service.deadlines import Deadlines
from gateway.service.entry import Entry, Gate
from gateway.service.pending import Listener, Pending, State, late
from gateway.service.pricing import waste
from gateway.service.replay import Replays
from gateway.service.selector import Selector, pinned_selection
from gateway.service.sending import Attests, Sending
from gateway.service.vectors import Vectors
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.tracing import RequestTracing
from gateway.trace import new_trace_id
from gateway.wire.messages import EmbeddingGenerate, Limits, Store

_log = structlog.get_logger("emberlog.service")


class Ticket:
    """One asker's hold on a request: lets it cancel, or vanish."""

    __slots__ = ("_listener", "_service")

    def __init__(self, service: RequestService, listener: Listener) -> None:
        self._service = service
        self._listener = listener

    @property
    def rates(self) -> tuple[Standing, ...]:
        """How the rate limits that the request drew on stand; nothing where there are none, or it has not come to them."""
        drawn = self._listener.pending.drawn
        return () if drawn is None else standings(drawn)

    def cancel(self) -> None:
        """The asker gives the request up; it is told `cancelled`, or the result if that is already on its way."""
        self._service.cancel(self._listener)

    def vanish(self) -> None:
        """The asker's connection is gone. The request goes on: a resend of its id will find its outcome."""
        self._service.forget(self._listener)


class RequestService:
    """See the module.

    `catalogue` gives the catalogue as of now; `tenant_keys` maps tenants to their 32-byte keys; `instance` is the text of the log
    instance's id.
    """

    def __init__(
        self,
        *,
        log: EventLog,
        appender: Appender,
        dispatcher: Dispatcher,
        catalogue: Callable[[], Catalogue],
        prices: PriceBook,
        plane: ControlPlane,
        tenant_keys: Mapping[str, bytes],
        tokenizer_of: Callable[[str], Tokenizer | None],
        lru: LruVectorCache,
        shared_cache: VectorCache | None,
        metrics: RequestMetrics,
        tracing: RequestTracing | None = None,
        instance: str,
        limits: Limits | None = None,
        gates: Sequence[Gate] = (),
        dry_gates: Sequence[Gate] = (),
        selector: Selector | None = None,
        router: Router | None = None,
        attests: Attests | None = None,
        storing: Storing | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._appender = appender
        self._catalogue = catalogue
        self._tenant_keys = tenant_keys
        self._storing = storing
        self._shredded = plane.directory.shredded.copy()
        self._endpoints = plane.endpoints
        self.sending = Sending(
            self,
            router or Router(),
            lambda model, tenant: catalogue().candidates(model, tenant),
            attests,
            dispatcher.limits,
        )
        self.vectors = Vectors(lru, shared_cache, dispatcher, self._shredded, self.sending.send)
        self._metrics = metrics
        self._tracing = tracing
        self.selector = selector or Selector(plane, catalogue)
        self._inflight: dict[tuple[str, str], Pending] = {}
        self._deadlines: Deadlines[Pending] = Deadlines(self._loop, self._expire)
        self._tasks: set[asyncio.Task[None]] = set()
        self._replays = Replays(self, log, appender, catalogue, prices)
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self.instance = instance
        self.limits = limits or Limits()
        self._entry = Entry(self, self.selector, prices, tokenizer_of, gates, dry_gates)
        self.draining = False

    # -- admission ---------------------------------------------------------------------------------------------------

    def generate(
        self,
        principal: Principal,
        agent: str,
        message: EmbeddingGenerate,
        texts: Sequence[Text],
        reply: Reply,
        *,
        trace: str | None = None,
        pinned: Candidate | None = None,
    ) -> Ticket:
        """Admit a request. Raises `GatewayError` for a refusal; otherwise `reply` gets exactly one `result` or `error`, later.

        With `pinned` it is embedded there and nowhere else, whatever the endpoint's state and whether or not requests know of it: probes
        of our own are.
        """
        try:
            return self._admit(principal, agent, message, texts, reply, trace, pinned)
        except GatewayError as error:
            self.refused(principal.tenant, message, error)
            raise

    def _admit(
        self,
        principal: Principal,
        agent: str,
        message: EmbeddingGenerate,
        texts: Sequence[Text],
        reply: Reply,
        trace: str | None,
        pinned: Candidate | None,
    ) -> Ticket:
        started = self._loop.time()
        tenant = principal.tenant
        if tenant is None:
            raise GatewayError("forbidden", "an installation key cannot generate embeddings: use a key of a tenant")
        if self.draining:
            raise refusals.draining()
        admission.check_texts(texts, self.limits)
        deadline = started + admission.deadline_seconds(message)
        admission.metadata_bytes(message)
        another = self.selector.another(tenant, message.model, message.failover)
        question = admission.question(principal, message, texts, another=another)
        if pinned is None:
            selection = self.selector.choose(tenant, agent, question)
        else:
            selection = pinned_selection(pinned, question)
        candidate = selection.candidate
        assert candidate is not None
        if pinned is None:
            admission.check_tokens_taken(texts, self._catalogue().candidates(selection.model.id, tenant))
        admission.check_answer_size(message, len(texts), selection.dimensions, self.limits)
        fingerprint = body_fingerprint(self.tenant_key(tenant), admission.body_options(message), texts)
        first = None if message.dry_run else self._inflight.get((tenant, message.id))
        if first is not None:
            return self._join(first, fingerprint, Listener(first, reply, message.stream, started, deadline))
        pending = Pending(
            self, tenant, agent, principal.key, message, texts, question, selection, candidate, fingerprint,
            started, time.time_ns() // 1000, deadline, trace,
        )  # fmt: skip
        pending.stays = self.selector.failover(tenant, message.failover) == "none"
        if pinned is not None:
            pending.pinned = True
            pending.tries = self.sending.max_attempts - 1  # one try: whoever asks for it decides what then
        if message.store is not None:
            self.check_store(pending)
        listener = Listener(pending, reply, message.stream, started, deadline)
        pending.listeners.append(listener)
        self._entry.begin(pending)
        return Ticket(self, listener)

    def refused(self, tenant: str | None, message: EmbeddingGenerate, error: GatewayError) -> None:
        """Count a request that was refused before it was logged."""
        # What a sender calls its model is free text; as labels, names that nobody knows would pile up without bound.
        model = None if message.model is None else self._catalogue().resolve(message.model)
        self._metrics.refused(tenant, None if model is None else model.id, error.code)

    def check_store(self, pending: Pending) -> None:
        """Raise `GatewayError` where its vectors cannot be kept as it asks."""
        if self._storing is None:
            raise GatewayError(
                "type_unsupported",
                "this server keeps no collections: leave `store` out and keep the vectors yourself",
                details={"field": "store"},
            )
        self._storing.check(pending.tenant, pending.message, pending.count, pending.selection.space)

    def _join(self, first: Pending, fingerprint: bytes, listener: Listener) -> Ticket:
        """A resend while the first is in flight waits for it."""
        if first.fingerprint != fingerprint:
            raise refusals.id_reused(in_flight=True)
        listener.timer = self._loop.call_at(listener.deadline, self._late, listener)
        if first.message.stream or first.given_up is not None:
            # Its earlier chunks are gone, or nothing good will come of it: what becomes of it shows once it is done.
            self._replays.after(first, listener)
        else:
            listener.replayed = True
            first.listeners.append(listener)
        return Ticket(self, listener)

    def answer_dry_run(self, pending: Pending) -> None:
        """Say what the request would use and cost, after this turn of the loop; a request with this id may be in flight meanwhile."""
        self._loop.call_soon(self._answer_dry_run, pending, outcomes.dry_run_message(pending))

    def _answer_dry_run(self, pending: Pending, result: Any) -> None:
        for listener in pending.listeners:
            listener.reply.result(result, None)
        self._forget(pending)

    async def readmit(self, pending: Pending) -> bool:
        """See `Entry.again`."""
        return await self._entry.again(pending)

    async def recount(self, pending: Pending, model: Model) -> None:
        """See `Entry.recount`."""
        await self._entry.recount(pending, model)

    # -- the log, before anything is spent ----------------------------------------------------------------------------

    def check_log(self) -> None:
        """Raise `unavailable` while the log cannot be reached."""
        if not self._appender.healthy:
            raise refusals.log_error(LogUnavailable())

    def enter(self, pending: Pending) -> None:
        """The request is in flight from here: resends join it and its deadline runs."""
        self._deadlines.add(pending)
        if not pending.message.dry_run:
            self._inflight[pending.tenant, pending.message.id] = pending
            self._idle.clear()

    def commit_requested(self, pending: Pending) -> None:
        """Log the attempt. Raises `overloaded` when the appender's queue is full, `unauthorized` where the tenant was shredded."""
        if pending.tenant in self._shredded:
            raise refusals.shredded()
        pending.state = State.COMMITTING
        event = outcomes.requested_event(pending, self.instance)
        self.vectors.announce(pending)
        try:
            self._appender.submit(event, lambda appended: self._requested(pending, appended), refusable=True)
        except QueueFull:
            self.vectors.retract(pending)
            raise refusals.overloaded() from None

    def _requested(self, pending: Pending, appended: Appended | Exception) -> None:
        if isinstance(appended, Exception):
            self.leave(pending, refusals.log_error(appended))
        elif appended.status is AppendStatus.APPENDED:
            self.proceed(pending)
        elif appended.status is AppendStatus.DUPLICATE:
            self.vectors.retract(pending)
            self.spawn(pending, self._replays.resolve(pending))
        elif appended.status is AppendStatus.MISMATCH:
            self.leave(pending, refusals.id_reused())
        else:
            # Only the sender's strings are free in this event: one of them has a character that no log takes.
            self.leave(
                pending, GatewayError("invalid_message", "a name in the request has a character that cannot be kept")
            )

    def proceed(self, pending: Pending) -> None:
        """The attempt is in the log and ours: go on, or say that it was given up meanwhile."""
        if pending.given_up is not None:
            self.settle(pending, pending.given_up)
        else:
            pending.state = State.RUNNING
            pending.dispatched_at = self._loop.time()
            self.vectors.fill(pending)

    # -- outcomes -----------------------------------------------------------------------------------------------------

    def completed(self, pending: Pending) -> None:
        """Every vector is in: log the billed outcome, then answer."""
        self.vectors.keep_all(pending)
        now = self._loop.time()
        data = outcomes.generated_data(pending, now, self._sealed_metadata(pending))
        self._settle(pending, data)

    def keep(self, pending: Pending, indexes: list[int], rows: NDArray[np.float32]) -> None:
        """See `Steps.keep`."""
        self.vectors.keep_early(pending, indexes, rows)

    def failed(self, pending: Pending, error: GatewayError, fault: ProviderFault | None = None) -> None:
        """The request cannot be answered where it is: let another model answer it if it may, else log that, then say so."""
        if pending.running and not pending.switching:
            # At once: no other call of it may give out vectors of a model that it leaves, or fail it once more.
            self.vectors.withdraw(pending)
            if fault is not None and self.sending.may_switch(pending, fault):
                pending.switching = True
                self.spawn(pending, self.sending.switch(pending, error, fault))
            else:
                self.settle(pending, error)

    async def switch_model(self, pending: Pending, error: GatewayError) -> None:
        """See `Entry.switch`."""
        await self._entry.switch(pending, error)

    def elsewhere(self, pending: Pending, fault: ProviderFault, endpoint: str) -> bool:
        """See `Steps.elsewhere`."""
        return self.sending.elsewhere(pending, fault, endpoint)

    def hand_over(self, pending: Pending, indexes: list[int], error: ProviderError, endpoint: str) -> None:
        """See `Steps.hand_over`."""
        self.sending.hand_over(pending, indexes, error, endpoint)

    def wasted(self, pending: Pending, index: int, tokens: int, candidate: Candidate) -> None:
        """See `Steps.wasted`."""
        waste(pending, index, tokens, candidate)

    def settle(self, pending: Pending, error: GatewayError) -> None:
        """Log the failed outcome; the asker is told when it is committed, or has been told already."""
        if pending.kept and error.code not in outcomes.BILLED_FAILURES:
            self.vectors.forget(pending)
        pending.given_up = pending.given_up or error
        data = outcomes.failed_data(pending, error, self._loop.time(), self._sealed_metadata(pending))
        self._settle(pending, data)

    def _settle(self, pending: Pending, data: EventData) -> None:
        self.vectors.retract(pending)
        pending.state = State.SETTLING
        event = outcomes.outcome_event(pending, data)
        try:
            self._appender.submit(event, lambda appended: self._settled(pending, data, event.event_id, appended))
        except QueueFull:
            # The bounded store of outcomes is full while the log is away: the reconciler will call this attempt abandoned.
            self.leave(pending, refusals.log_error(QueueFull()))

    def _settled(self, pending: Pending, data: EventData, event_id: bytes, appended: Appended | Exception) -> None:
        if isinstance(appended, Exception):
            pending.hold = None  # nobody knows whether the log has it: what it took stays taken until the log is asked
            self.leave(pending, refusals.log_error(appended))
            return
        if appended.status is AppendStatus.APPENDED:
            self.conclude(pending, data, event_id)
        else:
            self.spawn(pending, self._replays.confirm(pending, data, event_id))

    def conclude(self, pending: Pending, data: EventData, event_id: bytes) -> None:
        """The outcome is in the log: answer."""
        now = self._loop.time()
        if pending.hold is not None:
            pending.hold.settle(data)
        if self._tracing is not None and isinstance(data, EmbeddingGenerated | EmbeddingFailed):
            self._tracing.ended(data, pending.tenant, now - pending.started, time.time_ns(), pending.caller)
        if isinstance(data, EmbeddingGenerated):
            looked_up = pending.count if pending.message.cache == "use" else 0
            self._metrics.generated(pending.tenant, data, now - pending.started, looked_up)
            result = outcomes.result_message(
                data,
                event_id,
                pending.message.encoding,
                replayed=False,
                timings=outcomes.timings(pending, now),
                notices=pending.selection.notices,
                quota_remaining=outcomes.quota_remaining(pending),
            )
            self.answer(pending, result)
        elif isinstance(data, EmbeddingFailed):
            self._metrics.failed(pending.tenant, data, now - pending.started)
            assert pending.given_up is not None
            self.leave(pending, pending.given_up)

    def answer(self, pending: Pending, result: Any) -> None:
        """Answer with the result of an outcome that is in the log; where its vectors are to be kept, once they are."""
        if pending.message.store is None:
            self.deliver(pending, result)
        else:
            pending.state = State.SETTLING
            self.spawn(pending, self._keep(pending, pending.message.store, result))

    async def _keep(self, pending: Pending, store: Store, result: Any) -> None:
        assert self._storing is not None
        assert pending.rows is not None
        try:
            await self._storing.keep(pending.tenant, store, pending.rows, result.space)
        except GatewayError as error:
            if not pending.ended:
                self.leave(pending, error)
        else:
            if not pending.ended:
                self.deliver(pending, result)

    def deliver(self, pending: Pending, result: Any) -> None:
        """Give the answer to everyone who waits for it, and forget the request."""
        rows = pending.rows
        for listener in pending.listeners:
            listener.stop()
            answer = msgspec.structs.replace(result, replayed=True) if listener.replayed else result
            if not listener.stream:
                listener.reply.result(answer, rows)
            elif pending.message.stream:
                listener.reply.result(answer, None)
            else:
                assert rows is not None
                listener.reply.chunk(0, rows)
                listener.reply.result(answer, None)
        self._forget(pending)

    def leave(self, pending: Pending, error: GatewayError) -> None:
        """Tell everyone who still waits that the request failed, and forget it."""
        told = pending.listeners
        if pending.state is State.COUNTING:  # nothing is in the log that resends could wait for
            told = told + self._replays.take(pending)
        for listener in told:
            listener.error(error)
        self._forget(pending)

    def _forget(self, pending: Pending) -> None:
        self.vectors.retract(pending)
        if pending.hold is not None:
            pending.hold.release()
        pending.state = State.DONE
        pending.listeners.clear()
        self._deadlines.remove(pending)
        if self._inflight.get((pending.tenant, pending.message.id)) is pending:
            del self._inflight[pending.tenant, pending.message.id]
        self._replays.done(pending)
        if not self._inflight:
            self._idle.set()

    # -- giving up ----------------------------------------------------------------------------------------------------

    def cancel(self, listener: Listener) -> None:
        """See `Ticket.cancel`."""
        pending = listener.pending
        alone = pending.listeners == [listener] and not self._replays.awaited(pending)
        if listener in pending.listeners and pending.state is State.SETTLING:
            return
        error = GatewayError("cancelled", "the request was cancelled by its sender")
        if alone:
            self._give_up(pending, error)
        elif self.forget(listener):
            listener.error(error)

    def forget(self, listener: Listener) -> bool:
        """Let one asker go, the others wait on; whether it was still waiting."""
        listener.stop()
        if listener in listener.pending.listeners:
            listener.pending.listeners.remove(listener)
            return True
        return self._replays.forget(listener)

    def _late(self, listener: Listener) -> None:
        """The deadline of a resend has passed, not that of the request it joined."""
        if self.forget(listener):
            listener.error(listener.late())

    def _expire(self, pending: Pending) -> None:
        """The deadline has passed: say so now; what the log still has to be told follows. Resends with time left wait for that."""
        listeners, pending.listeners = pending.listeners, []
        for listener in listeners:
            if listener.deadline > pending.deadline:
                listener.replayed = False
                self._replays.after(pending, listener)
            else:
                listener.error(listener.late())
        self._give_up(pending, late(pending.started, pending.deadline))

    def _give_up(self, pending: Pending, error: GatewayError) -> None:
        if pending.replaying:
            if pending.state is State.RUNNING:
                self.vectors.withdraw(pending)
            self.leave(pending, error)
            return
        match pending.state:
            case State.COUNTING:
                self.leave(pending, error)
            case State.COMMITTING:
                # Whether it is in the log is not known yet: when it is, its outcome will say that it was given up.
                pending.given_up = error
            case State.RUNNING:
                self.vectors.withdraw(pending)
                self.settle(pending, error)
            case State.SETTLING | State.DONE:
                pass

    def shred(self, tenant: str) -> None:
        """The tenant was shredded, its key is gone: whatever it has in flight ends here, and nothing is cached for it any more."""
        self._shredded.add(tenant)
        for pending in [p for p in self._inflight.values() if p.tenant == tenant]:
            self._give_up(pending, refusals.shredded())

    # -- the tenant's key ---------------------------------------------------------------------------------------------

    def tenant_key(self, tenant: str) -> bytes:
        """The tenant's 32-byte key. Raises `unauthorized` where it was destroyed, `unavailable` where it is not here yet."""
        key = self._tenant_keys.get(tenant)
        if key is not None:
            return key
        if tenant in self._shredded:
            raise refusals.shredded()
        raise GatewayError("unavailable", "the tenant's key is not loaded yet: try again", retry_after_ms=500)

    def cache_keys(self, pending: Pending, space: str) -> list[bytes]:
        """What the vectors of its texts are cached under, in this space. Raises as `tenant_key` does."""
        space = self._endpoints.cached_as(space, pending.tenant)
        key, tag = self.tenant_key(pending.tenant), tenant_tag(pending.tenant)
        input_type = pending.message.input_type
        return [tag + text_fingerprint(key, space, input_type, text) for text in pending.texts]

    def _sealed_metadata(self, pending: Pending) -> str | None:
        """None also where the tenant was shredded meanwhile: what cannot be sealed is not kept."""
        plain, key = admission.metadata_bytes(pending.message), self._tenant_keys.get(pending.tenant)
        return None if plain is None or key is None else seal_metadata(key, plain)

    # -- running ------------------------------------------------------------------------------------------------------

    def spawn(self, pending: Pending, work: Coroutine[Any, Any, None]) -> None:
        """Run a slow path of a request beside the callbacks; a defect in it fails that request alone."""
        task = self._loop.create_task(self._guarded(pending, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, pending: Pending, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self.broken(pending, error)

    def broken(self, pending: Pending, error: Exception) -> None:
        """A defect of ours: it fails this request, and no other that it shares a call with."""
        trace = pending.trace or new_trace_id()
        _log.error("slow_path_failed", code="internal", tenant=pending.tenant, trace=trace, exc_info=error)
        refusal = refusals.internal(trace)
        if pending.running and not pending.replaying:
            pending.switching = False
            self.failed(pending, refusal)
        elif not pending.ended:
            self.vectors.withdraw(pending)
            self.leave(pending, refusal)

    def fenced(self) -> None:
        """The instance may write no more: what it held will be called abandoned. Its askers are told to send again."""
        for pending in list(self._inflight.values()):
            if pending.running:
                self.vectors.withdraw(pending)
            pending.listeners += self._replays.take(pending)
            self.leave(pending, refusals.log_error(InstanceFenced()))

    def rebind(self, appender: Appender, instance: str) -> None:
        """Go on as another instance of the log."""
        self._appender = appender
        self._replays.rebind(appender)
        self.instance = instance

    @property
    def in_flight(self) -> int:
        """Requests on their way."""
        return len(self._inflight)

    async def drain(self, seconds: float) -> None:
        """Refuse new requests and wait until those in flight are answered, at most `seconds`; then tell who still waits to go elsewhere."""
        self.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            error = GatewayError(
                "draining",
                "the gateway shuts down before the answer is there: send the same id again",
                retry_after_ms=1000,
            )
            for pending in list(self._inflight.values()):
                listeners = pending.listeners + self._replays.take(pending)
                pending.listeners = []
                for listener in listeners:
                    listener.error(error)

    async def close(self) -> None:
        """Stop timers and slow paths. Requests still in flight get no answer; their outcome is `abandoned` or a resend's."""
        self._deadlines.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
