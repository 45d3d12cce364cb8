"""What is answered from the caches, the process's own before the shared one: per text, per tenant, in whatever form it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from domain.events import EndpointAttested
from domain.ports.provider import EmbedCall, ProviderError, ProviderFault
from domain.tenancy import Principal
from tests.unit.service.conftest import Recorder, Rig, make_rig, vector_of


class SharedCache:
    """What Redis is to several processes: answers later, on the loop. `away`: it finds nothing and keeps nothing."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.asked: list[list[bytes]] = []
        self.away = False

    def get_many(self, keys: Sequence[bytes], done: Callable[[list[bytes | None]], object]) -> None:
        self.asked.append(list(keys))
        asyncio.get_running_loop().call_soon(done, [None if self.away else self.kept.get(k) for k in keys])

    def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        if not self.away:
            self.kept.update(items)

    def drop_many(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self.kept.pop(key, None)

    async def purge(self, tag: bytes) -> None:
        self.kept = {key: vector for key, vector in self.kept.items() if not key.startswith(tag)}

    async def close(self) -> None:
        pass


@pytest.fixture
async def two() -> AsyncIterator[tuple[Rig, Rig, SharedCache]]:
    """Two processes with a cache that both share."""
    shared = SharedCache()
    rigs = [await make_rig(shared=shared), await make_rig(shared=shared)]
    yield rigs[0], rigs[1], shared
    for rig in rigs:
        await rig.service.close()
        await rig.appender.close()


def cached(reply: Recorder, texts: list[str]) -> int:
    """How many of the texts were answered from a cache; all of them must be answered right."""
    assert reply.refusal is None, reply.refusal
    assert reply.answer is not None
    assert reply.rows is not None
    np.testing.assert_array_equal(reply.rows, np.stack([vector_of(t)[: reply.answer.dimensions] for t in texts]))
    return reply.answer.usage.cached_inputs


def asked(rig: Rig) -> list[str]:
    """The texts that its provider was asked for, in order."""
    return [str(text) for call in rig.provider.calls for text in call]


async def test_of_a_request_that_is_cached_in_part_the_other_texts_alone_are_asked_for(
    two: tuple[Rig, Rig, SharedCache],
) -> None:
    one, other, shared = two
    await one.ask(["a", "c"], id="r1")
    texts = ["d", "c", "b", "a", "b"]
    assert cached(await one.ask(texts, id="r2"), texts) == 2
    assert asked(one) == ["a", "c", "d", "b"]
    texts = ["e", "a", "f", "d"]
    reply = await other.ask(texts, id="r3")
    assert cached(reply, texts) == 2
    assert asked(other) == ["e", "f"], "what one process has asked for, another finds"
    assert reply.answer is not None
    assert (reply.answer.usage.tokens, reply.answer.usage.billed_tokens) == (4, 2)
    assert len(shared.kept) == 6


async def test_the_shared_cache_is_asked_only_for_what_the_process_has_not(two: tuple[Rig, Rig, SharedCache]) -> None:
    one, other, shared = two
    await one.ask(["a", "b"], id="r1")
    shared.asked.clear()
    assert cached(await one.ask(["a", "b"], id="r2"), ["a", "b"]) == 2
    assert shared.asked == []
    assert cached(await other.ask(["a", "c"], id="r3"), ["a", "c"]) == 1
    assert [len(keys) for keys in shared.asked] == [2]
    shared.away = True
    assert cached(await other.ask(["a", "c"], id="r4"), ["a", "c"]) == 2, "what was found there is at hand from then on"


async def test_without_the_shared_cache_requests_are_answered_all_the_same(two: tuple[Rig, Rig, SharedCache]) -> None:
    one, other, shared = two
    shared.away = True
    assert cached(await one.ask(["a"], id="r1"), ["a"]) == 0
    assert cached(await other.ask(["a"], id="r2"), ["a"]) == 0
    assert cached(await other.ask(["a"], id="r3"), ["a"]) == 1


@pytest.mark.parametrize("wrong", [b"", b"\0" * 4, b"\0" * 64])
async def test_a_vector_of_another_size_in_the_shared_cache_is_no_hit(
    two: tuple[Rig, Rig, SharedCache], wrong: bytes
) -> None:
    one, other, shared = two
    await one.ask(["a"], id="r1")
    shared.kept = dict.fromkeys(shared.kept, wrong)
    assert cached(await other.ask(["a"], id="r2"), ["a"]) == 0
    assert asked(other) == ["a"]


SAME_VECTOR: list[dict[str, Any]] = [
    {"encoding": "float16"},
    {"encoding": "int8"},
    {"encoding": "ubinary"},
    {"truncate": "end"},
    {"failover": "none"},
    {"failover": "any"},
    {"deadline_ms": 5000},
    {"thread": "job-1"},
    {"task": "search"},
    {"metadata": {"k": "v"}},
    {"optimize": "cost"},
    {"model": None},
    {"dimensions": 8},
]
OTHER_VECTOR: list[dict[str, Any]] = [
    {"dimensions": 4},
    {"input_type": "query"},
    {"input_type": "document"},
    {"input_type": "clustering"},
]


@pytest.mark.parametrize("options", SAME_VECTOR, ids=str)
async def test_what_bears_on_no_vector_is_not_in_the_key(
    two: tuple[Rig, Rig, SharedCache], options: dict[str, Any]
) -> None:
    one, other, _ = two
    await one.ask("a", id="r1", model="m")
    for rig in (one, other):
        assert cached(await rig.ask("a", **{"id": "r2", "model": "m", "agent": "a2", **options}), ["a"]) == 1


@pytest.mark.parametrize("options", OTHER_VECTOR, ids=str)
async def test_what_makes_another_vector_is_in_the_key(
    two: tuple[Rig, Rig, SharedCache], options: dict[str, Any]
) -> None:
    one, other, _ = two
    await one.ask("a", id="r1", model="m")
    for rig, hits in ((one, 0), (other, 1)):
        assert cached(await rig.ask("a", id="r2", model="m", **options), ["a"]) == hits


async def test_a_text_that_was_cut_is_kept_as_what_was_left_of_it(two: tuple[Rig, Rig, SharedCache]) -> None:
    one, _, _ = two
    left = " ".join(["word"] * 20)
    await one.ask("word " * 21, id="r1", truncate="end")
    assert cached(await one.ask([left], id="r2"), [left]) == 1
    assert cached(await one.ask(["word " * 19], id="r3"), ["word " * 19]) == 0


@pytest.mark.parametrize(("how", "hits"), [("use", 1), ("refresh", 0), ("off", 0)])
async def test_refresh_and_off_read_from_neither_cache(two: tuple[Rig, Rig, SharedCache], how: str, hits: int) -> None:
    one, other, _ = two
    await one.ask("a", id="r1")
    for rig in (one, other):
        assert cached(await rig.ask("a", id="r2", cache=how), ["a"]) == hits


@pytest.mark.parametrize(("how", "kept"), [("use", 1), ("refresh", 1), ("off", 0)])
async def test_off_keeps_nothing_anywhere_and_refresh_does(
    two: tuple[Rig, Rig, SharedCache], how: str, kept: int
) -> None:
    one, _, shared = two
    await one.ask("a", id="r1", cache=how)
    assert (len(one.lru), len(shared.kept)) == (kept, kept)


async def test_a_request_that_fails_leaves_nothing_in_either_cache(two: tuple[Rig, Rig, SharedCache]) -> None:
    def refusing(call: EmbedCall) -> None:
        if "bad" in call.texts:
            raise ProviderError(ProviderFault.REFUSED, "as told")

    one, _, shared = two
    one.provider.behaviour = refusing
    reply = await one.ask(["good", "bad"], id="r1")
    assert reply.refusal is not None
    assert (len(one.lru), len(shared.kept)) == (0, 0)


async def test_no_tenant_finds_what_another_has_put(two: tuple[Rig, Rig, SharedCache]) -> None:
    one, other, shared = two
    await one.ask("a", id="r1")
    one.principal = other.principal = Principal("k2", "globex", frozenset({"agent"}))
    for rig in (one, other):
        rig.provider.calls.clear()
    assert cached(await one.ask("a", id="r1"), ["a"]) == 0
    assert asked(one) == ["a"]
    assert len(shared.kept) == 2, "each has an entry of its own, that none but it can name"
    assert cached(await other.ask("a", id="r2"), ["a"]) == 1, "and finds its own"


async def test_hits_by_look_ups_are_the_hit_ratio_of_each_tenant(two: tuple[Rig, Rig, SharedCache]) -> None:
    one, _, _ = two
    await one.ask(["a", "b"], id="r1")
    await one.ask(["a", "b", "c", "d"], id="r2")
    await one.ask(["a"], id="r3", cache="refresh")
    await one.ask(["a"], id="r4", cache="off")
    one.principal = Principal("k2", "globex", frozenset({"agent"}))
    await one.ask(["a", "e", "f"], id="r1")
    registry = CollectorRegistry()
    registry.register(one.metrics)
    shown = generate_latest(registry).decode()
    for tenant, lookups in (("acme", 6), ("globex", 3)):
        assert f'embedding_cache_lookups_total{{model="m",tenant_id="{tenant}"}} {lookups}.0' in shown
    assert 'embedding_cache_hits_total{model="m",tenant_id="acme"} 2.0' in shown
    assert 'embedding_cache_hits_total{model="m",tenant_id="globex"}' not in shown


async def test_what_is_cached_of_a_model_whose_endpoint_is_found_to_drift_is_not_answered_with_any_more(
    two: tuple[Rig, Rig, SharedCache],
) -> None:
    one, other, _ = two
    reply = await one.ask(["a"], id="r1")
    assert reply.answer is not None
    for tenant, left in (("another", 1), ("_system", 0)):
        for number, passed in enumerate((True, False)):
            found = EndpointAttested("e", "m", reply.answer.space, passed, number, "configuration")
            for rig in (one, other):
                rig.service._endpoints.apply(tenant, found)
        for rig in (one, other):
            assert cached(await rig.ask(["a"], id=f"{tenant} {rig is one}"), ["a"]) == (left or rig is other)
