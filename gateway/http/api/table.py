"""Every route of the management API."""

from __future__ import annotations

from gateway.http.api import (
    agents,
    alerts,
    attestation,
    costs,
    credentials,
    embedding_catalog,
    endpoints,
    keys,
    model_metrics,
    models,
    period_usage,
    prices,
    provider_health,
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
    *attestation.ROUTES,
    *costs.ROUTES,
    *credentials.ROUTES,
    *embedding_catalog.ROUTES,
    *endpoints.ROUTES,
    *models.ROUTES,
    *keys.ROUTES,
    *model_metrics.ROUTES,
    *period_usage.ROUTES,
    *prices.ROUTES,
    *provider_health.ROUTES,
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
