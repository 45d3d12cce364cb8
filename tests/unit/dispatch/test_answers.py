"""What becomes of a provider's vectors on their way to who waits for them."""

import numpy as np
import pytest

from domain.ports.provider import ProviderFault
from gateway.dispatch.limits import DispatchLimits
from tests.unit.dispatch.doubles import DIMENSIONS, Bench, FakeProvider, Recorder, candidate, vector_of
from tests.unit.dispatch.virtual_time import run


def test_vectors_are_cut_here_where_the_provider_makes_one_size_only_and_brought_to_length_one() -> None:
    async def main() -> None:
        bench = Bench(where=candidate(unit=True, config={"task": "x"}))
        lane = bench.dispatcher.lane(bench.lane.candidate, 2, None)
        waiter = Recorder(["a", "b"])
        bench.dispatcher.submit(lane, waiter, waiter.items())
        await waiter.done.wait()
        (call,) = bench.provider.calls
        assert (call.dimensions, call.config) == (None, {"task": "x"})
        for text, row in zip("ab", (waiter.rows[0], waiter.rows[1]), strict=True):
            wanted = vector_of(text)[:2]
            np.testing.assert_allclose(row, wanted / np.linalg.norm(wanted), rtol=1e-5)

    run(main())


def test_a_provider_that_makes_other_sizes_is_asked_for_them_and_must_answer_with_them() -> None:
    async def main(answered: int) -> Recorder:
        provider = FakeProvider(0.01, tamper=lambda rows: np.ascontiguousarray(rows[:, :answered]))
        bench = Bench(provider, where=candidate(sends_dimensions=True), limits=DispatchLimits(max_attempts=1))
        lane = bench.dispatcher.lane(bench.lane.candidate, 2, None)
        waiter = Recorder(["a"])
        bench.dispatcher.submit(lane, waiter, waiter.items())
        await waiter.done.wait()
        assert provider.calls[0].dimensions == 2
        return waiter

    assert run(main(2)).rows[0].shape == (2,)
    assert run(main(DIMENSIONS)).error is not None


@pytest.mark.parametrize("spoil", [0.0, np.nan, np.inf])
def test_a_vector_that_is_none_is_an_answer_of_no_use(spoil: float) -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, tamper=lambda rows: rows * np.float32(spoil)))
        waiter = Recorder(["a"])
        await bench.serve(waiter)
        assert waiter.rows == {}
        assert {a.reason for a in waiter.attempts} == {"bad_answer"}
        assert waiter.fault is ProviderFault.BAD_ANSWER
        assert [w[:2] for w in waiter.wastes] == [(0, 1)] * 4
        assert waiter.charged == {}

    run(main())
