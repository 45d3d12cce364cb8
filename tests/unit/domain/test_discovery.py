"""What lists of models decide: what is new, changed and gone, whatever a provider sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import discovery
from domain.decision import Decision
from domain.discovery import (
    APART_SECONDS,
    ASSUMED,
    absences,
    decide_entry,
    decide_gone,
    matching,
    read,
    to_deprecate,
)
from domain.errors import GatewayError
from domain.events import (
    DiscoveryRan,
    ModelRegistered,
    ModelSpec,
    ModelStateChanged,
    ModelUpdated,
    OfferingSpec,
)
from domain.model_decisions import decide_change
from domain.plane import ControlPlane
from domain.ports.lists_models import ListedModel, Listing
from tests.support.planes import fold, plane_of, registered

NOW = 1_800_000_000
NAMES = [f"embed-{n}" for n in range(6)]


def stocked(count: int = 6, **more: Any) -> ControlPlane:
    """Models `embed-0`... that the provider `p` offers, shipped and available."""
    return plane_of(*(registered(name, **more) for name in NAMES[:count]))


def listed(*names: str, **facts: Any) -> Listing:
    return Listing([ListedModel(name, embeds=True, **facts) for name in names])


def run(
    plane: ControlPlane,
    *listings: Listing,
    now: int = NOW,
    source: str = "p",
    serving: Mapping[str, set[str]] | None = None,
    state: str = "draft",
) -> DiscoveryRan:
    """What a run does with the lists of a source, folded: as `gateway.discovery.run` does it."""
    listing = read(listings)
    kinds: list[type] = []
    if listing.error is None:
        for entry in listing.entries:
            try:
                decisions = decide_entry(plane, "p", entry, state=state)
            except GatewayError:
                continue
            fold(plane, decisions)
            kinds += [type(d.data) for d in decisions]
        seen = absences(plane.discoveries.sources.get(source), plane, "p", listing.entries, now=now)
        deprecated = to_deprecate(plane, source, seen, serving or {})
        for model in deprecated:
            fold(plane, decide_gone(plane, model, source, now=now))
        error = seen.error
        kept: dict[str, Any] = (
            {}
            if error is not None
            else {"listed": sorted(seen.listed), "absent": seen.absent, "gone": sorted(seen.gone)}
        )
        ran = DiscoveryRan(
            source,
            "p",
            now * 1_000_000,
            found=len(listing.entries),
            added=kinds.count(ModelRegistered),
            changed=kinds.count(ModelUpdated),
            deprecated=len(deprecated),
            error=error,
            **kept,
        )
    else:
        ran = DiscoveryRan(source, "p", now * 1_000_000, error=listing.error)
    fold(plane, [Decision("_system", f"discovery/{source}", ran)])
    return ran


def states(plane: ControlPlane) -> dict[str, str]:
    return {model.id: model.state for model in plane.models.models.values()}


# -- what is new --------------------------------------------------------------------------------------------------------


def test_a_model_that_the_catalogue_lacks_is_a_draft_with_the_sizes_that_the_list_says() -> None:
    plane = stocked()
    ran = run(plane, listed(*NAMES, "embed-new", dimensions=16, max_tokens=50, created=7))
    model = plane.models.models["embed-new"]
    assert (ran.found, ran.added) == (7, 1)
    assert (model.state, model.origin, model.spec.dimensions, model.spec.max_tokens) == ("draft", "discovery", 16, 50)
    assert (model.spec.capabilities, model.spec.owned_by, model.spec.created) == ([], "p", 7)
    assert model.offerings == [OfferingSpec("p", "embed-new", 16, 1000)]


def test_sizes_that_a_list_does_not_say_are_those_of_the_most_like_model_and_marked_as_assumed() -> None:
    plane = plane_of(registered("old-embed", dimensions=4), registered("new-embed-1", dimensions=32, max_tokens=64))
    run(plane, listed("new-embed-2"))
    spec = plane.models.models["new-embed-2"].spec
    assert (spec.dimensions, spec.max_tokens, tuple(spec.capabilities)) == (32, 64, ASSUMED)
    run(plane, listed("new-embed-2", dimensions=48))
    spec = plane.models.models["new-embed-2"].spec
    assert (spec.dimensions, spec.capabilities) == (48, ["max-tokens-assumed"])


def test_a_model_of_which_nothing_is_known_is_left_out() -> None:
    with pytest.raises(GatewayError, match="the list does not say"):
        decide_entry(ControlPlane(), "p", ListedModel("embed-x", embeds=True, max_tokens=5))
    [decision] = decide_entry(ControlPlane(), "p", ListedModel("embed-x", embeds=True, dimensions=3, max_tokens=5))
    assert isinstance(decision.data, ModelRegistered)


def test_new_models_start_in_testing_where_the_setting_says_so_and_never_available() -> None:
    plane = stocked()
    run(plane, listed("embed-new"), state="testing")
    assert plane.models.models["embed-new"].state == "testing"
    for state in ("available", "nonsense"):
        run(plane, listed(f"embed-{state}"), state=state)
        assert plane.models.models[f"embed-{state}"].state == "draft"


def test_a_name_that_is_no_id_of_ours_is_an_alias_and_one_of_another_model_is_left_out() -> None:
    plane = stocked()
    run(plane, listed("BAAI/embed:large"))
    assert plane.models.models["BAAI-embed:large"].spec.aliases == ["BAAI/embed:large"]
    assert matching(plane, "p", ListedModel("BAAI/embed:large"))
    fold(
        plane,
        [Decision("_system", "model/m", ModelRegistered("m", ModelSpec("1", 8, 100, aliases=["embed-taken"]), []))],
    )
    with pytest.raises(GatewayError, match="name of another model"):
        decide_entry(plane, "p", ListedModel("embed-taken"))
    with pytest.raises(GatewayError, match="model_id"):
        decide_entry(plane, "p", ListedModel("discover", embeds=True))


def test_what_another_provider_lists_under_a_discovered_models_name_is_one_more_offering_of_it() -> None:
    plane = stocked()
    run(plane, listed("embed-new"))
    fold(plane, decide_entry(plane, "q", ListedModel("embed-new")))
    assert [o.provider for o in plane.models.models["embed-new"].offerings] == ["p", "q"]
    assert decide_entry(plane, "q", ListedModel("embed-new")) == []
    with pytest.raises(GatewayError, match="name of another model"):
        decide_entry(plane, "q", ListedModel("embed-0"))


def test_a_list_without_end_adds_so_many_models_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "MAX_DISCOVERED", 3)
    plane = stocked()
    names = [f"embed-x{n}" for n in range(9)]
    assert run(plane, listed(*names)).added == 3
    assert run(plane, listed(*names)).added == 0


def test_what_embeds_is_told_by_the_list_or_else_by_the_name() -> None:
    models = [
        ListedModel("text-embedding-9"),
        ListedModel("gpt-4o"),
        ListedModel("chat-embedder", embeds=False),
        ListedModel("e5-large", embeds=True),
    ]
    assert [entry.id for entry in read([Listing(models)]).entries] == ["text-embedding-9", "e5-large"]


# -- what changed -------------------------------------------------------------------------------------------------------


def test_what_operators_and_releases_say_of_a_model_is_not_changed() -> None:
    plane = plane_of(registered("embed-0"), msgspec.structs.replace(registered("embed-1"), origin="shipped"))
    assert run(plane, listed("embed-0", "embed-1", dimensions=99, max_tokens=99)).changed == 0
    run(plane, listed("embed-2"))
    fold(plane, decide_change(plane, "embed-2", {"rank": 5}, now=NOW, actor="key:k"))
    assert run(plane, listed("embed-2", dimensions=99)).changed == 0


def test_a_discovered_models_sizes_follow_the_list_until_tenants_have_vectors_of_it() -> None:
    plane = stocked()
    run(plane, listed("embed-new"))
    assert run(plane, listed("embed-new", dimensions=9, max_tokens=2000)).changed == 1
    model = plane.models.models["embed-new"]
    assert (model.spec.dimensions, model.offerings[0].max_tokens_per_call) == (9, 2000)
    fold(plane, [Decision("_system", "model/embed-new", ModelStateChanged("embed-new", "available", "draft"))])
    run(plane, listed("embed-new", dimensions=10, max_tokens=30))
    spec = plane.models.models["embed-new"].spec
    assert (spec.dimensions, spec.max_tokens) == (9, 30)


def test_the_time_of_a_list_changes_nothing() -> None:
    plane = stocked()
    run(plane, listed("embed-new", created=5))
    assert run(plane, listed("embed-new", created=6)).changed == 0


# -- what is gone -------------------------------------------------------------------------------------------------------


def test_a_model_is_deprecated_when_two_lists_in_a_row_lack_it() -> None:
    plane = stocked()
    run(plane, listed(*NAMES))
    assert run(plane, listed(*NAMES[1:]), now=NOW + 86400).deprecated == 0
    assert run(plane, listed(*NAMES), now=NOW + 2 * 86400).absent == {}
    assert run(plane, listed(*NAMES[1:]), now=NOW + 3 * 86400).deprecated == 0, "it was there in between"
    ran = run(plane, listed(*NAMES[1:]), now=NOW + 4 * 86400)
    assert ran.deprecated == 1
    model = plane.models.models["embed-0"]
    assert (model.state, model.reason) == ("deprecated", "two lists of p in a row lacked it")
    assert model.removed_at == NOW + 4 * 86400 + 90 * 86400
    assert run(plane, listed(*NAMES[1:]), now=NOW + 5 * 86400).deprecated == 0


def test_what_a_list_marks_as_deprecated_is_as_good_as_absent() -> None:
    plane = stocked()
    going = Listing([*listed(*NAMES[1:]).models, ListedModel("embed-0", embeds=True, deprecated=True)])
    run(plane, listed(*NAMES))
    run(plane, going, now=NOW + 86400)
    assert run(plane, going, now=NOW + 2 * 86400).deprecated == 1
    assert decide_entry(plane, "p", ListedModel("embed-9", deprecated=True)) == [], "nor is it registered"


def test_two_lists_read_one_right_after_the_other_count_as_one() -> None:
    plane = stocked()
    run(plane, listed(*NAMES))
    run(plane, listed(*NAMES[1:]), now=NOW + 10)
    assert run(plane, listed(*NAMES[1:]), now=NOW + 10 + APART_SECONDS - 1).deprecated == 0
    assert run(plane, listed(*NAMES[1:]), now=NOW + 10 + APART_SECONDS).deprecated == 1


def test_a_run_that_fails_in_between_neither_confirms_nor_forgets() -> None:
    plane = stocked()
    run(plane, listed(*NAMES))
    run(plane, listed(*NAMES[1:]), now=NOW + 86400)
    failed = run(plane, Listing([], garbled=5), now=NOW + 2 * 86400)
    assert failed.error is not None
    assert states(plane)["embed-0"] == "available"
    assert run(plane, listed(*NAMES[1:]), now=NOW + 3 * 86400).deprecated == 1


@pytest.mark.parametrize(
    "list_",
    [Listing([]), Listing([], garbled=6), listed("gpt-4o"), listed(*NAMES[:2]), listed("embed-other")],
)
def test_a_list_that_lacks_most_of_what_it_held_deprecates_nothing_however_often_it_comes(list_: Listing) -> None:
    plane = stocked()
    run(plane, listed(*NAMES))
    for day in range(1, 6):
        ran = run(plane, list_, now=NOW + day * 86400)
        assert (ran.deprecated, ran.error is not None) == (0, True)
    assert {states(plane)[name] for name in NAMES} == {"available"}
    assert plane.discoveries.sources["p"].listed == frozenset(NAMES)


def test_without_that_bound_an_empty_list_would_deprecate_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_believable", lambda *_: True)
    plane = stocked()
    run(plane, listed(*NAMES))
    run(plane, Listing([]), now=NOW + 86400)
    assert run(plane, Listing([]), now=NOW + 2 * 86400).deprecated == len(NAMES)


def test_of_two_models_one_may_go_and_not_both() -> None:
    plane = stocked(2)
    run(plane, listed("embed-0", "embed-1"))
    run(plane, listed("embed-1"), now=NOW + 86400)
    assert run(plane, listed("embed-1"), now=NOW + 2 * 86400).deprecated == 1
    assert run(plane, Listing([]), now=NOW + 3 * 86400).error is not None


def test_a_model_that_no_list_ever_held_is_not_gone() -> None:
    plane = stocked()
    for day in range(5):
        assert run(plane, listed("embed-0"), now=NOW + day * 86400).deprecated == 0


def test_a_model_that_is_served_or_listed_elsewhere_is_deprecated_when_it_is_gone_there_too() -> None:
    plane = stocked()
    everywhere = {"embed-0": {"p", "azure"}}
    for source in ("p", "p@other"):
        run(plane, listed(*NAMES), source=source)
    for day in range(1, 4):
        run(plane, listed(*NAMES[1:]), now=NOW + day * 86400)
    assert states(plane)["embed-0"] == "available", "the other address lists it"
    for day in range(4, 6):
        run(plane, listed(*NAMES[1:]), now=NOW + day * 86400, source="p@other", serving=everywhere)
    assert states(plane)["embed-0"] == "available", "Azure has no list, and serves it"
    assert run(plane, listed(*NAMES[1:]), now=NOW + 6 * 86400).deprecated == 1


def test_drafts_that_vanish_are_left_to_operators() -> None:
    plane = stocked(state="draft")
    run(plane, listed(*NAMES))
    for day in range(1, 4):
        assert run(plane, listed(*NAMES[1:]), now=NOW + day * 86400).deprecated == 0


# -- whatever is sent ---------------------------------------------------------------------------------------------------

_ids = st.sampled_from([*NAMES, "embed-new", "maker/embed", "embed new", "gpt-4o", "", "\x00embed", "embed" * 80])
_sizes = st.none() | st.integers(-5, 5) | st.sampled_from([8, 100, 10**6, 10**12, 2**70])
_models = st.builds(
    ListedModel,
    _ids,
    embeds=st.none() | st.booleans(),
    created=_sizes,
    dimensions=_sizes,
    max_tokens=_sizes,
    aliases=st.lists(_ids, max_size=3).map(tuple),
    deprecated=st.booleans(),
)
_listings = st.lists(st.builds(Listing, st.lists(_models, max_size=8), st.integers(0, 5)), min_size=1, max_size=2)


@given(_listings)
def test_the_same_list_twice_changes_nothing_the_second_time(listings: Sequence[Listing]) -> None:
    plane = stocked()
    run(plane, *listings)
    before = dict(plane.models.models)
    again = run(plane, *listings, now=NOW + 1)
    assert (again.added, again.changed, again.deprecated) == (0, 0, 0)
    assert plane.models.models == before


@given(st.lists(_listings, max_size=4))
def test_no_lists_change_what_they_did_not_add_nor_make_anything_available(lists: Sequence[Sequence[Listing]]) -> None:
    plane = stocked()
    facts = {name: plane.models.models[name] for name in NAMES}
    run(plane, listed(*NAMES))
    for day, listings in enumerate(lists, 1):
        run(plane, *listings, now=NOW + day * 86400)
    for name, model in plane.models.models.items():
        if name in facts:
            assert (model.spec, model.offerings) == (facts[name].spec, facts[name].offerings)
            assert model.state in ("available", "deprecated")
        else:
            assert (model.state, model.origin) == ("draft", "discovery")


@given(st.lists(_listings, max_size=4))
def test_only_what_two_accepted_lists_in_a_row_lacked_is_deprecated(lists: Sequence[Sequence[Listing]]) -> None:
    plane = stocked()
    run(plane, listed(*NAMES))
    lacking: list[set[str]] = [set()]
    for day, listings in enumerate(lists, 1):
        before = states(plane)
        ran = run(plane, *listings, now=NOW + day * 86400)
        if ran.error is None:
            lacking.append(set(NAMES) - set(ran.listed))
        newly = {name for name in NAMES if states(plane)[name] != before[name]}
        assert newly <= (lacking[-1] & lacking[-2] if len(lacking) > 1 and ran.error is None else set())


def test_what_is_known_by_an_alias_is_there_and_changes_nothing() -> None:
    plane = stocked()
    run(plane, listed("embed-new", dimensions=9))
    other = ListedModel("embed-new-2", embeds=True, aliases=("embed-new",), dimensions=99)
    ran = run(plane, Listing([other]))
    assert (ran.added, ran.changed, ran.listed) == (0, 0, ["embed-new"])


@given(_listings)
def test_an_entry_that_is_there_twice_counts_once(listings: Sequence[Listing]) -> None:
    ids = [entry.id for entry in read(listings).entries]
    assert len(ids) == len(set(ids))
    assert read([*listings, *listings]).entries == read(listings).entries
