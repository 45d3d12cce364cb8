"""One request on its way: what was asked, where it stands, which of its vectors are in, and what it owes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from domain.catalogue import Candidate
from domain.errors import GatewayError
from domain.events import Attempt, EventData, Failover
from domain.money import Price
from domain.ports.provider import ProviderError, ProviderFault, Text
from domain.prices import UNKNOWN
from domain.selection import Question, Selection
from gateway.dispatch.failures import as_details
from gateway.dispatch.lane import Lane
from gateway.dispatch.ports import CallReport
from gateway.limits.standing import Drawn
from gateway.replies import Reply
from gateway.wire.messages import EmbeddingGenerate

CHUNK_BYTES = 1024 * 1024
"""Rows of a streamed answer go out in chunks of about this size."""


_OF_THE_MODEL = (
    "texts", "question", "selection", "candidate", "candidates", "hold", "day", "estimated", "tokens", "total_tokens", "truncated",
    "keys", "price", "priced", "characters", "total_characters", "uncounted",
)  # fmt: skip
"""What of a request depends on its model."""
MAX_ATTEMPTS_KEPT = 32
"""Failed attempts that a request tells of."""


class State(Enum):
    """Where a request stands. It only moves down this list."""

    COUNTING = "counting"
    """Its tokens are being counted off the loop, or a gate keeps it waiting; nothing is in the log."""
    COMMITTING = "committing"
    """Its `requested` event is on the way to the log; nothing may be spent."""
    RUNNING = "running"
    """Its texts are being embedded."""
    SETTLING = "settling"
    """Its outcome is on the way to the log."""
    DONE = "done"


class Hold(Protocol):
    """What a request holds of its quotas until it is known what it uses."""

    @property
    def remaining(self) -> int | None:
        """The tokens that the tightest hard quota of them has left besides; None where there is none."""
        ...

    def settle(self, data: EventData) -> None:
        """Its outcome is in the log: it has used what that bills; the rest is free again."""
        ...

    def release(self) -> None:
        """It has used nothing. Idempotent, and nothing after `settle`."""
        ...


class Steps(Protocol):
    """What happens to a request next; the service implements it."""

    def completed(self, pending: Pending) -> None:
        """Every vector is in."""
        ...

    def failed(self, pending: Pending, error: GatewayError, fault: ProviderFault | None = None) -> None:
        """The request cannot be answered where it is; `fault` is of the endpoint, where another model may still answer."""
        ...

    def elsewhere(self, pending: Pending, fault: ProviderFault, endpoint: str) -> bool:
        """Whether another endpoint of its space than this would take its texts now."""
        ...

    def hand_over(self, pending: Pending, indexes: list[int], error: ProviderError, endpoint: str) -> None:
        """These texts failed at this endpoint."""
        ...

    def wasted(self, pending: Pending, index: int, tokens: int, candidate: Candidate) -> None:
        """A call with this text failed, and the provider may charge us for it."""
        ...

    def broken(self, pending: Pending, error: Exception) -> None:
        """A step of it raised what it should not: it fails, and nobody else with it."""
        ...

    def keep(self, pending: Pending, indexes: list[int], rows: NDArray[np.float32]) -> None:
        """These rows of a stream are about to be given out and forgotten: cache them if they should be."""
        ...


def late(started: float, deadline: float) -> GatewayError:
    """What an asker is told at its deadline; both in loop time."""
    return GatewayError(
        "deadline_exceeded",
        f"no answer within {round((deadline - started) * 1000)} ms: send the same id again, or allow a longer deadline_ms",
    )


class Listener:
    """Someone waiting for the answer: the first asker, or a resend of the same id that came while it was in flight.

    `started` and `deadline` are its own, in loop time. `timer` is set where it is not the one that the request's deadline is of.
    """

    __slots__ = ("deadline", "pending", "replayed", "reply", "started", "stream", "timer")

    def __init__(self, pending: Pending, reply: Reply, stream: bool, started: float, deadline: float) -> None:
        self.pending = pending
        self.reply = reply
        self.stream = stream
        self.started = started
        self.deadline = deadline
        self.replayed = False
        self.timer: asyncio.TimerHandle | None = None

    def late(self) -> GatewayError:
        """What it is told at its deadline."""
        return late(self.started, self.deadline)

    def error(self, error: GatewayError) -> None:
        """Tell it that the request failed."""
        self.stop()
        self.reply.error(error)

    def stop(self) -> None:
        """It has its answer, or is gone."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Sent(msgspec.Struct, gc=False):
    """What of a request was sent to one endpoint, and not in vain."""

    candidate: Candidate
    tokens: int = 0
    characters: int = 0


class Pending:
    """A request and its progress; the dispatcher's `Waiter`.

    `rows` (count, dimensions) fills up as calls answer, except for streams, whose rows are given out and forgotten.
    Times are loop times in seconds, except `at`, microseconds since the epoch.
    """

    __slots__ = (
        "agent",
        "asked",
        "at",
        "attempt",
        "attempts",
        "billed_characters",
        "billed_tokens",
        "cached",
        "caller",
        "calls",
        "candidate",
        "candidates",
        "characters",
        "day",
        "deadline",
        "dispatched_at",
        "drawn",
        "estimated",
        "failed_seconds",
        "fingerprint",
        "for_nothing",
        "given_out",
        "given_up",
        "hits",
        "hold",
        "instance",
        "kept",
        "key_id",
        "keys",
        "lane",
        "listeners",
        "message",
        "missing",
        "moved",
        "paid",
        "pinned",
        "price",
        "priced",
        "provider_seconds",
        "question",
        "queued_seconds",
        "refused",
        "replaying",
        "reserved",
        "rows",
        "selection",
        "sent",
        "started",
        "state",
        "stays",
        "steps",
        "switching",
        "tenant",
        "texts",
        "tokens",
        "total_characters",
        "total_tokens",
        "trace",
        "tried",
        "tries",
        "truncated",
        "uncounted",
        "unsent",
    )

    def __init__(
        self,
        steps: Steps,
        tenant: str,
        agent: str,
        key_id: str,
        message: EmbeddingGenerate,
        texts: Sequence[Text],
        question: Question,
        selection: Selection,
        candidate: Candidate,
        fingerprint: bytes,
        started: float,
        at: int,
        deadline: float,
        caller: str | None,
    ) -> None:
        self.steps = steps
        self.tenant = tenant
        self.agent = agent
        self.key_id = key_id
        self.message = message
        self.asked = texts
        """The texts as they were sent; `texts` are as they will be embedded, cut where that was asked for."""
        self.texts = texts
        self.question = question
        self.selection = selection
        self.candidate = candidate
        self.candidates: Sequence[Candidate] = (candidate,)
        """The endpoints that may come to answer it, best first."""
        self.pinned = False
        """Whether it is for this endpoint alone, as it is: our own probes are."""
        self.stays = False
        """Whether no other endpoint may take it over, nor another model."""
        self.tried: list[str] = []
        """The endpoints where it has failed."""
        self.moved: Failover | None = None
        """What was first in line, where it went on to another endpoint or model after it had been logged, or its circuit was open."""
        self.fingerprint = fingerprint
        self.started = started
        self.at = at
        self.deadline = deadline
        self.caller = caller
        self.trace = caller[:32] if caller else None
        self.state = State.COUNTING
        self.listeners: list[Listener] = []
        self.attempt = 1
        self.tries = 0
        self.kept: list[int] = []
        """The texts whose vectors were put into the cache before it is known that the request is billed: a stream's."""
        self.hits: set[int] = set()
        """The texts of a stream whose vectors came from a cache."""
        self.given_out = False
        """Whether vectors of it have gone out: a stream's, which bind it to its model."""
        self.switching = False
        """Whether another model is being found for it: what was under way at this one is of no use any more."""
        self.given_up: GatewayError | None = None
        self.hold: Hold | None = None
        self.day: str | None = None
        """The calendar day whose quotas it draws on, where it passed their gate; with `instance`, which its attempt was logged as."""
        self.instance: str | None = None
        self.refused: dict[str, GatewayError] = {}
        """The models that were chosen for it before and refused it."""
        self.drawn: Drawn | None = None
        """The buckets of rate limits that it drew on, what it claimed of each, and what each lacked then."""
        self.replaying = False
        self.lane: Lane | None = None
        self.estimated = False
        self.tokens: list[int] = []
        self.total_tokens = 0
        self.truncated: list[int] = []
        self.keys: list[bytes] = []
        self.missing = len(texts)
        self.cached = 0
        self.billed_tokens = 0
        self.price = UNKNOWN
        """What the tenant is billed by, from admission on."""
        self.priced: dict[str, tuple[Price, Price]] = {}
        """By provider, of every endpoint that may come to answer it: what the tenant is billed by, and what the provider charges us."""
        self.reserved: tuple[int, int | None] = (0, None)
        """The tokens and the nano-dollars that its `requested` reserved: it is never billed more."""
        self.for_nothing: dict[str, int | None] = {}
        """By endpoint, nano-dollars that the provider may charge us for calls that failed; None where the price is unknown."""
        self.sent: dict[str, Sent] = {}
        """What it is charged for, by endpoint."""
        self.uncounted = 0
        """The texts of it that only an estimate is known of: there is no tokeniser, and no provider has counted them."""
        self.characters: list[int] | None = None
        """Those of each text, where a price is of them."""
        self.total_characters = 0
        self.billed_characters = 0
        self.paid = False
        """Whether an earlier attempt was billed: it was late after its texts had been sent. This one is not billed again."""
        self.rows: NDArray[np.float32] | None = None
        self.unsent: dict[int, NDArray[np.float32]] = {}
        self.calls = 0
        self.dispatched_at = started
        self.failed_seconds = 0.0
        """How long the calls took in which texts of it failed before they went on to another endpoint."""
        self.queued_seconds = 0.0
        """How long its texts waited for the first call that answered, failed ones before it taken off."""
        self.provider_seconds = 0.0
        self.attempts: tuple[Attempt, ...] = ()

    @property
    def count(self) -> int:
        """Number of texts."""
        return len(self.texts)

    @property
    def ended(self) -> bool:
        """Whether everyone who asked has been told."""
        return self.state is State.DONE

    @property
    def running(self) -> bool:
        """Whether its texts are being embedded and its answer is still wanted."""
        return self.state is State.RUNNING

    def fill(self, index: int, row: NDArray[np.float32]) -> None:
        """See `Waiter.fill`; also used for rows from the cache."""
        if self.message.stream:
            self.unsent[index] = row
        elif len(self.texts) == 1:
            self.rows = row.reshape(1, -1)
        else:
            if self.rows is None:
                self.rows = np.empty((len(self.texts), self.selection.dimensions), dtype=np.float32)
            self.rows[index] = row
        self.missing -= 1

    def charge(self, index: int, tokens: int, candidate: Candidate) -> None:
        """See `Waiter.charge`."""
        sent = self.sent.get(candidate.endpoint.name)
        if sent is None:
            sent = self.sent[candidate.endpoint.name] = Sent(candidate)
        self.billed_tokens += tokens
        sent.tokens += tokens
        if self.characters is not None:
            characters = self.characters[index] if tokens >= 0 else -self.characters[index]
            self.billed_characters += characters
            sent.characters += characters

    def wasted(self, index: int, tokens: int, candidate: Candidate) -> None:
        """See `Waiter.wasted`."""
        self.steps.wasted(self, index, tokens, candidate)

    def counted(self, index: int, tokens: int) -> None:
        """See `Waiter.counted`."""
        self.total_tokens += tokens - self.tokens[index]
        self.tokens[index] = tokens
        self.uncounted -= 1

    def elsewhere(self, fault: ProviderFault, endpoint: str) -> bool:
        """See `Waiter.elsewhere`."""
        return self.state is State.RUNNING and self.steps.elsewhere(self, fault, endpoint)

    def hand_over(self, indexes: list[int], error: ProviderError, attempts: tuple[Attempt, ...]) -> None:
        """See `Waiter.hand_over`."""
        self.note(attempts)
        here = attempts[-1].endpoint
        if here == self.candidate.endpoint.name:  # else others of its texts have failed there and been counted
            self.failed_seconds += sum(a.ms for a in attempts if a.endpoint == here) / 1000
        try:
            self.steps.hand_over(self, indexes, error, here)
        except Exception as defect:  # whoever shares the call has to be told, too
            self.steps.broken(self, defect)

    def note(self, attempts: tuple[Attempt, ...]) -> None:
        """Keep what was tried in vain, as far as it bears keeping: a request of many calls may have met with many failures."""
        if attempts:
            self.attempts = (*self.attempts, *attempts)[:MAX_ATTEMPTS_KEPT]

    def flush(self, report: CallReport) -> None:
        """See `Waiter.flush`."""
        failed = report.failed_seconds + self.failed_seconds
        if self.calls == 0:
            self.queued_seconds = max(0.0, report.sent_at - self.dispatched_at - failed)
        self.calls += 1
        self.provider_seconds = max(self.provider_seconds, report.seconds + failed)
        self.note(report.attempts)
        if self.state is State.RUNNING:
            try:
                self.progressed()
            except Exception as defect:
                self.steps.broken(self, defect)

    def progressed(self) -> None:
        """Give out what a stream has ready, and end when every vector is in."""
        if self.unsent:
            self._send_chunks()
        if self.missing == 0:
            self.steps.completed(self)

    def fail(self, error: GatewayError, attempts: tuple[Attempt, ...], fault: ProviderFault | None = None) -> None:
        """See `Waiter.fail`."""
        self.note(attempts)
        if len(self.attempts) > len(attempts) and error.details is not None and "attempts" in error.details:
            # Its sender is told of what was tried elsewhere, too.
            details = {**error.details, "attempts": as_details(self.attempts)}
            error = GatewayError(error.code, error.message, details=details, retry_after_ms=error.retry_after_ms)
        self.steps.failed(self, error, fault)

    def aside(self, selection: Selection, candidate: Candidate) -> Pending:
        """The same request with another model, not yet begun; it takes this one's place by `become`, or is forgotten."""
        other = Pending(
            self.steps, self.tenant, self.agent, self.key_id, self.message, self.asked, self.question, selection, candidate,
            self.fingerprint, self.started, self.at, self.deadline, self.caller,
        )  # fmt: skip
        other.attempt, other.instance = self.attempt, self.instance
        return other

    def become(self, other: Pending) -> None:
        """Go on with the model and the endpoint of `other`, and with what it holds; nothing of its vectors is in."""
        if self.hold is not None:
            self.hold.release()
        left = self.selection.model.id
        self.attempts = tuple(a if a.model else msgspec.structs.replace(a, model=left) for a in self.attempts)
        for name in _OF_THE_MODEL:
            setattr(self, name, getattr(other, name))
        self.missing, self.cached, self.rows = self.count, 0, None
        self.billed_tokens = self.billed_characters = 0
        self.sent = {}

    def _send_chunks(self) -> None:
        """Runs of neighbouring rows become one chunk each, up to `CHUNK_BYTES`."""
        most = max(1, CHUNK_BYTES // (self.selection.dimensions * 4))
        run: list[int] = []
        for index in sorted(self.unsent):
            if run and (index != run[-1] + 1 or len(run) == most):
                self._send_chunk(run)
                run = []
            run.append(index)
        self._send_chunk(run)
        self.unsent.clear()

    def _send_chunk(self, run: list[int]) -> None:
        self.given_out = True
        rows = np.stack([self.unsent[i] for i in run])
        self.steps.keep(self, run, rows)
        for listener in self.listeners:
            if listener.stream:
                listener.reply.chunk(run[0], rows)
