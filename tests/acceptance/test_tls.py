"""TLS, and what a gateway believes of a proxy's word."""

from __future__ import annotations

import ssl

import pytest

from emberlog_client import Client, ConnectionFailed
from tests.acceptance.http import request
from tests.acceptance.load import check_vectors
from tests.acceptance.provider import DIMENSIONS, MODEL, Simulator
from tests.acceptance.site import Site
from tests.support.certificates import certificate as make_certificate


async def test_a_gateway_with_a_certificate_serves_https_and_wss_and_nobody_trusts_it_unasked(
    migrated: Site, provider: Simulator
) -> None:
    certificate, private_key = make_certificate(migrated.folder)
    await migrated.ask("tenants", "create", "acme")
    key = await migrated.create_key("acme")
    gateway = migrated.gateway(
        EMBERLOG_TLS_CERT=str(certificate), EMBERLOG_TLS_KEY=str(private_key), EMBERLOG_TRUSTED_PROXIES="127.0.0.1"
    )
    await gateway.start()
    try:
        assert gateway.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(certificate))
        async with Client(gateway.url, key.token, ssl=trusting, proxy=None) as client:
            result = await client.generate(["over wss"], model=MODEL, dimensions=DIMENSIONS)
        check_vectors(["over wss"], result.float32(), "wss")
        body = {"input": "over https", "model": MODEL, "dimensions": DIMENSIONS}
        assert (await request(f"{gateway.url}/v1/embeddings", body, key=key.token, tls=trusting)).status == 200
        with pytest.raises(ConnectionFailed):
            async with Client(gateway.url, key.token, connect_timeout=1, proxy=None):
                pass

        metrics = f"{gateway.url}/metrics"
        assert (await request(metrics, tls=trusting)).status == 200
        for claimed in ("203.0.113.7", "127.0.0.1"):
            forwarded = await request(metrics, headers={"x-forwarded-for": claimed}, tls=trusting)
            assert forwarded.status == 401, "whoever comes through a proxy is taken for the machine itself"
    finally:
        assert await gateway.stop() == 0
