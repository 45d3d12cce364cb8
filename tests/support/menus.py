"""Catalogues and menus of made-up models, for tests of what is chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from domain.catalogue import Catalogue, Endpoint, Model, Offering
from domain.events import TenantConfigured, TenantModelConfigured
from domain.menu import Menu, compile_menu
from domain.money import Price
from domain.tenant_config import TenantConfig


def model(name: str, **fields: Any) -> Model:
    """A model of 8 dimensions and at most 100 tokens a text, unless said otherwise."""
    return Model(
        **{
            "id": name,
            "version": "1",
            "dimensions": 8,
            "max_tokens": 100,
            "tokenizer": None,
            "unit": True,
            "rank": 1,
            **fields,
        }
    )


def catalogue(
    models: Iterable[Model], prices: Mapping[str, int | None] | None = None, *, unserved: Iterable[str] = ()
) -> Catalogue:
    """One provider `p` offers every model, at 1000 pico-dollars a token or what `prices` says; its endpoint `e` serves all but `unserved`."""
    models = list(models)
    prices = prices or {}
    offerings = [Offering(m.id, "p", m.id, Price(f"price-{m.id}", prices.get(m.id, 1000)), 16, 1000) for m in models]
    served = {m.id: "" for m in models if m.id not in unserved}
    return Catalogue(models, offerings, [Endpoint("e", "p", served)])


def config(*models: TenantModelConfigured, **settings: Any) -> TenantConfig:
    """What a tenant has configured."""
    made = TenantConfig()
    made.settings = TenantConfigured(**settings)
    for configured in models:
        made.models[configured.model] = configured
        if configured.default:
            made.default = configured.model
    return made


def menu(*models: Model, prices: Mapping[str, int | None] | None = None, tenant: TenantConfig | None = None) -> Menu:
    """The menu of a tenant, one without configuration unless `tenant` says so."""
    return compile_menu(catalogue(models, prices), tenant or TenantConfig())
