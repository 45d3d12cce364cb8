"""Failed calls, end to end through a dispatcher on a virtual clock."""

import asyncio

import pytest

from domain.errors import GatewayError
from domain.events import Attempt
from domain.ports.provider import EmbedCall, ProviderError, ProviderFault
from gateway.dispatch.limits import DispatchLimits
from tests.unit.dispatch.doubles import Bench, FakeProvider, Recorder, Script, candidate, poisoned
from tests.unit.dispatch.virtual_time import run


def failing(fault: ProviderFault, times: int, *, retry_after: float | None = None) -> Script:
    """A provider whose first `times` calls fail."""
    return lambda call, number: (
        ProviderError(fault, "down", status=503, retry_after=retry_after) if number <= times else None
    )


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (ProviderFault.REFUSED, "provider_error"),
        (ProviderFault.BAD_ANSWER, "provider_error"),
        (ProviderFault.SERVER, "provider_error"),
        (ProviderFault.CONNECTION, "provider_error"),
        (ProviderFault.TOO_LONG, "input_too_long"),
        (ProviderFault.TOO_LARGE, "input_too_long"),
    ],
)
def test_a_poisonous_text_fails_its_own_request_whole_and_no_other_in_its_batch(
    fault: ProviderFault, code: str
) -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, poisoned(fault, "poison")))
        good = [Recorder([f"g{i}", f"h{i}"], tenant=f"t{i % 3}", agent=str(i)) for i in range(10)]
        bad = Recorder(["fine", "poison", "fine too"], tenant="t0")
        follower = Recorder(["poison"], tenant="t0", agent="other")
        await bench.serve(*good[:5], bad, follower, *good[5:])
        assert all(g.error is None for g in good)
        assert bad.error is not None
        assert follower.error is not None
        assert bad.error.code == follower.error.code == code
        assert bad.attempts
        assert bad.error.details is not None
        assert follower.error.details is not None
        assert (bad.error.details["index"], follower.error.details["index"]) == (1, 0)

    run(main())


def test_several_poisonous_texts_are_each_singled_out() -> None:
    async def main() -> None:
        poison = [f"p{i}" for i in range(0, 60, 7)]
        bench = Bench(FakeProvider(0.01, poisoned(ProviderFault.REFUSED, *poison)))
        waiters = [Recorder([f"p{i}"], agent=str(i % 5)) for i in range(60)]
        await bench.serve(*waiters)
        assert [w.texts[0] for w in waiters if w.error] == poison

    run(main())


def test_a_text_named_as_too_long_costs_the_others_one_more_call_only() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, poisoned(ProviderFault.TOO_LONG, "long", with_index=True)))
        good, bad = Recorder(["a", "b"]), Recorder(["c", "long", "d"])
        await bench.serve(good, bad)
        assert bad.error is not None
        assert (bad.error.code, bad.error.details) == ("input_too_long", {"field": "input", "index": 1})
        assert [c.texts for c in bench.provider.calls] == [["a", "b", "c", "long", "d"], ["a", "b"]]

    run(main())


def test_one_tenants_bad_text_is_cut_off_from_the_other_tenants_texts_first() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, poisoned(ProviderFault.REFUSED, "poison")))
        good = Recorder([f"g{i}" for i in range(20)], tenant="good")
        bad = Recorder([*(f"b{i}" for i in range(15)), "poison"], tenant="bad")
        await bench.serve(good, bad)
        assert len(good.reports) == 1
        assert [a.reason for a in good.reports[0].attempts] == ["refused"]

    run(main())


def test_a_size_refusal_halves_the_batch_and_is_remembered() -> None:
    async def main() -> None:
        def script(call: EmbedCall, number: int) -> ProviderError | None:
            return ProviderError(ProviderFault.TOO_LARGE, "max 10") if len(call.texts) > 10 else None

        bench = Bench(FakeProvider(0.01, script))
        await bench.serve(Recorder([f"a{i}" for i in range(64)]))
        assert max(bench.provider.sizes) == 64
        before = len(bench.provider.calls)
        await bench.serve(Recorder([f"b{i}" for i in range(64)]))
        assert max(bench.provider.sizes[before:]) <= 10
        bench.dispatcher.lane(candidate(max_inputs=128), None, None)
        assert bench.lane.queue.max_inputs <= 10

    run(main())


@pytest.mark.parametrize(
    "fault", [ProviderFault.TIMEOUT, ProviderFault.CONNECTION, ProviderFault.SERVER, ProviderFault.RATE_LIMITED]
)
def test_a_fault_that_passes_is_outlived_and_charged_once(fault: ProviderFault) -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, failing(fault, 3)))
        waiter = Recorder(["a", "b"])
        await bench.serve(waiter)
        assert waiter.error is None
        assert set(waiter.charged) == {0, 1}
        assert [a.reason for a in waiter.reports[0].attempts] == [fault.value] * 3
        assert [(o.attempt, o.fault) for o in bench.outcomes] == [(1, fault), (2, fault), (3, fault), (4, None)]

    run(main())


def test_after_four_tries_the_request_fails_with_every_attempt_listed() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, failing(ProviderFault.SERVER, 99)))
        waiter = Recorder(["a"])
        await bench.serve(waiter)
        assert waiter.error is not None
        assert (waiter.error.code, waiter.error.retryable) == ("provider_unavailable", True)
        assert waiter.error.details == {
            "attempts": [{"endpoint": "main", "reason": "server", "ms": 10, "status": 503}] * 4
        }
        assert len(bench.provider.calls) == len(waiter.attempts) == 4

    run(main())


def test_a_refused_credential_is_not_tried_again() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, failing(ProviderFault.AUTHENTICATION, 99)))
        waiter = Recorder(["a", "b"])
        await bench.serve(waiter)
        assert waiter.error is not None
        assert waiter.error.code == "provider_unavailable"
        assert [a.reason for a in waiter.attempts] == ["authentication"]

    run(main())


def test_a_rate_limit_holds_the_whole_lane_for_as_long_as_the_provider_says() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, failing(ProviderFault.RATE_LIMITED, 1, retry_after=3.0)))
        first, second = Recorder(["a"]), Recorder(["b"])
        bench.submit(first)
        await asyncio.sleep(1.0)
        bench.submit(second)
        await asyncio.gather(first.done.wait(), second.done.wait())
        assert bench.provider.sent_at[1] - bench.provider.sent_at[0] == pytest.approx(3.01)
        assert first.error is second.error is None

    run(main())


def test_a_pause_beyond_the_deadline_fails_at_once_and_says_when_to_come_back() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, failing(ProviderFault.RATE_LIMITED, 1, retry_after=30.0)))
        now = asyncio.get_running_loop().time()
        waiter = Recorder(["a"], deadline=now + 10.0)
        await bench.serve(waiter)
        assert waiter.error is not None
        assert waiter.error.code == "provider_unavailable"
        assert waiter.error.retry_after_ms == 30_000
        late = Recorder(["b"], deadline=now + 10.0)
        with pytest.raises(Exception, match="takes no calls for another") as refused:
            bench.submit(late)
        assert refused.value.code == "provider_unavailable"  # type: ignore[attr-defined] # a GatewayError
        patient = Recorder(["c"], deadline=now + 60.0)
        await bench.serve(patient)
        assert patient.error is None

    run(main())


def test_a_provider_that_asks_for_hours_is_asked_again_after_the_longest_pause() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, failing(ProviderFault.RATE_LIMITED, 1, retry_after=2e9)))
        now = asyncio.get_running_loop().time()
        await bench.serve(Recorder(["a"], deadline=now + 10.0))
        await asyncio.sleep(301.0)
        later = Recorder(["b"], deadline=now + 320.0)
        await bench.serve(later)
        assert later.error is None, "one absurd retry-after has closed the lane for good"

    run(main())


def test_other_texts_go_out_while_a_failed_batch_waits_for_its_next_try() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, failing(ProviderFault.SERVER, 1)))
        first, second = Recorder(["a"]), Recorder(["b"])
        bench.submit(first)
        await asyncio.sleep(0.02)
        bench.submit(second)
        await second.done.wait()
        assert not first.done.is_set()
        await first.done.wait()
        assert first.error is None

    run(main())


def test_texts_that_nobody_waits_for_any_more_are_not_tried_again() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, failing(ProviderFault.SERVER, 1)))
        gone, stays = Recorder(["a", "shared"]), Recorder(["shared", "b"])
        bench.submit(gone, stays)
        await asyncio.sleep(0.05)
        bench.dispatcher.withdraw(gone)
        await stays.done.wait()
        assert [c.texts for c in bench.provider.calls] == [["a", "shared", "b"], ["shared", "b"]]
        assert gone.charged == {}, "it pays for a call that the provider refused"
        assert set(stays.charged) == {0, 1}
        bench.check_empty()

    run(main())


def test_a_batch_that_everybody_left_is_not_tried_again_and_leaves_nothing_behind() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, failing(ProviderFault.SERVER, 1)))
        gone = Recorder(["a"])
        bench.submit(gone)
        await asyncio.sleep(0.05)
        bench.dispatcher.withdraw(gone)
        await asyncio.sleep(10)
        assert len(bench.provider.calls) == 1
        bench.check_empty()

    run(main())


def test_a_call_may_take_as_long_as_the_endpoint_or_its_most_patient_waiter_allows() -> None:
    async def main() -> None:
        now = asyncio.get_running_loop().time()
        bench = Bench(FakeProvider(0.01))
        await bench.serve(Recorder(["a"], deadline=now + 2.0), Recorder(["b"], deadline=now + 5.0))
        await bench.serve(Recorder(["c"], deadline=now + 500.0))
        assert [c.timeout for c in bench.provider.calls] == [5.1, 30.0]

    run(main())


def test_a_provider_that_never_answers_is_given_up_in_time() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(1e6))
        waiter = Recorder(["a"], deadline=asyncio.get_running_loop().time() + 2.0)
        await bench.serve(waiter)
        assert waiter.error is not None
        assert waiter.error.code == "provider_unavailable"
        assert [a.reason for a in waiter.attempts] == ["timeout"]

    run(main())


def test_a_wrong_number_of_vectors_is_never_dealt_out() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, tamper=lambda v: v[:-1]), limits=DispatchLimits(max_attempts=1))
        waiter = Recorder(["a", "b", "c"])
        await bench.serve(waiter)
        assert waiter.rows == {}
        assert waiter.error is not None
        assert {a.reason for a in waiter.attempts} == {"bad_answer"}

    run(main())


def test_an_adapter_that_raises_something_else_is_reported_and_fails_nobody_silently() -> None:
    async def main() -> None:
        seen: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context["exception"]))

        def broken(call: EmbedCall, number: int) -> None:
            raise KeyError("a bug")

        bench = Bench(FakeProvider(0.01, broken))
        waiter = Recorder(["a"])
        await bench.serve(waiter)
        assert waiter.error is not None
        assert waiter.error.code == "provider_unavailable"
        assert "a bug" not in waiter.error.message
        assert len(seen) == 4

    run(main())


def test_texts_whose_deadline_passed_before_there_was_a_slot_are_failed_and_not_sent() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(1.0), where=candidate(concurrency=1))
        first = Recorder(["a"])
        late = Recorder(["b"], deadline=asyncio.get_running_loop().time() + 0.5)
        bench.submit(first)
        await asyncio.sleep(0.01)
        bench.submit(late)
        await late.done.wait()
        assert late.error is not None
        assert late.error.code == "deadline_exceeded"
        assert late.charged == {}
        assert bench.provider.sizes == [1]

    run(main())


def test_a_waiter_may_ask_again_from_within_its_failure() -> None:
    async def main() -> None:
        bench = Bench(FakeProvider(0.01, failing(ProviderFault.AUTHENTICATION, 1)))
        again = Recorder(["a", "b"])

        class Persistent(Recorder):
            def fail(
                self, error: GatewayError, attempts: tuple[Attempt, ...], fault: ProviderFault | None = None
            ) -> None:
                super().fail(error, attempts, fault)
                bench.submit(again)

        await bench.serve(Persistent(["a", "b"]))
        await again.done.wait()
        again.check()
        assert again.error is None
        assert set(again.charged) == {0, 1}

    run(main())


def test_a_refusal_for_size_halves_evenly_whoever_the_texts_belong_to() -> None:
    async def main() -> None:
        def script(call: EmbedCall, number: int) -> ProviderError | None:
            return ProviderError(ProviderFault.TOO_LARGE, "max 32") if len(call.texts) > 32 else None

        bench = Bench(FakeProvider(0.01, script))
        await bench.serve(
            Recorder([f"a{i}" for i in range(60)], tenant="a"), Recorder(["b1", "b2", "b3", "b4"], tenant="b")
        )
        assert bench.provider.sizes == [64, 32, 32]

    run(main())


def test_an_endpoint_that_refuses_everything_is_asked_about_a_request_a_few_times_not_about_each_text() -> None:
    async def main() -> None:
        refusing = FakeProvider(0.01, lambda *_: ProviderError(ProviderFault.REFUSED, "no", status=400))
        bench = Bench(refusing, where=candidate(concurrency=4))
        waiters = [Recorder([f"{n} {i}" for i in range(512)], tenant=f"t{n}") for n in range(4)]
        await bench.serve(*waiters)
        assert all(w.error is not None and w.error.code == "provider_error" for w in waiters)
        assert len(refusing.calls) < 4 * 50

    run(main())
