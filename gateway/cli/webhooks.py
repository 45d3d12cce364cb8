"""`emberlog webhooks`: make and delete webhooks, and look after what they did not take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gateway.cli.common import (
    ConfigOption,
    JsonOption,
    fields,
    parse_duration,
    show,
    split_list,
    tell,
    with_installation,
)

if TYPE_CHECKING:
    from gateway.manage import Installation
    from gateway.webhooks.manage import (
        DeliveryDocument,
        MadeWebhook,
        NewSecret,
        Take,
        WebhookAdmin,
        WebhookDocument,
    )

T = TypeVar("T")
app = typer.Typer(help="Webhooks: addresses that events are sent to.", no_args_is_help=True)
letters = typer.Typer(help="Messages that were given up.", no_args_is_help=True)
app.add_typer(letters, name="dead-letters")

TenantOption = Annotated[str | None, typer.Option(help="Whose; without it those of the installation.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The webhook's id, as `webhooks list` shows it.")]
EventArgument = Annotated[
    str | None, typer.Argument(metavar="EVENT", help="The event's id, as `webhooks deliveries` shows it.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All of the webhook's.")]
LimitOption = Annotated[int, typer.Option(min=1, max=1000, help="At most so many, the newest.")]


@app.command()
def create(
    url: Annotated[str, typer.Option(help="Where to send to: https, a public address.")],
    types: Annotated[str, typer.Option(help="Comma-separated types of events, or groups such as alert.*")],
    tenant: TenantOption = None,
    id_: Annotated[str | None, typer.Option("--id", help="Its id; without it a random one.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a webhook and show its secret, once. The same again changes nothing and shows no secret."""

    async def work(admin: WebhookAdmin, take: Take, actor: str) -> MadeWebhook:
        return await admin.create(take, tenant, url=url, types=split_list(types), webhook=id_, actor=actor)

    made = _run(config, tenant, work)
    if made.secret is None:
        tell(made, json, f"{made.id} is there already")
        return
    tell(made, json, f"id:     {made.id}", f"secret: {made.secret}", "Keep the secret now: it is not shown again.")


@app.command("list")
def list_(tenant: TenantOption = None, json: JsonOption = False, config: ConfigOption = None) -> None:
    """List webhooks; their secrets are not shown."""

    async def work(admin: WebhookAdmin, take: Take, actor: str) -> list[WebhookDocument]:
        return admin.webhooks(tenant)

    found = _run(config, tenant, work)
    show(
        found, json, ["id", "tenant", "types", "url"],
        [[w.id, w.tenant or "(installation)", ",".join(w.types), w.url] for w in found],
    )  # fmt: skip


@app.command()
def delete(
    webhook: IdArgument, tenant: TenantOption = None, json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Delete a webhook, and what waits for it."""

    async def work(admin: WebhookAdmin, take: Take, actor: str) -> None:
        await admin.delete(take, tenant, webhook, actor=actor)

    _run(config, tenant, work)
    tell({"id": webhook, "deleted": True}, json, f"deleted {webhook}")


@app.command("rotate-secret")
def rotate_secret(
    webhook: IdArgument,
    tenant: TenantOption = None,
    overlap: Annotated[
        str, typer.Option(help="How long the secret before signs, too: 0, or 90s, 15m, 12h, up to 7d.")
    ] = "24h",
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Give a webhook a new secret and show it, once."""
    seconds = 0 if overlap == "0" else int(parse_duration(overlap, "--overlap").total_seconds())

    async def work(admin: WebhookAdmin, take: Take, actor: str) -> NewSecret:
        return await admin.rotate(take, tenant, webhook, actor=actor, overlap_seconds=seconds)

    made = _run(config, tenant, work)
    tell(made, json, f"secret: {made.secret}", f"The one before signs until {made.overlap_until}.")


@app.command()
def deliveries(
    webhook: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only this webhook's.")] = None,
    tenant: TenantOption = None,
    limit: LimitOption = 100,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List what waits, what was given up, and what was taken within a day; the newest events first."""

    async def work(admin: WebhookAdmin, take: Take, actor: str) -> list[DeliveryDocument]:
        return await admin.deliveries(tenant, webhook, limit=limit)

    _listed(_run(config, tenant, work), json)


@letters.command("list")
def letters_list(
    webhook: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only this webhook's.")] = None,
    tenant: TenantOption = None,
    limit: LimitOption = 100,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the messages that were given up."""

    async def work(admin: WebhookAdmin, take: Take, actor: str) -> list[DeliveryDocument]:
        return await admin.deliveries(tenant, webhook, state="dead", limit=limit)

    _listed(_run(config, tenant, work), json)


@letters.command("show")
def letters_show(
    webhook: IdArgument,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event's id.")],
    tenant: TenantOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show what is known of one. The event itself: `emberlog events tail`."""
    import msgspec

    async def work(admin: WebhookAdmin, take: Take, actor: str) -> DeliveryDocument:
        return await admin.dead_letter(tenant, webhook, event)

    found = _run(config, tenant, work)
    tell(found, json, *fields(msgspec.to_builtins(found)))


@letters.command()
def requeue(
    webhook: IdArgument,
    event: EventArgument = None,
    all_: AllOption = False,
    tenant: TenantOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Try one again, or all of a webhook."""
    _one_or_all(event, all_)

    async def work(admin: WebhookAdmin, take: Take, actor: str) -> int:
        return await admin.requeue(tenant, webhook, event, actor=actor)

    count = _run(config, tenant, work)
    tell({"id": webhook, "requeued": count}, json, f"put back: {count}")


@letters.command()
def discard(
    webhook: IdArgument,
    event: EventArgument = None,
    all_: AllOption = False,
    tenant: TenantOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Forget one, or all of a webhook."""
    _one_or_all(event, all_)

    async def work(admin: WebhookAdmin, take: Take, actor: str) -> int:
        return await admin.discard(tenant, webhook, event, actor=actor)

    count = _run(config, tenant, work)
    tell({"id": webhook, "discarded": count}, json, f"forgotten: {count}")


def _one_or_all(event: str | None, all_: bool) -> None:
    if (event is None) != all_:
        raise typer.BadParameter("give the id of an event, or --all", param_hint="EVENT")


def _listed(found: list[DeliveryDocument], json: bool) -> None:
    import msgspec

    rows = [{"id": f"{d.webhook}/{d.event}", **msgspec.structs.asdict(d)} for d in found]
    show(
        rows, json, ["webhook", "event", "type", "state", "tries", "created", "next", "status", "reason"],
        [[d.webhook, d.event, d.type, d.state, d.tries, d.created_at, d.next_at, d.status, d.reason] for d in found],
    )  # fmt: skip


def _run(config: Path | None, tenant: str | None, work: Callable[[WebhookAdmin, Take, str], Awaitable[T]]) -> T:
    async def opened(installation: Installation) -> T:
        from gateway.webhooks.command import open_webhooks

        if tenant is not None:
            await installation.require_tenant(tenant, alive=True)
        async with open_webhooks(installation) as (admin, take):
            return await work(admin, take, installation.actor)

    return with_installation(config, opened)
