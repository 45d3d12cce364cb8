"""`emberlog tenant-models`: the models of a tenant, which of them it uses, and which is its default."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, JsonOption, fields, show, split_list, tell, with_installation

if TYPE_CHECKING:
    from gateway.cli.choosing import Choosing
    from gateway.control import Decide
    from gateway.manage import Installation
    from gateway.tenant_documents import TenantModel

app = typer.Typer(help="Models of tenants: a tenant with any uses no others.", no_args_is_help=True)

TenantOption = Annotated[str, typer.Option(help="The tenant.")]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's id, or an alias of it.")]
VersionOption = Annotated[
    int | None,
    typer.Option(help="The version that was read: where the tenant's is another by now, nothing changes."),
]


def _limit(help_text: str) -> Any:
    return typer.Option(metavar="NUMBER|none", help=help_text, show_default=False)


@app.command("list")
def list_(
    tenant: TenantOption,
    enabled: Annotated[bool, typer.Option("--enabled", help="Only those that are enabled.")] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the models that a tenant has configured; none: it may use every available one."""

    async def work(installation: Installation) -> list[TenantModel]:
        from gateway.cli.choosing import choosing

        async with choosing(installation, tenant) as found:
            models = found.control.plane.tenants.of(tenant).models
            wanted = [name for name in sorted(models) if models[name].state == "enabled" or not enabled]
            return [_document(found, tenant, name) for name in wanted]

    models = with_installation(config, work)
    document = [{"id": m.model_id, **_plain(m)} for m in models]
    rows = [[m.model_id, m.state, "yes" if m.is_default else "", m.priority, m.reason] for m in models]
    show(document, json, ["id", "state", "default", "priority", "not usable because"], rows)


@app.command("show")
def show_(model: ModelArgument, tenant: TenantOption, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show one model of a tenant."""

    async def work(installation: Installation) -> TenantModel:
        from gateway.cli.choosing import choosing

        async with choosing(installation, tenant) as found:
            return _document(found, tenant, model)

    _tell(with_installation(config, work), json)


@app.command()
def configure(
    model: ModelArgument,
    tenant: TenantOption,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="A new one is enabled unless you say otherwise.")
    ] = None,
    default: Annotated[bool, typer.Option("--default", help="Make it the default, instead of the one before.")] = False,
    priority: Annotated[
        int | None, typer.Option(help="0 to 1,000,000; higher is preferred; 100 to begin with.")
    ] = None,
    fallback_models: Annotated[
        str | None, typer.Option(help="Comma-separated: tried in this order where another model may answer.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting of your own; all of them are replaced.")
    ] = None,
    monthly_token_limit: Annotated[str | None, _limit("Tokens a month of this model, at most.")] = None,
    daily_token_limit: Annotated[str | None, _limit("Tokens a day of this model, at most.")] = None,
    monthly_request_limit: Annotated[str | None, _limit("Requests a month to this model, at most.")] = None,
    custom_cost_per_token_pico_usd: Annotated[
        str | None, _limit("What the tenant pays instead of the list price.")
    ] = None,
    custom_cost_per_character_pico_usd: Annotated[str | None, _limit("The same where characters are billed.")] = None,
    expected_version: VersionOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Add a model for a tenant, or change how it is configured; what you leave out stays. In force within a second everywhere."""
    numbers = {
        "monthly_token_limit": monthly_token_limit,
        "daily_token_limit": daily_token_limit,
        "monthly_request_limit": monthly_request_limit,
        "custom_cost_per_token_pico_usd": custom_cost_per_token_pico_usd,
        "custom_cost_per_character_pico_usd": custom_cost_per_character_pico_usd,
    }
    wanted: dict[str, Any] = {name: _number(name, text) for name, text in numbers.items() if text is not None}
    if enable is not None:
        wanted["is_enabled"] = enable
    if default:
        wanted["is_default"] = True
    if priority is not None:
        wanted["priority"] = priority
    if fallback_models is not None:
        wanted["fallback_models"] = split_list(fallback_models)
    if setting is not None:
        wanted["custom_settings"] = dict(map(_pair, setting))

    def decide(actor: str) -> Decide:
        from domain.tenant_models import decide_tenant_model

        return lambda plane: decide_tenant_model(
            plane, tenant, model, wanted, operator=True, now=time.time(), actor=actor
        )

    found, changed = _change(config, tenant, model, decide, expected_version)
    tell(
        _plain(found),
        json,
        f"{'configured' if changed else 'is so already'}: {found.model_id} of {tenant}, {found.state}",
    )


@app.command("set-default")
def set_default(
    model: ModelArgument,
    tenant: TenantOption,
    expected_version: VersionOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make an enabled model of a tenant its default."""

    def decide(actor: str) -> Decide:
        from domain.tenant_models import decide_default_model

        return lambda plane: decide_default_model(plane, tenant, model, actor=actor)

    found, changed = _change(config, tenant, model, decide, expected_version)
    tell(_plain(found), json, f"{found.model_id} {'is' if changed else 'was'} the default of {tenant}")


@app.command()
def remove(
    model: ModelArgument,
    tenant: TenantOption,
    expected_version: VersionOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Take a model from a tenant; its quotas and prices stay set. The default stays until another is the default."""

    async def work(installation: Installation) -> None:
        from domain.tenant_models import decide_remove_tenant_model

        await installation.require_tenant(tenant, alive=True)
        async with installation.control() as control:
            await control.run(
                lambda plane: decide_remove_tenant_model(plane, tenant, model, actor=installation.actor),
                stream=f"tenant/{tenant}",
                expected_version=expected_version,
            )

    with_installation(config, work)
    tell({"tenant": tenant, "model_id": model}, json, f"removed {model} from {tenant}")


def _change(
    config: Any, tenant: str, model: str, decide: Any, expected_version: int | None
) -> tuple[TenantModel, bool]:
    async def work(installation: Installation) -> tuple[TenantModel, bool]:
        from gateway.cli.choosing import choosing

        async with choosing(installation, tenant, seeded=True) as found:
            written = await found.control.run(
                decide(installation.actor), stream=f"tenant/{tenant}", expected_version=expected_version
            )
            return _document(found, tenant, model), written.changed

    return with_installation(config, work)


def _document(found: Choosing, tenant: str, name: str) -> TenantModel:
    from domain.tenant_models import tenant_model
    from gateway.tenant_documents import tenant_model_document

    plane = found.control.plane
    configured = tenant_model(plane, tenant, name)
    return tenant_model_document(
        plane,
        tenant,
        configured,
        found.selector.menu(tenant),
        exceeded=found.quotas.exceeded(configured.model),
        ceiling=found.selector.ceiling(tenant, found.quotas),
        now=time.time(),
    )


def _plain(model: TenantModel) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.to_builtins(model))


def _tell(model: TenantModel, json: bool) -> None:
    tell(model, json, *fields(_plain(model)))


def _number(name: str, text: str) -> int | None:
    if text == "none":
        return None
    if not text.isdecimal() or len(text) > 30:
        raise typer.BadParameter(
            f"{text[:40]!r}: expected a whole number from 0 on, or none", param_hint=f"--{name.replace('_', '-')}"
        )
    return int(text)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text[:60]!r}: expected NAME=VALUE", param_hint="--setting")
    return name, value
