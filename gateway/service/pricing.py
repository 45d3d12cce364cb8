"""What a request costs: its prices are pinned when it is admitted, and whatever the book says later, it is billed by them.

The tenant is billed its own price or the list price, `pending.price`; what the provider charges us is reckoned at the list price. Prices are
per token, or per character (code point) of the texts as they are sent; an unknown price gives an unknown amount, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from domain.catalogue import Offering
from domain.errors import GatewayError
from domain.money import Price, charge_nano_usd
from domain.ports.provider import Text
from domain.prices import PriceBook
from gateway.service.pending import Pending

_MICROS = 1_000_000


def pin(pending: Pending, prices: PriceBook) -> None:
    """Fix its prices as of its arrival, and count what they are of. Raises `invalid_request` for tokens where characters are billed.

    To be called once its endpoint is chosen and its texts are as they will be sent.
    """
    offering, at = pending.candidate.offering, pending.at // _MICROS
    price, listed = prices.both(offering.model, offering.provider, pending.tenant, at)
    if price.unit == "character" or listed.unit == "character":
        if not isinstance(pending.texts[0], str):
            if price.unit == "character":
                raise GatewayError(
                    "invalid_request",
                    f"{offering.model!r} at {offering.provider} is billed by characters: send strings, not token arrays",
                    details={"field": "input"},
                )
            listed = Price(listed.id, None)
        else:
            pending.characters = [len(text) for text in pending.texts]
            pending.total_characters = sum(pending.characters)
    pending.price, pending.list_price = price, listed


def reserved_nano_usd(pending: Pending) -> int | None:
    """The most that it is billed: every text of it, none from the cache. None where the price is unknown."""
    return cost(pending.price, pending.total_tokens, pending.total_characters)


def cost(price: Price, tokens: int, characters: int) -> int | None:
    """So many tokens, or characters, at this price: rounded up once."""
    return charge_nano_usd(characters if price.unit == "character" else tokens, price.unit_pico_usd)


def list_cost(prices: PriceBook, offering: Offering, at: float, tokens: int, texts: Iterable[Text]) -> int | None:
    """What the provider charges us for these texts at the time `at` (seconds since the epoch). None where that is unknown."""
    price = prices.list_price(offering.model, offering.provider, at)
    if price.unit == "token":
        return charge_nano_usd(tokens, price.unit_pico_usd)
    sent: Sequence[Text] = list(texts)
    if not all(isinstance(text, str) for text in sent):
        return None
    return charge_nano_usd(sum(map(len, sent)), price.unit_pico_usd)
