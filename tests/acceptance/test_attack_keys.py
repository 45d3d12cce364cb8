"""The wrong secret key: said clearly at the start, and no reason to go deaf while running."""

from __future__ import annotations

import base64
import os

from tests.acceptance.http import request
from tests.acceptance.site import Site
from tests.support.waiting import until


async def test_a_gateway_with_the_wrong_secret_key_says_so_and_one_that_meets_such_a_tenant_still_hears_of_revocations(
    migrated: Site,
) -> None:
    other = migrated.folder / "other.key"
    other.write_bytes(base64.b64encode(os.urandom(32)) + b"\n")
    await migrated.ask("tenants", "create", "acme")
    refused = await migrated.run("serve", EMBERLOG_SECRET_KEY_FILE=str(other), EMBERLOG_LISTEN="127.0.0.1:0")
    assert refused.code == 1
    assert "EMBERLOG_SECRET_KEY_FILE" in refused.err
    assert "Traceback" not in refused.err

    gateway = migrated.gateway()
    await gateway.start()
    try:
        key = await migrated.create_key("acme", url=gateway.url)
        created = await migrated.run("tenants", "create", "elsewhere", EMBERLOG_SECRET_KEY_FILE=str(other))
        assert created.code == 0, created.err
        await migrated.ask("keys", "revoke", key.id)

        async def revoked() -> bool:
            return (await request(f"{gateway.url}/v1/models", key=key.token)).status == 401

        await until(revoked, what="the revocation is known", timeout=2)
    finally:
        assert await gateway.stop() == 0
