"""Reads the catalogue's data file: models and offerings, checked whole, each error naming its entry."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from domain.catalogue import Catalogue, Endpoint, Model, Offering, Price
from domain.money import pico_per_unit

DATA = Path(__file__).with_name("catalogue.toml")


class CatalogueError(ValueError):
    """The data file is wrong. The message names the file, the entry and what was expected."""


class _ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    version: str
    dimensions: int
    max_tokens: int
    unit: bool
    rank: int
    source: str
    created: date
    tokenizer: str | None = None
    dimensions_allowed: tuple[int, ...] = ()
    dimensions_range: tuple[int, int] | None = None
    aliases: tuple[str, ...] = ()
    owned_by: str = ""

    def name(self) -> str:
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

    def model(self) -> Model:
        created = datetime(self.created.year, self.created.month, self.created.day, tzinfo=UTC)
        fields = {name: getattr(self, name) for name in Model.__struct_fields__ if name != "created"}
        return Model(**fields, created=int(created.timestamp()))


class _OfferingEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: str
    provider: str
    provider_model: str
    price_id: str
    max_inputs: int
    max_tokens_per_call: int
    source: str
    usd_per_million_tokens: str | None = None
    takes_tokens: bool = False
    sends_dimensions: bool = False

    def name(self) -> str:
        return f"offering of {self.model!r} at {self.provider!r}"

    def problem(self, models: dict[str, Model]) -> str | None:
        """What is wrong with this entry, given the models."""
        model = models.get(self.model)
        if model is None:
            return f"there is no such model; models: {', '.join(sorted(models))}"
        if not self.price_id:
            return "price_id must name the price, also where it is unknown"
        if self.max_inputs < 1 or self.max_tokens_per_call < model.max_tokens:
            return (
                f"max_inputs must be at least 1 and max_tokens_per_call at least one text of {model.max_tokens} tokens"
            )
        if self.takes_tokens and model.tokenizer is None:
            return "takes_tokens needs a model whose tokenizer is named"
        return None if self.source.strip() else "source must say where the figures come from"

    def offering(self) -> Offering:
        """Raises ValueError for a price that is no decimal."""
        usd = self.usd_per_million_tokens
        fields = {name: getattr(self, name) for name in Offering.__struct_fields__ if name != "price"}
        return Offering(**fields, price=Price(self.price_id, None if usd is None else pico_per_unit(usd)))


_Entry = TypeVar("_Entry")


def load(path: Path | None = None, endpoints: Iterable[Endpoint] = ()) -> Catalogue:
    """The catalogue of the data file (`path`, default the one shipped) with what these endpoints serve of it.

    Raises `CatalogueError` for the file, and ValueError for an endpoint that names what the catalogue lacks or is named twice.
    """
    path = path or DATA
    document = _read(path)
    models: dict[str, Model] = {}
    names: dict[str, str] = {}
    for model_entry in _entries(path, document, "models", _ModelEntry):
        _refuse(path, model_entry.name(), model_entry.problem())
        for name in (model_entry.id, *model_entry.aliases):
            if name in names:
                _refuse(path, model_entry.name(), f"the name {name!r} is taken by model {names[name]!r}")
            names[name] = model_entry.id
        models[model_entry.id] = model_entry.model()
    offerings: dict[tuple[str, str], Offering] = {}
    prices: dict[str, str] = {}
    for entry in _entries(path, document, "offerings", _OfferingEntry):
        _refuse(path, entry.name(), entry.problem(models))
        if (entry.model, entry.provider) in offerings:
            _refuse(path, entry.name(), "there are two of it; keep one")
        if entry.price_id in prices:
            _refuse(path, entry.name(), f"the price id {entry.price_id!r} is taken by the {prices[entry.price_id]}")
        prices[entry.price_id] = entry.name()
        try:
            offerings[entry.model, entry.provider] = entry.offering()
        except ValueError as error:
            _refuse(path, entry.name(), str(error))
    return Catalogue(models.values(), offerings.values(), _named_once(endpoints))


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


def _named_once(endpoints: Iterable[Endpoint]) -> Iterable[Endpoint]:
    seen: set[str] = set()
    for endpoint in endpoints:
        if endpoint.name in seen:
            raise ValueError(f"endpoint {endpoint.name!r}: two endpoints have this name; give each its own")
        seen.add(endpoint.name)
        yield endpoint
