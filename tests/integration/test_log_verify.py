"""Whatever is changed behind the log's back is found, and the first event at fault is named."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.pool import Connection, connect
from adapters.postgres.seals import newest_seal, seal
from adapters.postgres.verify import verify
from domain.content_hash import content_hash
from domain.ports.event_log import StoredEvent
from domain.verification import Damage, Finding, Verdict
from tests.support.sealing import PARTITION, append, rehash, unguard

TAMPER = Callable[[Connection], Awaitable[object]]
SEALED, HEAD = 40, 50
"""Two seals of 20 events, and ten events that are not sealed."""

NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0\x1e"), min_size=1, max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAME,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAME, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
async def sealed(log: PostgresEventLog, instance: UUID, owner: Connection) -> PostgresEventLog:
    """A log with its guards off."""
    for _ in range(2):
        for _ in range(2):
            await append(log, instance, 10)
        await seal(log.pool, rest_seconds=0)
    await append(log, instance, HEAD - SEALED)
    await unguard(owner)
    return log


@pytest.fixture
async def check(sealed: PostgresEventLog) -> Callable[..., Awaitable[Verdict]]:
    async def run(**options: Any) -> Verdict:
        return await verify(sealed.pool, sealed, **options)

    return run


@pytest.fixture
async def hasher(migrated_dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(migrated_dsn, "hasher", role=False)
    yield connection
    await connection.close()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    position=st.integers(1, 2**62),
    event_id=st.binary(min_size=16, max_size=16),
    names=st.tuples(NAME, NAME, NAME),
    version=st.none() | st.integers(1, 2**40),
    schema=st.integers(1, 30_000),
    recorded=st.integers(0, 4_000_000_000_000_000),
    data=st.dictionaries(NAME, JSON, max_size=4),
)
async def test_the_content_hash_in_python_is_the_one_in_sql(
    hasher: Connection,
    position: int,
    event_id: bytes,
    names: tuple[str, str, str],
    version: int | None,
    schema: int,
    recorded: int,
    data: dict[str, object],
) -> None:
    in_sql, text = await hasher.fetchrow(  # type: ignore[misc]  # one row
        "SELECT emberlog.content_hash($1, $2, $3, $4, $5, $6, $7::integer::smallint, "
        "emberlog.micros(timestamptz 'epoch' + make_interval(secs => ($8::bigint / 1000000)::double precision) + "
        "$8::bigint % 1000000 * interval '1 microsecond'), j), j::text FROM (SELECT $9::text::jsonb AS j) d",
        position, UUID(bytes=event_id), names[0], names[1], version, names[2], schema, recorded, json.dumps(data),
    )  # fmt: skip
    event = StoredEvent(position, event_id, names[0], names[1], version, names[2], schema, recorded, text.encode(), b"")
    assert content_hash(event) == in_sql


async def test_an_untouched_log_is_intact(check: Callable[..., Awaitable[Verdict]], log: PostgresEventLog) -> None:
    newest = await newest_seal(log.pool)
    assert newest is not None
    steps: list[tuple[int, int]] = []
    verdict = await check(noted=newest.hash, progress=lambda *step: steps.append(step))
    assert verdict == Verdict(
        intact=True, finding=None, head=HEAD, events=HEAD, seals=2, unsealed=HEAD - SEALED, newest_seal=newest
    )
    assert steps == [(20, HEAD), (40, HEAD), (50, HEAD)]


async def test_an_empty_log_is_intact(log: PostgresEventLog) -> None:
    verdict = await verify(log.pool, log)
    assert verdict == Verdict(intact=True, finding=None, head=0, events=0, seals=0, unsealed=0, newest_seal=None)


async def _change_data(owner: Connection, position: int = 7) -> None:
    await owner.execute(f"UPDATE {PARTITION} SET data = '{{\"number\": 0}}' WHERE position = $1", position)


async def _forge(owner: Connection, position: int = 7) -> None:
    await _change_data(owner, position)
    await rehash(owner, position)


async def _delete(owner: Connection, first: int, last: int) -> None:
    await owner.execute(f"DELETE FROM {PARTITION} WHERE position BETWEEN $1 AND $2", first, last)


async def _swap(owner: Connection, *, forged: bool) -> None:
    await owner.execute(f"UPDATE {PARTITION} SET position = 1000 WHERE position = 7")
    await owner.execute(f"UPDATE {PARTITION} SET position = 7 WHERE position = 9")
    await owner.execute(f"UPDATE {PARTITION} SET position = 9 WHERE position = 1000")
    if forged:
        await rehash(owner, 7)
        await rehash(owner, 9)


async def _change_time(owner: Connection, position: int, *, forged: bool) -> None:
    await owner.execute(
        f"UPDATE {PARTITION} SET recorded_at = recorded_at - interval '1 h' WHERE position = $1", position
    )
    if forged:
        await rehash(owner, position)


async def _reseal(owner: Connection, number: int, *, marks: bool) -> None:
    """Make a seal fit its events as they are now, as one would who has the owner's rights."""
    rows = await owner.fetch(
        f"SELECT content_hash FROM {PARTITION} e JOIN emberlog.seals s ON e.position BETWEEN s.first_position AND s.last_position "
        "WHERE s.number = $1 ORDER BY e.position",
        number,
    )
    hashes = b"".join(row[0] for row in rows)
    await owner.execute("UPDATE emberlog.seals SET events_hash = sha256($2) WHERE number = $1", number, hashes)
    if marks:
        await owner.execute(
            "UPDATE emberlog.seals SET marks = $2 WHERE number = $1", number, b"".join(row[0][:4] for row in rows)
        )
    await owner.execute(
        "UPDATE emberlog.seals SET hash = emberlog.seal_hash(previous, first_position, last_position, "
        "emberlog.micros(sealed_at), events_hash) WHERE number = $1",
        number,
    )


async def _forge_and_reseal(owner: Connection, *, marks: bool) -> None:
    await _forge(owner)
    await _reseal(owner, 1, marks=marks)


@pytest.mark.parametrize(
    ("tamper", "damage", "position"),
    [
        pytest.param(_change_data, Damage.EVENT_CHANGED, 7, id="data changed"),
        pytest.param(lambda o: _change_data(o, 45), Damage.EVENT_CHANGED, 45, id="data changed before it was sealed"),
        pytest.param(_forge, Damage.EVENT_REPLACED, 7, id="data changed and hashed anew"),
        pytest.param(lambda o: _forge(o, 40), Damage.EVENT_REPLACED, 40, id="the last of a seal hashed anew"),
        pytest.param(lambda o: _delete(o, 1, 1), Damage.EVENT_MISSING, 1, id="the first event deleted"),
        pytest.param(lambda o: _delete(o, 7, 7), Damage.EVENT_MISSING, 7, id="an event deleted"),
        pytest.param(lambda o: _delete(o, 15, 20), Damage.EVENT_MISSING, 15, id="the end of a seal deleted"),
        pytest.param(lambda o: _delete(o, 21, 40), Damage.EVENT_MISSING, 21, id="a whole seal's events deleted"),
        pytest.param(lambda o: _delete(o, 35, 50), Damage.EVENT_MISSING, 35, id="the end of the log deleted"),
        pytest.param(lambda o: _delete(o, 45, 45), Damage.EVENT_MISSING, 45, id="an event that is not sealed deleted"),
        pytest.param(lambda o: _swap(o, forged=False), Damage.EVENT_CHANGED, 7, id="two events swapped"),
        pytest.param(lambda o: _swap(o, forged=True), Damage.EVENT_REPLACED, 7, id="two events swapped, hashed anew"),
        pytest.param(lambda o: _change_time(o, 7, forged=False), Damage.EVENT_CHANGED, 7, id="a time changed"),
        pytest.param(lambda o: _change_time(o, 7, forged=True), Damage.EVENT_REPLACED, 7, id="a time hashed anew"),
        pytest.param(
            lambda o: _change_time(o, 45, forged=True), Damage.TIME_BACKWARDS, 45, id="a time not sealed, hashed anew"
        ),
        pytest.param(
            lambda o: _change_time(o, 41, forged=True), Damage.TIME_BACKWARDS, 41, id="a time before that of the last seal"
        ),
        pytest.param(
            lambda o: o.execute(f"UPDATE {PARTITION} SET content_hash = 'short' WHERE position IN (9, 12)"),
            Damage.EVENT_CHANGED, 9, id="a content hash that is none",
        ),
    ],
)  # fmt: skip
async def test_the_first_event_at_fault_is_named(
    check: Callable[..., Awaitable[Verdict]], owner: Connection, tamper: TAMPER, damage: Damage, position: int
) -> None:
    await tamper(owner)
    verdict = await check()
    assert not verdict.intact
    assert verdict.finding is not None
    assert (verdict.finding.damage, verdict.finding.position) == (damage, position), verdict.finding.message


async def test_of_several_the_first_is_named(check: Callable[..., Awaitable[Verdict]], owner: Connection) -> None:
    await _delete(owner, 30, 30)
    await _change_data(owner, 33)
    await _forge(owner, 26)
    finding = (await check()).finding
    assert finding is not None
    assert (finding.damage, finding.position) == (Damage.EVENT_REPLACED, 26)


async def test_a_database_whose_functions_lie_is_found_out(
    check: Callable[..., Awaitable[Verdict]], owner: Connection
) -> None:
    await _change_data(owner)
    text = await owner.fetchval("SELECT pg_get_functiondef('emberlog.content_hash'::regproc)")
    body = text[: text.index("$function$")] + (
        "$function$ SELECT e.content_hash FROM emberlog.events e WHERE e.position = p_position $function$"
    )
    await owner.execute(body)
    finding = (await check()).finding
    assert finding is not None
    assert (finding.damage, finding.position) == (Damage.EVENT_CHANGED, 7)


async def test_a_seal_over_more_events_than_any_covers_is_no_seal(
    check: Callable[..., Awaitable[Verdict]], owner: Connection
) -> None:
    await owner.execute("ALTER TABLE emberlog.seals DROP CONSTRAINT seals_check, DROP CONSTRAINT seals_check1, DROP CONSTRAINT seals_check2")  # fmt: skip
    await owner.execute("UPDATE emberlog.seals SET last_position = 1000000000000 WHERE number = 2")
    await _reseal(owner, 2, marks=True)
    finding = (await check()).finding
    assert finding is not None
    assert (finding.damage, finding.seal) == (Damage.SEAL_CHANGED, 2)


@pytest.mark.parametrize(
    ("tamper", "damage", "number"),
    [
        pytest.param("UPDATE emberlog.seals SET events_hash = sha256('') WHERE number = 1", Damage.SEAL_CHANGED, 1, id="events_hash"),
        pytest.param("UPDATE emberlog.seals SET hash = sha256('') WHERE number = 2", Damage.SEAL_CHANGED, 2, id="hash"),
        pytest.param("UPDATE emberlog.seals SET previous = sha256('') WHERE number = 2", Damage.SEAL_CHANGED, 2, id="previous"),
        pytest.param(
            "UPDATE emberlog.seals SET sealed_at = sealed_at + interval '1 us' WHERE number = 2", Damage.SEAL_CHANGED, 2, id="time"
        ),
        pytest.param(
            "UPDATE emberlog.seals SET marks = substr(marks, 5) || 'abcd' WHERE number = 2", Damage.SEAL_CHANGED, 2, id="marks"
        ),
        pytest.param("DELETE FROM emberlog.seals WHERE number = 1", Damage.CHAIN_BROKEN, 1, id="a seal deleted"),
        pytest.param(
            "UPDATE emberlog.log_identity SET installation = gen_random_uuid()", Damage.CHAIN_BROKEN, 1, id="another installation"
        ),
    ],
)  # fmt: skip
async def test_a_seal_at_fault_is_named(
    check: Callable[..., Awaitable[Verdict]], owner: Connection, tamper: str, damage: Damage, number: int
) -> None:
    await owner.execute(tamper)
    finding = (await check()).finding
    assert finding is not None
    assert (finding.damage, finding.seal) == (damage, number), finding.message


async def test_an_event_rewritten_together_with_its_seal_is_seen_by_the_next_seal(
    check: Callable[..., Awaitable[Verdict]], owner: Connection
) -> None:
    await _forge_and_reseal(owner, marks=True)
    finding = (await check()).finding
    assert finding is not None
    assert (finding.damage, finding.seal, finding.position, finding.last_position) == (Damage.CHAIN_BROKEN, 2, 1, 40)


async def test_a_seal_made_anew_without_its_marks_still_names_the_event(
    check: Callable[..., Awaitable[Verdict]], owner: Connection
) -> None:
    await _forge_and_reseal(owner, marks=False)
    finding = (await check()).finding
    assert finding is not None
    assert (finding.damage, finding.seal, finding.position) == (Damage.SEAL_CHANGED, 1, 7)


async def _new_chain(owner: Connection) -> None:
    """What somebody does who may do everything: an event rewritten and the whole chain made anew over it."""
    await _forge(owner)
    await owner.execute("DELETE FROM emberlog.seals")
    await owner.execute("SELECT emberlog.seal('0')")


@pytest.mark.parametrize(
    "tamper", [lambda o: o.execute("DELETE FROM emberlog.seals WHERE number = 2"), _new_chain], ids=["cut", "made anew"]
)
async def test_only_a_seal_noted_elsewhere_tells_of_a_chain_cut_short_or_made_anew(
    check: Callable[..., Awaitable[Verdict]], log: PostgresEventLog, owner: Connection, tamper: TAMPER
) -> None:
    noted = await newest_seal(log.pool)
    assert noted is not None
    await tamper(owner)
    assert (await check()).intact, "without the note nothing is seen: that is why it is to be kept elsewhere"
    verdict = await check(noted=noted.hash)
    assert verdict.finding == Finding(Damage.CHAIN_CUT, "the seal that was noted does not occur: the chain was cut short or made anew, or this is another log")  # fmt: skip


async def test_from_a_position_on_earlier_events_are_left_out_but_not_the_chain(
    check: Callable[..., Awaitable[Verdict]], owner: Connection
) -> None:
    await _change_data(owner, 7)
    assert not (await check(start=20)).intact, "position 20 lies in the seal that covers 7"
    verdict = await check(start=21)
    assert (verdict.intact, verdict.events, verdict.seals) == (True, HEAD - 20, 2)
    assert (await check(start=45)).events == HEAD - 44
    await owner.execute("UPDATE emberlog.seals SET hash = sha256('') WHERE number = 1")
    finding = (await check(start=45)).finding
    assert finding is not None
    assert (finding.damage, finding.seal) == (Damage.SEAL_CHANGED, 1)


# -- negative controls: each check left out, what it finds goes unseen -------------------------------------------------


async def test_without_the_seals_an_event_hashed_anew_would_go_unseen(
    check: Callable[..., Awaitable[Verdict]], owner: Connection
) -> None:
    await _forge(owner)
    await owner.execute("DELETE FROM emberlog.seals")
    assert (await check()).intact


async def test_without_the_marks_the_rewritten_event_could_not_be_named(
    check: Callable[..., Awaitable[Verdict]], owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _forge(owner)
    monkeypatch.setattr("domain.verification._differs", lambda *_: False)
    finding = (await check()).finding
    assert finding is not None
    assert (finding.damage, finding.position, finding.last_position) == (Damage.SEAL_CHANGED, 1, 20)


async def test_without_the_content_hash_a_changed_event_would_go_unseen(
    check: Callable[..., Awaitable[Verdict]], owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _change_data(owner)
    monkeypatch.setattr("domain.verification.content_hash", lambda event: event.content_hash)
    assert (await check()).intact


async def test_without_the_chain_a_seal_made_anew_would_go_unseen(
    check: Callable[..., Awaitable[Verdict]], owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _forge_and_reseal(owner, marks=True)
    monkeypatch.setattr("adapters.postgres.verify.check_seal", lambda *_: None)
    assert (await check()).intact
