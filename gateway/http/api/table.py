"""Every route of the management API."""

from __future__ import annotations

from gateway.http.api import (
    agents,
    alerts,
    costs,
    credentials,
    embedding_catalog,
    keys,
    model_metrics,
    models,
    period_usage,
    prices,
    quotas,
    rate_limits,
    selection,
    settings,
    tenant_models,
    tenant_settings,
    tenants,
    threads,
    webhooks,
)
from gateway.http.api.route import ApiRoute

ROUTES: tuple[ApiRoute, ...] = (
    *alerts.ROUTES,
    *agents.ROUTES,
    *costs.ROUTES,
    *credentials.ROUTES,
    *embedding_catalog.ROUTES,
    *models.ROUTES,
    *keys.ROUTES,
    *model_metrics.ROUTES,
    *period_usage.ROUTES,
    *prices.ROUTES,
    *quotas.ROUTES,
    *rate_limits.ROUTES,
    *selection.ROUTES,
    *settings.ROUTES,
    *tenant_models.ROUTES,
    *tenant_settings.ROUTES,
    *tenants.ROUTES,
    *threads.ROUTES,
    *webhooks.ROUTES,
)
