"""Settings that can be changed while gateways run: by an event, in force in every process within a second, over file and environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

import msgspec
import structlog
from pydantic import TypeAdapter, ValidationError

from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import SYSTEM_STREAM, SYSTEM_TENANT, SettingChanged
from domain.plane import ControlPlane
from domain.problems import Problems
from gateway.settings import Settings

LIVE = (
    "cache_bytes",
    "cache_ttl_seconds",
    "discovery_hours",
    "discovery_state",
    "drain_seconds",
    "log_level",
    "max_connections",
    "max_provider_calls",
    "max_queued_texts",
)
"""The settings that may be changed so; what others decide was decided when the process started."""

_log = structlog.get_logger("emberlog.settings")
_adapters: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(cast("Any", Annotated[Settings.model_fields[name].annotation, Settings.model_fields[name]]))
    for name in LIVE
}


def decide_setting(plane: ControlPlane, name: str, value: Any, *, actor: str) -> list[Decision]:
    """Change a live setting to `value` (plain data); None takes the change back. Raises `not_found`, `invalid_config`."""
    if name not in LIVE:
        raise GatewayError(
            "not_found", f"{name[:64]!r} is no setting that can be changed while gateways run: {', '.join(LIVE)} can"
        )
    encoded = None if value is None else msgspec.json.encode(checked(name, value)).decode()
    if plane.settings.values.get(name) == encoded:
        return []
    return [Decision(SYSTEM_TENANT, SYSTEM_STREAM, SettingChanged(name=name, value=encoded, actor=actor))]


def checked(name: str, value: Any) -> Any:
    """The value as the setting takes it. Raises `invalid_config` naming it."""
    try:
        return _adapters[name].validate_python(value, strict=isinstance(value, bool))
    except ValidationError as error:
        problems = Problems()
        problems.add(name, "; ".join(e["msg"] for e in error.errors(include_url=False, include_input=False)))
        problems.check("the setting")
        raise AssertionError from None


def overlaid(base: Settings, values: Mapping[str, str]) -> Settings:
    """`base` with the changed settings over it. A value that this build cannot use is told in the log and left out."""
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name in LIVE:
            try:
                changes[name] = checked(name, msgspec.json.decode(value))
            except GatewayError as error:
                _log.error("setting_unusable", setting=name, reason=error.message)
    return base.model_copy(update=changes)
