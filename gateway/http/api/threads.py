"""`/api/v1/threads/{thread}`: the requests of a conversation or job, and what became of them. No text is anywhere."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from gateway.http.api.route import ApiRoute, Call, Parameter
from projections.threads.query import read_thread
from projections.usage.query import utc_text

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100


class ThreadEntry(msgspec.Struct, frozen=True):
    """A request of the thread, or the outcome of one. `nano_usd` null: the price is unknown."""

    recorded_at: str
    state: Literal["requested", "generated", "failed", "abandoned"]
    request_id: str
    attempt: int
    agent: str
    model: str
    task: str | None
    provider: str | None
    inputs: int
    tokens: int
    billed_tokens: int
    nano_usd: int | None
    latency_ms: int | None
    code: str | None


class ThreadAnswer(msgspec.Struct, frozen=True):
    """Entries in the order of the log. `cursor`: what comes after them."""

    thread: str
    entries: list[ThreadEntry]
    cursor: str


async def show(call: Call) -> ThreadAnswer:
    """A page of the thread."""
    limit = call.query.integer("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    reads, after = call.service.reads, call.query.text("after")
    position = 0 if after is None else await reads.position(after, "after")
    async with reads.view(call.principal) as views:
        rows = await read_thread(views, call.tenant, call.path["thread"], position, limit)
    return ThreadAnswer(
        call.path["thread"],
        [_entry(row) for row in rows],
        await reads.cursor(rows[-1]["position"] if rows else position),
    )


def _entry(row: dict[str, Any]) -> ThreadEntry:
    fields = {name: row[name] for name in ThreadEntry.__struct_fields__ if name != "recorded_at"}
    return ThreadEntry(recorded_at=utc_text(row["recorded_at"]) or "", **fields)


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/threads/{thread}",
        name="getThread",
        summary="The requests of a thread and their outcomes, of the last 30 days, without texts",
        tag="reads",
        handler=show,
        answer=ThreadAnswer,
        scopes=("billing", "admin"),
        query=(
            Parameter("after", "The cursor that an earlier page came with."),
            Parameter(
                "limit",
                "How many entries at most.",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
            ),
        ),
        errors=(504,),
        view="threads",
    ),
)
