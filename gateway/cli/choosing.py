"""What commands that show a choice of models have in common: a selector on the control plane, and the tenant's quotas."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway.control import Control
    from gateway.manage import Installation
    from gateway.quota.live import StandingQuotas
    from gateway.service.selector import Selector

WAIT_SECONDS = 60.0


class Choosing(msgspec.Struct, frozen=True, eq=False):
    """The control plane, the selector on it, and what the quotas of the tenant say."""

    control: Control
    selector: Selector
    quotas: StandingQuotas


@asynccontextmanager
async def choosing(installation: Installation, tenant: str, *, seeded: bool = False) -> AsyncIterator[Choosing]:
    """For the time of one command. Endpoints are those of the command's own settings. Raises `not_found` for the tenant."""
    from gateway.catalogue.live import LiveCatalogue
    from gateway.cli.quotas import read_standings
    from gateway.quota.live import StandingQuotas
    from gateway.service.selector import Selector

    await installation.require_tenant(tenant, alive=True)
    async with installation.control(seeded=seeded) as control:
        plane = control.plane
        standings = await read_standings(installation, tenant, WAIT_SECONDS) if plane.quotas.of(tenant) else []
        catalogue = LiveCatalogue(plane, installation.settings.configured_endpoints())
        yield Choosing(control, Selector(plane, catalogue.current), StandingQuotas(standings))
