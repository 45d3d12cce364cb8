"""The management API on a log in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.api import ApiSite, api_site


@pytest_asyncio.fixture
async def site() -> AsyncIterator[ApiSite]:
    async with api_site() as site:
        yield site
