"""The provider's token counts reach who asked, where ours are estimates; and what a call tells of the time its texts took."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault
from gateway.dispatch.ports import Item
from tests.unit.dispatch.doubles import Bench, FakeProvider, Recorder
from tests.unit.dispatch.virtual_time import run


class Counting(FakeProvider):
    """Counts `tokens` for the whole call, or `each` for every text."""

    def __init__(self, tokens: int | None = None, each: list[int] | None = None) -> None:
        super().__init__(0.01)
        self.tokens, self.each = tokens, each

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        answer = await super().embed(call)
        return msgspec.structs.replace(answer, tokens=self.tokens, text_tokens=self.each)


class Estimating(Recorder):
    """A waiter whose counts are the lengths of its texts, and estimates."""

    def items(self) -> list[Item]:
        return [msgspec.structs.replace(i, tokens=len(i.text), estimated=True) for i in super().items()]


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=5), min_size=1, max_size=5),
    share=st.floats(0.0, 1.0),
)
def test_a_calls_count_is_divided_so_that_what_is_charged_adds_up_to_it_exactly(
    lengths: list[list[int]], share: float
) -> None:
    total = int(sum(map(sum, lengths)) * share)

    async def main() -> None:
        bench = Bench(Counting(total))
        waiters = [
            Estimating([f"{n}{i}".ljust(max(length, 2), "x") for i, length in enumerate(row)], agent=str(n))
            for n, row in enumerate(lengths)
        ]
        estimates = sum(len(str(t)) for w in waiters for t in w.texts)
        assert total <= estimates
        await bench.serve(*waiters)
        assert sum(sum(w.charged.values()) for w in waiters) == total
        for waiter in waiters:
            assert waiter.counts == waiter.charged
            assert all(tokens <= len(str(waiter.texts[i])) for i, tokens in waiter.counts.items())

    run(main())


def test_a_count_of_each_text_is_used_as_it_is_and_every_asker_is_told() -> None:
    async def main() -> None:
        bench = Bench(Counting(99, [3, 2]))
        payer, follower = Estimating(["same", "mine"]), Estimating(["same", "same"], agent="b")
        await bench.serve(payer, follower)
        assert payer.counts == payer.charged == {0: 3, 1: 2}
        assert (follower.counts, follower.charged) == ({0: 3, 1: 3}, {})

    run(main())


def test_a_text_never_counts_more_than_was_reserved_for_it() -> None:
    async def main() -> None:
        bench = Bench(Counting(None, [30, 2]))
        waiter = Estimating(["four", "more"])
        await bench.serve(waiter)
        assert waiter.counts == waiter.charged == {0: 4, 1: 2}

    run(main())


@pytest.mark.parametrize("provider", [Counting(), Counting(None, [1])])
def test_where_the_provider_gives_no_count_of_use_ours_stands(provider: Counting) -> None:
    async def main() -> None:
        waiter = Estimating(["four", "more"])
        await Bench(provider).serve(waiter)
        assert (waiter.counts, waiter.charged) == ({}, {0: 4, 1: 4})

    run(main())


def test_counts_of_ours_that_are_exact_are_not_touched() -> None:
    async def main() -> None:
        waiter = Recorder(["four", "more"])
        await Bench(Counting(7)).serve(waiter)
        assert waiter.counts == {}

    run(main())


def test_a_report_tells_the_failed_calls_time_apart_from_the_waiting() -> None:
    async def main() -> None:
        def script(call: EmbedCall, number: int) -> ProviderError | None:
            return ProviderError(ProviderFault.SERVER, "down") if number <= 2 else None

        bench = Bench(FakeProvider(0.5, script))
        waiter = Recorder(["a"])
        submitted = asyncio.get_running_loop().time()
        await bench.serve(waiter)
        (report,) = waiter.reports
        assert report.first_sent_at == submitted
        assert report.failed_seconds == pytest.approx(1.0)
        waited = report.sent_at - submitted - report.failed_seconds
        assert waited == pytest.approx(waiter.ended_at - submitted - 1.5)
        assert waited > 0.5

    run(main())
