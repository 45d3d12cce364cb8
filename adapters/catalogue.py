"""Reads the models that a release ships with: models, offerings and list prices, checked whole, each error naming its entry."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from domain.events import ModelSpec, OfferingSpec, PriceSet
from domain.model_catalog import CatalogModel
from domain.model_lifecycle import AVAILABLE
from domain.money import pico_per_unit

DATA = Path(__file__).with_name("shipped")
ORIGIN = "shipped"


class CatalogueError(ValueError):
    """The data file is wrong. The message names the file, the entry and what was expected."""


class Shipped(msgspec.Struct, frozen=True):
    """What a release comes with: its models, available from the start, and their list prices where these are known."""

    models: tuple[CatalogModel, ...]
    prices: tuple[PriceSet, ...]


class _ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    version: str
    dimensions: int
    max_tokens: int
    unit: bool
    rank: int
    source: str
    created: date | None = None
    name: str | None = None
    model_type: str = "text"
    tokenizer: str | None = None
    dimensions_allowed: list[int] = []
    dimensions_range: tuple[int, int] | None = None
    aliases: list[str] = []
    supports_binary: bool = False
    minimum_tier: str = "free"
    capabilities: list[str] = []
    owned_by: str = ""

    def title(self) -> str:
        return f"model {self.id!r}"

    def problem(self) -> str | None:
        """What is wrong with this entry by itself."""
        if not self.id or not self.version or "/" in self.id + self.version or "@" in self.id + self.version:
            return "id and version must be given, without '/' and '@': they are parts of a space's name"
        if min(self.dimensions, self.max_tokens, self.rank, *self.dimensions_allowed) < 1:
            return "dimensions, max_tokens and rank must be at least 1"
        if self.dimensions_range is not None:
            low, high = self.dimensions_range
            if not 1 <= low <= self.dimensions <= high:
                return f"dimensions_range must be [min, max] around the default of {self.dimensions}"
        return None if self.source.strip() else "source must say where the figures come from"

    def spec(self) -> ModelSpec:
        day = self.created
        created = 0 if day is None else int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        fields = {f: getattr(self, f) for f in ModelSpec.__struct_fields__ if f not in ("created", "type")}
        return ModelSpec(**fields, created=created)


class _OfferingEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: str
    provider: str
    provider_model: str
    max_inputs: int
    max_tokens_per_call: int
    source: str
    price_id: str | None = None
    price_source: str | None = None
    usd_per_million_tokens: str | None = None
    usd_per_million_characters: str | None = None
    takes_tokens: bool = False
    sends_dimensions: bool = False
    config: dict[str, str] = {}

    def title(self) -> str:
        return f"offering of {self.model!r} at {self.provider!r}"

    def problem(self, models: dict[str, ModelSpec]) -> str | None:
        """What is wrong with this entry, given the models."""
        spec = models.get(self.model)
        if spec is None:
            return f"there is no such model; models: {', '.join(sorted(models))}"
        if self.max_inputs < 1 or self.max_tokens_per_call < spec.max_tokens:
            return (
                f"max_inputs must be at least 1 and max_tokens_per_call at least one text of {spec.max_tokens} tokens"
            )
        if self.takes_tokens and spec.tokenizer is None:
            return "takes_tokens needs a model whose tokenizer is named"
        usd = (self.usd_per_million_tokens, self.usd_per_million_characters)
        if all(usd):
            return "its price is per token or per character, not both"
        if any(usd) != bool(self.price_id) or any(usd) != bool((self.price_source or "").strip()):
            return "a price, price_id and price_source go together; a price that nobody stated is left out, and unknown"
        return None if self.source.strip() else "source must say where the figures come from"

    def offering(self) -> OfferingSpec:
        return OfferingSpec(**{f: getattr(self, f) for f in OfferingSpec.__struct_fields__})

    def price(self) -> PriceSet | None:
        """Raises ValueError for a price that is no decimal."""
        usd = self.usd_per_million_tokens or self.usd_per_million_characters
        if usd is None or self.price_id is None:
            return None
        return PriceSet(
            price=self.price_id,
            model=self.model,
            provider=self.provider,
            effective_from=0,
            unit="token" if self.usd_per_million_tokens else "character",
            unit_pico_usd=pico_per_unit(usd),
            source=self.price_source,
        )


_Entry = TypeVar("_Entry")


def shipped(path: Path | None = None) -> Shipped:
    """What a data file says, or all those of a folder (`path`, default the folder shipped). Raises `CatalogueError`."""
    path = path or DATA
    files = sorted(path.glob("*.toml")) if path.is_dir() else [path]
    documents = [(file, _read(file)) for file in files]
    models: dict[str, ModelSpec] = {}
    names: dict[str, str] = {}
    for file, document in documents:
        for model_entry in _entries(file, document, "models", _ModelEntry):
            _refuse(file, model_entry.title(), model_entry.problem())
            for name in (model_entry.id, *model_entry.aliases):
                if name in names:
                    _refuse(file, model_entry.title(), f"the name {name!r} is taken by model {names[name]!r}")
                names[name] = model_entry.id
            models[model_entry.id] = model_entry.spec()
    offerings: dict[str, dict[str, OfferingSpec]] = {model: {} for model in models}
    prices: dict[str, tuple[str, PriceSet]] = {}
    for file, document in documents:
        for entry in _entries(file, document, "offerings", _OfferingEntry):
            _refuse(file, entry.title(), entry.problem(models))
            if entry.provider in offerings[entry.model]:
                _refuse(file, entry.title(), "there are two of it; keep one")
            offerings[entry.model][entry.provider] = entry.offering()
            try:
                price = entry.price()
            except ValueError as error:
                _refuse(file, entry.title(), str(error))
            if price is not None:
                if price.price in prices:
                    taken = prices[price.price][0]
                    _refuse(file, entry.title(), f"the price id {price.price!r} is taken by the {taken}")
                prices[price.price] = (entry.title(), price)
    return Shipped(
        tuple(_model(m, s, [*offerings[m].values()]) for m, s in models.items()),
        tuple(price for _, price in prices.values()),
    )


def _model(model: str, spec: ModelSpec, offerings: list[OfferingSpec]) -> CatalogModel:
    digest = sha256(msgspec.json.encode((spec, offerings))).hexdigest()
    return CatalogModel(model, spec, offerings, AVAILABLE, ORIGIN, digest)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CatalogueError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CatalogueError(f"{path}: not TOML in UTF-8: {error}") from error
    unknown = sorted(document.keys() - {"models", "offerings"})
    if unknown:
        raise CatalogueError(f"{path}: unknown section {unknown[0]!r}; expected [[models]] and [[offerings]]")
    return document


def _entries(path: Path, document: dict[str, Any], section: str, kind: type[_Entry]) -> Iterable[_Entry]:
    for index, raw in enumerate(document.get(section, [])):
        try:
            yield msgspec.convert(raw, kind)
        except msgspec.ValidationError as error:
            label = raw.get("id") or raw.get("model") or "no id" if isinstance(raw, dict) else "not a table"
            raise CatalogueError(f"{path}: {section}[{index}] ({label}): {error}") from error


def _refuse(path: Path, entry: str, problem: str | None) -> None:
    if problem is not None:
        raise CatalogueError(f"{path}: {entry}: {problem}")
