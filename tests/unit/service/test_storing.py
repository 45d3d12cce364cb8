"""`store`: vectors are kept once the outcome is in the log and before the answer says so, and a resend makes good what failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from adapters.postgres.vectors import VectorTable
from domain.collections import Collection, Collections
from domain.errors import GatewayError
from domain.events import CollectionCreated, CollectionDeleted, EmbeddingGenerated
from gateway.collections.storing import MAX_ID, Storing
from gateway.wire.messages import Store
from tests.support.vector_tables import MemoryVectorTables
from tests.unit.service.conftest import Rig, make_rig, vector_of

SPACE = "m@1/8/raw"
TABLE = "a" * 32


class Shelf:
    """A service, the collection `docs` of acme, and what is in it."""

    def __init__(self) -> None:
        self.tables = MemoryVectorTables()
        self.collections = Collections()
        self.grown: list[Collection] = []
        self.rig: Rig
        self.collections.apply("acme", CollectionCreated("docs", TABLE, SPACE))

    def rows(self) -> dict[str, NDArray[np.float32]]:
        return {row_id: row for row_id, (row, _) in self.tables.tables.get(TABLE, {}).items()}


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    made = Shelf()
    made.rig = await make_rig(storing=Storing(made.collections, made.tables, made.grown.append))
    yield made
    await made.rig.service.close()
    await made.rig.appender.close()


def store(*ids: str, collection: str = "docs", metadata: Any = None) -> Store:
    return Store(collection, list(ids), metadata)


def refused(shelf: Shelf, texts: list[str], **options: Any) -> GatewayError:
    with pytest.raises(GatewayError) as failure:
        shelf.rig.send(texts, **options)
    return failure.value


async def test_vectors_are_kept_before_the_answer_says_so_and_after_the_outcome_is_logged(shelf: Shelf) -> None:
    logged: list[int] = []
    upsert = shelf.tables.upsert

    async def watched(table: VectorTable, *rows: Any) -> None:
        logged.append(len(await shelf.rig.events("embedding.generated")))
        assert not reply.done.is_set()
        await upsert(table, *rows)

    shelf.tables.upsert = watched  # type: ignore[method-assign, assignment]
    reply, _ = shelf.rig.send(["one", "two"], store=store("a", "b", metadata=[{"n": 1}, None]))
    await reply.wait()
    assert reply.answer is not None
    assert logged == [1]
    assert {
        i: (row == vector_of(t)).all() for (i, row), t in zip(shelf.rows().items(), ["one", "two"], strict=True)
    } == {
        "a": True,
        "b": True,
    }
    assert shelf.tables.tables[TABLE]["a"][1] == {"n": 1}
    [outcome] = await shelf.rig.events("embedding.generated")
    assert isinstance(outcome, EmbeddingGenerated)
    assert (outcome.collection, outcome.stored) == ("docs", 2)
    assert [c.name for c in shelf.grown] == ["docs"]


async def test_what_is_not_to_be_kept_is_not_and_its_event_says_nothing_of_it(shelf: Shelf) -> None:
    await shelf.rig.ask(["one"])
    [outcome] = await shelf.rig.events("embedding.generated")
    assert isinstance(outcome, EmbeddingGenerated)
    assert (outcome.collection, outcome.stored, shelf.tables.writes) == (None, 0, 0)


async def test_what_could_not_be_kept_is_never_said_to_be_and_the_resend_keeps_it_and_bills_nothing(
    shelf: Shelf,
) -> None:
    shelf.tables.fail = OSError("the database is gone")
    first = await shelf.rig.ask(["one"], store=store("a"))
    assert first.answer is None
    assert first.refusal is not None
    assert (first.refusal.code, first.refusal.retryable) == ("unavailable", True)
    assert "not kept" in first.refusal.message
    assert shelf.rows() == {}
    again = await shelf.rig.ask(["one"], store=store("a"))
    assert again.answer is not None
    assert again.answer.replayed
    assert (shelf.rows()["a"] == vector_of("one")).all()
    assert len(await shelf.rig.events("embedding.generated")) == 1
    assert len(shelf.rig.provider.calls) == 1


async def test_after_a_crash_between_outcome_and_write_the_resend_keeps_the_vectors(shelf: Shelf) -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    async def dies(*_: Any) -> None:
        begun.set()
        await never.wait()

    upsert, shelf.tables.upsert = shelf.tables.upsert, dies  # type: ignore[method-assign, assignment]
    shelf.rig.send(["one"], store=store("a"))
    await begun.wait()
    await shelf.rig.service.close()
    after = await make_rig(shelf.rig.log, storing=Storing(shelf.collections, shelf.tables))
    shelf.tables.upsert = upsert  # type: ignore[method-assign]
    reply = await after.ask(["one"], store=store("a"))
    assert reply.answer is not None
    assert reply.answer.replayed
    assert set(shelf.rows()) == {"a"}
    assert len(await after.events("embedding.generated")) == 1
    await after.service.close()
    await after.appender.close()


async def test_vectors_from_the_cache_are_kept_too(shelf: Shelf) -> None:
    await shelf.rig.ask(["one", "two"], id="r1")
    reply = await shelf.rig.ask(["two", "one"], id="r2", store=store("b", "a"))
    assert reply.answer is not None
    assert reply.answer.usage.cached_inputs == 2
    assert (shelf.rows()["a"] == vector_of("one")).all()
    assert (shelf.rows()["b"] == vector_of("two")).all()


async def test_a_collection_deleted_meanwhile_is_said_to_be(shelf: Shelf) -> None:
    shelf.rig.provider.gate.clear()
    reply, _ = shelf.rig.send(["one"], store=store("a"))
    await shelf.rig.provider.called.wait()
    shelf.collections.apply("acme", CollectionDeleted("docs", TABLE))
    shelf.rig.provider.gate.set()
    await reply.wait()
    assert reply.refusal is not None
    assert reply.refusal.code == "not_found"
    assert "billed" in reply.refusal.message


@pytest.mark.parametrize(
    ("wanted", "options", "code", "field", "index"),
    [
        (store("a"), {}, "invalid_request", "store.ids", None),
        (store("a", "b", "c"), {}, "invalid_request", "store.ids", None),
        (store("a", "a"), {}, "invalid_request", "store.ids", 1),
        (store("a", ""), {}, "invalid_request", "store.ids", 1),
        (store("x" * (MAX_ID + 1), "b"), {}, "invalid_request", "store.ids", 0),
        (store("a", "b", metadata=[{}]), {}, "invalid_request", "store.metadata", None),
        (store("a", "b", metadata=[{}, {"x": float("nan")}]), {}, "invalid_request", "store.metadata", 1),
        (store("a", "b", metadata=[{"x": "y" * 5000}, {}]), {}, "invalid_request", "store.metadata", 0),
        (store("a", "b", collection="none"), {}, "not_found", "store.collection", None),
        (store("a", "b"), {"stream": True}, "invalid_request", "stream", None),
        (store("a", "b"), {"dimensions": 4}, "invalid_request", "store.collection", None),
        (store("a", "b"), {"input_type": "clustering"}, "invalid_request", "store.collection", None),
    ],
)
async def test_what_cannot_be_kept_is_refused_before_anything_is_spent(
    shelf: Shelf, wanted: Store, options: dict[str, Any], code: str, field: str, index: int | None
) -> None:
    error = refused(shelf, ["one", "two"], store=wanted, **options)
    details = error.details or {}
    assert (error.code, details.get("field"), details.get("index")) == (code, field, index)
    assert await shelf.rig.events() == []
    assert shelf.rig.provider.calls == []


async def test_another_space_is_refused_with_both_named(shelf: Shelf) -> None:
    error = refused(shelf, ["one"], store=store("a"), dimensions=4)
    assert SPACE in error.message
    assert "m@1/4/raw" in error.message


async def test_a_collection_of_another_tenant_is_none(shelf: Shelf) -> None:
    shelf.collections.apply("globex", CollectionCreated("theirs", "b" * 32, SPACE))
    theirs = refused(shelf, ["one"], store=store("a", collection="theirs"))
    nobodys = refused(shelf, ["one"], store=store("a", collection="nobodys"))
    assert theirs.message.replace("theirs", "nobodys") == nobodys.message
    assert theirs.code == nobodys.code == "not_found"


async def test_an_id_stands_for_what_it_keeps_as_well(shelf: Shelf) -> None:
    await shelf.rig.ask(["one"], store=store("a"))
    reply = await shelf.rig.ask(["one"], store=store("b"))
    assert reply.refusal is not None
    assert reply.refusal.code == "id_reused"


async def test_a_dry_run_checks_and_keeps_nothing(shelf: Shelf) -> None:
    reply = await shelf.rig.ask(["one"], store=store("a"), dry_run=True)
    assert reply.answer is not None
    assert shelf.tables.writes == 0
    assert refused(shelf, ["one"], store=store("a", collection="none"), dry_run=True).code == "not_found"


async def test_a_server_without_collections_says_so(rig: Rig) -> None:
    with pytest.raises(GatewayError) as failure:
        rig.send(["one"], store=store("a"))
    assert failure.value.code == "type_unsupported"
