"""`emberlog models select`: which model a request would get, and with `--explain` the whole decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, JsonOption, encode, fields, show, tell, with_installation

if TYPE_CHECKING:
    from gateway.chosen_model import ChosenModel
    from gateway.manage import Installation


def select(
    tenant: Annotated[str, typer.Option(help="The tenant.")],
    agent: Annotated[str, typer.Option(help="The agent; its preferences count.")] = "",
    model: Annotated[str | None, typer.Option(help="The model that the request names.")] = None,
    task: Annotated[str | None, typer.Option(help="The task that it names.")] = None,
    tokens: Annotated[int | None, typer.Option(help="How many tokens its text has, about.")] = None,
    dimensions: Annotated[int | None, typer.Option(help="The size of vectors that it asks for.")] = None,
    optimize: Annotated[str | None, typer.Option(help="cost, latency or quality.")] = None,
    failover: Annotated[str | None, typer.Option(help="same_space, any or none; else the tenant's.")] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="Ask as a key with the scope admin: it may name models in testing.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show every model, and why it was or was not chosen.")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show which model a request would get now. Endpoints are those of this command's settings; latencies are not measured here."""
    asked = {
        "requested_model": model,
        "task_type": task,
        "token_estimate": tokens,
        "required_dimensions": dimensions,
        "optimize": optimize,
        "failover": failover,
    }

    async def work(installation: Installation) -> ChosenModel:
        from domain.errors import GatewayError
        from gateway.chosen_model import SelectionQuestion, choose_model, question_of
        from gateway.cli.choosing import choosing
        from gateway.http.api.body import decode

        given = encode({name: value for name, value in asked.items() if value is not None})
        wanted: SelectionQuestion = decode(given.encode(), SelectionQuestion)
        async with choosing(installation, tenant) as found:
            question = question_of(found.selector, tenant, wanted, admin=admin)
            try:
                return choose_model(found.selector, tenant, agent, question, found.quotas)
            except GatewayError as refusal:
                reasons = (refusal.details or {}).get("reasons")
                if explain and reasons:
                    _show_reasons({"reasons": reasons}, json, [[r["model"], r["reason"]] for r in reasons])
                raise

    found = with_installation(config, work)
    if explain and not json:
        _show_reasons(found, False, [[r.model, r.reason] for r in found.reasons])
        return
    import msgspec

    plain = msgspec.to_builtins(found)
    if not explain:
        del plain["reasons"]
    tell(plain, json, *fields(plain))


def _show_reasons(document: Any, json: bool, rows: list[list[str]]) -> None:
    show(document, json, ["model", "reason"], rows)
