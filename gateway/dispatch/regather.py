"""When an idle lane should wait a moment, because the requests it has just answered are about to come back.

Agents ask in a loop: answer in, next request out. A lane that sends the first that returns splits them into two groups that take
turns, each waiting out the other's call. So after a call the lane holds until as many requests have come as the call answered,
for at most `span` seconds from when the answers were out. A request on either side of a call passes through the log: the answer
before it goes out, the next request before it is submitted. How long that takes is measured on the way in (from `announce` to
`arrive`) and taken to be the same on the way out. Requests that are announced when the time is up are waited for once more, until
they arrive or `longest` has passed.
"""

from __future__ import annotations

from collections import deque

_SMOOTHING = 1 / 8
_LONGEST_COMMIT = 0.050
TICK = 0.0005
"""Seconds. Event loops keep time in steps of up to a millisecond: what is due within half of one is due."""


class Regather:
    """Counts who is expected back. All times are the loop's, in seconds."""

    __slots__ = ("_answered_at", "_extended", "_longest", "_span", "_until", "announced", "commit", "expected")

    def __init__(self, span: float, longest: float) -> None:
        self.announced: deque[float] = deque()
        """When each request that is being committed to the log was announced, oldest first."""
        self.commit = 0.0
        """How long a request is usually in the log's hands."""
        self.expected = 0
        self._span = span
        self._longest = longest
        self._until = 0.0
        self._answered_at = 0.0
        self._extended = False

    def announce(self, now: float) -> None:
        """A request is being committed and will be submitted."""
        self.announced.append(now)

    def retract(self) -> None:
        """An announced request will not come after all."""
        if self.announced:
            self.announced.popleft()
        self.expected = min(self.expected, len(self.announced)) if self._extended else self.expected

    def arrive(self, now: float) -> None:
        """A request was submitted."""
        if self.announced:
            took = min(now - self.announced.popleft(), _LONGEST_COMMIT)
            self.commit += (took - self.commit) * _SMOOTHING if self.commit else took
        if self.expected:
            self.expected -= 1

    def answer(self, requests: int, now: float) -> None:
        """A call has answered the last texts of `requests` requests."""
        if not requests:
            return
        self.expected = requests if now >= self._until else self.expected + requests
        self._until = now + self.commit + self._span
        self._answered_at = now
        self._extended = False

    def hold(self, now: float) -> float | None:
        """Until when to hold texts back now; None to send."""
        if not self.expected:
            return None
        if now < self._until - TICK:
            return self._until
        if not self._extended and self.announced:
            self._extended = True
            self.expected = min(self.expected, len(self.announced))
            self._until = self._answered_at + self._longest
            if now < self._until - TICK:
                return self._until
        self.expected = 0
        return None
