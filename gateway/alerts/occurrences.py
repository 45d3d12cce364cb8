"""Alerts that come of events rather than of a state: unknown prices, and models or endpoints that were passed over."""

from __future__ import annotations

from collections.abc import Iterable

from adapters.postgres.alert_facts import Fact
from domain.alerts import FAILOVER, PRICE_UNKNOWN, Alert, Condition, alert_id

QUIET_SECONDS = 900.0
"""A failover is over when nothing was passed over for this long."""


def price_conditions(facts: Iterable[Fact]) -> tuple[list[Condition], list[str]]:
    """The prices that the newest answers did not know; and the alerts of those that they did."""
    newest: dict[tuple[str, str, str], tuple[int, int]] = {}
    for fact in facts:
        if fact.model is not None and fact.provider is not None:
            unpriced, priced = newest.get((fact.tenant, fact.model, fact.provider), (0, 0))
            newest[fact.tenant, fact.model, fact.provider] = max(unpriced, fact.unpriced), max(priced, fact.priced)
    conditions, known = [], []
    for (tenant, model, provider), (unpriced, priced) in newest.items():
        labels = {"model": model, "provider": provider}
        if unpriced > priced:
            summary = f"the price of {model} at {provider} is unknown: requests to it are not billed; set it with `emberlog prices set`"
            conditions.append(Condition(PRICE_UNKNOWN, tenant, labels, summary))
        else:
            known.append(alert_id(PRICE_UNKNOWN, tenant, labels))
    return conditions, known


class Failovers:
    """What was passed over lately. Kept in memory by the process that evaluates; the next one takes over what is open."""

    def __init__(self, known: Iterable[Alert], now: float) -> None:
        self._seen = {alert.alert: now for alert in known if alert.kind == FAILOVER}

    def conditions(self, facts: Iterable[Fact], now: float) -> list[Condition]:
        """Those of these events."""
        found = []
        for fact in facts:
            if fact.failover_model is None or fact.failover_endpoint is None:
                continue
            labels = {"model": fact.failover_model, "endpoint": fact.failover_endpoint}
            condition = Condition(
                FAILOVER,
                fact.tenant,
                labels,
                f"requests to {fact.failover_model} at {fact.failover_endpoint} are answered by another: {fact.failover_reason}",
            )
            self._seen[condition.alert] = now
            found.append(condition)
        return list({condition.alert: condition for condition in found}.values())

    def over(self, now: float) -> list[str]:
        """The alerts of those that were seen no more for a while; each is told once."""
        found = [name for name, at in self._seen.items() if now - at > QUIET_SECONDS]
        for name in found:
            del self._seen[name]
        return found
