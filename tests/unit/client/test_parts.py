"""The client's pure parts: window, splitting, ids, errors."""

from __future__ import annotations

import asyncio
import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import emberlog_client
from emberlog_client import EmberlogError, Limits, Preferences, RequestRefused, backoff, errors
from emberlog_client.request import ENVELOPE_BYTES, part_id, split
from emberlog_client.window import Window

actions = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), st.integers(1, 6)),
        st.tuples(st.just("release"), st.integers(0, 20)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("resize"), st.integers(1, 5)),
    ),
    max_size=40,
)


@given(actions)
def test_the_window_holds_its_bounds_admits_in_order_and_loses_no_place(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        window = Window(3, 8)
        tasks: list[tuple[asyncio.Task[None], int]] = []
        held: list[int] = []
        order: list[int] = []

        async def enter(number: int, inputs: int) -> None:
            await window.acquire(inputs)
            order.append(number)
            held.append(inputs)
            assert len(held) == 1 or (len(held) <= window.max_requests and sum(held) <= window.max_inputs)

        for number, (step, value) in enumerate(steps):
            if step == "acquire":
                tasks.append((asyncio.create_task(enter(number, value)), value))
            elif step == "release" and held:
                window.release(held.pop(value % len(held)))
            elif step == "cancel" and tasks:
                tasks[value % len(tasks)][0].cancel()
            elif step == "resize":
                window.resize(value, value * 3)
            for _ in range(4):
                await asyncio.sleep(0)
            assert (window.requests, window.inputs) == (len(held), sum(held))
            waiting = [inputs for task, inputs in tasks if not task.done()]
            if waiting:  # whoever waits, waits for a reason
                assert held
                assert len(held) >= window.max_requests or sum(held) + waiting[0] > window.max_inputs
        while held:
            window.release(held.pop())
            for _ in range(4):
                await asyncio.sleep(0)
        for outcome in await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome
        assert (window.requests, window.inputs) == (0, 0)
        assert order == sorted(order)

    asyncio.run(run())


async def test_a_place_granted_to_a_task_that_is_cancelled_in_the_same_moment_is_given_on() -> None:
    window = Window(1, 10)
    await window.acquire(1)
    first = asyncio.create_task(window.acquire(2))
    second = asyncio.create_task(window.acquire(3))
    await asyncio.sleep(0)
    window.release(1)  # the first has the place now, but has not run
    first.cancel()
    await second
    assert (window.requests, window.inputs) == (1, 3)
    assert first.cancelled()


@given(
    st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1),
    st.integers(1, 7),
    st.integers(0, 60),
)
def test_splitting_keeps_every_text_in_order_within_the_limits(texts: list[str], at_once: int, room: int) -> None:
    limits = Limits(max_inputs=at_once, max_message_bytes=ENVELOPE_BYTES + room)
    runs = split(texts, limits)
    assert [text for low, high in runs for text in texts[low:high]] == texts
    for low, high in runs:
        assert 1 <= high - low <= at_once
        # A lone text above the room still goes: the envelope has room to spare, and the gateway judges it.
        assert high - low == 1 or sum(len(text.encode()) + 5 for text in texts[low:high]) <= room


@given(st.text(min_size=1, max_size=64), st.integers(2, 2000))
def test_ids_of_parts_are_distinct_stable_and_within_64_characters(name: str, parts: int) -> None:
    names = [part_id(name, number, parts) for number in range(parts)]
    assert len(set(names)) == parts
    assert max(map(len, names)) <= 64
    assert names == [part_id(name, number, parts) for number in range(parts)]
    assert part_id(name, 0, 1) == name


def test_a_long_id_and_its_neighbour_get_different_parts() -> None:
    assert part_id("a" * 63 + "b", 1, 2) != part_id("a" * 63 + "c", 1, 2)


def test_backoff_doubles_with_jitter_and_stays_below_its_cap() -> None:
    assert backoff.delay(0) == 0
    for failures in range(1, 200):
        full = min(backoff.CAP, backoff.BASE * 2 ** (failures - 1))
        assert full / 2 <= backoff.delay(failures) <= full
    assert 1 <= backoff.stretched(1) <= 1.1


CODES = {
    "invalid_message invalid_request input_too_long type_unsupported model_not_found model_not_enabled id_reused",
    "result_expired quota_exceeded budget_exceeded rate_limited too_many_in_flight no_model_available overloaded",
    "draining unavailable provider_unavailable provider_error deadline_exceeded cancelled internal unknown_type",
    "resource_constraint something_new",
}


@pytest.mark.parametrize("code", sorted(code for line in CODES for code in line.split()))
def test_every_code_becomes_a_refusal_that_keeps_it_through_copy_and_pickle(code: str) -> None:
    message = {
        "code": code,
        "message": "why",
        "retryable": True,
        "retry_after_ms": 1500,
        "details": {"a": 1},
        "id": "x",
    }
    error = errors.from_message(message)
    assert isinstance(error, RequestRefused)
    for same in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(same) is type(error)
        assert (same.code, same.retryable, same.retry_after, same.details, same.id) == (code, True, 1.5, {"a": 1}, "x")
        assert str(same) == f"{code}: why"


def test_the_tree_drawn_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert errors.__doc__ is not None
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        if line.lstrip().startswith("* `"):
            indent, name = len(line) - len(line.lstrip()), line.split("`")[1]
            above = [(depth, parent) for depth, parent in above if depth < indent]
            drawn[name] = above[-1][1] if above else "Exception"
            above.append((indent, name))
    classes = {
        name: entry.__bases__[0].__name__
        for name, entry in vars(errors).items()
        if isinstance(entry, type) and issubclass(entry, EmberlogError)
    }
    assert drawn == classes
    assert set(drawn) <= set(emberlog_client.__all__)


def test_everything_exported_exists_and_is_documented() -> None:
    for name in emberlog_client.__all__:
        assert hasattr(emberlog_client, name)


def test_preferences_travel_without_what_was_left_open() -> None:
    assert Preferences().to_wire() == {"strategy": "tenant_default", "models": [], "task_models": {}}
