"""`emberlog settings`: change settings while gateways run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, JsonOption, encode, show, tell, with_installation

if TYPE_CHECKING:
    from gateway.control import Written
    from gateway.manage import Installation

app = typer.Typer(help="Settings that can be changed while gateways run.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The setting, as `settings list` shows it.")]


@app.command("list")
def list_(json: JsonOption = False, config: ConfigOption = None) -> None:
    """List them: the value of an event, or else of this command's file and environment."""

    async def work(installation: Installation) -> list[dict[str, Any]]:
        import msgspec

        from gateway.live_settings import LIVE

        async with installation.control() as control:
            changed = control.plane.settings.values
        return [
            {"id": name, "name": name, "value": msgspec.json.decode(changed[name]), "source": "event"}
            if name in changed
            else {"id": name, "name": name, "value": getattr(installation.settings, name), "source": "start"}
            for name in LIVE
        ]

    rows = with_installation(config, work)
    show(rows, json, ["setting", "value", "set by"], [[r["name"], encode(r["value"]), r["source"]] for r in rows])


@app.command("set")
def set_(
    name: NameArgument,
    value: Annotated[str, typer.Argument(help="The value: a number, or a word.")],
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Change a setting, over file and environment. It is in force in every running gateway within a second."""
    _change(name, value, json, config)


@app.command()
def unset(name: NameArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Take a change back: file and environment decide again."""
    _change(name, None, json, config)


def _change(name: str, value: str | None, json: bool, config: Any) -> None:
    async def work(installation: Installation) -> Written:
        from domain.events import SYSTEM_STREAM
        from gateway.live_settings import decide_setting

        async with installation.control() as control:
            return await control.run(
                lambda plane: decide_setting(plane, name, value, actor=installation.actor), stream=SYSTEM_STREAM
            )

    written = with_installation(config, work)
    what = (
        "was so already" if not written.changed else f"is {value}" if value is not None else "is as it was at the start"
    )
    tell({"id": name, "name": name, "changed": written.changed}, json, f"{name} {what}")
