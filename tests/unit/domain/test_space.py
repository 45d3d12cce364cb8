"""A space's name says what may be compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.space import INPUT_TYPES, size_and_type, space_name

NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="-._"), min_size=1, max_size=12)
SPACES = st.tuples(NAMES, NAMES, st.integers(1, 4096), st.booleans(), st.sampled_from([None, *INPUT_TYPES]))


def test_queries_documents_and_untyped_texts_share_a_space() -> None:
    names = {space_name("m", "1", 384, True, kind) for kind in (None, "query", "document")}
    assert names == {"m@1/384/unit"}


def test_classification_and_clustering_have_spaces_of_their_own() -> None:
    assert space_name("m", "1", 384, False, "classification") == "m@1/384/raw/classification"
    assert space_name("m", "1", 384, False, "clustering") == "m@1/384/raw/clustering"


@given(SPACES, SPACES)
def test_two_spaces_have_one_name_only_when_their_vectors_may_be_compared(
    left: tuple[str, str, int, bool, str | None], right: tuple[str, str, int, bool, str | None]
) -> None:
    own = ("classification", "clustering")
    same = left[:4] == right[:4] and (left[4] == right[4] or (left[4] not in own and right[4] not in own))
    assert (space_name(*left) == space_name(*right)) == same


@given(SPACES)
def test_a_name_gives_back_the_size_and_the_input_type_that_it_was_made_of(
    space: tuple[str, str, int, bool, str | None],
) -> None:
    model, version, size, unit, kind = space
    name = space_name(f"maker@home/{model}", version, size, unit, kind)
    found = size_and_type(name)
    assert found == (size, kind if kind in ("classification", "clustering") else None)
    assert space_name(f"maker@home/{model}", version, found[0], unit, found[1]) == name


@pytest.mark.parametrize("name", ["", "m", "m@1", "m@1/8", "m@1/x/unit", "m@1/8/unit/query", "m/1/8/unit"])
def test_what_is_no_spaces_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"no space's name|invalid literal"):
        size_and_type(name)
