"""`emberlog serve` with nothing configured."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import numpy as np
import pytest

from emberlog_client import Client
from tests.acceptance.http import request
from tests.acceptance.site import Site
from tests.support.waiting import until

_KEY = re.compile(r"em_[0-9a-f]{16}_[A-Za-z0-9_-]{43}")


@pytest.mark.usefixtures("_plain_environment")
async def test_with_nothing_configured_it_embeds_with_the_local_model_and_finds_its_data_again(folder: Path) -> None:
    site = Site(folder, None)
    gateway = site.gateway()
    await gateway.start()
    key = gateway.key
    assert key is not None, "the first start did not print a development key"
    try:
        async with Client(gateway.url, key, proxy=None) as client:
            result = await client.generate(["a short text", "another one"], id="kept")
        assert (result.model, result.space) == ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2@1/384/unit")
        assert result.vectors.shape == (2, 384)
        assert np.allclose(np.linalg.norm(result.float32(), axis=1), 1, atol=1e-5)
        assert result.cost.nano_usd == 0

        answer = await request(f"{gateway.url}/v1/embeddings", {"input": ["a short text", "another one"]}, key=key)
        assert answer.status == 200
        over_http = np.array([item["embedding"] for item in answer.json()["data"]], dtype=np.float32)
        assert (over_http == result.float32()).all()
        assert answer.headers["x-emberlog-space"] == result.space
        assert (await request(f"{gateway.url}/healthz")).status == 200
        assert (await request(f"{gateway.url}/readyz")).status == 200

        second = await site.run("serve", EMBERLOG_LISTEN="127.0.0.1:0")
        assert second.code == 1
        assert f"in use by the process with pid {gateway.pid}" in second.err
        assert "Traceback" not in second.err
    finally:
        assert await gateway.stop() == 0

    await gateway.start()
    try:
        async with Client(gateway.url, key, proxy=None) as client:
            again = await client.generate(["a short text", "another one"], id="kept")
        assert again.replayed
        assert again.events == result.events
        assert (again.float32() == result.float32()).all()
    finally:
        assert await gateway.stop() == 0
    assert _KEY.findall(site.log.read_text()) == [key], "the development key is shown once, at the first start"


@pytest.mark.usefixtures("_plain_environment")
async def test_an_address_in_use_and_a_wrong_setting_are_refused_with_what_to_do(folder: Path) -> None:
    site = Site(folder, None)
    wrong = await site.run("serve", EMBERLOG_WORKERS="none")
    assert wrong.code == 1
    assert "workers" in wrong.err
    assert "Traceback" not in wrong.err
    assert not site.data_dir.exists()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = await site.run("serve", EMBERLOG_LISTEN=address)
    assert refused.code == 1
    assert address in refused.err
    assert "Traceback" not in refused.err


@pytest.mark.usefixtures("_plain_environment")
async def test_an_endpoint_that_cannot_work_is_refused_before_anything_is_made(folder: Path) -> None:
    unknown = Site(folder, '[[endpoints]]\nname = "e"\nprovider = "openai"\nmodels = ["no-such-model"]\n')
    refused = await unknown.run("serve", OPENAI_API_KEY="x")
    assert refused.code == 1
    assert "no-such-model" in refused.err
    assert not unknown.data_dir.exists()
    keyless = Site(folder, '[[endpoints]]\nname = "e"\nprovider = "openai"\nmodels = ["text-embedding-3-small"]\n')
    refused = await keyless.run("serve", OPENAI_API_KEY="")
    assert refused.code == 1
    assert "OPENAI_API_KEY" in refused.err
    assert not keyless.data_dir.exists()


@pytest.mark.usefixtures("_plain_environment")
async def test_a_gateway_that_starts_while_commands_use_the_folder_waits_its_turn(folder: Path) -> None:
    site = Site(folder, None)
    gateway = site.gateway()
    commands = [asyncio.create_task(site.run("tenants", "create", f"early-{n}")) for n in range(3)]
    await until(site.data_dir.exists, what="a command has begun")
    await gateway.start()
    try:
        ended = await asyncio.gather(*commands)
        assert [e.code for e in ended] == [0, 0, 0], [e.err for e in ended]
        names = {tenant["id"] for tenant in await site.ask("tenants", "list")}
        assert {"early-0", "early-1", "early-2"} <= names
        assert gateway.key is not None, "what commands did before is no reason to withhold the development key"
    finally:
        assert await gateway.stop() == 0
