"""`/api/v1/schedules`: what the installation does from time to time, how the last run of each went, and a run now."""

from __future__ import annotations

import msgspec

from gateway.http.api.route import Answer, ApiRoute, Call
from gateway.maintenance.schedules import ScheduleDocument


class ScheduleList(msgspec.Struct, frozen=True):
    """Every schedule, by name."""

    schedules: list[ScheduleDocument]


async def index(call: Call) -> ScheduleList:
    """All of them."""
    return ScheduleList(await call.service.schedules.all())


async def show(call: Call) -> ScheduleDocument:
    """One."""
    return await call.service.schedules.one(call.path["schedule"])


async def run(call: Call) -> Answer:
    """Ask for a run: whichever gateway of the installation looks next takes it."""
    document = await call.service.schedules.run(call.path["schedule"])
    return Answer(document, 202, {"location": document.url})


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/schedules",
        name="listSchedules",
        summary="What the installation does from time to time: who runs it, when it is due, how the last run went",
        tag="schedules",
        handler=index,
        answer=ScheduleList,
        tenanted=False,
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/schedules/{schedule}",
        name="getSchedule",
        summary="One schedule",
        tag="schedules",
        handler=show,
        answer=ScheduleDocument,
        tenanted=False,
    ),
    ApiRoute(
        method="POST",
        path="/api/v1/schedules/{schedule}/run",
        name="runSchedule",
        summary="Run it now, in whichever gateway looks first, within some seconds; what is being run is not run again",
        tag="schedules",
        handler=run,
        answer=ScheduleDocument,
        tenanted=False,
        statuses=(202,),
        versioned=False,
    ),
)
