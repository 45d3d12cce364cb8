"""Deadlines of many requests with one timer, on a clock that the test moves."""

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from gateway.service.deadlines import TICK, Deadlines


class Member:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline


class Handle:
    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when, self.call, self.cancelled = when, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Clock(asyncio.AbstractEventLoop):
    """A loop with nothing but time and one kind of timer."""

    def __init__(self) -> None:
        self.now = 100.0
        self.handles: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay, callback, *args, context=None):  # type: ignore[no-untyped-def,override]  # one timer is enough here
        handle = Handle(self.now + delay, callback)
        self.handles.append(handle)
        return handle

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = [h for h in self.handles if not h.cancelled and h.when <= end]
            if not due:
                break
            handle = min(due, key=lambda h: h.when)
            self.handles.remove(handle)
            self.now = max(self.now, handle.when)
            handle.call()
        self.now = end


@given(
    st.lists(st.tuples(st.floats(-0.5, 2.0), st.floats(0, 1.0)), max_size=30),
    st.sets(st.integers(0, 29)),
)
def test_each_member_expires_once_in_time_and_removed_ones_never(
    plan: list[tuple[float, float]], removed: set[int]
) -> None:
    clock = Clock()
    expired: list[tuple[float, Member]] = []
    deadlines: Deadlines[Member] = Deadlines(clock, lambda m: expired.append((clock.now, m)))
    members = []
    for life, pause in plan:
        member = Member(clock.now + life)
        members.append((member, clock.now))
        deadlines.add(member)
        clock.advance(pause)
    gone = [members[i][0] for i in removed if i < len(members) and all(m is not members[i][0] for _, m in expired)]
    for member in gone:
        deadlines.remove(member)
    clock.advance(5)
    kept = [(m, added) for m, added in members if m not in gone]
    assert sorted(id(m) for _, m in expired) == sorted(id(m) for m, _ in kept)
    for at, member in expired:
        added = next(a for m, a in kept if m is member)
        due = max(member.deadline, added)
        assert due - 1e-9 <= at <= due + 2 * TICK + 1e-6


def test_the_timer_stops_when_nothing_is_left_to_watch() -> None:
    clock = Clock()
    deadlines: Deadlines[Member] = Deadlines(clock, lambda m: None)
    deadlines.add(Member(clock.now + 0.1))
    clock.advance(1)
    assert clock.handles == []


def test_after_a_long_pause_everything_due_expires_at_once() -> None:
    clock = Clock()
    expired: list[Member] = []
    deadlines: Deadlines[Member] = Deadlines(clock, expired.append)
    members = [Member(clock.now + 1 + i) for i in range(5)]
    for member in members:
        deadlines.add(member)
    clock.now += 3600
    clock.advance(TICK)
    assert set(expired) == set(members)
