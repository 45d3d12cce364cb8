"""The price book: whose price holds when, and what may not be put into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import GatewayError
from domain.events import ModelRegistered, ModelSpec, OfferingSpec, PriceSet, TenantCreated, TenantShredded
from domain.money import Price, pico_per_unit, usd_per_million
from domain.plane import ControlPlane
from domain.price_decisions import MAX_UNIT_PICO_USD, decide_price, decide_price_end, entries_of
from domain.prices import UNKNOWN, Entry, PriceBook

NOW = 1_800_000_000
"""2027-01-15T08:00:00Z."""
LATER = "2027-02-01T00:00:00Z"
AT_LATER = 1_801_440_000


def priced(
    name: str, begin: int, pico: int | None = 5, *, until: int | None = None, tenant: str | None = None
) -> PriceSet:
    return PriceSet(
        price=name, model="m", provider="p", effective_from=begin, unit_pico_usd=pico, effective_until=until, for_tenant=tenant
    )  # fmt: skip


def book_of(*prices: PriceSet) -> PriceBook:
    book = PriceBook()
    for data in prices:
        book.apply(data)
    return book


def holding(book: PriceBook, *times: int, tenant: str = "acme") -> list[str]:
    return [book.price("m", "p", tenant, at).id for at in times]


# -- which price holds --------------------------------------------------------------------------------------------------


def test_a_price_without_an_end_holds_until_the_next_such_one() -> None:
    book = book_of(priced("a", 10), priced("b", 20))
    assert holding(book, 9, 10, 19, 20, 10**12) == ["unknown", "a", "a", "b", "b"]


def test_a_price_with_an_end_holds_instead_and_what_was_there_holds_again_behind_it() -> None:
    book = book_of(priced("base", 10), priced("offer", 20, until=30), priced("next", 25))
    assert holding(book, 19, 20, 29, 30) == ["base", "offer", "offer", "next"]


def test_a_tenant_is_charged_its_own_price_where_one_holds_and_else_the_list_price() -> None:
    book = book_of(priced("list", 0, 7), priced("acme", 10, 3, until=20, tenant="acme"))
    assert holding(book, 9, 10, 20) == ["list", "acme", "list"]
    assert holding(book, 10, tenant="other") == ["list"]
    assert book.list_price("m", "p", 10) == Price("list", 7)
    assert book.price("m", "elsewhere", "acme", 10) is UNKNOWN


def test_an_unknown_price_of_a_tenant_is_unknown_and_not_the_list_price_nor_0() -> None:
    book = book_of(priced("list", 0, 7), priced("acme", 10, None, tenant="acme"))
    assert book.price("m", "p", "acme", 10) == Price("acme", None)


def test_a_price_that_was_ended_leaves_no_older_one_behind_it() -> None:
    book = book_of(priced("a", 10), priced("b", 20), priced("b", 20, until=30))
    assert holding(book, 15, 25, 30) == ["a", "b", "unknown"]


def test_a_price_ended_before_it_began_never_was() -> None:
    book = book_of(priced("a", 10), priced("b", 20), priced("b", 20, until=20))
    assert holding(book, 20, 30) == ["a", "a"]


def test_of_an_id_in_the_book_only_the_end_can_change() -> None:
    book = book_of(priced("a", 10, 5), priced("a", 0, 9, until=40))
    assert book.price("m", "p", "acme", 20) == Price("a", 5)
    assert holding(book, 5, 40) == ["unknown", "unknown"]


def test_a_unit_that_this_build_does_not_know_is_no_price() -> None:
    book = PriceBook()
    book.apply(PriceSet(price="a", model="m", provider="p", effective_from=0, unit="page", unit_pico_usd=5))
    assert book.price("m", "p", "acme", 1) == Price("a", None)


_TIMES = st.integers(0, 12)
_SETS = st.lists(
    st.tuples(_TIMES, st.none() | st.integers(1, 6), st.sampled_from([None, None, "acme"]), st.none() | _TIMES),
    max_size=8,
)


def admitted(drawn: Sequence[tuple[int, int | None, str | None, int | None]]) -> list[PriceSet]:
    """The prices that the rules let in, and their ends, in an order that a log could have."""
    kept: list[PriceSet] = []
    events: list[PriceSet] = []
    for number, (begin, length, tenant, ended) in enumerate(drawn):
        until = None if length is None else begin + length
        same = [p for p in kept if p.for_tenant == tenant]
        if any(p.effective_from == begin for p in same):
            continue
        if until is not None and any(
            p.effective_until is not None and p.effective_from < until and begin < p.effective_until for p in same
        ):
            continue
        data = priced(f"p{number}", begin, until=until, tenant=tenant)
        kept.append(data)
        events.append(data)
        if ended is not None and begin <= ended < (until or 99):
            events.append(priced(f"p{number}", begin, until=ended, tenant=tenant))
    return events


def plainly(events: Sequence[PriceSet], tenant: str | None, at: int) -> str | None:
    """What holds, told from the events without a book: a span of its own first, else the latest without an end that has begun."""
    first: dict[str, PriceSet] = {}
    ends: dict[str, int | None] = {}
    for data in events:
        first.setdefault(data.price, data)
        ends[data.price] = data.effective_until
    mine = [
        d
        for d in first.values()
        if d.for_tenant == tenant and d.effective_from <= at and ends[d.price] != d.effective_from
    ]
    for data in mine:
        end = ends[data.price]
        if data.effective_until is not None and end is not None and at < end:
            return data.price
    bases = [d for d in mine if d.effective_until is None]
    if not bases:
        return None
    last = max(bases, key=lambda d: d.effective_from)
    end = ends[last.price]
    return last.price if end is None or at < end else None


@given(_SETS, st.lists(st.integers(0, 20), min_size=1, max_size=12))
def test_whatever_is_in_the_book_the_price_is_that_of_the_plain_rules(
    drawn: list[tuple[int, int | None, str | None, int | None]], times: list[int]
) -> None:
    events = admitted(drawn)
    book = book_of(*events)
    for at in times:  # in any order: what is remembered of the time before must not show
        assert book.price("m", "p", "acme", at).id == (
            plainly(events, "acme", at) or plainly(events, None, at) or "unknown"
        )


def test_a_book_that_brings_an_older_price_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the comparison with the plain rules."""
    events = [priced("a", 1), priced("b", 3), priced("b", 3, until=6)]
    assert plainly(events, None, 8) is None
    assert book_of(*events).list_price("m", "p", 8) is UNKNOWN
    monkeypatch.setattr(Entry, "base", property(lambda entry: False))
    assert book_of(*events).list_price("m", "p", 8).id == "a" != plainly(events, None, 8)


def test_what_is_remembered_is_forgotten_when_the_book_changes() -> None:
    book = book_of(priced("a", 10))
    assert holding(book, 15) == ["a"]
    book.apply(priced("b", 12))
    assert holding(book, 15) == ["b"]


def test_the_version_grows_when_a_price_begins_or_ends_and_not_between() -> None:
    book = book_of(priced("a", 10), priced("b", 20, until=30, tenant="acme"))
    seen = [book.version_at(at) for at in (0, 9, 10, 19.5, 20, 29, 30, 10**9)]
    assert [b > a for a, b in pairwise(seen)] == [False, True, False, True, False, True, False]
    book.apply(priced("c", 25))
    assert book.version_at(10**9) > seen[-1]


# -- setting prices -----------------------------------------------------------------------------------------------------


@pytest.fixture
def plane() -> ControlPlane:
    plane = ControlPlane()
    offering = OfferingSpec(provider="p", provider_model="m", max_inputs=1, max_tokens_per_call=10)
    spec = ModelSpec(version="1", dimensions=2, max_tokens=10)
    for tenant in ("acme", "gone"):
        plane.directory.apply(1, tenant, TenantCreated(tenant=tenant))
    plane.directory.apply(2, "gone", TenantShredded(tenant="gone"))
    plane.models.apply(ModelRegistered(model="m", spec=spec, offerings=[offering], state="available"))
    return plane


def want(**fields: Any) -> dict[str, Any]:
    return {"id": "new", "model": "m", "provider": "p", "unit_pico_usd": 20_000} | fields


def put(plane: ControlPlane, now: float = NOW, **fields: Any) -> list[PriceSet]:
    """Decide and fold; what was decided."""
    made = [d.data for d in decide_price(plane, want(**fields), now=now, actor="key:k")]
    for data in made:
        plane.prices.apply(data)
    assert all(isinstance(d, PriceSet) for d in made)
    return [d for d in made if isinstance(d, PriceSet)]


def refusal(work: Callable[[], object]) -> tuple[str, list[str]]:
    """The code, and the fields at fault."""
    with pytest.raises(GatewayError) as caught:
        work()
    details = caught.value.details or {}
    return caught.value.code, [f["field"] for f in details.get("fields", [{"field": details.get("field")}])]


def test_a_price_begins_when_it_is_set_unless_it_says_when(plane: ControlPlane) -> None:
    [data] = put(plane, unit="character", for_tenant="acme", source="the contract")
    assert data == PriceSet(
        price="new", model="m", provider="p", effective_from=NOW, unit="character", unit_pico_usd=20_000,
        for_tenant="acme", source="the contract", actor="key:k",
    )  # fmt: skip
    [data] = put(plane, id="later", effective_from=LATER)
    assert data.effective_from == AT_LATER


def test_usd_a_million_are_kept_as_integers(plane: ControlPlane) -> None:
    wanted = want(usd_per_million="0.025")
    del wanted["unit_pico_usd"]
    [decision] = decide_price(plane, wanted, now=NOW, actor="key:k")
    assert isinstance(decision.data, PriceSet)
    assert decision.data.unit_pico_usd == 25_000


def test_of_prices_set_in_the_same_second_the_last_holds_from_the_next_on(plane: ControlPlane) -> None:
    for name in ("a", "b", "c"):
        put(plane, id=name)
    assert holding(plane.prices, NOW, NOW + 1, NOW + 2, NOW + 9) == ["a", "b", "c", "c"]


@given(st.integers(0, MAX_UNIT_PICO_USD))
def test_a_price_in_usd_a_million_reads_back_as_itself(pico: int) -> None:
    assert pico_per_unit(usd_per_million(pico)) == pico


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"unit_pico_usd": -1}, ["unit_pico_usd"]),
        ({"unit_pico_usd": MAX_UNIT_PICO_USD + 1}, ["unit_pico_usd"]),
        ({"unit_pico_usd": 2**63}, ["unit_pico_usd"]),
        ({"usd_per_million": "1"}, ["unit_pico_usd"]),
        ({"unit": "tokens"}, ["unit"]),
        ({"unit": "page", "unit_pico_usd": -5, "effective_from": "soon"}, ["unit_pico_usd", "effective_from", "unit"]),
        ({"id": ""}, ["id"]),
        ({"id": "a b"}, ["id"]),
        ({"id": "x" * 129}, ["id"]),
        ({"source": "x" * 501}, ["source"]),
        ({"effective_from": "2027-01-15T07:58:59Z"}, ["effective_from"]),
        ({"effective_from": "2027-02-30"}, ["effective_from"]),
        ({"effective_from": "2027-02-01T00:00:00.5Z"}, ["effective_from"]),
        ({"effective_until": "10000-01-01"}, ["effective_until"]),
        ({"effective_until": "9999-01-01"}, ["effective_until"]),
        ({"effective_until": "2027-01-15T08:00:00Z"}, ["effective_until"]),
        ({"effective_from": LATER, "effective_until": LATER}, ["effective_until"]),
        ({"provider": "q"}, ["provider"]),
    ],
)
def test_a_price_that_cannot_be_is_refused_with_its_fields_named(
    plane: ControlPlane, fields: dict[str, Any], at_fault: list[str]
) -> None:
    assert refusal(lambda: put(plane, **fields)) == ("invalid_config", at_fault)
    assert list(plane.prices) == []


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-0.1", "1e3", "0.0000001", "1,5", "", "1001", "9" * 5000, "٣"])
def test_an_amount_that_is_no_price_is_refused(plane: ControlPlane, text: str) -> None:
    wanted = want(usd_per_million=text)
    del wanted["unit_pico_usd"]
    assert refusal(lambda: decide_price(plane, wanted, now=NOW, actor="a")) == ("invalid_config", ["usd_per_million"])


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"model": "nowhere"}, "model_not_found", "model"),
        ({"for_tenant": "nobody"}, "not_found", "for_tenant"),
        ({"for_tenant": "gone"}, "not_found", "for_tenant"),
    ],
)
def test_a_price_of_what_does_not_exist_is_refused(
    plane: ControlPlane, fields: dict[str, Any], code: str, field: str
) -> None:
    assert refusal(lambda: put(plane, **fields)) == (code, [field])


def test_prices_with_an_end_must_not_overlap_nor_any_two_begin_at_once(plane: ControlPlane) -> None:
    put(plane, id="base")
    put(plane, id="offer", effective_from="2027-03-01", effective_until="2027-04-01")
    for begin, end, field in [
        ("2027-02-15", "2027-03-02", "effective_until"),
        ("2027-03-15", "2027-05-01", "effective_from"),
        ("2027-03-10", "2027-03-11", "effective_from"),
        ("2027-02-15", "2027-05-01", "effective_until"),
        ("2027-03-01", None, "effective_from"),
    ]:
        at_fault = refusal(lambda b=begin, e=end: put(plane, id="x", effective_from=b, effective_until=e))  # type: ignore[misc]
        assert at_fault == ("invalid_config", [field])
    put(plane, id="before", effective_from="2027-02-15", effective_until="2027-03-01")
    put(plane, id="behind", effective_from="2027-04-01", effective_until="2027-04-02")
    put(plane, id="raised", effective_from="2027-03-15")
    put(plane, id="acme", effective_from="2027-03-01", for_tenant="acme")
    assert holding(plane.prices, NOW, 1_804_500_000, tenant="other") == ["base", "offer"]


def test_the_same_price_again_changes_nothing_and_another_under_its_id_is_refused(plane: ControlPlane) -> None:
    put(plane, effective_until=LATER)
    assert put(plane, now=NOW + 9, effective_until=LATER) == []
    for fields in ({"unit_pico_usd": 1}, {"unit_pico_usd": None}, {"unit": "character"}, {}, {"effective_from": LATER}):
        assert refusal(lambda f=fields: put(plane, now=NOW + 9, **f)) == ("version_conflict", ["id"])  # type: ignore[misc]


# -- ending them --------------------------------------------------------------------------------------------------------


def stop(plane: ControlPlane, price: str, at: str | None = None, now: float = NOW) -> list[PriceSet]:
    made = [d.data for d in decide_price_end(plane, price, at, now=now, actor="key:k") if isinstance(d.data, PriceSet)]
    for data in made:
        plane.prices.apply(data)
    return made


def test_a_tenant_whose_price_ends_is_charged_the_list_price_from_then_on(plane: ControlPlane) -> None:
    put(plane, id="list")
    put(plane, id="own", unit_pico_usd=1, for_tenant="acme")
    [ended] = stop(plane, "own", LATER)
    assert (ended.unit_pico_usd, ended.effective_until) == (1, AT_LATER)
    assert holding(plane.prices, AT_LATER - 1, AT_LATER) == ["own", "list"]
    assert stop(plane, "own", now=AT_LATER + 5) == [], "it has ended by then"


def test_a_price_that_has_not_begun_can_be_taken_back_and_its_place_taken(plane: ControlPlane) -> None:
    put(plane, id="wrong", effective_from=LATER, effective_until="2027-03-01")
    stop(plane, "wrong")
    put(plane, id="right", effective_from=LATER, effective_until="2027-03-01")
    assert holding(plane.prices, NOW, AT_LATER) == ["unknown", "right"]
    assert put(plane, id="wrong", effective_from=LATER, effective_until="2027-03-01") == [], "it was set, and is known"


def test_a_price_cannot_be_ended_in_the_past_nor_longer_than_it_lasts(plane: ControlPlane) -> None:
    put(plane, effective_until=LATER)
    assert refusal(lambda: stop(plane, "new", "2027-01-01")) == ("invalid_config", ["effective_until"])
    assert refusal(lambda: stop(plane, "new", "2027-02-02")) == ("invalid_config", ["effective_until"])
    assert refusal(lambda: stop(plane, "new", "whenever")) == ("invalid_config", ["effective_until"])
    assert refusal(lambda: stop(plane, "nothing"))[0] == "not_found"


def test_a_tenant_sees_list_prices_and_its_own(plane: ControlPlane) -> None:
    plane.directory.apply(3, "other", TenantCreated(tenant="other"))
    for name, tenant in (("list", None), ("acme", "acme"), ("other", "other")):
        put(plane, id=name, for_tenant=tenant)
    assert [[e.set.price for e in entries_of(plane, t)] for t in ("acme", "other", None)] == [
        ["list", "acme"],
        ["list", "other"],
        ["list", "acme", "other"],
    ]
