"""Whatever happens to a view, in whatever order, it holds what the plain fold of the log makes, up to its cursor and but for what it parked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from domain.events import EventData
from projections import cursor, fresh, parking
from projections.connect import connect
from projections.projection import Ousted, Projection, Refused
from projections.rebuild import Rebuild
from projections.source import Connection
from tests.support.databases import with_user
from tests.support.histories import REQUEST_ITEMS, START, recorded
from tests.support.projecting import Recorded
from tests.support.projecting import write_log as write
from tests.support.views import DEEP, LEASE, empty, heal, make_poison, plain, poison, rows_of, tasting
from tests.support.waiting import until

T = TypeVar("T")


class Generation:
    """What the model knows of a generation: how far it is, and what it lacks."""

    def __init__(self) -> None:
        self.position = 0
        self.parked: set[int] = set()
        self.discarded: set[int] = set()

    def follow(self, upto: int, lacking: set[int], discarded: set[int]) -> None:
        """Go on to `upto` without the events in `lacking`, of which some were `discarded` elsewhere."""
        new = {p for p in lacking if self.position < p <= upto}
        self.parked |= new
        self.discarded |= new & discarded
        self.position = max(upto, self.position)


class ViewMachine(RuleBasedStateMachine):
    """One projection: its log, its owners, its generations, and the model of them."""

    projection: Projection
    dsn: str

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.history: list[Recorded] = []
        self.poisoned: set[int] = set()
        self.live, self.retired, self.building = Generation(), None, None
        self.live: Generation
        self.retired: Generation | None
        self.building: Generation | None
        self.halted = False
        self.app_dsn = with_user(self.dsn, "emberlog_gateway")
        self.do(self._open())

    def do(self, work: Awaitable[T]) -> T:
        async def waited() -> T:
            return await work

        return self.loop.run(waited())

    async def _open(self) -> None:
        self.owner: Connection = await asyncpg.connect(self.dsn)
        self.app = await connect(self.app_dsn, "machine", bulk=True)
        await empty(self.owner, [self.projection])
        await heal(self.owner)
        await cursor.look(self.app, self.projection)
        self.fence = await self._take()

    async def _take(self) -> int:
        """Become the owner, whoever was, as after the lease of one that died ran out."""
        seen = await cursor.look(self.app, self.projection)
        await self.app.execute("UPDATE projections.cursors SET lease_until = '-infinity' WHERE state = 'live'")
        fence = await cursor.acquire(self.app, self.projection, seen.generation, uuid4(), LEASE)
        assert fence is not None
        return fence

    def teardown(self) -> None:
        async def close() -> None:
            await self.owner.close()
            await self.app.close()

        self.do(close())
        self.loop.close()

    @property
    def head(self) -> int:
        return len(self.history)

    @rule(items=st.lists(REQUEST_ITEMS, min_size=1, max_size=6), bad=st.sets(st.integers(0, 5), max_size=2))
    def append(self, items: list[tuple[float, str, EventData]], bad: set[int]) -> None:
        since: datetime = self.history[-1].at if self.history else START
        events = recorded(items, since)
        fatal = {self.head + 1 + n for n in bad if n < len(events)}
        self.history += events
        self.poisoned |= fatal
        self.do(write(self.owner, events))
        self.do(poison(self.owner, *fatal))

    @rule(events=st.integers(1, 5), bulk=st.booleans())
    def fold(self, events: int, bulk: bool) -> None:
        """As a worker does: an event at fault is found alone; the view halts before it, or parks it."""
        upto = min(self.head, self.live.position + events)
        if upto == self.live.position:
            return
        at = min((p for p in self.poisoned if self.live.position < p <= upto), default=None)
        generation = self._generation()
        if at is None:
            self.do(self._fold(generation, self.fence, upto, bulk))
            self.live.position, self.halted = upto, False
            return
        with pytest.raises(asyncpg.RaiseError):
            self.do(self._fold(generation, self.fence, upto, bulk))
        if at > self.live.position + 1:
            self.do(self._fold(generation, self.fence, at - 1, bulk))
        if self.projection.halts:
            self.do(cursor.halt(self.app, self.projection, generation, self.fence, at, "why"))
            self.live.position, self.halted = at - 1, True
        else:
            self.do(cursor.park(self.app, self.projection, generation, self.fence, at, "why", LEASE))
            self.live.position, self.halted = at, False
            self.live.parked.add(at)

    def _generation(self) -> int:
        return self.do(cursor.look(self.app, self.projection)).generation

    async def _fold(self, generation: int, fence: int, upto: int, bulk: bool) -> None:
        await cursor.fold(
            self.app, self.projection, generation, fence, self.live.position, upto, LEASE, bulk=bulk
        )  # fmt: skip

    @precondition(lambda self: self.live.position < self.head)
    @rule(events=st.integers(1, 5))
    def crash_while_folding(self, events: int) -> None:
        """A process dies with its batch folded and nothing committed."""

        async def crash() -> None:
            other = await connect(self.app_dsn, "machine that crashes")
            seen = await cursor.look(other, self.projection)
            await other.transaction().start()
            with suppress(asyncpg.RaiseError):
                await cursor.fold(
                    other, self.projection, seen.generation, self.fence, seen.position,
                    min(self.head, seen.position + events), LEASE,
                )  # fmt: skip
            pid = other.get_server_pid()
            other.terminate()
            await until(lambda: self._gone(pid), what="the server has noticed")

        self.do(crash())

    async def _gone(self, pid: int) -> bool:
        return not await self.owner.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid)

    @rule()
    def another_owner_takes_over_and_the_first_returns_late(self) -> None:
        late, self.fence = self.fence, self.do(self._take())
        if self.live.position < self.head:
            with pytest.raises(Ousted):
                self.do(self._fold(self._generation(), late, self.live.position + 1, False))

    @rule()
    def let_it_go_on(self) -> None:
        if not self.halted:
            with pytest.raises(Refused, match="not halted"):
                self.do(parking.park(self.app, self.projection))
            return
        self.live.position += 1
        assert self.do(parking.park(self.app, self.projection)).position == self.live.position
        self.live.parked.add(self.live.position)
        self.halted = False

    @precondition(lambda self: self.poisoned)
    @rule(data=st.data())
    def mend(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from(sorted(self.poisoned)))
        self.do(heal(self.owner, at))
        self.poisoned.discard(at)

    @precondition(lambda self: self.live.parked - self.live.discarded)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from(sorted(self.live.parked - self.live.discarded)))
        if at in self.poisoned:
            with pytest.raises(Refused, match="still cannot be folded"):
                self.do(parking.retry(self.app, self.projection, at))
        else:
            self.do(parking.retry(self.app, self.projection, at))
            self.live.parked.discard(at)

    @precondition(lambda self: self.live.parked - self.live.discarded)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from(sorted(self.live.parked - self.live.discarded)))
        self.do(parking.discard(self.app, self.projection, at))
        self.live.discarded.add(at)
        with pytest.raises(Refused, match="no event"):
            self.do(parking.retry(self.app, self.projection, at))

    @rule()
    def prune(self) -> None:
        seen = self.do(cursor.look(self.app, self.projection))
        self.do(cursor.prune(self.app, self.projection, self.fence, seen))

    @rule(accept=st.booleans())
    def rebuild(self, accept: bool) -> None:
        job = Rebuild(self.app_dsn, self.projection)
        if self.halted:
            with pytest.raises(Refused, match="is halted before"):
                self.do(job.run())
            return
        building = self.building or Generation()
        building.follow(self.live.position, self.poisoned, self.live.discarded)
        same = building.parked == self.live.parked
        done = self.do(job.run(accept_differences=accept))
        assert done.resumed == (self.building is not None)
        assert done.position == self.live.position
        assert (done.digest == done.before) == (self._plain(building) == self._plain(self.live))
        assert (done.differing == 0) == (done.digest == done.before)
        assert done.flipped == (accept or done.digest == done.before)
        assert done.flipped or not same
        if done.flipped:
            self.live, self.retired, self.building = building, self.live, None
            self.fence = self.do(self._take())
        else:
            self.building = building

    @rule()
    def roll_back(self) -> None:
        job = Rebuild(self.app_dsn, self.projection)
        if self.halted or self.retired is None:
            with pytest.raises(Refused, match=r"is halted before|no generation to go back to"):
                self.do(job.roll_back())
            return
        self.do(job.roll_back())
        self.retired.follow(self.live.position, self.poisoned, self.live.discarded)
        self.live, self.retired, self.building = self.retired, self.live, None
        self.fence = self.do(self._take())

    @rule()
    def verify(self) -> None:
        found = self.do(fresh.verify(self.app, self.projection, None))
        assert (found.digest, found.position, found.differing) == (found.expected, self.live.position, 0)

    def _plain(self, generation: Generation) -> list[Any]:
        return plain(self.projection, self.history[: generation.position], generation.parked)

    @invariant()
    def the_view_is_the_plain_fold_up_to_its_cursor_but_for_what_is_parked(self) -> None:
        seen = self.do(cursor.look(self.app, self.projection))
        assert (seen.position, seen.error is not None) == (self.live.position, self.halted)
        assert seen.parked == len(self.live.parked - self.live.discarded)
        assert self.do(rows_of(self.app, self.projection)) == self._plain(self.live)


def _run(projection: Projection, dsn: str, phases: Sequence[Phase] = tuple(Phase), examples: int = 25) -> None:
    machine = type(f"Machine_{projection.name}", (ViewMachine,), {"projection": tasting(projection), "dsn": dsn})
    chosen = settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=phases,
    )
    run_state_machine_as_test(machine, settings=chosen)


@pytest.fixture
async def poisonable_dsn(migrated_dsn: str) -> str:
    connection = await asyncpg.connect(migrated_dsn)
    await make_poison(connection)
    await connection.close()
    return migrated_dsn


@pytest.mark.parametrize("projection", DEEP, ids=lambda p: p.name)
def test_whatever_happens_a_view_is_the_plain_fold_of_what_it_has_folded(
    projection: Projection, poisonable_dsn: str
) -> None:
    _run(projection, poisonable_dsn)


def test_a_fold_that_counts_an_event_twice_is_found(poisonable_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: of a fold that takes the event before its batch once more, the machine says so."""
    hold = cursor.hold

    async def forgetful(
        connection: Connection, projection: Projection, generation: int, fence: int, position: int
    ) -> None:
        await hold(connection, projection, generation, fence, position)
        await connection.execute(
            DEEP[0].merge_sql(projection.table_of(generation), f"({DEEP[0].delta_sql()})"), position - 1, position
        )

    monkeypatch.setattr(cursor, "hold", forgetful)
    with pytest.raises(AssertionError):
        _run(DEEP[0], poisonable_dsn, [Phase.generate], examples=500)  # it ends with the first that shows it
