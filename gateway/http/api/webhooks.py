"""`/api/v1/webhooks`: where events are sent to, what became of them, and what was given up."""

from __future__ import annotations

import msgspec

from domain.errors import invalid_request
from gateway.control import Written
from gateway.http.api.alerts import whose
from gateway.http.api.reaching import reaching
from gateway.http.api.route import Answer, ApiRoute, Call, Nothing, Pagination, Parameter
from gateway.webhooks.manage import (
    MAX_LISTED,
    OVERLAP_SECONDS,
    DeliveryDocument,
    MadeWebhook,
    NewSecret,
    WebhookDocument,
)

_TENANT = Parameter(
    "tenant", "Whose; for operators, whose own webhooks are meant without it. Others have their tenant's."
)
_STATES = ("pending", "delivered", "dead")


class WebhookList(msgspec.Struct, frozen=True):
    """Webhooks, by id."""

    webhooks: list[WebhookDocument]
    pagination: Pagination


class WebhookSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A webhook to make. `types` are types of events or groups such as `alert.*`; `id` is one's own, or a random one is made."""

    url: str
    types: list[str]
    id: str | None = None


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the secret before signs beside the new one, seconds."""

    overlap_seconds: int = OVERLAP_SECONDS


class DeliveryList(msgspec.Struct, frozen=True):
    """The newest deliveries, at most 1,000 of them, a page at a time."""

    deliveries: list[DeliveryDocument]
    pagination: Pagination


class Letters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The dead letter of this event; null: all of the webhook."""

    event: str | None = None


class Moved(msgspec.Struct, frozen=True):
    """How many dead letters it was."""

    count: int


async def index(call: Call) -> WebhookList:
    """Those there are."""
    webhooks, pagination = call.page(call.service.webhooks.webhooks(whose(call)))
    return WebhookList(webhooks, pagination)


async def create(call: Call) -> Answer:
    """Make one; 200 where there is the same."""
    body: WebhookSpec = call.body
    with reaching():
        made = await call.service.webhooks.create(
            call.decide, whose(call), url=body.url, types=body.types, webhook=body.id, actor=call.actor
        )
    return Answer(made, 200 if made.secret is None else 201)


async def show(call: Call) -> WebhookDocument:
    """One."""
    return call.service.webhooks.show(whose(call), call.path["webhook"])


async def delete(call: Call) -> None:
    """Delete one."""
    with reaching():
        await call.service.webhooks.delete(call.decide, whose(call), call.path["webhook"], actor=call.actor)


async def rotate(call: Call) -> NewSecret:
    """Give one a new secret."""
    with reaching():
        return await call.service.webhooks.rotate(
            call.decide,
            whose(call),
            call.path["webhook"],
            actor=call.actor,
            overlap_seconds=call.body.overlap_seconds,
        )


async def deliveries(call: Call) -> DeliveryList:
    """What became of its messages."""
    state = call.query.text("state")
    if state is not None and state not in _STATES:
        raise invalid_request(f"expected one of {', '.join(_STATES)}", "state")
    with reaching():
        found = await call.service.webhooks.deliveries(
            whose(call), call.path["webhook"], state=state, limit=MAX_LISTED
        )  # fmt: skip
    page, pagination = call.page(found)
    return DeliveryList(page, pagination)


async def letter(call: Call) -> DeliveryDocument:
    """One that was given up."""
    with reaching():
        return await call.service.webhooks.dead_letter(whose(call), call.path["webhook"], call.path["event"])


async def requeue(call: Call) -> Moved:
    """Try dead letters again."""
    with reaching():
        count = await call.service.webhooks.requeue(
            whose(call), call.path["webhook"], call.body.event, actor=call.actor
        )  # fmt: skip
    return _moved(call, count)


async def discard(call: Call) -> Moved:
    """Forget dead letters."""
    with reaching():
        count = await call.service.webhooks.discard(
            whose(call), call.path["webhook"], call.body.event, actor=call.actor
        )  # fmt: skip
    return _moved(call, count)


def _moved(call: Call, count: int) -> Moved:
    # Nothing of the log has changed: whoever waits for this position waits for nothing.
    call.written = Written(call.plane.position, 0, changed=False)
    return Moved(count)


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/webhooks",
        name="listWebhooks",
        summary="The webhooks of a tenant, or of the installation",
        tag="webhooks",
        handler=index,
        answer=WebhookList,
        scopes=("admin",),
        tenanted=False,
        paged=True,
        query=(_TENANT,),
    ),
    ApiRoute(
        method="POST",
        path="/api/v1/webhooks",
        name="createWebhook",
        summary="Make a webhook; its secret is in this answer and nowhere else",
        tag="webhooks",
        handler=create,
        body=WebhookSpec,
        answer=MadeWebhook,
        scopes=("admin",),
        tenanted=False,
        statuses=(201, 200),
        query=(_TENANT,),
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/webhooks/{webhook}",
        name="getWebhook",
        summary="One webhook",
        tag="webhooks",
        handler=show,
        answer=WebhookDocument,
        scopes=("admin",),
        tenanted=False,
        query=(_TENANT,),
    ),
    ApiRoute(
        method="DELETE",
        path="/api/v1/webhooks/{webhook}",
        name="deleteWebhook",
        summary="Delete a webhook, and what waits for it",
        tag="webhooks",
        handler=delete,
        answer=Nothing,
        scopes=("admin",),
        tenanted=False,
        statuses=(204,),
        query=(_TENANT,),
    ),
    ApiRoute(
        method="POST",
        path="/api/v1/webhooks/{webhook}/rotate-secret",
        name="rotateWebhookSecret",
        summary="Give a webhook a new secret; the one before signs beside it for a while",
        tag="webhooks",
        handler=rotate,
        body=Rotation,
        answer=NewSecret,
        scopes=("admin",),
        tenanted=False,
        query=(_TENANT,),
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/webhooks/{webhook}/deliveries",
        name="listWebhookDeliveries",
        summary="What waits, what was given up, and what was taken within a day",
        tag="webhooks",
        handler=deliveries,
        answer=DeliveryList,
        scopes=("admin",),
        tenanted=False,
        paged=True,
        query=(Parameter("state", "Only these.", {"type": "string", "enum": list(_STATES)}), _TENANT),
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/webhooks/{webhook}/dead-letters/{event}",
        name="getWebhookDeadLetter",
        summary="A message that was given up",
        tag="webhooks",
        handler=letter,
        answer=DeliveryDocument,
        scopes=("admin",),
        tenanted=False,
        query=(_TENANT,),
    ),
    *(
        ApiRoute(
            method="POST",
            path=f"/api/v1/webhooks/{{webhook}}/dead-letters/{verb}",
            name=f"{verb}WebhookDeadLetters",
            summary=summary,
            tag="webhooks",
            handler=handler,
            body=Letters,
            answer=Moved,
            scopes=("admin",),
            tenanted=False,
            versioned=False,
            query=(_TENANT,),
        )
        for verb, handler, summary in (
            ("requeue", requeue, "Try a dead letter again, or all of a webhook"),
            ("discard", discard, "Forget a dead letter, or all of a webhook"),
        )
    ),
)
