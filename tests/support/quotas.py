"""The quota view in plain Python, and a bank that grants leases as the database does: what the real ones are checked against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta

from domain.events import EmbeddingFailed, EmbeddingGenerated
from domain.ports.event_log import InstanceFenced
from domain.quota_lease import Answer, Ask
from tests.support.projecting import Recorded, Row


def plain_quota(events: Sequence[Recorded], skip: Collection[int] = ()) -> list[Row]:
    """The quota view of these events but those at the positions `skip`, in the order of its key."""
    view: defaultdict[Row, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for position, event in enumerate(events, 1):
        data = event.data
        if position in skip or not isinstance(data, EmbeddingGenerated | EmbeddingFailed):
            continue
        if data.day is not None:
            day = date.fromisoformat(data.day)
        else:
            day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=data.at)).date()
        row = view[event.tenant, day, data.agent, data.model, data.instance or ""]
        row[0] += data.billed_tokens
        row[1] += isinstance(data, EmbeddingGenerated) or data.billed_tokens > 0 or data.characters > 0
        row[2] += data.nano_usd or 0
        row[3] += data.nano_usd is None
    oldest = max((e.at for e in events), default=datetime.now(UTC)).astimezone(UTC).date() - timedelta(days=62)
    return [(*key, *row) for key, row in sorted(view.items()) if key[1] >= oldest]


class Bank:
    """Grants leases as `quota.lease` does, for one window of a hard quota; what processes held that died is counted from `log`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.limits: dict[int, int] = {}
        """Position -> the limit since then; the newest that a caller has seen is in force."""
        self._position = 0
        self.leases: dict[int, int] = {}
        self.used: dict[int, int] = {}
        self.log: defaultdict[int, int] = defaultdict(int)
        self.closed: set[int] = set()
        self._serials: dict[int, int] = {}

    @property
    def granted(self) -> int:
        """What all of them hold."""
        return sum(self.leases.values())

    def lease(self, process: int, serial: int, asks: Sequence[Ask]) -> list[Answer]:
        """Raises `InstanceFenced` for a closed process, ValueError for a call that comes late."""
        if process in self.closed:
            raise InstanceFenced
        if serial <= self._serials.get(process, 0):
            raise ValueError("late")
        self._serials[process] = serial
        answers = []
        for ask in asks:
            if self._position < ask.position in self.limits:
                self._position, self.limit = ask.position, self.limits[ask.position]
            room = self.limit - (self.granted - self.leases.get(process, 0) + ask.holds)
            if ask.need + ask.extra <= 0 or room < max(ask.least, 1):
                given = 0
            elif room < ask.need:
                given = room
            else:
                given = ask.need + min(ask.extra, (room - ask.need) // 8)
            self.leases[process] = ask.holds + given
            self.used[process] = ask.used
            answers.append(Answer(given, self.limit, self.granted, sum(self.used.values())))
        return answers

    def close(self, process: int) -> None:
        """The process is fenced: nothing of it comes any more."""
        self.closed.add(process)
        self.leases[process] = self.used[process] = self.log[process]
