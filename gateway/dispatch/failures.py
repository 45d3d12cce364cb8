"""What to do after a failed provider call. `next_step` alone decides; breakers and failover to another endpoint belong there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

from domain.catalogue import Candidate
from domain.errors import GatewayError
from domain.events import Attempt
from domain.ports.provider import ProviderError, ProviderFault
from gateway.dispatch.limits import DispatchLimits


class Split(msgspec.Struct, frozen=True):
    """Send the texts again in two halves; `learn` says that the lane's calls have been too large."""

    learn: bool = False


class Reject(msgspec.Struct, frozen=True):
    """The text at this place of the batch is at fault: fail who asked for it, send the others again."""

    place: int


class Later(msgspec.Struct, frozen=True):
    """Send the same texts again after `delay` seconds; `pace` holds the whole lane back until then."""

    delay: float
    pace: bool = False


class GiveUp(msgspec.Struct, frozen=True):
    """Fail everybody who waits for these texts."""


Told = Callable[[int], GatewayError]
"""What the asker of the text at an index of its request is told."""

Step = Split | Reject | Later | GiveUp

_SINGLE_OUT = frozenset({ProviderFault.REFUSED, ProviderFault.TOO_LONG, ProviderFault.TOO_LARGE})
"""Faults that one text of a batch, or the batch's size, may be to blame for."""


def next_step(
    error: ProviderError, *, texts: int, tries: int, remaining: float, limits: DispatchLimits, rng: Random
) -> Step:
    """The step after `error` for a batch of `texts` that has now failed `tries` times in ways that may pass.

    `remaining` is how many seconds the most patient of its waiters has left: a later try that would start after it is none.
    """
    fault = error.fault
    if fault is ProviderFault.TOO_LONG and (texts == 1 or (error.index is not None and 0 <= error.index < texts)):
        return Reject(0 if texts == 1 else error.index or 0)
    if fault is ProviderFault.TOO_LARGE and texts == 1:
        return Reject(0)
    if fault in _SINGLE_OUT and texts > 1:
        return Split(learn=fault is ProviderFault.TOO_LARGE)
    if not fault.retryable or tries >= limits.max_attempts:
        return GiveUp()
    delay = max(pause(tries, limits, rng), error.retry_after or 0.0)
    if fault is ProviderFault.RATE_LIMITED and error.retry_after is not None:
        delay = error.retry_after
    if delay >= remaining:
        return GiveUp()
    return Later(delay, pace=fault is ProviderFault.RATE_LIMITED)


def pause(tries: int, limits: DispatchLimits, rng: Random) -> float:
    """Seconds before the next try after `tries` failed ones: exponential, jittered, capped."""
    nominal = min(limits.backoff * limits.backoff_factor ** (tries - 1), limits.backoff_cap)
    return min(nominal * rng.uniform(1 - limits.backoff_jitter, 1 + limits.backoff_jitter), limits.backoff_cap)


_OURS = ("provider_nano_usd", "model")
"""What of an attempt its sender is not told: the contract names no such field."""


def as_details(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Attempts as `details.attempts` shows them: what they may cost us is no business of the sender."""
    return [{k: v for k, v in msgspec.to_builtins(a).items() if k not in _OURS} for a in attempts]


def too_long(candidate: Candidate, index: int) -> GatewayError:
    """The provider finds the text at `index` of its request too long."""
    return GatewayError(
        "input_too_long",
        f"input[{index}] is longer than {candidate.model.id} takes at {candidate.endpoint.name} "
        f"(at most {candidate.model.max_tokens} tokens): shorten it or set truncate to 'end'",
        details={"field": "input", "index": index},
    )


def final(error: ProviderError, candidate: Candidate, attempts: Sequence[Attempt], index: int) -> GatewayError:
    """What the sender of a text is told when its last try has failed."""
    details: dict[str, Any] = {"attempts": as_details(attempts)}
    if error.fault is ProviderFault.REFUSED:
        details.update(field="input", index=index)
        return GatewayError(
            "provider_error",
            f"{candidate.endpoint.name} refused input[{index}] ({error.detail}): change this input or choose another model",
            details=details,
        )
    return GatewayError(
        "provider_unavailable",
        f"{candidate.endpoint.name} did not answer ({error.fault}) after {len(attempts)} call(s): try again later or choose another model",
        details=details,
        retry_after_ms=None if error.retry_after is None else int(error.retry_after * 1000),
    )


def isolated(error: ProviderError, candidate: Candidate, attempts: Sequence[Attempt], index: int) -> GatewayError:
    """What the sender of a text is told that alone makes an endpoint fail which answers others."""
    if error.fault is ProviderFault.REFUSED:
        return final(error, candidate, attempts, index)
    return GatewayError(
        "provider_error",
        f"{candidate.endpoint.name} fails ({error.fault}) whenever it is sent input[{index}], and answers other texts: "
        "change this input or choose another model",
        details={"attempts": as_details(attempts), "field": "input", "index": index},
    )


def circuit_open(candidate: Candidate, seconds: float, attempts: Sequence[Attempt]) -> GatewayError:
    """The endpoint's circuit is open, so nothing was sent."""
    return GatewayError(
        "provider_unavailable",
        f"{candidate.endpoint.name} takes no calls: its circuit is open for another {seconds:.1f} s: try again then or choose another model",
        details={"attempts": as_details(attempts)},
        retry_after_ms=int(seconds * 1000) + 1,
    )


def unavailable_until(candidate: Candidate, seconds: float) -> GatewayError:
    """The provider has asked for a pause that is longer than the request's deadline."""
    attempt = Attempt(endpoint=candidate.endpoint.name, reason=ProviderFault.RATE_LIMITED.value, ms=0)
    return GatewayError(
        "provider_unavailable",
        f"{candidate.endpoint.name} takes no calls for another {seconds:.1f} s (rate_limited): try again then or choose another model",
        details={"attempts": as_details((attempt,))},
        retry_after_ms=int(seconds * 1000) + 1,
    )
