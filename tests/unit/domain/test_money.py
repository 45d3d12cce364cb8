"""Money is exact: integers, rounded up once."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.money import NANO_PER_USD, charge_nano_usd, pico_per_unit

UNITS = st.integers(0, 10**12)
PRICES = st.integers(0, 10**9)


@given(UNITS, PRICES)
def test_a_charge_is_the_exact_cost_rounded_up_to_the_next_nano_dollar(units: int, price: int) -> None:
    charge = charge_nano_usd(units, price)
    assert charge is not None
    assert 0 <= charge - Fraction(units * price, 1000) < 1


@given(st.lists(UNITS, min_size=1, max_size=20), PRICES)
def test_rounding_once_never_costs_more_than_rounding_each_part(parts: list[int], price: int) -> None:
    whole, pieces = charge_nano_usd(sum(parts), price), [charge_nano_usd(part, price) for part in parts]
    assert whole is not None
    assert 0 <= sum(piece for piece in pieces if piece is not None) - whole < len(parts)


@given(UNITS)
def test_an_unknown_price_gives_no_charge_and_a_free_one_gives_nothing(units: int) -> None:
    assert charge_nano_usd(units, None) is None
    assert charge_nano_usd(units, 0) == 0


@given(st.decimals(min_value=0, max_value=10**6, places=6))
def test_a_list_price_of_six_places_is_kept_to_the_pico_dollar(price: Decimal) -> None:
    pico = pico_per_unit(f"{price:f}")
    assert Fraction(pico, 10**12) == Fraction(price) / 10**6
    assert charge_nano_usd(1_000_000, pico) == Fraction(price) * NANO_PER_USD


@pytest.mark.parametrize("wrong", ["", ".", "-1", "+1", "1e3", "0.0000001", "1,5", "free", "1.2.3", " 1", "²", "0x1"])
def test_what_is_no_decimal_of_six_places_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"price|invalid"):
        pico_per_unit(wrong)
