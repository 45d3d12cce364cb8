"""Lists of models as JSON has them: each entry by itself, so that one that is garbled costs no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from adapters.providers.answers import bad
from adapters.providers.sizes import UNREADABLE
from domain.ports.lists_models import ListedModel, Listing
from domain.ports.provider import ProviderError, ProviderFault

MAX_PAGES = 20
"""A list that goes on beyond that has no end."""

Entry = Mapping[str, Any]
ReadEntry = Callable[[Entry], ListedModel]


def page(content: bytes, under: str, read: ReadEntry) -> tuple[Listing, Entry]:
    """The entries that an object holds `under` a name, or that are the whole body, and the object. Raises `ProviderError`."""
    try:
        told = msgspec.json.decode(content)
    except UNREADABLE:
        raise bad("the body is not a list of models") from None
    whole: Entry = told if isinstance(told, dict) else {under: told}
    entries = whole.get(under)
    if not isinstance(entries, list):
        raise bad(f"the body is not a list of models: it has no list {under!r}")
    return listing(entries, read), whole


def listing(entries: list[Any], read: ReadEntry) -> Listing:
    """Entries, read one by one; `read` may raise KeyError, TypeError and ValueError."""
    models, garbled = [], 0
    for entry in entries:
        try:
            models.append(read(entry))
        except (AttributeError, KeyError, TypeError, ValueError):
            garbled += 1
    return Listing(models, garbled)


def joined(pages: list[Listing]) -> Listing:
    """Pages as one list."""
    return Listing([model for one in pages for model in one.models], sum(one.garbled for one in pages))


@asynccontextmanager
async def within(timeout: float) -> AsyncIterator[None]:
    """A deadline for several pages together."""
    late = False
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError:
        late = True
    if late:
        raise ProviderError(ProviderFault.TIMEOUT, f"no whole list within {timeout:g} s")


def text(entry: Entry, name: str) -> str:
    """A text that must be there."""
    value = entry[name]
    if not isinstance(value, str) or not value:
        raise TypeError(name)
    return value


def integer(entry: Entry, name: str) -> int | None:
    """A number where there is one."""
    value = entry.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def texts(entry: Entry, name: str) -> list[str]:
    """The texts of a list, where there is one."""
    value = entry.get(name)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
