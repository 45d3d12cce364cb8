import asyncio

from tests.unit.dispatch.doubles import Bench, FakeProvider, Recorder, candidate
from tests.unit.dispatch.virtual_time import run


def test_identical_texts_share_one_place_in_a_call_and_only_the_first_asker_pays() -> None:
    async def main() -> None:
        bench = Bench()
        first, second = Recorder(["same", "mine"]), Recorder(["same"], agent="b")
        bench.submit(first, second)
        await asyncio.gather(first.done.wait(), second.done.wait())
        assert bench.provider.calls[0].texts == ["same", "mine"]
        assert (set(first.charged), set(second.charged)) == ({0, 1}, set())
        for waiter in (first, second):
            waiter.check()

    run(main())


def test_a_text_asked_for_while_its_call_is_running_is_filled_by_that_call_without_charge() -> None:
    async def main() -> None:
        bench = Bench()
        first, second = Recorder(["same"]), Recorder(["same"])
        bench.submit(first)
        await asyncio.sleep(0.05)
        bench.submit(second)
        await second.done.wait()
        assert bench.provider.sizes == [1]
        assert second.charged == {}
        second.check()

    run(main())


def test_duplicates_within_a_request_are_sent_and_charged_once_and_all_filled() -> None:
    async def main() -> None:
        bench = Bench()
        waiter = Recorder(["x", "y", "x", "x"])
        bench.submit(waiter)
        await waiter.done.wait()
        assert bench.provider.calls[0].texts == ["x", "y"]
        assert set(waiter.charged) == {0, 1}
        assert len(waiter.reports) == 1
        waiter.check()

    run(main())


def test_tenants_never_share_a_text() -> None:
    async def main() -> None:
        bench = Bench()
        a, b = Recorder(["same"], tenant="a"), Recorder(["same"], tenant="b")
        bench.submit(a, b)
        await asyncio.gather(a.done.wait(), b.done.wait())
        assert bench.provider.calls[0].texts == ["same", "same"]
        assert set(a.charged) == set(b.charged) == {0}

    run(main())


def test_when_the_payer_leaves_before_sending_the_next_follower_pays() -> None:
    async def main() -> None:
        bench = Bench()
        payer, second, third = Recorder(["same", "other"]), Recorder(["z", "same", "same"]), Recorder(["same"])
        bench.submit(payer, second, third)
        bench.dispatcher.withdraw(payer)
        await asyncio.gather(second.done.wait(), third.done.wait())
        assert sorted(map(str, bench.provider.calls[0].texts)) == ["same", "z"]
        assert (payer.charged, set(second.charged), third.charged) == ({}, {0, 1}, {})
        assert payer.rows == {}
        for waiter in (second, third):
            waiter.check()

    run(main())


def test_when_the_payer_leaves_after_sending_the_followers_are_filled_and_do_not_pay() -> None:
    async def main() -> None:
        bench = Bench()
        payer, follower = Recorder(["same"]), Recorder(["same"])
        bench.submit(payer, follower)
        await asyncio.sleep(0.05)
        bench.dispatcher.withdraw(payer)
        await follower.done.wait()
        assert (set(payer.charged), follower.charged, payer.rows) == ({0}, {}, {})
        follower.check()

    run(main())


def test_texts_that_nobody_waits_for_any_more_are_not_sent() -> None:
    async def main() -> None:
        bench = Bench()
        gone, stays = Recorder(["a", "b"]), Recorder(["c"])
        bench.submit(gone, stays)
        bench.dispatcher.withdraw(gone)
        assert bench.dispatcher.queued_texts == 1
        await stays.done.wait()
        assert bench.provider.calls[0].texts == ["c"]
        assert bench.dispatcher.queued_texts == bench.dispatcher.queued_tokens == 0

    run(main())


def test_withdrawing_a_waiter_that_is_not_here_does_nothing() -> None:
    async def main() -> None:
        Bench().dispatcher.withdraw(Recorder(["a"]))

    run(main())


def test_rows_are_views_of_the_calls_array_and_are_not_copied() -> None:
    async def main() -> None:
        bench = Bench()
        waiter = Recorder(["a", "b"])
        bench.submit(waiter)
        await waiter.done.wait()
        assert waiter.rows[0].base is waiter.rows[1].base is not None

    run(main())


def test_a_text_of_another_agent_of_the_tenant_does_not_wait_behind_the_queue_of_who_asked_first() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(latency=1.0))
        bench.lane = bench.dispatcher.lane(
            candidate(name="main", model="serial", max_inputs=8, concurrency=1), None, None
        )
        bulk = Recorder([f"t{i}" for i in range(1000)], agent="bulk")
        quick = Recorder(["t999"], agent="quick")
        bench.submit(bulk, quick)
        await quick.done.wait()
        assert len(bench.provider.calls) <= 2
        assert 999 in bulk.charged
        await bulk.done.wait()
        bulk.check()

    run(main())
