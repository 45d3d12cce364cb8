"""What a gateway tells the world of its own accord: alerts and webhooks, opened and closed as a whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import msgspec

from adapters.alertmanager import Alertmanager
from adapters.postgres import deliveries
from adapters.postgres.event_scan import EventScan
from adapters.postgres.pool import UNREACHABLE, Pool, open_pool
from adapters.webhooks.http import WebhookClient
from domain.alerts import Condition
from domain.ports.event_log import Appended, EventLog, NewEvent
from gateway.alerts.delivery import AlertmanagerPost, UnwantedAlerts
from gateway.alerts.desk import AlertDesk
from gateway.alerts.evaluator import Evaluator
from gateway.alerts.watch import AlertWatch
from gateway.control import Control
from gateway.secrets import MasterKey
from gateway.settings import Settings
from gateway.telemetry.metrics import Gauges
from gateway.webhooks.manage import WebhookAdmin
from gateway.webhooks.secrets import WebhookSecrets
from gateway.webhooks.sender import SenderPorts, WebhookSender
from projections.alerts import ALERTS
from projections.projection import ProjectionHalted
from projections.runner import Runner

_APPEAR_SECONDS = 2.0
_STATEMENT_SECONDS = 30.0


class OutboundPorts(msgspec.Struct, frozen=True):
    """What of the gateway it needs. `reach` waits until the control plane has folded a position; `drift` is that of the quotas; `endpoints`
    says what of the endpoints needs a person.
    """

    dsn: str
    log: EventLog
    control: Control
    runner: Runner
    master: MasterKey
    tenant_keys: Mapping[str, bytes]
    append: Callable[[Sequence[NewEvent]], Awaitable[list[Appended]]]
    reach: Callable[[int, float], Awaitable[None]]
    drift: Callable[[], int]
    endpoints: Callable[[float], list[Condition]] = lambda _: []


class Outbound:
    """Made by `Outbound.open`. `work` is what to run beside the rest, `wake` is called when the log has grown."""

    def __init__(
        self,
        pool: Pool,
        stack: AsyncExitStack,
        alerts: AlertDesk,
        webhooks: WebhookAdmin,
        watch: AlertWatch,
        sender: WebhookSender,
    ) -> None:
        self.alerts = alerts
        self.webhooks = webhooks
        self._pool = pool
        self._stack = stack
        self._watch = watch
        self._sender = sender

    @classmethod
    async def open(cls, settings: Settings, ports: OutboundPorts) -> Outbound:
        """Connections are made when they are first needed."""
        async with AsyncExitStack() as stack:
            pool = await open_pool(
                ports.dsn, "alerts and webhooks", min_size=0, max_size=3, statement_timeout=_STATEMENT_SECONDS
            )
            stack.callback(pool.terminate)
            scan = await EventScan.open(ports.log, ports.dsn, connections=1)
            stack.push_async_callback(scan.close)
            client = WebhookClient(allow_private=settings.webhook_allow_private)
            stack.push_async_callback(client.close)
            plane, evaluator = ports.control.plane, Evaluator(pool, ports.control.plane, ports.append)
            manager = None
            if settings.alertmanager_url is not None:
                alertmanager = Alertmanager(settings.alertmanager_url.get_secret_value())
                stack.push_async_callback(alertmanager.close)
                scheme = "http" if settings.tls_cert is None else "https"
                manager = AlertmanagerPost(
                    pool, alertmanager, lambda alert: f"{scheme}://{settings.listen}/api/v1/alerts/{alert}"
                )
            watch = AlertWatch(
                pool,
                plane,
                evaluator,
                reach=ports.reach,
                standings=ports.runner.standings,
                drift=ports.drift,
                endpoints=ports.endpoints,
                manager=manager,
            )
            secrets = WebhookSecrets(pool, ports.master, ports.tenant_keys)
            sender = WebhookSender(
                SenderPorts(
                    pool=pool,
                    log=ports.log,
                    scan=scan,
                    control=ports.control,
                    secrets=secrets,
                    client=client,
                    append=lambda event: ports.append([event]),
                    unwanted=UnwantedAlerts(pool),
                )
            )

            async def appear(position: int) -> None:
                # What was written is there; a view that takes its time shows it a moment later.
                with suppress(TimeoutError, ProjectionHalted):
                    await ports.runner.wait_for(ALERTS.name, position, _APPEAR_SECONDS)

            return cls(
                pool,
                stack.pop_all(),
                AlertDesk(pool, evaluator, ports.append, appear),
                WebhookAdmin(pool, plane, secrets, allow_private=settings.webhook_allow_private),
                watch,
                sender,
            )

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """The background work of this process."""
        return [self._watch.run(), self._sender.run()]

    def wake(self) -> None:
        """The log has grown."""
        self._watch.wake()
        self._sender.wake()

    async def forget(self, tenant: str) -> None:
        """A tenant was shredded: forget what its webhooks had. Raises OSError where the database is out of reach."""
        try:
            await deliveries.forget_tenant(self._pool, tenant)
        except UNREACHABLE as error:
            raise OSError(f"the database is out of reach: {type(error).__name__}") from None

    async def close(self) -> None:
        """Close every connection; what `work` returned has been cancelled. Idempotent."""
        await self._stack.aclose()

    def watch_gauges(self, gauges: Gauges) -> None:
        """Add the gauges. What is of the whole installation is told by the process that does the work."""
        watch, sender = self._watch, self._sender
        gauges.labelled(
            "emberlog_alerts_open",
            "Open alerts of the installation by kind, told by the process that works them out.",
            "kind",
            lambda: {kind: float(count) for kind, count in watch.open.items()},
        )
        gauges.counter(
            "emberlog_webhook_deliveries",
            "Messages that webhooks have taken from this process.",
            lambda: sender.delivered,
        )
        gauges.counter(
            "emberlog_webhook_failures", "Tries of this process that webhooks have not taken.", lambda: sender.failed
        )
        gauges.labelled(
            "emberlog_webhook_waiting",
            "Deliveries of the installation that wait (pending) or were given up (dead), told by the process that sends.",
            "state",
            lambda: {state: float(count) for state, count in sender.counts.items()},
        )
        gauges.gauge(
            "emberlog_alertmanager_failures", "Tellings of the Alertmanager that failed since the last good one.",
            lambda: float(watch.manager_failures),
        )  # fmt: skip
