"""Shredding a tenant and rotating the installation's key while the gateway runs."""

from __future__ import annotations

from adapters.embedded import state
from domain.fingerprint import tenant_tag
from tests.acceptance.conftest import Running
from tests.acceptance.http import request
from tests.acceptance.peer import session
from tests.acceptance.provider import MODEL, Simulator
from tests.support.waiting import until


async def _status(running: Running, token: str) -> int:
    return (await request(f"{running.url}/v1/embeddings", {"input": "who am I", "model": MODEL}, key=token)).status


async def _cached(running: Running) -> set[bytes]:
    """The tags of the tenants that have vectors in the shared cache."""
    from redis.asyncio import Redis

    found = state.running(running.site.data_dir)
    assert found is not None
    assert found.redis_url is not None
    async with Redis.from_url(found.redis_url) as redis:
        return {key.removeprefix(b"emberlog:vector:")[:8] for key in await redis.keys("emberlog:vector:*")}


async def test_a_shredded_tenant_is_shut_out_within_a_second_and_leaves_no_vector(
    shared: Running, provider: Simulator
) -> None:
    await shared.site.ask("tenants", "create", "doomed")
    key = await shared.site.create_key("doomed", url=shared.url)
    async with session(shared.url, key.token) as peer:
        assert (await peer.embed("before", "a secret"))["type"] == "embedding.result"

        async def cached() -> bool:
            return tenant_tag("doomed") in await _cached(shared)

        await until(cached, what="the vector is in the shared cache")
        provider.control(hold=True)
        await peer.begin("in-flight", "another secret")
        await shared.site.logged("in-flight", tenant="doomed")
        done = await shared.site.ask("tenants", "shred", "doomed", "--yes")
        assert (done["already"], done["wiped"], done["cache"]) == (False, True, "purged")
        assert await peer.closed(within=1) == 4401
        [_, outcome] = await shared.site.logged("in-flight", events=2, tenant="doomed")
        assert (outcome.type, outcome.data["code"], outcome.data["retryable"]) == (
            "embedding.failed",
            "unauthorized",
            False,
        )
        provider.control(hold=False)
    assert await _status(shared, key.token) == 401
    assert tenant_tag("doomed") not in await _cached(shared)
    assert await _status(shared, shared.key) == 200, "another tenant goes on"
    again = await shared.site.ask("tenants", "shred", "doomed", "--yes")
    assert again["already"] is True


async def test_a_running_gateway_serves_tenants_made_before_and_after_a_rotation(
    shared: Running, provider: Simulator
) -> None:
    await shared.site.ask("tenants", "create", "elder")
    elder = await shared.site.create_key("elder", url=shared.url)
    done = await shared.site.ask("keys", "rotate-master")
    assert (done["made"], done["keys"]) == (True, 2)
    await shared.site.ask("tenants", "create", "younger")
    assert await shared.site.ask("keys", "rotate-master", "--forget-old") == {"forgotten": 1}
    younger = await shared.site.create_key("younger", url=shared.url)
    assert [await _status(shared, key.token) for key in (elder, younger)] == [200, 200]
