"""Rate limits of a whole installation: set by command, shared by two gateways, on Redis and without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from domain.errors import GatewayError
from domain.ports.provider import EmbedAnswer, EmbedCall
from domain.tenancy import Principal
from gateway.decisions import create_key, create_tenant
from gateway.gateway import Gateway
from gateway.house import master_key
from gateway.limits import stores
from gateway.places import Places
from gateway.wire.messages import EmbeddingGenerate
from tests.support.cli import Cli
from tests.support.databases import with_user
from tests.support.installing import installed, settings_of
from tests.support.proxy import CuttingProxy
from tests.support.waiting import until
from tests.unit.service.conftest import Recorder


class Answering:
    """A provider that gives every text the same vector."""

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        return EmbedAnswer(np.repeat(np.eye(1, 1536, dtype=np.float32), len(call.texts), axis=0))

    async def warm_up(self) -> None:
        pass

    async def close(self) -> None:
        pass


class Site:
    """Two gateways of one installation."""

    def __init__(self, cli: Cli, gateways: tuple[Gateway, Gateway], principal: Principal) -> None:
        self.cli = cli
        self.gateways = gateways
        self.principal = principal
        self._serial = 0

    async def limit(self, *words: str) -> None:
        """Set a limit by command, and return once both gateways have it."""
        await self.cli.json("rate-limits", "set", "--tenant", "acme", *words)

        def known() -> bool:
            return all(gateway.plane.rate_limits.of("acme") for gateway in self.gateways)

        await until(known, what="both gateways know the limit")

    @property
    def in_postgres(self) -> list[float]:
        """Of each gateway whether it counts in Postgres, as its metrics say."""
        return [
            metric.samples[0].value
            for gateway in self.gateways
            for metric in gateway.gauges.collect()
            if metric.name == "emberlog_rate_limits_in_postgres"
        ]

    async def ask(self, gateway: Gateway, text: str = "text") -> GatewayError | None:
        """Send a request; what it is refused with."""
        self._serial += 1
        message = EmbeddingGenerate(id=f"r{self._serial}", input=text)
        reply = Recorder()
        gateway.generate(self.principal, "agent", message, [text], reply)
        return (await reply.wait()).refusal

    async def passed(self, count: int) -> int:
        """How many of so many requests pass the gate, sent at once to both gateways in turn."""
        refusals = await asyncio.gather(*(self.ask(self.gateways[n % 2]) for n in range(count)))
        limited = [refusal for refusal in refusals if refusal is not None]
        assert all(refusal.code == "rate_limited" and refusal.retry_after_ms for refusal in limited)
        return count - len(limited)


@pytest.fixture(autouse=True)
def _provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.endpoints.pool.open_provider", lambda *_: Answering())


@asynccontextmanager
async def site_on(owner_dsn: str, folder: Path, redis_url: str | None) -> AsyncIterator[Site]:
    async with installed(owner_dsn, folder) as installation, installation.writer() as instance:
        master = installation.master()
        await create_tenant(installation.log, instance, master, "acme", actor="cli:test")
        token = (await create_key(installation.log, instance, "acme", ["agent"], actor="cli:test")).token
    endpoint = {
        "name": "fake", "provider": "openai", "base_url": "http://127.0.0.1:1/v1", "models": ["text-embedding-3-small"],
    }  # fmt: skip
    settings = settings_of(owner_dsn, folder)
    settings = type(settings)(**{**settings.model_dump(exclude_unset=True), "endpoints": [endpoint]})
    cli = Cli(
        {
            "EMBERLOG_DATABASE_URL": with_user(owner_dsn, "emberlog_gateway"),
            "EMBERLOG_DATABASE_OWNER_URL": owner_dsn,
            "EMBERLOG_REDIS_URL": "none",
            "EMBERLOG_SECRET_KEY_FILE": str(folder / "secret.key"),
        }
    )
    places = Places(with_user(owner_dsn, "emberlog_gateway"), owner_dsn, redis_url)
    one = await Gateway.open(settings, places, master_key(settings))
    try:
        other = await Gateway.open(settings, places, master_key(settings))
        try:
            yield Site(cli, (one, other), one.authenticate(token))
        finally:
            await other.close()
    finally:
        await one.close()


async def test_two_gateways_give_out_one_limit_and_go_on_with_it_in_postgres_when_redis_is_lost(
    migrated_dsn: str, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_LOOK_SECONDS", 0.01)
    async with (
        CuttingProxy.before_redis(redis_url) as redis,
        site_on(migrated_dsn, tmp_path, redis.redis_url()) as site,
    ):
        assert await site.passed(6) == 6, "no limit applies before one is set"
        await site.limit("--scope", "tenant", "--requests-per-minute", "2")
        assert await site.passed(6) == 2
        assert site.in_postgres == [0, 0]
        redis.refuse()
        redis.cut()
        assert await site.passed(6) == 0, "the gateways tell Postgres what was taken in Redis"
        assert site.in_postgres == [1, 1]
        redis.refuse(False)
        await until(lambda: site.in_postgres == [0, 0], what="both gateways are back on Redis")
        assert await site.passed(2) == 0, "Redis has kept what was taken"


async def test_without_redis_the_limits_are_counted_in_postgres(migrated_dsn: str, tmp_path: Path) -> None:
    async with site_on(migrated_dsn, tmp_path, None) as site:
        await site.limit("--scope", "key", "--tokens-per-minute", "5")
        assert await site.ask(site.gateways[0], "one two three four") is None
        refused = await site.ask(site.gateways[1], "one two three four")
        assert refused is not None
        assert refused.code == "rate_limited"
        assert refused.details is not None
        assert (refused.details["scope"], refused.details["unit"], refused.details["limit"]) == ("key", "tokens", 5)
        with pytest.raises(GatewayError) as too_many:
            await site.ask(site.gateways[0], "one two three four five six seven")
        assert too_many.value.code == "invalid_request"


async def test_commands_set_list_and_remove_limits_and_say_what_is_wrong(migrated_dsn: str, tmp_path: Path) -> None:
    async with installed(migrated_dsn, tmp_path) as installation, installation.writer() as instance:
        await create_tenant(installation.log, instance, installation.master(), "acme", actor="cli:test")
    cli = Cli(
        {
            "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
            "EMBERLOG_SECRET_KEY_FILE": str(tmp_path / "secret.key"),
        }
    )
    acme = ("--tenant", "acme")
    agent = ("--scope", "agent", "--subject", "scout")
    assert await cli.json("rate-limits", "set", *acme, *agent, "--requests-per-minute", "5") == {
        "tenant": "acme", "scope": "agent", "subject": "scout", "changed": True, "version": 2,
    }  # fmt: skip
    again = await cli.run("rate-limits", "set", *acme, *agent, "--requests-per-minute", "5")
    assert (again.code, again.out) == (0, "it was so already\n")
    await cli.json("rate-limits", "set", *acme, "--scope", "tenant", "--tokens-per-minute", "70")
    assert await cli.json("rate-limits", "list", *acme) == [
        {"id": "tenant", "scope": "tenant", "subject": None, "requests_per_minute": None, "tokens_per_minute": 70},
        {
            "id": "agent/scout",
            "scope": "agent",
            "subject": "scout",
            "requests_per_minute": 5,
            "tokens_per_minute": None,
        },
    ]
    shown = (await cli.run("rate-limits", "list", *acme)).out.splitlines()
    assert [line.split() for line in shown[1:]] == [["tenant", "70"], ["agent", "scout", "5"]]
    removed = await cli.run("rate-limits", "remove", *acme, *agent)
    assert (removed.code, removed.out) == (0, "removed the rate limit of agent scout of acme\n")
    assert (await cli.json("rate-limits", "remove", *acme, *agent))["changed"] is False
    late = await cli.run("rate-limits", "remove", *acme, *agent, "--expected-version", "1")
    assert (late.code, "version_conflict" in late.error) == (1, True)

    wrong = await cli.run("rate-limits", "set", *acme, "--scope", "planet", "--requests-per-minute", "-1")
    assert (wrong.code, wrong.out) == (2, "")
    assert "scope" in wrong.error
    assert "requests_per_minute" in wrong.error
    nobody = await cli.run("rate-limits", "set", "--tenant", "nobody", "--scope", "key", "--requests-per-minute", "1")
    assert (nobody.code, nobody.out) == (1, "")
    assert "nobody" in nobody.error
