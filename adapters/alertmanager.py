"""Prometheus' Alertmanager: told of alerts over its API (`POST /api/v2/alerts`), which takes the same alert again and again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import aiohttp
import msgspec

from domain.alerts import Alert

TIMEOUT_SECONDS = 10.0
_AT_ONCE = 200
_NAME = re.compile(r"[^a-zA-Z0-9_]")


class AlertmanagerRefused(Exception):
    """It could not be reached, or did not take the alerts; the message says why."""


class PostableAlert(msgspec.Struct, frozen=True, omit_defaults=True):
    """An alert as its API has it. Times are RFC 3339."""

    labels: dict[str, str]
    annotations: dict[str, str]
    startsAt: str  # noqa: N815 (the API's names)
    endsAt: str  # noqa: N815 (the same)
    generatorURL: str = ""  # noqa: N815 (the same)


def postable(alert: Alert, *, ends_at: float, link: str = "") -> PostableAlert:
    """`ends_at` (seconds since the epoch) is when it was resolved, or when it is to be taken for resolved unless it is told again."""
    labels = {_NAME.sub("_", name): value for name, value in alert.labels.items()}
    labels |= {"alertname": alert.kind, "severity": alert.severity, "tenant": alert.tenant, "alert": alert.alert}
    annotations = {"summary": alert.summary}
    if alert.used is not None:
        annotations["used"] = str(alert.used)
    if alert.limit is not None:
        annotations["limit"] = str(alert.limit)
    return PostableAlert(labels, annotations, _time(alert.raised_at), _time(ends_at), link)


class Alertmanager:
    """One, at `url` (its root, without `/api/v2`). Made inside a running loop; `close` it."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self._url = url.rstrip("/") + "/api/v2/alerts"
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout), trust_env=False)

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        await self._session.close()

    async def post(self, alerts: Sequence[PostableAlert]) -> None:
        """Tell it. Raises `AlertmanagerRefused`; what was told before is told."""
        for start in range(0, len(alerts), _AT_ONCE):
            body = msgspec.json.encode(alerts[start : start + _AT_ONCE])
            try:
                async with self._session.post(
                    self._url, data=body, headers={"content-type": "application/json"}, allow_redirects=False
                ) as response:
                    status = response.status
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                raise AlertmanagerRefused(f"cannot be reached: {type(error).__name__}") from None
            if status >= 300:
                raise AlertmanagerRefused(f"answered HTTP {status}")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
