"""A lease: what one process holds of one window of a quota, what it says of it to the database, and what it makes of the answer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from domain.quotas import UNITS, Quota, QuotaKey

IDLE_SECONDS = 1.0
"""What a lease has left is given back when nothing was taken from it for so long; ten times sooner where the window is nearly used up."""
REPORT_SECONDS = 1.0
"""How far what others see of this process's use may be behind."""
REFUSED_SECONDS = 0.05
"""For so long at least nothing is asked for again that was just refused: under a flood of requests one question answers many."""
_FIRST_SHARE = 16
"""A lease is first asked for so many times what the request at hand needs; then for twice as much where it was used up at once."""
_SOON, _LATE = 0.25, 2.0
_NOTHING = -(1 << 62)
"""Left of a lease that the database has not been asked for under the limit in force: whatever is settled meanwhile, nothing can be taken."""
_NEVER = -(1 << 80)


class Lease:
    """What this process holds of one window, in the window's unit. Of a soft quota it only counts: `left` has no meaning there.

    `seen_*` is what the last answer said of the whole window: what all processes have used and hold of it; `seen_own` is this one's share
    of what they have used.
    """

    __slots__ = (
        "active", "asked", "gone", "granted_at", "hard", "key", "left", "limit", "low", "period", "position", "refused_need",
        "refused_until", "reported", "reported_at", "reserved", "seen_granted", "seen_own", "seen_used", "share", "since", "taken_at",
        "tenant", "tight", "unit", "used",
    )  # fmt: skip

    def __init__(self, tenant: str, key: QuotaKey, period: str, quota: Quota) -> None:
        self.tenant = tenant
        self.key = key
        self.period = period
        self.unit = UNITS.index(key.unit)
        self.used = self.reserved = 0
        self.left = _NOTHING
        """What requests may take. Less than nothing where more is held than the limit: what is settled pays for that first."""
        self.low = _NEVER
        """More is asked for once less than this is left."""
        self.share = 0
        """How much beyond the need it asks for."""
        self.asked = False
        """Whether it should ask for more at the next occasion."""
        self.active = False
        """Whether it is among those that are looked at for what to ask and report."""
        self.gone = False
        """Whether its quota was removed: it is reported a last time."""
        self.taken_at = self.granted_at = self.reported_at = float("-inf")
        self.reported = -1
        self.refused_need, self.refused_until = 0, float("-inf")
        self.seen_used = self.seen_own = self.seen_granted = 0
        self.tight = False
        self.state(quota)

    def state(self, quota: Quota) -> None:
        """The quota is this from now on."""
        self.limit, self.hard, self.position, self.since = quota.limit, quota.hard, quota.position, quota.since
        self.reported = -1
        self.refused_until = float("-inf")

    @property
    def holds(self) -> int:
        """What this process must have been granted."""
        return self.used + self.reserved + (max(0, self.left) if self.hard else 0)

    @property
    def elsewhere(self) -> int:
        """What other processes held and had not used when the database last answered: for requests in flight, or the next ones."""
        return (self.seen_granted - self.seen_used) - (self.holds - self.used)

    @property
    def remaining(self) -> int:
        """What the window has left for further requests: this process's own exactly, those of others as of about a second ago."""
        return max(0, self.limit - self.seen_used - (self.used - self.seen_own) - self.reserved)

    def refuses(self, need: int, now: float) -> bool:
        """Whether so much was refused a moment ago."""
        return self.left < need >= self.refused_need and now < self.refused_until

    def refused(self, need: int, now: float, waited: float) -> None:
        """So much was asked for and cannot be had, not after so long either."""
        self.refused_need = min(need, self.refused_need) if now < self.refused_until else need
        self.refused_until = now + max(REFUSED_SECONDS, waited / 2)

    def idle(self, now: float) -> bool:
        """Whether nothing was taken from it for so long that others should have what is left."""
        return now - self.taken_at >= (IDLE_SECONDS / 10 if self.tight else IDLE_SECONDS)

    def due(self, now: float) -> bool:
        """Whether the database should hear of it, or be asked for more."""
        if self.asked or self.reported < 0:
            return True
        return self.used != self.reported and now - self.reported_at >= REPORT_SECONDS

    def give_back(self) -> bool:
        """Leave nothing to take; whether anything was left."""
        left, self.low = self.hard and self.left > 0, _NEVER
        if left:
            self.left, self.asked = 0, False
        return left

    def change(self, quota: Quota) -> None:
        """The quota is another from now on: what is left, and what its requests in flight will leave, was granted under the old one."""
        self.state(quota)
        self.left, self.low = _NOTHING, _NEVER

    def leave(self) -> None:
        """The quota was removed: to be said a last time."""
        self.gone, self.left, self.reported = True, 0, -1

    def ask(self, needs: Sequence[int] = ()) -> Ask:
        """What to tell and ask the database; `needs` are those of requests that wait."""
        left, need, least, extra = max(0, self.left), 0, 0, 0
        if needs:
            self.share = max(self.share, _FIRST_SHARE * max(needs))
            need, least, extra = sum(needs) - left, max(1, min(needs) - left), self.share
        elif self.asked and self.hard:
            extra = self.share
        self.asked = False
        return Ask(self, self.position, self.holds, self.used, need, least, extra, left - self.left)

    def answered(self, ask: Ask, answer: Answer, now: float) -> None:
        """What the database said to `ask`."""
        self.seen_used, self.seen_own, self.seen_granted = answer.used, ask.used, answer.granted
        again = (
            answer.behind or ask.position != self.position
        )  # its limit was changed meanwhile: what it says is of the old one
        self.reported, self.reported_at = (-1 if again else ask.used), now
        self.tight = self.hard and (answer.limit - answer.granted) * 8 < answer.limit
        if again:
            return
        self.left += ask.lacked + answer.given
        if self.hard and (over := answer.granted - answer.limit) > 0:
            # What was used before a quota was set or lowered is more than its limit: nothing is let in until that is no longer so.
            if self.left > 0:
                self.reported, self.seen_granted = -1, answer.granted - min(over, self.left)
            self.left -= over
        if answer.given:
            self.share = _adapted(self.share, now - self.granted_at, self.limit)
            self.granted_at = now
        if ask.need or ask.extra:
            self.low = self.left // 2 if answer.given else _NEVER

    def unanswered(self, ask: Ask) -> None:
        """Nobody knows what became of `ask`: it is made again."""
        self.reported = -1
        self.asked = self.asked or ask.extra > 0


class Ask(msgspec.Struct, frozen=True):
    """What the database is told of a lease and asked for: the process `holds` so much, `used` of it for good, and needs `need` more.

    With `least` of that some of its requests go on. `extra` beyond the need spares it round trips. `position` tells which limit it knew.
    By `lacked` less than nothing was left: that is made up for once the database knows what is held.
    """

    lease: Lease
    position: int
    holds: int
    used: int
    need: int = 0
    least: int = 0
    extra: int = 0
    lacked: int = 0


class Answer(msgspec.Struct, frozen=True):
    """What was granted beyond `Ask.holds`, and of the whole window: its limit, what all processes hold, what they said they have used.

    `behind`: nothing is granted yet, because what was used before the quota was set is still being counted.
    """

    given: int
    limit: int
    granted: int
    used: int
    behind: bool = False


def _adapted(share: int, since: float, limit: int) -> int:
    """What to ask for next, seconds after the last grant: so much that a lease lasts about a second."""
    if since < _SOON:
        return min(2 * share, limit)
    return max(1, share // 2) if since > _LATE else share
