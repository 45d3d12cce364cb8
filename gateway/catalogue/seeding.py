"""What a release ships with, written to the log by the first who opens an installation with it: gateways and management commands alike.

Many may do so at once: the events' ids are derived from what they say and a model's first event expects an empty stream, so that each is
logged once whoever was faster. What an operator changed since stays as it is.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b

import msgspec
import structlog

from adapters.catalogue import ORIGIN, Shipped
from domain.events import (
    PRICES_STREAM,
    SYSTEM_TENANT,
    EventData,
    ModelRegistered,
    ModelUpdated,
    PriceSet,
)
from domain.keys import event_id
from domain.model_catalog import CatalogModel, frozen_changes
from domain.model_lifecycle import EDGES
from domain.plane import ControlPlane
from domain.ports.event_log import ANY_VERSION, Appended, NewEvent
from gateway.decisions import decision_event

_log = structlog.get_logger("emberlog.catalogue")


def assume(plane: ControlPlane, release: Shipped) -> None:
    """Let a plane that is only read hold what would be seeded. It must be caught up."""
    plane.models.ship(release.models)
    plane.prices.ship(price for price in release.prices if _price_event(plane, price) is not None)


async def seed(
    plane: ControlPlane, release: Shipped, append: Callable[[Sequence[NewEvent]], Awaitable[list[Appended]]]
) -> bool:
    """Append what the log does not say yet; whether there was anything. `plane` must be caught up, and has to be again afterwards."""
    events = owed(plane, release)
    if events:
        await append(events)
    return bool(events)


def owed(plane: ControlPlane, release: Shipped) -> list[NewEvent]:
    """The events of the release that the log lacks."""
    events = [event for model in release.models if (event := _model_event(plane, model)) is not None]
    return events + [event for price in release.prices if (event := _price_event(plane, price)) is not None]


def _model_event(plane: ControlPlane, shipped: CatalogModel) -> NewEvent | None:
    stream = f"model/{shipped.id}"
    version = plane.versions.get(stream, 0)
    if version == 0:
        taken = [
            n for n in shipped.spec.aliases if n in plane.models.models or _owner(plane, n) not in (None, shipped.id)
        ]
        if taken or _owner(plane, shipped.id) not in (None, shipped.id):
            _log.warning(
                "shipped_model_left_out", model=shipped.id, reason="another model has its name or an alias of it"
            )
            return None
        data: EventData = ModelRegistered(
            model=shipped.id,
            spec=shipped.spec,
            offerings=shipped.offerings,
            state=shipped.state,
            origin=ORIGIN,
            shipped=shipped.shipped,
        )
        return _event(stream, data, f"{shipped.id}\0{shipped.shipped}", 0)
    known = plane.models.models[shipped.id]
    if known.shipped == shipped.shipped or known.shipped is None:
        return None
    if known.origin != ORIGIN:
        _log.info("shipped_facts_not_taken", model=shipped.id, reason="an operator changed the model since")
        return None
    if (known.state, "update") not in EDGES or frozen_changes(known, shipped.spec):
        _log.warning(
            "shipped_facts_not_taken",
            model=shipped.id,
            reason=f"it is {known.state}, and the change would be of {', '.join(frozen_changes(known, shipped.spec)) or 'its facts'}",
        )
        return None
    data = ModelUpdated(
        model=shipped.id, spec=shipped.spec, offerings=shipped.offerings, origin=ORIGIN, shipped=shipped.shipped
    )
    return _event(stream, data, f"{shipped.id}\0{shipped.shipped}\0{version}", version)


def _owner(plane: ControlPlane, alias: str) -> str | None:
    return plane.models.aliases.get(alias)


def _price_event(plane: ControlPlane, shipped: PriceSet) -> NewEvent | None:
    if shipped.price in plane.prices.entries:
        return None
    said = [e for e in plane.prices.entries.values() if e.key == (shipped.model, shipped.provider, None)]
    last = said[-1] if said else None
    if last is not None and (last.set.actor is not None or last.until != last.set.effective_until):
        _log.info(
            "shipped_price_not_taken",
            model=shipped.model,
            provider=shipped.provider,
            reason="an operator set the price since",
        )
        return None
    if last is not None:  # what was charged until now was charged by the other one
        shipped = msgspec.structs.replace(shipped, effective_from=int(time.time()))
    return _event(PRICES_STREAM, shipped, shipped.price, ANY_VERSION)


def _event(stream: str, data: EventData, identity: str, expected_version: int) -> NewEvent:
    key = blake2b(f"{data.TYPE}\0{identity}".encode(), digest_size=16, person=b"shipped").digest()
    return decision_event(SYSTEM_TENANT, stream, data, expected_version, event_id(key, 0))
