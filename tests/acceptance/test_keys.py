"""Tenants and keys by command line while the gateway runs."""

from __future__ import annotations

import pytest
from websockets.exceptions import InvalidStatus

from tests.acceptance.conftest import Running
from tests.acceptance.http import request
from tests.acceptance.peer import rows_of, session
from tests.acceptance.provider import MODEL, Simulator


async def _status(running: Running, token: str) -> int:
    body = {"input": "who am I", "model": MODEL}
    return (await request(f"{running.url}/v1/embeddings", body, key=token)).status


async def test_a_key_works_at_once_and_stops_at_once_when_it_is_revoked(shared: Running, provider: Simulator) -> None:
    await shared.site.ask("tenants", "create", "short-lived")
    assert "short-lived" in [tenant["id"] for tenant in await shared.site.ask("tenants", "list")]
    key = await shared.site.create_key("short-lived", url=shared.url)

    assert await _status(shared, key.token) == 200
    listed = {k["id"]: k for k in await shared.site.ask("keys", "list")}
    assert key.id in listed
    assert key.token.split("_", 2)[2] not in str(listed), "a key's secret is shown again"
    async with session(shared.url, key.token) as peer:
        assert (await peer.embed("before", "text"))["type"] == "embedding.result"
        await shared.site.ask("keys", "revoke", key.id)
        assert await peer.closed(within=1) == 4401
    assert await _status(shared, key.token) == 401
    with pytest.raises(InvalidStatus) as refused:
        async with session(shared.url, key.token):
            pass
    assert refused.value.response.status_code == 401


async def test_a_tenant_knows_nothing_of_another_tenants_ids(shared: Running, provider: Simulator) -> None:
    for tenant in ("left", "right"):
        await shared.site.ask("tenants", "create", tenant)
    left, right = (
        await shared.site.create_key("left", url=shared.url),
        await shared.site.create_key("right", url=shared.url),
    )
    async with session(shared.url, left.token) as one, session(shared.url, right.token) as two:
        first = await one.embed("same-id", "what the left one asked")
        second = await two.embed("same-id", "what the right one asked")
        assert second["type"] == "embedding.result", "the other tenant's id was in the way"
        assert first["event"] != second["event"]
        assert not second["replayed"]
        assert (rows_of(first) != rows_of(second)).any()
        both = await two.embed("same-text", "what the left one asked")
        assert both["usage"]["cached_inputs"] == 0, "a cache entry crossed the wall between tenants"
    usage = await shared.site.ask("usage", "--tenant", "right", "--grain", "day")
    assert sum(row["requests"] for row in usage["usage"]) == 2


async def test_a_key_of_the_installation_and_a_key_without_the_scope_embed_nothing(
    shared: Running, provider: Simulator
) -> None:
    operator = await shared.site.create_key(None, "operator", url=shared.url)
    agent_of_nobody = await shared.site.create_key(None, "agent", url=shared.url)
    billing = await shared.site.create_key("default", "billing", url=shared.url)
    for key in (operator, agent_of_nobody, billing):
        assert await _status(shared, key.token) == 403
        with pytest.raises(InvalidStatus) as refused:
            async with session(shared.url, key.token):
                pass
        assert refused.value.response.status_code == 403


async def test_metrics_need_an_operators_key_unless_asked_over_loopback(shared: Running) -> None:
    direct = await request(f"{shared.url}/metrics")
    assert direct.status == 200
    assert b"embedding_requests_total" in direct.body
    proxied = {"x-forwarded-for": "127.0.0.1"}
    assert (await request(f"{shared.url}/metrics", headers=proxied)).status == 401
    assert (await request(f"{shared.url}/metrics", headers=proxied, key=shared.key)).status == 403
    operator = await shared.site.create_key(None, "operator", url=shared.url)
    assert (await request(f"{shared.url}/metrics", headers=proxied, key=operator.token)).status == 200


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("tenants", "create", "Not A Name"), 2, "tenant name"),
        (("keys", "create", "--tenant", "default", "--scopes", "everything"), 2, "scopes"),
        (("keys", "create", "--tenant", "default", "--scopes", "operator"), 2, "operator"),
        (("keys", "create", "--tenant", "nobody", "--scopes", "agent"), 1, "nobody"),
        (("keys", "revoke", "0123456789abcdef"), 1, "0123456789abcdef"),
    ],
)
async def test_a_management_command_that_cannot_be_done_says_why_and_exits_in_kind(
    shared: Running, words: tuple[str, ...], code: int, complaint: str
) -> None:
    ended = await shared.site.run(*words, "--json")
    assert ended.code == code, ended
    assert complaint in ended.err
    assert "Traceback" not in ended.err
