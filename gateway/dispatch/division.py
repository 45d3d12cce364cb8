"""Dividing a provider's token count over the texts of a call so that the parts add up exactly, and telling who asked for them."""

from __future__ import annotations

from collections.abc import Sequence

from domain.catalogue import Candidate
from domain.ports.provider import EmbedAnswer
from gateway.dispatch.flights import Flight


def divide_tokens(total: int, weights: Sequence[int]) -> list[int]:
    """`total` divided in proportion to `weights` (largest remainder; ties go to the earlier text). The parts add up to `total`.

    Each part is its exact share rounded down or up. Weights that are all 0 count as equal. Raises ValueError for a negative total
    or weight, and for a positive total with nobody to bear it.
    """
    if total < 0 or any(w < 0 for w in weights):
        raise ValueError("token counts and weights must not be negative")
    if not weights:
        if total:
            raise ValueError(f"{total} tokens cannot be divided over no texts")
        return []
    whole = sum(weights)
    if whole == 0:
        weights, whole = [1] * len(weights), len(weights)
    parts = [total * w // whole for w in weights]
    left = total - sum(parts)
    if left:
        by_remainder = sorted(range(len(parts)), key=lambda i: -(total * weights[i] % whole))
        for i in by_remainder[:left]:
            parts[i] += 1
    return parts


def count(flights: Sequence[Flight], answer: EmbedAnswer, candidate: Candidate) -> None:
    """Tell everybody who waits for these texts, whose counts are estimates, what the provider counted; who pays does so by that.

    A call's count is divided in proportion to the estimates. A text never counts more than its estimate, by which it was admitted and
    reserved for: what a provider counts beyond that is ours to bear. Nothing is told where the provider gives no count.
    """
    estimates = [f.tokens for f in flights]
    parts = answer.text_tokens
    if parts is None or len(parts) != len(flights):
        if answer.tokens is None:
            return
        parts = divide_tokens(answer.tokens, estimates)
    for flight, estimate, part in zip(flights, estimates, parts, strict=True):
        tokens = min(max(part, 0), estimate)
        if tokens != estimate and flight.charged and flight.asker is not None:
            waiter = flight.asker.waiter
            waiter.charge(flight.index, -estimate, candidate)
            waiter.charge(flight.index, tokens, candidate)
        for ticket, index in flight.askers():
            if not ticket.ended:
                ticket.waiter.counted(index, tokens)
