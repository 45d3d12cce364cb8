import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dispatch.division import divide_tokens


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**6), min_size=1, max_size=60))
def test_the_parts_add_up_exactly_and_each_is_its_share_rounded(total: int, weights: list[int]) -> None:
    parts = divide_tokens(total, weights)
    assert sum(parts) == total
    assert len(parts) == len(weights)
    shares = weights if any(weights) else [1] * len(weights)
    for part, weight in zip(parts, shares, strict=True):
        assert total * weight // sum(shares) <= part <= total * weight // sum(shares) + 1


def test_a_total_is_divided_in_proportion_with_ties_going_to_the_earlier_text() -> None:
    assert divide_tokens(10, [1, 1, 2]) == [3, 2, 5]
    assert divide_tokens(7, [0, 0]) == [4, 3]
    assert divide_tokens(0, []) == []


@pytest.mark.parametrize(("total", "weights"), [(-1, [1]), (1, [-1]), (1, [])])
def test_what_cannot_be_divided_is_refused(total: int, weights: list[int]) -> None:
    with pytest.raises(ValueError, match=r"negative|no texts"):
        divide_tokens(total, weights)
