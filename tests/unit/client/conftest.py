from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from emberlog_client import Client
from tests.support.fake_gateway import KEY, FakeGateway


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    async with FakeGateway() as fake:
        yield fake


@pytest.fixture
async def client(gateway: FakeGateway) -> AsyncIterator[Client]:
    async with Client(gateway.url, KEY, agent="tester", proxy=None) as connected:
        yield connected
