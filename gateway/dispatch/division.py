"""Dividing a provider's token count over the texts of a call so that the parts add up exactly."""

from __future__ import annotations

from collections.abc import Sequence


def divide_tokens(total: int, weights: Sequence[int]) -> list[int]:
    """`total` divided in proportion to `weights` (largest remainder; ties go to the earlier text). The parts add up to `total`.

    Each part is its exact share rounded down or up. Weights that are all 0 count as equal. Raises ValueError for a negative total
    or weight, and for a positive total with nobody to bear it.
    """
    if total < 0 or any(w < 0 for w in weights):
        raise ValueError("token counts and weights must not be negative")
    if not weights:
        if total:
            raise ValueError(f"{total} tokens cannot be divided over no texts")
        return []
    whole = sum(weights)
    if whole == 0:
        weights, whole = [1] * len(weights), len(weights)
    parts = [total * w // whole for w in weights]
    left = total - sum(parts)
    if left:
        by_remainder = sorted(range(len(parts)), key=lambda i: -(total * weights[i] % whole))
        for i in by_remainder[:left]:
            parts[i] += 1
    return parts
