"""`make live`: the real providers whose credentials are in the environment. What it lacks credentials for is skipped by name.

No part of `make test`, since its file is not named like a test: it costs money, if little, and says nothing of this code alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from adapters.providers.registry import PROVIDERS
from domain.ports.provider import Provider
from gateway.settings import Settings
from tests.live.places import Place, missing, places
from tests.live.suite import LiveSuite

ENVIRON = Settings.environment()


@pytest.fixture(params=places(ENVIRON), ids=lambda place: place.name)
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.param
    return found


@pytest.fixture
async def provider(place: Place) -> AsyncIterator[Provider]:
    opened = place.open()
    yield opened
    await opened.close()


class TestProviders(LiveSuite):
    """Each model of the release at each provider."""


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_there_are_credentials_for(name: str) -> None:
    lacking = missing(name, ENVIRON)
    if lacking is not None:
        pytest.skip(f"{name} was not asked: {lacking}")
