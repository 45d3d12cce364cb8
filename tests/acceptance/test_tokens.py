"""JSON Web Tokens of an issuer, taken by a real gateway whose issuer changes its keys."""

from __future__ import annotations

import json
from pathlib import Path

from tests.acceptance.http import request
from tests.acceptance.peer import session
from tests.acceptance.provider import MODEL, Simulator
from tests.acceptance.site import Site
from tests.support.tokens import AUDIENCE, ISSUER, claims, jwk, jwks, rsa_key, signed


def _issuers(file: Path) -> str:
    return json.dumps([{"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": str(file), "tenants": ["acme"]}])


async def test_tokens_open_what_keys_open_until_their_signer_leaves_the_set(
    migrated: Site, provider: Simulator
) -> None:
    file = migrated.folder / "keys.json"
    file.write_bytes(jwks(jwk(rsa_key(), "one")))
    await migrated.ask("tenants", "create", "acme")
    gateway = migrated.gateway(EMBERLOG_JWT_ISSUERS=_issuers(file))
    old = signed(claims(scope="agent admin"))
    new = signed(claims(scope=["agent"], agent="a-1"), rsa_key("next"), kid="two")
    forged = signed(claims(), rsa_key("mallory"))
    await gateway.start()
    try:
        embeddings, keys = f"{gateway.url}/v1/embeddings", f"{gateway.url}/api/v1/keys"
        async with session(gateway.url, old) as peer:
            assert (await peer.embed("by-token", "text"))["type"] == "embedding.result"
            body = {"input": "over http", "model": MODEL}
            assert (await request(embeddings, body, key=old, headers={"idempotency-key": "by-http"})).status == 200
            made = await request(keys, {"scopes": ["agent"]}, key=old)
            assert made.status == 201
            assert (await request(embeddings, body, key=made.json()["key"])).status == 200
            refused = await request(keys, {"scopes": ["billing"]}, key=old)
            assert refused.status == 403

            told = {
                (await request(embeddings, body, key=bad)).json()["error"]["message"] for bad in (forged, f"{old}x")
            }
            assert len(told) == 1, "the caller learns what is wrong with a token"

            file.write_bytes(jwks(jwk(rsa_key("next"), "two")))
            assert (await request(embeddings, body, key=new, headers={"idempotency-key": "new"})).status == 200
            assert await peer.closed(within=1) == 4401
        assert (await request(embeddings, body, key=old)).status == 401
        assert (await request(embeddings, body, key=new, headers={"x-emberlog-agent": "a-2"})).status == 403

        by_token, by_http, by_new = [
            (await migrated.request_events(name, "acme"))[0].data for name in ("by-token", "by-http", "new")
        ]
        assert by_token["key"] == f"{ISSUER}:robot"
        assert (by_http["agent"], by_new["agent"]) == ("robot", "a-1")
        [created] = [event.data for event in await migrated.events() if event.type == "key.created"]
        assert created["actor"] == f"jwt:{ISSUER}:robot"
        lines = [json.loads(line) for line in migrated.log.read_text().splitlines() if '"jwt_refused"' in line]
        assert {line["reason"] for line in lines} >= {"the signature is not the issuer's"}
        held = await migrated.files_with(*(token.rpartition(".")[2] for token in (old, new, forged)))
        assert set(map(len, held.values())) == {0}, held
    finally:
        assert await gateway.stop() == 0


async def test_a_gateway_does_not_start_without_its_issuers_keys(migrated: Site) -> None:
    ended = await migrated.run("serve", EMBERLOG_JWT_ISSUERS=_issuers(migrated.folder / "nowhere.json"))
    assert ended.code == 1
    assert f"jwt_issuers: {ISSUER}: jwks_file: " in ended.err
    assert "No such file" in ended.err
