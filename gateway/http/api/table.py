"""Every route of the management API."""

from __future__ import annotations

from gateway.http.api import settings, tenant_settings, threads
from gateway.http.api.route import ApiRoute

ROUTES: tuple[ApiRoute, ...] = (
    *settings.ROUTES,
    *tenant_settings.ROUTES,
    *threads.ROUTES,
)
