from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from emberlog_client import Preferences, SyncClient, Unauthorized
from tests.support.fake_gateway import KEY, FakeGateway, vector

TEXTS = [f"text {n}" for n in range(10)]


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """The fake on a loop of its own, as a gateway is another process to blocking code."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    fake = FakeGateway()
    asyncio.run_coroutine_threadsafe(fake.start(), loop).result()
    yield fake
    asyncio.run_coroutine_threadsafe(fake.kill(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_blocking_code_gets_the_same_results(gateway: FakeGateway) -> None:
    expected = np.array([vector(text, 12) for text in TEXTS], dtype=np.float32)
    with SyncClient(gateway.url, KEY, agent="blocking") as client:
        assert client.session.agent == "blocking"
        assert client.limits.max_inputs == 10_000
        np.testing.assert_array_equal(client.generate(TEXTS, id="sync").vectors, expected)
        stream = client.stream(TEXTS)
        np.testing.assert_array_equal(np.concatenate([chunk.vectors for chunk in stream]), expected)
        assert stream.result.count == 10
        assert client.estimate("four").tokens == 4
        assert client.register(Preferences("cost")).version == 3
        assert repr(client).startswith("<SyncClient ws://")
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.generate("x")


def test_threads_share_one_connection(gateway: FakeGateway) -> None:
    with SyncClient(gateway.url, KEY) as client, ThreadPoolExecutor(8) as threads:
        results = list(threads.map(client.generate, TEXTS))
    for text, result in zip(TEXTS, results, strict=True):
        np.testing.assert_array_equal(result.vectors[0], np.array(vector(text, 12), dtype=np.float32))
    assert len(gateway.messages("session.open")) == 1


def test_leaving_a_blocking_loop_early_leaves_the_client_usable(gateway: FakeGateway) -> None:
    with SyncClient(gateway.url, KEY) as client:
        for _ in client.stream(TEXTS):
            break
        assert client.generate("next").count == 1


def test_a_refused_key_leaves_no_thread_behind(gateway: FakeGateway) -> None:
    with pytest.raises(Unauthorized), SyncClient(gateway.url, "wrong"):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "emberlog-client"]


def test_a_stream_left_behind_when_the_client_closes_is_no_error(gateway: FakeGateway) -> None:
    with SyncClient(gateway.url, KEY) as client:
        chunks = iter(client.stream(TEXTS))
        assert next(chunks).count == 4
    del chunks
