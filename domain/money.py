"""Money as integers: unit prices in pico-dollars, amounts in nano-dollars. 1 USD = 10^9 nano-dollars = 10^12 pico-dollars."""

from __future__ import annotations

from typing import Literal

import msgspec

PICO_PER_NANO = 1000
NANO_PER_USD = 1_000_000_000

Unit = Literal["token", "character"]
"""What is counted: tokens, or characters (code points) of the texts."""


class Price(msgspec.Struct, frozen=True):
    """A unit price. `unit_pico_usd` None means unknown: never to be read as free."""

    id: str
    unit_pico_usd: int | None
    unit: Unit = "token"


def charge_nano_usd(units: int, unit_pico_usd: int | None) -> int | None:
    """What `units` tokens (or characters) cost, in nano-dollars rounded up once; None when the unit price is unknown."""
    if unit_pico_usd is None:
        return None
    return -(-units * unit_pico_usd // PICO_PER_NANO)


def pico_per_unit(usd_per_million: str) -> int:
    """The unit price in pico-dollars of a list price in USD per million units, given as a decimal string.

    USD 1 per million units is 10^6 pico-dollars a unit. Raises ValueError for a price finer than a pico-dollar.
    """
    whole, _, fraction = usd_per_million.partition(".")
    digits = whole + fraction
    if len(fraction) > 6 or len(whole) > 12 or not (digits.isascii() and digits.isdigit()):
        raise ValueError(
            f"price {usd_per_million[:40]!r}: expected a decimal of at most six places, in USD per million units"
        )
    return int(whole + fraction.ljust(6, "0"))


def usd_per_million(pico: int) -> str:
    """The decimal in USD per million units of a unit price in pico-dollars: the inverse of `pico_per_unit`."""
    whole, fraction = divmod(pico, 1_000_000)
    return f"{whole}.{fraction:06}".rstrip("0").rstrip(".")
