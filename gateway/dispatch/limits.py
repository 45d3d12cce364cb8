"""What bounds the dispatcher: queue sizes, how long it gathers, how often and how fast it tries again."""

from __future__ import annotations

import msgspec


class DispatchLimits(msgspec.Struct, frozen=True):
    """Times in seconds.

    A tenant may queue at most as much as it leaves free, so that no tenant fills the queue: one alone gets half of it, two get a
    third each, and there is always room for the next.
    """

    max_queued_texts: int = 200_000
    max_queued_tokens: int = 50_000_000
    window: float = 0.100
    """How long a text waits behind a running call before a further call is opened for it."""
    regather: float = 0.005
    """How long an idle lane waits for the requests it has just answered to come back, counted from when the answers are out."""
    max_attempts: int = 4
    """Calls that a text may be in and fail by faults that may pass, here and elsewhere; splitting a batch is not a try."""
    backoff: float = 0.5
    backoff_factor: float = 1.5
    backoff_jitter: float = 0.5
    """A pause is drawn evenly from (1 - jitter) to (1 + jitter) times its nominal length."""
    backoff_cap: float = 5.0
    try_share: float = 0.5
    """Of the time that is left, what one call may take while there is another endpoint to go to: else a hang would leave no time for that."""
    patience: float = 0.25
    """A pause at a rate limit up to which texts wait where they are, though another endpoint would take them."""
    longest_pace: float = 300.0
    """The longest pause of a lane that a provider can ask for: after it one call asks whether the pause still holds."""
