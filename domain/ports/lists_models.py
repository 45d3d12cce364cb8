"""What a provider may have besides `Provider`: a list of its models, asked for without a charge. Those without one are known by the shipped catalogue."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import msgspec


class ListedModel(msgspec.Struct, frozen=True):
    """A model as a provider's list has it, unchecked. `id` is the provider's own; None is what the list does not say.

    `embeds` is whether it embeds text, `created` is in seconds since the epoch, `aliases` are other ids of the same model, `deprecated` is
    whether the provider says that it goes away.
    """

    id: str
    embeds: bool | None = None
    created: int | None = None
    dimensions: int | None = None
    max_tokens: int | None = None
    aliases: tuple[str, ...] = ()
    deprecated: bool = False


class Listing(msgspec.Struct, frozen=True):
    """A provider's list. `garbled` counts the entries that could not be read."""

    models: list[ListedModel]
    garbled: int = 0


@runtime_checkable
class ListsModels(Protocol):
    """A provider that can be asked which models it has."""

    async def list_models(self, timeout: float) -> Listing | None:
        """The whole list, within `timeout` seconds; None where there is none after all. Raises `ProviderError` and nothing else (cancellation
        passes).
        """
        ...
