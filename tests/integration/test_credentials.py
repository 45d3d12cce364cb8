"""Credentials in a database: sealed under the tenant's key, nowhere in plain, gone with the tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.postgres.credentials import sealed_secret
from domain.errors import GatewayError
from gateway.credentials import CredentialSecrets, CredentialUnusable
from gateway.decisions import create_tenant
from gateway.gateway import Gateway
from gateway.house import master_key
from gateway.manage import Installation
from gateway.places import Places
from gateway.secrets import SecretKeyError, unseal
from gateway.shredding import shred_tenant
from tests.support.cli import Cli
from tests.support.databases import with_user
from tests.support.installing import installed, settings_of
from tests.support.leaks import dump, leaks, of_texts
from tests.support.waiting import until

SECRET = "sk-tenant-own-8f3a71c05e92d64b"


@pytest.fixture
async def installation(migrated_dsn: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(migrated_dsn, tmp_path) as opened:
        async with opened.writer() as instance:
            for tenant in ("acme", "other"):
                await create_tenant(opened.log, instance, opened.master(), tenant, actor="cli:test")
        yield opened


@pytest.fixture
def cli(migrated_dsn: str, tmp_path: Path) -> Cli:
    settings = settings_of(migrated_dsn, tmp_path)
    assert settings.database_url is not None
    return Cli(
        {
            "EMBERLOG_DATABASE_URL": settings.database_url.get_secret_value(),
            "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
            "EMBERLOG_REDIS_URL": "none",
            "EMBERLOG_SECRET_KEY_FILE": str(settings.secret_key_file),
            "MY_SECRET": SECRET,
        }
    )


async def test_a_secret_set_by_the_command_is_opened_by_a_gateway_and_stands_nowhere_in_plain(
    installation: Installation, cli: Cli, migrated_dsn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("credentials", "set", "mine", "--provider", "openai", "--secret-env", "MY_SECRET")
    said = [str(await cli.json(*args, "--tenant", "acme")), str(await cli.json(*args))]
    said += [str(await cli.json("credentials", "list", "--tenant", "acme"))]
    settings = settings_of(migrated_dsn, tmp_path)
    places = Places(with_user(migrated_dsn, "emberlog_gateway"), migrated_dsn, None)
    gateway = await Gateway.open(settings, places, master_key(settings))
    try:
        secrets = gateway._credential_secrets
        assert await secrets.secret("acme", "mine", 1) == await secrets.secret("_system", "mine", 1) == SECRET
        said.append(repr(secrets) + repr(vars(secrets)) + repr(gateway.endpoints.pool))
        content = {**await dump(migrated_dsn), "answers": " ".join(said), "output": "".join(capsys.readouterr())}
        needles = of_texts({"the secret": SECRET})
        assert leaks(content, needles) == []
        assert leaks({**content, "told": f"the secret is {SECRET[4:20]}"}, needles), "a leak would be found"

        await shred_tenant(installation, installation.ledger(None), "acme")

        async def gone() -> bool:
            return await sealed_secret(installation.log.pool, "acme", "mine", 1) is None

        await until(gone, what="the tenant's secrets are deleted", timeout=5)
        assert await secrets.secret("_system", "mine", 1) == SECRET
    finally:
        await gateway.close()


async def test_neither_another_tenants_key_nor_another_name_opens_it(installation: Installation) -> None:
    secrets = CredentialSecrets(installation.log.pool, installation.master(), {})
    assert await secrets.keep("acme", "mine", "openai", SECRET) == 1
    found = await sealed_secret(installation.log.pool, "acme", "mine", 1)
    assert found is not None
    context = b"credential:acme/mine/openai"
    own, others = [await secrets._keys.require(tenant) for tenant in ("acme", "other")]
    assert unseal(own, found[1], context).decode() == SECRET
    for key, bound in (
        (others, context),
        (own, b"credential:acme/else/openai"),
        (own, b"credential:other/mine/openai"),
    ):
        with pytest.raises(SecretKeyError):
            unseal(key, found[1], bound)
    await installation.log.pool.execute("UPDATE emberlog.credentials SET tenant = 'other'")
    with pytest.raises(CredentialUnusable, match="does not open"):
        await secrets.secret("other", "mine", 1)


async def test_shredding_deletes_a_tenants_secrets_though_no_gateway_runs(installation: Installation) -> None:
    secrets = CredentialSecrets(installation.log.pool, installation.master(), {})
    for tenant in ("acme", "other"):
        await secrets.keep(tenant, "mine", "openai", SECRET)
    await shred_tenant(installation, installation.ledger(None), "acme")
    rows = await installation.log.pool.fetch("SELECT tenant FROM emberlog.credentials")
    assert [row["tenant"] for row in rows] == ["other"]
    with pytest.raises(GatewayError, match="shredded"):
        await secrets.keep("acme", "mine", "openai", SECRET)


async def test_a_revision_that_was_replaced_removed_or_given_up_is_gone_for_good(installation: Installation) -> None:
    secrets = CredentialSecrets(installation.log.pool, installation.master(), {})
    for revision in (1, 2, 3):
        assert await secrets.keep("acme", "mine", "openai", f"{SECRET}{revision}") == revision
    await secrets.discard("acme", "mine", 3)
    await secrets.settle("acme", "mine", 2)
    assert await secrets.secret("acme", "mine", 2) == f"{SECRET}2"
    for revision in (1, 3):
        with pytest.raises(CredentialUnusable, match="gone"):
            await secrets.secret("acme", "mine", revision)
    await secrets.drop("acme", "mine", 3)
    assert await secrets.keep("acme", "mine", "openai", SECRET) == 4


async def test_of_an_out_of_reach_database_no_secret_is_said_to_be_gone(installation: Installation) -> None:
    secrets = CredentialSecrets(installation.log.pool, installation.master(), {})
    await secrets.keep("acme", "mine", "openai", SECRET)
    pool = installation.log.pool
    await pool.close()
    with pytest.raises(OSError, match="out of reach"):
        await secrets.secret("acme", "mine", 1)
