"""Where lists of models come from: endpoints by provider, address and region, since one list is of one place."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from domain.catalogue import Endpoint


def source_of(endpoint: Endpoint) -> str:
    """The provider, with `@host` where the endpoint has an address of its own and `/region` where it has a region."""
    name = endpoint.provider
    if endpoint.base_url:
        parts = urlsplit(endpoint.base_url)
        try:
            port = "" if parts.port is None else f":{parts.port}"
        except ValueError:
            port = ""
        name += f"@{(parts.hostname or 'unknown')[:100]}{port}"
    region = endpoint.options.get("region")
    return name if region is None else f"{name}/{region[:64]}"


def by_source(endpoints: Iterable[Endpoint]) -> dict[str, list[Endpoint]]:
    """The installation's endpoints, those of tenants left out, by source in the order of their names."""
    found: dict[str, list[Endpoint]] = {}
    for endpoint in sorted(endpoints, key=lambda e: e.name):
        if endpoint.tenant is None:
            found.setdefault(source_of(endpoint), []).append(endpoint)
    return found


def serving(endpoints: Iterable[Endpoint]) -> dict[str, set[str]]:
    """The sources of the endpoints that each model has, those of tenants too."""
    found: dict[str, set[str]] = {}
    for endpoint in endpoints:
        for model in endpoint.models:
            found.setdefault(model, set()).add(source_of(endpoint))
    return found
