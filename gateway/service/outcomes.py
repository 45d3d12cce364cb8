"""From a request to its events and its answer: what is logged, what is billed, what the asker is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from domain.calendar import utc_day
from domain.catalogue import Candidate
from domain.errors import GatewayError
from domain.events import (
    Attempt,
    EmbeddingFailed,
    EmbeddingGenerated,
    EmbeddingRequested,
    EventData,
    Failover,
    encode_data,
)
from domain.fingerprint import printable
from domain.keys import OUTCOME, REQUESTED, event_id, request_key
from domain.ports.event_log import NewEvent
from gateway.service.pending import Pending
from gateway.service.pricing import bill, cost, provider_cost, reserved_nano_usd
from gateway.wire.messages import Cost, EmbeddingResult, Timings, Usage

BILLED_FAILURES = frozenset({"cancelled", "deadline_exceeded"})
"""What a request that failed so had sent is billed all the same: its asker gave it up."""


def uuid_text(raw: bytes) -> str:
    """16 bytes as the usual 8-4-4-4-12 text."""
    h = raw.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def request_event(
    tenant: str, request_id: str, attempt: int, at: int, kind: bytes, data: EventData, fingerprint: bytes | None = None
) -> NewEvent:
    """An event of a request's stream, with its derived key and id."""
    key = request_key(tenant, request_id, attempt, kind)
    return NewEvent(
        key=key,
        event_id=event_id(key, at),
        tenant=tenant,
        stream=f"request/{tenant}/{request_id}",
        type=data.TYPE,
        data=encode_data(data),
        schema_version=data.SCHEMA,
        fingerprint=fingerprint,
    )


def requested_event(pending: Pending, instance: str) -> NewEvent:
    """`embedding.requested`: reserves what the request may cost by its price."""
    message = pending.message
    pending.instance = instance
    pending.reserved = (pending.total_tokens, reserved_nano_usd(pending))
    data = EmbeddingRequested(
        request_id=message.id,
        agent=pending.agent,
        attempt=pending.attempt,
        at=pending.at,
        instance=instance,
        fingerprint=printable(pending.fingerprint),
        model=pending.selection.model.id,
        space=pending.selection.space,
        inputs=pending.count,
        reserved_tokens=pending.reserved[0],
        reserved_nano_usd=pending.reserved[1],
        key=pending.key_id,
        thread=message.thread,
        task=message.task,
        input_type=message.input_type,
        day=_day(pending),
    )
    return request_event(pending.tenant, message.id, pending.attempt, pending.at, REQUESTED, data, pending.fingerprint)


def generated_data(pending: Pending, now: float, metadata: str | None) -> EmbeddingGenerated:
    """The billed outcome. A request answered from the cache alone names the endpoint that would have answered."""
    message, offering = pending.message, pending.candidate.offering
    price = pending.price
    billed, characters, nano_usd = bill(pending)
    return EmbeddingGenerated(
        request_id=message.id,
        agent=pending.agent,
        attempt=pending.attempt,
        at=pending.at,
        model=pending.selection.model.id,
        provider=offering.provider,
        endpoint=pending.candidate.endpoint.name,
        space=pending.selection.space,
        inputs=pending.count,
        tokens=pending.total_tokens,
        billed_tokens=billed,
        price=price.id,
        latency_ms=_ms(now - pending.started),
        dimensions=pending.selection.dimensions,
        unit_pico_usd=price.unit_pico_usd,
        nano_usd=nano_usd,
        provider_nano_usd=provider_cost(pending),
        estimated=pending.estimated and pending.uncounted > 0,
        cached_inputs=pending.cached,
        queue_ms=_ms(pending.queued_seconds),
        provider_ms=_ms(pending.provider_seconds),
        truncated=pending.truncated,
        attempts=_attempts(pending),
        thread=message.thread,
        task=message.task,
        metadata=metadata,
        instance=pending.instance,
        day=_day(pending),
        characters=characters if price.unit == "character" else 0,
        failover=_failover(pending),
        collection=None if message.store is None else message.store.collection,
        stored=0 if message.store is None else len(message.store.ids),
    )


def failed_data(pending: Pending, error: GatewayError, now: float, metadata: str | None) -> EmbeddingFailed:
    """The outcome without a result: billed (by our own count) only where it was cancelled or late after texts had been sent."""
    message, offering = pending.message, pending.candidate.offering
    ours = error.code in BILLED_FAILURES
    billed, characters, nano_usd = bill(pending) if ours else (0, 0, 0)
    price, sent = pending.price, pending.billed_tokens > 0
    asked = bool(pending.billed_tokens or pending.attempts)
    return EmbeddingFailed(
        request_id=message.id,
        agent=pending.agent,
        attempt=pending.attempt,
        at=pending.at,
        code=error.code,
        retryable=error.retryable,
        message=error.message,
        model=pending.selection.model.id,
        space=pending.selection.space,
        inputs=pending.count,
        latency_ms=_ms(now - pending.started),
        provider=offering.provider if asked else None,
        endpoint=pending.candidate.endpoint.name if asked else None,
        tokens=pending.total_tokens,
        billed_tokens=billed,
        estimated=billed > 0,
        price=price.id if sent else None,
        unit_pico_usd=price.unit_pico_usd if sent else None,
        nano_usd=nano_usd if billed else 0,
        provider_nano_usd=provider_cost(pending) if sent or pending.for_nothing else 0,
        details=error.details,
        attempts=_attempts(pending),
        thread=message.thread,
        task=message.task,
        metadata=metadata,
        instance=pending.instance,
        day=_day(pending),
        characters=characters if price.unit == "character" else 0,
        failover=_failover(pending),
    )


def _failover(pending: Pending) -> Failover | None:
    """What was first in line and did not answer."""
    return pending.moved if pending.selection.failover is None else pending.selection.failover


def _attempts(pending: Pending) -> list[Attempt]:
    """What was tried in vain, with what it may cost us on the last try at each endpoint."""
    attempts = list(pending.attempts)
    for endpoint, nano_usd in pending.for_nothing.items():
        for place in reversed(range(len(attempts))):
            if attempts[place].endpoint == endpoint:
                attempts[place] = msgspec.structs.replace(attempts[place], provider_nano_usd=nano_usd)
                break
    return attempts


def _day(pending: Pending) -> str | None:
    """The day whose quotas it draws on; None where it is the one that is understood."""
    return None if pending.day == utc_day(pending.at) else pending.day


def outcome_event(pending: Pending, data: EventData) -> NewEvent:
    """The event that ends this attempt; the first one of the attempt wins."""
    return request_event(pending.tenant, pending.message.id, pending.attempt, pending.at, OUTCOME, data)


def result_message(
    data: EmbeddingGenerated,
    event: bytes,
    encoding: str,
    *,
    replayed: bool,
    timings: Timings,
    notices: Sequence[str] = (),
    quota_remaining: int | None = None,
) -> EmbeddingResult:
    """The answer, from the outcome event: a replay says what the first answer said. Vectors are added by the reply."""
    return EmbeddingResult(
        id=data.request_id,
        event=uuid_text(event),
        model=data.model,
        provider=data.provider,
        endpoint=data.endpoint,
        space=data.space,
        dimensions=data.dimensions,
        encoding=encoding,
        count=data.inputs,
        usage=Usage(data.tokens, data.billed_tokens, data.cached_inputs, data.truncated, data.estimated),
        cost=Cost(data.nano_usd, data.price),
        failover=switch_document(data.failover, data.model, data.endpoint),
        timings=timings,
        replayed=replayed,
        notices=list(notices) or msgspec.UNSET,
        quota_remaining=msgspec.UNSET if quota_remaining is None else quota_remaining,
    )


def dry_run_message(pending: Pending) -> EmbeddingResult:
    """What the request would use and cost; nothing was logged, sent or billed."""
    candidate: Candidate = pending.candidate
    reasons: list[dict[str, Any]] = [{"model": p.model, "reason": p.reason} for p in pending.selection.passed_over]
    reasons.append({"model": pending.selection.model.id, "reason": pending.selection.reason})
    return EmbeddingResult(
        id=pending.message.id,
        event=None,
        model=pending.selection.model.id,
        provider=candidate.offering.provider,
        endpoint=candidate.endpoint.name,
        space=pending.selection.space,
        dimensions=pending.selection.dimensions,
        encoding=pending.message.encoding,
        count=pending.count,
        usage=Usage(pending.total_tokens, pending.total_tokens, 0, pending.truncated, pending.estimated),
        cost=Cost(cost(pending.price, pending.total_tokens, pending.total_characters), pending.price.id),
        failover=switch_document(_failover(pending), pending.selection.model.id, candidate.endpoint.name),
        timings=Timings(0, 0, 0),
        replayed=False,
        reasons=reasons,
        notices=list(pending.selection.notices) or msgspec.UNSET,
        quota_remaining=msgspec.UNSET if (left := quota_remaining(pending)) is None else left,
    )


def quota_remaining(pending: Pending) -> int | None:
    """The tokens that its quotas have left besides the request; None where no hard one is of tokens."""
    return None if pending.hold is None else pending.hold.remaining


def switch_document(failover: Failover | None, model: str, endpoint: str) -> dict[str, Any] | None:
    """What was first in line, and what answered instead."""
    if failover is None:
        return None
    return {
        "from": {"endpoint": failover.endpoint, "model": failover.model},
        "to": {"endpoint": endpoint, "model": model},
        "reason": failover.reason,
    }


def timings(pending: Pending, now: float) -> Timings:
    """Milliseconds, to a microsecond."""
    return Timings(
        round(pending.queued_seconds * 1e3, 3),
        round(pending.provider_seconds * 1e3, 3),
        round((now - pending.started) * 1e3, 3),
    )


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
