"""How fast an endpoint may be called, learnt from its 429s: how many calls at once, and how many a second.

Additive increase, multiplicative decrease, both for the calls at once and for the calls a second. A 429 counts once for all the calls
that were on their way when it came. The rate is learnt from what the endpoint has lately answered, and forgotten once nobody has had to
wait for it for a while. Pure: times are given, in seconds.
"""

from __future__ import annotations

from collections import deque

_DECREASE = 0.9
"""What is left of the observed rate after a 429: the endpoint has just answered that much, so it is near what it takes."""
_REGAIN = 100
"""Answered calls until the rate is where it was: a 429 or two for each of these rounds is the price of finding out. From there on it grows
faster and faster, as what was observed was no limit."""
_WINDOW = 10.0
"""How far back calls are looked at to observe a rate."""
_ENOUGH = 3
_FORGET = 60.0
"""A rate that has kept nobody waiting for so long is forgotten."""


class Pace:
    """`limit` is the most calls at once that are configured; `until` when a pause that was asked for ends; `rate` in calls a second."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.until = 0.0
        self.rate: float | None = None
        self._allowed = float(limit)
        self._next = 0.0
        self._step = 0.0
        self._regained = 0
        self._decreased_at = float("-inf")
        self._held_at = float("-inf")
        self._answers: deque[float] = deque(maxlen=1024)

    @property
    def allowed(self) -> int:
        """How many calls may be under way at once."""
        return max(1, int(self._allowed))

    def resize(self, limit: int) -> None:
        """The endpoint is configured anew."""
        if limit != self.limit:
            self._allowed = float(limit) if self._allowed >= self.limit else min(self._allowed, float(limit))
            self.limit = limit

    def ready_at(self) -> float:
        """When the next call may start; in the past where it may at once."""
        return max(self.until, self._next) if self.rate is not None else self.until

    def hold(self, now: float) -> None:
        """Somebody has to wait for `ready_at`."""
        if now >= self.until:
            self._held_at = now

    def start(self, now: float) -> None:
        """A call starts."""
        if self.rate is None:
            return
        if now - self._held_at > _FORGET:
            self.rate = None
            return
        self._next = max(self._next, now) + 1 / self.rate

    def pause(self, until: float) -> None:
        """No call starts before `until`."""
        self.until = max(self.until, until)

    def succeeded(self, now: float) -> None:
        """A call was answered."""
        self._answers.append(now)
        if self._allowed < self.limit:
            self._allowed = min(float(self.limit), self._allowed + 1 / self._allowed)
        if self.rate is not None and now - self._held_at < 2 / self.rate + 1:
            self._regained += 1
            self.rate += self._step * max(1.0, self._regained / _REGAIN) ** 2

    def refused(self, sent_at: float, now: float, in_flight: int) -> None:
        """A call that was sent at `sent_at` got a 429; `in_flight` calls were under way with it."""
        if sent_at < self._decreased_at:
            return
        self._decreased_at = now
        self._allowed = max(1.0, min(self._allowed, float(in_flight)) / 2)
        observed = self._observed(now)
        if observed is None:
            return
        self.rate = _DECREASE * (observed if self.rate is None else min(observed, self.rate))
        self._step = self.rate * (1 / _DECREASE - 1) / _REGAIN
        self._regained = 0
        self._held_at = now
        self._next = max(self._next, now + 1 / self.rate)

    def _observed(self, now: float) -> float | None:
        """Calls a second that were answered lately; None where they are too few to tell."""
        answers = self._answers
        while answers and answers[0] < now - _WINDOW:
            answers.popleft()
        if len(answers) < _ENOUGH:
            return None
        return len(answers) / max(now - answers[0], 0.001)
