from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from gateway.demo.process import GatewayProcess
from tests.acceptance.provider import Simulator
from tests.acceptance.site import Site, endpoints_toml
from tests.support.databases import with_user
from tests.support.folders import temporary_data_dir, temporary_folder


@pytest.fixture(autouse=True, scope="session")
def _plain_environment() -> Iterator[None]:
    """Gateways of these tests inherit no setting of whoever runs them, and talk to loopback without a proxy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("EMBERLOG_") and not name.startswith("EMBERLOG_TEST_"):
                patch.delenv(name)
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        patch.setenv("no_proxy", "127.0.0.1,localhost")
        yield


@pytest.fixture(scope="session")
def simulator(_plain_environment: None) -> Iterator[Simulator]:
    """One simulated provider for the whole session."""
    started = Simulator()
    yield started
    started.close()


@pytest.fixture
def provider(simulator: Simulator) -> Iterator[Simulator]:
    """The simulated provider, well-behaved until the test says otherwise."""
    simulator.behave()
    yield simulator
    simulator.behave()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A site's folder; whatever servers its data folder still has are ended afterwards."""
    with temporary_folder() as parent, temporary_data_dir(parent):
        yield parent


@dataclass(frozen=True)
class Running:
    """A gateway that several tests share; `key` is its development key (tenant `default`)."""

    site: Site
    gateway: GatewayProcess
    key: str

    @property
    def url(self) -> str:
        return self.gateway.url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared(simulator: Simulator) -> AsyncIterator[Running]:
    """One gateway with embedded services, the simulated provider and the local model, for every test that neither kills nor stops it."""
    with temporary_folder() as parent, temporary_data_dir(parent):
        # Webhooks of tests end at this machine.
        site = Site(
            parent,
            endpoints_toml(simulator, local=True),
            EMBERLOG_WEBHOOK_ALLOW_PRIVATE="true",
            EMBERLOG_BREAKER_FAILURES="1000",  # what one test has the provider do is no business of the next
        )
        gateway = site.gateway()
        await gateway.start()
        assert gateway.key is not None
        yield Running(site, gateway, gateway.key)
        alive = Path(f"/proc/{gateway.pid}/cmdline")
        assert alive.exists(), f"the shared gateway ended while it was in use:\n{site.log.read_text()[-4000:]}"
        assert await gateway.stop() == 0


@pytest.fixture
async def external(
    services: EmbeddedServices, postgres_dsn: str, redis_url: str, folder: Path, provider: Simulator
) -> Site:
    """A site whose Postgres (empty as yet) and Valkey are somebody else's; its gateway logs in as the application's role."""
    secret = folder / "secret.key"
    secret.write_bytes(base64.b64encode(os.urandom(32)) + b"\n")
    secret.chmod(0o600)
    return Site(
        folder,
        endpoints_toml(provider),
        dsn=postgres_dsn,
        EMBERLOG_DATABASE_URL=with_user(postgres_dsn, "emberlog_gateway"),
        EMBERLOG_DATABASE_OWNER_URL=postgres_dsn,
        EMBERLOG_REDIS_URL=redis_url,
        EMBERLOG_SECRET_KEY_FILE=str(secret),
    )


@pytest.fixture
async def migrated(external: Site, services: EmbeddedServices) -> Site:
    """The same with the schema in place, by `emberlog migrate`."""
    ended = await external.run("migrate")
    assert ended.code == 0, ended.err
    await services.grant_app_role()
    return external
