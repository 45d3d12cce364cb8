"""Who is told of an alert: webhooks and the Alertmanager. Not of one that is silenced, nor again of one that somebody has seen."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import structlog

from adapters.alertmanager import Alertmanager, AlertmanagerRefused, postable
from adapters.postgres.pool import Pool
from domain.events import AlertRaised, AlertResolved
from domain.ports.event_log import StoredEvent
from projections.alerts.query import read_alerts

_log = structlog.get_logger("emberlog.alerts")
POST_SECONDS = 30.0
"""Between two tellings of the Alertmanager, which forgets what it is not told again."""
EXPIRES_SECONDS = 4 * POST_SECONDS
_RESOLVED_SECONDS = 600.0
"""What was resolved is told for this long, so that an Alertmanager which was away hears of it."""
_MAX_RESOLVED = 1000


class _About(msgspec.Struct):
    alert: str
    episode: int = 1


_about = msgspec.json.Decoder(_About)


class UnwantedAlerts:
    """Asked by the sender of webhooks, before each try."""

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.time) -> None:
        self._pool = pool
        self._clock = clock

    async def __call__(self, event: StoredEvent) -> bool:
        """Whether the event is of an alert that is silenced, or has been seen by somebody. Raises what the pool raises."""
        if event.type not in (AlertRaised.TYPE, AlertResolved.TYPE):
            return False
        about = _about.decode(event.data)
        found = await read_alerts(self._pool, tenants=[event.tenant], alerts=[about.alert])
        # Of an episode that the view has not come to yet, nobody can have seen anything.
        return bool(found) and found[0].episode == about.episode and not found[0].delivered(self._clock())


class AlertmanagerPost:
    """Tells one Alertmanager what is open. `link` makes the address of an alert from its id."""

    def __init__(
        self,
        pool: Pool,
        manager: Alertmanager,
        link: Callable[[str], str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.failures = 0
        """Tellings in a row that failed."""
        self._pool = pool
        self._manager = manager
        self._link = link
        self._clock = clock

    async def post(self) -> bool:
        """Tell everything that is open, and what was resolved lately; whether it was taken. Raises what the pool raises."""
        now = self._clock()
        known = await read_alerts(self._pool, still_open=True)
        known += [
            alert
            for alert in await read_alerts(self._pool, still_open=False, limit=_MAX_RESOLVED)
            if alert.resolved_at is not None and now - alert.resolved_at < _RESOLVED_SECONDS
        ]
        alerts = [
            postable(
                alert,
                ends_at=now + EXPIRES_SECONDS if alert.resolved_at is None else alert.resolved_at,
                link=self._link(alert.alert),
            )
            for alert in known
            if alert.delivered(now)
        ]
        try:
            await self._manager.post(alerts)
        except AlertmanagerRefused as error:
            self.failures += 1
            _log.warning("alertmanager_not_told", reason=str(error), failures=self.failures)
            return False
        self.failures = 0
        return True
