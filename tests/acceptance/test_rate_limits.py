"""Rate limits and keys of one agent on a whole gateway, set by command while it runs."""

from __future__ import annotations

import openai
import pytest

from tests.acceptance.conftest import Running
from tests.acceptance.http import Answer, request
from tests.acceptance.peer import session
from tests.acceptance.provider import MODEL, Simulator
from tests.support.waiting import until

LIMITED = "a-limited-thread"


async def _embed(shared: Running, key: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await request(f"{shared.url}/v1/embeddings", {"input": "text", "model": MODEL}, key=key, headers=named)


async def test_a_limit_holds_over_every_connection_and_says_when_to_come_again(
    shared: Running, provider: Simulator
) -> None:
    site = shared.site
    assert not [name for name in (await _embed(shared, shared.key)).headers if name.startswith("x-ratelimit")]
    of = ("--tenant", "default", "--scope", "thread", "--subject", LIMITED)
    await site.ask("rate-limits", "set", *of, "--requests-per-minute", "2", "--tokens-per-minute", "1000")

    async def limited() -> Answer | None:
        answer = await _embed(shared, shared.key, x_emberlog_thread=LIMITED)
        return answer if "x-ratelimit-limit-requests" in answer.headers else None

    first = await until(limited, what="the limit is in force", timeout=1)
    assert first is not None
    assert first.status == 200
    assert (first.headers["x-ratelimit-limit-requests"], first.headers["x-ratelimit-remaining-requests"]) == ("2", "1")
    assert first.headers["x-ratelimit-limit-tokens"] == "1000"
    async with session(shared.url, shared.key) as peer:
        assert (await peer.embed("limited-1", "text", thread=LIMITED))["type"] == "embedding.result"
        refused = await peer.embed("limited-2", "text", thread=LIMITED)
        assert (refused["type"], refused["code"], refused["retryable"]) == ("error", "rate_limited", True)
        assert 0 < refused["retry_after_ms"] <= 30_000
        assert refused["details"]["scope"] == "thread"
        assert (await peer.embed("unlimited", "text", thread="another"))["type"] == "embedding.result"
    over = await _embed(shared, shared.key, x_emberlog_thread=LIMITED)
    assert over.status == 429
    assert over.headers["x-ratelimit-remaining-requests"] == "0"
    assert 0 < int(over.headers["retry-after"]) <= 30
    async with openai.AsyncOpenAI(api_key=shared.key, base_url=f"{shared.url}/v1", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError):
            await client.embeddings.create(model=MODEL, input="text", extra_headers={"x-emberlog-thread": LIMITED})
    assert await site.request_events("limited-2") == [], "what is refused by a limit is not logged"
    await site.ask("rate-limits", "remove", *of)


async def test_a_key_of_one_agent_speaks_for_that_agent(shared: Running, provider: Simulator) -> None:
    made = await shared.site.ask("keys", "create", "--tenant", "default", "--scopes", "agent", "--agent", "scout")

    async def known() -> Answer | None:
        answer = await _embed(shared, made["key"], idempotency_key="of-scout")
        return answer if answer.status != 401 else None

    answer = await until(known, what="the key is known", timeout=1)
    assert answer is not None
    assert answer.status == 200
    assert (await _embed(shared, made["key"], x_emberlog_agent="other")).status == 403
    [requested, _] = await shared.site.logged("of-scout", events=2)
    assert requested.data["agent"] == "scout"
    async with session(shared.url, made["key"], "scout") as peer:
        assert (await peer.embed("also-of-scout", "text"))["type"] == "embedding.result"
    with pytest.raises(AssertionError, match="forbidden"):
        async with session(shared.url, made["key"], "other"):
            pass
