from random import Random

import pytest

from domain.ports.provider import ProviderError, ProviderFault
from gateway.dispatch.failures import GiveUp, Later, Reject, Split, next_step, pause
from gateway.dispatch.limits import DispatchLimits

F = ProviderFault
LIMITS = DispatchLimits()


def step(fault: ProviderFault, *, texts: int = 1, tries: int = 1, remaining: float = 60.0, **error: float) -> object:
    problem = ProviderError(fault, "as scripted", retry_after=error.get("retry_after"))
    problem.index = int(error["index"]) if "index" in error else None
    return next_step(problem, texts=texts, tries=tries, remaining=remaining, limits=LIMITS, rng=Random(1))


@pytest.mark.parametrize("fault", [F.REFUSED, F.TOO_LONG, F.TOO_LARGE])
def test_a_fault_that_one_text_may_cause_splits_a_batch_of_several(fault: ProviderFault) -> None:
    assert step(fault, texts=2) == Split(learn=fault is F.TOO_LARGE)


def test_a_text_the_provider_names_as_too_long_is_taken_out() -> None:
    assert step(F.TOO_LONG, texts=5, index=3) == Reject(3)
    assert step(F.TOO_LONG, texts=5, index=5) == Split()
    assert step(F.TOO_LONG) == Reject(0)
    assert step(F.TOO_LARGE) == Reject(0)


@pytest.mark.parametrize("fault", [F.REFUSED, F.AUTHENTICATION])
def test_a_refusal_of_one_text_or_of_our_credential_is_final(fault: ProviderFault) -> None:
    assert step(fault) == GiveUp()


@pytest.mark.parametrize("texts", [1, 64])
@pytest.mark.parametrize("fault", [F.TIMEOUT, F.CONNECTION, F.SERVER, F.BAD_ANSWER, F.RATE_LIMITED])
def test_a_fault_that_may_pass_is_tried_again_whole_at_most_four_times(fault: ProviderFault, texts: int) -> None:
    for tries in (1, 2, 3):
        later = step(fault, texts=texts, tries=tries)
        assert isinstance(later, Later)
        assert later.pace is (fault is F.RATE_LIMITED)
    assert step(fault, texts=texts, tries=4) == GiveUp()


def test_a_try_that_would_start_after_every_deadline_is_not_planned() -> None:
    assert step(F.SERVER, remaining=0.2) == GiveUp()
    assert step(F.RATE_LIMITED, remaining=5.0, retry_after=5.0) == GiveUp()


def test_the_providers_retry_after_is_honoured() -> None:
    assert step(F.RATE_LIMITED, retry_after=7.0) == Later(7.0, pace=True)
    assert step(F.SERVER, retry_after=7.0) == Later(7.0)
    later = step(F.SERVER, retry_after=0.0)
    assert isinstance(later, Later)
    assert later.delay >= 0.25


def test_pauses_grow_by_half_are_jittered_by_half_and_are_capped() -> None:
    rng = Random(3)
    for tries, nominal in [(1, 0.5), (2, 0.75), (3, 1.125), (20, 5.0)]:
        drawn = [pause(tries, LIMITS, rng) for _ in range(200)]
        assert min(drawn) >= nominal * 0.5
        assert max(drawn) <= min(nominal * 1.5, 5.0)
        assert len(set(drawn)) > 50


def test_every_fault_has_a_step() -> None:
    for fault in ProviderFault:
        for texts in (1, 2):
            assert step(fault, texts=texts) is not None
