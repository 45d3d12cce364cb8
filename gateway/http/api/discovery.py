"""`/api/v1/models/discover` and `/api/v1/discovery`: read the providers' lists of models now, and what they last showed."""

from __future__ import annotations

import msgspec

from domain.discovery import DISCOVERY
from gateway.discovery.documents import SourceDocument, source_documents
from gateway.http.api.route import Answer, ApiRoute, Call
from gateway.maintenance.schedules import ScheduleDocument


class DiscoveryAnswer(msgspec.Struct, frozen=True):
    """Every list that was read, by source."""

    sources: list[SourceDocument]


async def discover(call: Call) -> Answer:
    """Ask for a run: whichever gateway of the installation looks next takes it."""
    document = await call.service.schedules.run(DISCOVERY)
    return Answer(document, 202, {"location": document.url})


async def index(call: Call) -> DiscoveryAnswer:
    """All of them."""
    return DiscoveryAnswer(source_documents(call.plane.discoveries))


ROUTES = (
    ApiRoute(
        method="POST",
        path="/api/v1/models/discover",
        name="discoverModels",
        summary="Read the providers' lists of models now, as the schedule `discovery` does: what is new, changed or gone",
        tag="models",
        handler=discover,
        answer=ScheduleDocument,
        tenanted=False,
        statuses=(202,),
        versioned=False,
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/discovery",
        name="getDiscovery",
        summary="What the providers' lists of models last showed",
        tag="models",
        handler=index,
        answer=DiscoveryAnswer,
        tenanted=False,
    ),
)
