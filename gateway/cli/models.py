"""`emberlog models`: the catalogue of models, their facts and their lifecycle."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, JsonOption, encode, fields, show, tell, with_installation
from gateway.cli.models_attest import attest
from gateway.cli.models_deploy import deploy, deployments, undeploy
from gateway.cli.models_discover import discover
from gateway.cli.models_metrics import metrics
from gateway.cli.models_select import select

if TYPE_CHECKING:
    from domain.catalogue import Endpoint
    from domain.model_decisions import Step
    from domain.plane import ControlPlane
    from gateway.catalogue.documents import ModelDocument, ModelStatistics, ProviderEntry
    from gateway.manage import Installation

app = typer.Typer(help="Models: their facts, what providers offer of them, their lifecycle.", no_args_is_help=True)
app.command()(select)
app.command()(metrics)
app.command()(attest)
app.command()(discover)
app.command()(deploy)
app.command()(undeploy)
app.command()(deployments)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's id, or an alias of it.")]
ReasonOption = Annotated[str | None, typer.Option(help="Why, for whoever looks at the model later.")]
VersionOption = Annotated[
    int | None,
    typer.Option(help="The version of the model that was read: where it is another by now, nothing changes."),
]
FileOption = Annotated[
    Path | None,
    typer.Option("--file", help="A JSON object of the API's fields; - is standard input.", show_default=False),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="A field of the API's body, its value as JSON or a plain word."),
]


@app.command("list")
def list_(
    provider: Annotated[str | None, typer.Option(help="Only models that this provider offers.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only models of this type or model type.")] = None,
    state: Annotated[str | None, typer.Option(help="Only models in this state; removed ones only so.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only models with this capability.")] = None,
    search: Annotated[str | None, typer.Option(help="Only models with this in id, name, alias or maker.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the models of the catalogue."""

    async def work(installation: Installation) -> list[ModelDocument]:
        from gateway.catalogue.documents import shown

        async with installation.control() as control:
            models = shown(control.plane, provider=provider, type=type_, state=state, tag=tag, search=search)
            return [_document(installation, control.plane, m.id) for m in models]

    models = with_installation(config, work)
    show(
        models,
        json,
        ["id", "state", "dimensions", "max tokens", "providers", "endpoints"],
        [
            [
                m.id,
                m.state,
                m.dimensions,
                m.max_tokens,
                ", ".join(o.provider for o in m.offerings),
                ", ".join(m.endpoints),
            ]
            for m in models
        ],
    )


@app.command("show")
def show_(model: ModelArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show one model, whole."""

    async def work(installation: Installation) -> ModelDocument:
        async with installation.control() as control:
            return _document(installation, control.plane, model)

    _tell(with_installation(config, work), json)


@app.command()
def statistics(json: JsonOption = False, config: ConfigOption = None) -> None:
    """Count the models, by state, type and provider."""

    async def work(installation: Installation) -> ModelStatistics:
        from domain.model_lifecycle import REMOVED
        from gateway.catalogue.documents import count_models, shown

        async with installation.control() as control:
            plane = control.plane
            models = [*shown(plane), *shown(plane, state=REMOVED)]
            return count_models(models, {m.id for m in models if _document(installation, plane, m.id).endpoints})

    import msgspec

    counted = with_installation(config, work)
    tell(counted, json, *fields(msgspec.to_builtins(counted)))


@app.command()
def providers(json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the providers, what they offer, and what an offering there can set."""

    async def work(installation: Installation) -> list[ProviderEntry]:
        from gateway.catalogue.documents import provider_entries, shown

        async with installation.control() as control:
            return provider_entries(shown(control.plane), _serving(installation, control.plane))

    found = with_installation(config, work)
    show(
        found,
        json,
        ["provider", "models", "endpoints", "settings"],
        [[p.name, len(p.models), ", ".join(p.endpoints), ", ".join(p.config)] for p in found],
    )


@app.command()
def register(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="The id that the model shall have.")] = None,
    provider: Annotated[str | None, typer.Option(help="Who offers it: openai for servers that speak its API.")] = None,
    provider_model: Annotated[
        str | None, typer.Option(help="The provider's own id of it; by default the same.")
    ] = None,
    dimensions: Annotated[int | None, typer.Option(help="The size of its vectors.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The most tokens of one text.")] = None,
    max_inputs: Annotated[int, typer.Option(help="The most texts of one call.")] = 1,
    max_tokens_per_call: Annotated[int | None, typer.Option(help="The most tokens of one call.")] = None,
    model_version: Annotated[str, typer.Option(help="Its version, a part of its spaces' names.")] = "1",
    usd_per_million: Annotated[
        str | None, typer.Option(help="The list price of a million tokens in USD, 0 for none; else it is unknown.")
    ] = None,
    set_: SetOption = None,
    file: FileOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Register a model, as a draft: then `test` and `validate` make it available. The same facts again change nothing."""
    body = _body(file, set_)
    if model is not None:
        body["model_id"] = model
    if provider is not None:
        body["offerings"] = [
            {
                "provider": provider,
                "provider_model": provider_model or model,
                "max_inputs": max_inputs,
                "max_tokens_per_call": max_tokens_per_call or max_inputs * (max_tokens or 1),
            }
        ]
    for name, value in (("dimensions", dimensions), ("max_tokens", max_tokens)):
        if value is not None:
            body[name] = value
    body.setdefault("model_version", model_version)

    async def work(installation: Installation) -> tuple[ModelDocument, bool]:
        from domain.events.base import PRICES_STREAM
        from domain.model_decisions import decide_register, model_stream
        from domain.price_decisions import decide_price
        from gateway.http.api.body import decode
        from gateway.http.api.models import ModelRegistration

        wanted: ModelRegistration = decode(encode(body).encode(), ModelRegistration)
        offerings = [offering.spec() for offering in wanted.offerings]
        actor = installation.actor
        async with installation.control(seeded=True) as control:
            written = await control.run(
                lambda plane: decide_register(plane, wanted.model_id, wanted.spec(), offerings, actor=actor),
                stream=model_stream(wanted.model_id),
            )
            if usd_per_million is not None and written.changed:
                for offering in offerings:
                    price = {
                        "id": f"{wanted.model_id}@{offering.provider}/{time.time_ns() // 1000}",
                        "model": wanted.model_id,
                        "provider": offering.provider,
                        "usd_per_million": usd_per_million,
                    }
                    await control.run(
                        lambda plane, price=price: decide_price(plane, price, now=time.time(), actor=actor),  # type: ignore[misc]
                        stream=PRICES_STREAM,
                    )
            return _document(installation, control.plane, wanted.model_id), written.changed

    found, changed = with_installation(config, work)
    tell(found, json, f"{'registered' if changed else 'there already'}: {found.id}, {found.state}")


@app.command()
def update(
    model: ModelArgument,
    set_: SetOption = None,
    file: FileOption = None,
    expected_version: VersionOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Change facts of a model, such as --set max_tokens=4096; what tenants' vectors rest on stays."""
    body = _body(file, set_)

    async def facts(installation: Installation) -> dict[str, Any]:
        import msgspec

        from gateway.http.api.body import decode
        from gateway.http.api.models import ModelConfigChange, facts_of

        wanted = decode(encode(body).encode(), ModelConfigChange)
        found = facts_of(wanted)
        if wanted.offerings is not msgspec.UNSET:
            found["offerings"] = [offering.spec() for offering in wanted.offerings]
        return found

    async def work(installation: Installation) -> tuple[ModelDocument, bool]:
        return await _change(installation, model, await facts(installation), None, expected_version)

    found, changed = with_installation(config, work)
    tell(found, json, f"{'changed' if changed else 'is so already'}: {found.id}")


@app.command("test")
def enable(model: ModelArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Enable a draft for testing: admins may use it, and it can be validated."""
    _step(model, "test", None, None, json, config)


@app.command()
def available(
    model: ModelArgument, reason: ReasonOption = None, json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Let a model that was unavailable be used again."""
    _step(model, "available", reason, None, json, config)


@app.command()
def unavailable(
    model: ModelArgument, reason: ReasonOption = None, json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Let a model not be used for the time being."""
    _step(model, "unavailable", reason, None, json, config)


@app.command()
def deprecate(
    model: ModelArgument,
    grace_days: Annotated[int | None, typer.Option(help="After how many days it is removed; by default 90.")] = None,
    reason: ReasonOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Let a model go: it comes last, answers say so, and at the end of the grace period it is removed."""
    _step(model, "deprecate", reason, grace_days, json, config)


@app.command()
def remove(model: ModelArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Remove a draft, a model in testing, or a deprecated one whose grace period has ended and that no tenant has configured."""
    _step(model, "remove", None, None, json, config)


@app.command()
def validate(model: ModelArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Embed probe texts by a model in testing and look at the vectors: it becomes available, or a draft again.

    Opens a gateway of its own for that, so that the endpoints' API keys must be in this command's environment.
    """

    async def work(installation: Installation) -> ModelDocument:
        from gateway.gateway import Gateway

        gateway = await Gateway.open(installation.settings, installation.places, installation.master())
        try:
            await gateway.validate_model(model, installation.actor)
            return _document(installation, gateway.plane, model)
        finally:
            await gateway.close()

    found = with_installation(config, work)
    validation = found.validation
    assert validation is not None
    tell(found, json, f"{found.id}: {found.state}", *(f"  {problem}" for problem in validation.problems))
    if not validation.passed:
        raise typer.Exit(1)


def _step(model: str, name: str, reason: str | None, grace_days: int | None, json: bool, config: Path | None) -> None:
    async def work(installation: Installation) -> tuple[ModelDocument, bool]:
        from domain.model_decisions import Step

        return await _change(installation, model, {}, Step(name, reason, grace_days), None)

    found, changed = with_installation(config, work)
    tell(found, json, f"{found.id} is {_state(found)}{'' if changed else ' already'}")


def _state(found: ModelDocument) -> str:
    """A deprecated model can be out of use for the time being, too."""
    return f"{found.state}, unavailable" if found.deprecated and not found.available else found.state


async def _change(
    installation: Installation, name: str, facts: dict[str, Any], step: Step | None, expected_version: int | None
) -> tuple[ModelDocument, bool]:
    from domain.model_decisions import decide_change, model_of, model_stream

    steps = [] if step is None else [step]
    async with installation.control(seeded=True) as control:
        model = model_of(control.plane, name).id
        written = await control.run(
            lambda plane: decide_change(plane, model, facts, steps, now=time.time(), actor=installation.actor),
            stream=model_stream(model),
            expected_version=expected_version,
        )
        return _document(installation, control.plane, model), written.changed


def _document(installation: Installation, plane: ControlPlane, name: str) -> ModelDocument:
    from domain.model_decisions import model_of
    from gateway.catalogue.documents import model_document

    model = model_of(plane, name)
    offered = {offering.provider for offering in model.offerings}
    endpoints = [
        e.name
        for e in _serving(installation, plane)
        if e.tenant is None and model.id in e.models and e.provider in offered
    ]
    return model_document(plane, model, endpoints, now=time.time())


def _serving(installation: Installation, plane: ControlPlane) -> tuple[Endpoint, ...]:
    from domain.endpoints import serving

    return serving(installation.settings.configured_endpoints(), plane.endpoints)


def _tell(document: ModelDocument, json: bool) -> None:
    import msgspec

    tell(document, json, *fields(msgspec.to_builtins(document)))


def _body(file: Path | None, given: list[str] | None) -> dict[str, Any]:
    """The fields of a file, with those given by name over them. Wrong usage for what is no object or no pair."""
    import msgspec

    body: Any = {}
    if file is not None:
        try:
            data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
            body = msgspec.json.decode(data)
        except OSError as error:
            raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="--file") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise typer.BadParameter(f"{file} is no JSON: {error}", param_hint="--file") from None
        if not isinstance(body, dict):
            raise typer.BadParameter(f"{file}: expected one JSON object", param_hint="--file")
    for pair in given or []:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair[:60]!r}: expected FIELD=VALUE", param_hint="--set")
        try:
            body[name] = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            body[name] = text
    return dict(body)
