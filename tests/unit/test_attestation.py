"""What is found of a model's vectors: each way of being wrong has its words, and the first good ones become the space's references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from domain.catalogue import Model
from gateway.bench.vectors import vector_of
from gateway.catalogue.attestation import MAX_LATENCY_MS, Answer, Finding, attest, examine, other_size
from gateway.catalogue.probes import PROBES, probe_id
from tests.support.references import Kept

Rows = NDArray[np.float32]
MODEL = Model("m", "1", 8, 100, None, True, 1, dimensions_range=(2, 8))
GOOD = np.random.default_rng(7).normal(size=(len(PROBES), 8)).astype(np.float32)
GOOD /= np.linalg.norm(GOOD, axis=1, keepdims=True)


def first_epoch(space: str, owner: str) -> int:
    return 0


async def found(
    kept: Kept, model: Model = MODEL, *answers: Rows, latency: int = 5, space: str = "m@1/8/unit"
) -> Finding:
    """What is found where the endpoint answers so, the last answer again and again."""
    left = list(answers or (GOOD,))

    async def ask(texts: Sequence[str], dimensions: int | None) -> Answer:
        rows = left.pop(0) if len(left) > 1 else left[0]
        rows = rows[: len(texts)]
        if dimensions is not None:
            rows = rows[:, :dimensions] / np.linalg.norm(rows[:, :dimensions], axis=1, keepdims=True)
        return Answer(rows, "e", space, latency)

    return await attest(cast("Any", kept), model, ask, first_epoch)


async def test_good_vectors_become_the_references_of_their_space_and_are_found_good_again() -> None:
    kept = Kept()
    first = await found(kept)
    assert (first.problems, first.dimensions, len(kept.rows)) == ([], 8, len(PROBES))
    assert first.digest is not None
    assert abs(first.norm_min - 1_000_000) <= 1
    blurred = GOOD + np.random.default_rng(8).normal(scale=1e-4, size=GOOD.shape).astype(np.float32)
    again = await found(kept, msgspec.structs.replace(MODEL, unit=False), blurred)
    assert (again.problems, again.digest) == ([], first.digest)


async def test_vectors_of_another_model_are_told_from_the_references_and_change_nothing() -> None:
    kept = Kept()
    await found(kept)
    before = dict(kept.rows)
    other = await found(kept, MODEL, np.roll(GOOD, 1, axis=1))
    [problem] = other.problems
    assert problem.startswith(
        f"the vectors of probes {list(range(len(PROBES)))} are not those of the space m@1/8/unit (lowest cosine -"
    )
    assert problem.endswith("expected at least 0.999): what answers there is another model or version")
    assert (other.digest, kept.rows) == (None, before)
    elsewhere = await found(kept, MODEL, np.roll(GOOD, 1, axis=1), space="n@1/8/unit")
    assert elsewhere.problems == []


def spoilt(change: Callable[[Rows], Any]) -> Rows:
    rows = GOOD.copy()
    change(rows)
    return rows


def put(index: int, value: Any) -> Callable[[Rows], Any]:
    return lambda rows: rows.__setitem__(index, value)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (GOOD[:, :7], "vectors of 7 dimensions; the catalogue says 8"),
        (spoilt(put(2, np.nan)), "vectors with values that are not finite"),
        (spoilt(put(2, np.inf)), "vectors with values that are not finite"),
        (spoilt(put(2, 0)), "vectors of zeros"),
        (
            GOOD * np.float32(2),
            "vectors of the lengths 2.000000 to 2.000000; the catalogue says that they have length 1 (unit)",
        ),
        (spoilt(put(2, GOOD[5])), "different texts got the same vector (probes 2 and 5)"),
    ],
)
async def test_vectors_that_are_wrong_by_themselves_are_described_and_never_kept(rows: Rows, problem: str) -> None:
    kept = Kept()
    finding = await found(kept, MODEL, rows)
    assert (finding.problems, finding.digest, kept.rows) == ([problem], None, {})


async def test_an_answer_that_differs_from_the_one_before_is_a_problem() -> None:
    kept = Kept()
    finding = await found(kept, MODEL, GOOD, spoilt(put(3, GOOD[4])))
    assert finding.problems == ["the same text got another vector when it was sent again (probes [3])"]
    assert kept.rows == {}


async def test_a_size_that_is_not_to_be_had_is_a_problem() -> None:
    kept = Kept()

    async def ask(texts: Sequence[str], dimensions: int | None) -> Answer:
        return Answer(GOOD[: len(texts)], "e", "m@1/8/unit", 5)

    finding = await attest(cast("Any", kept), MODEL, ask, first_epoch)
    assert finding.problems == ["asked for 4 dimensions: vectors of 8 dimensions; the catalogue says 4"]


async def test_a_model_that_takes_too_long_is_found_so() -> None:
    finding = await found(Kept(), latency=MAX_LATENCY_MS + 1)
    assert finding.problems == [
        f"a call of 8 short texts took {MAX_LATENCY_MS + 1} ms; expected at most {MAX_LATENCY_MS}"
    ]


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"dimensions_range": (2, 8)}, 4),
        ({"dimensions_range": (6, 8)}, 6),
        ({"dimensions_range": (8, 8)}, None),
        ({"dimensions_range": None, "dimensions_allowed": (8, 4, 2)}, 2),
        ({"dimensions_range": None}, None),
    ],
)
def test_another_size_is_tried_where_there_is_one(changes: dict[str, Any], size: int | None) -> None:
    assert other_size(msgspec.structs.replace(MODEL, **changes)) == size


def test_the_probes_are_texts_of_their_own() -> None:
    assert len({probe_id(text) for text in PROBES}) == len(PROBES)


def test_the_vectors_of_the_simulated_provider_pass() -> None:
    rows = np.stack([vector_of(text, 64) for text in PROBES])
    assert examine(msgspec.structs.replace(MODEL, dimensions=64), 64, rows) == []
