"""Every route of the management API."""

from __future__ import annotations

from gateway.http.api import model_metrics, rate_limits, settings, tenant_settings, threads
from gateway.http.api.route import ApiRoute

ROUTES: tuple[ApiRoute, ...] = (
    *model_metrics.ROUTES,
    *rate_limits.ROUTES,
    *settings.ROUTES,
    *tenant_settings.ROUTES,
    *threads.ROUTES,
)
