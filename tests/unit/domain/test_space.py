"""A space's name says what may be compared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.space import INPUT_TYPES, space_name

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
