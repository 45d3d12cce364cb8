"""`/api/v1/settings`: the settings that can be changed while gateways run."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from domain.errors import GatewayError
from domain.events import SYSTEM_STREAM
from gateway.http.api.route import ApiRoute, Call, Nothing
from gateway.live_settings import LIVE, decide_setting


class Setting(msgspec.Struct, frozen=True):
    """A setting as it is in force, and whether an event set it or this gateway's start (file, environment or default)."""

    name: str
    value: int | float | str | None
    source: Literal["event", "start"]


class SettingsAnswer(msgspec.Struct, frozen=True):
    """Every setting that can be changed while gateways run. `version` is that of their stream."""

    settings: list[Setting]
    version: int


class SettingChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The value it shall have; it must not be null: DELETE takes a change back."""

    value: int | float | str


async def show(call: Call) -> SettingsAnswer:
    """All of them."""
    return SettingsAnswer([_document(call, name) for name in LIVE], call.plane.versions.get(SYSTEM_STREAM, 0))


async def change(call: Call) -> Setting:
    """Set one."""
    return await _change(call, call.body.value)


async def reset(call: Call) -> None:
    """Take a change back."""
    await _change(call, None)


async def _change(call: Call, value: Any) -> Setting:
    name = call.path["name"]
    await call.decide(SYSTEM_STREAM, lambda plane: decide_setting(plane, name, value, actor=call.actor))
    return _document(call, name)


def _document(call: Call, name: str) -> Setting:
    changed = call.plane.settings.values.get(name)
    if changed is not None:
        return Setting(name, msgspec.json.decode(changed), "event")
    return Setting(name, getattr(call.service.settings, name), "start")


async def one(call: Call) -> Setting:
    """One of them."""
    if call.path["name"] not in LIVE:
        raise GatewayError("not_found", f"there is no such setting: expected one of {', '.join(LIVE)}")
    return _document(call, call.path["name"])


ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/settings",
        name="listSettings",
        summary="The settings that can be changed while gateways run",
        tag="settings",
        handler=show,
        answer=SettingsAnswer,
        tenanted=False,
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/settings/{name}",
        name="getSetting",
        summary="One such setting",
        tag="settings",
        handler=one,
        answer=Setting,
        tenanted=False,
    ),
    ApiRoute(
        method="PUT",
        path="/api/v1/settings/{name}",
        name="changeSetting",
        summary="Change a setting in every running gateway, over file and environment",
        tag="settings",
        handler=change,
        body=SettingChange,
        answer=Setting,
        tenanted=False,
    ),
    ApiRoute(
        method="DELETE",
        path="/api/v1/settings/{name}",
        name="resetSetting",
        summary="Take a change back: file and environment decide again",
        tag="settings",
        handler=reset,
        answer=Nothing,
        statuses=(204,),
        tenanted=False,
    ),
)
