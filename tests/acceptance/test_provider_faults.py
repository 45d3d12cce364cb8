"""A provider that answers nonsense, or not at all: a clear error to whoever asked for that text, and to nobody else."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.acceptance.conftest import Running
from tests.acceptance.ledger import FAILED, GENERATED, REQUESTED, audit
from tests.acceptance.load import Load, check_vectors
from tests.acceptance.peer import Message, rows_of, session
from tests.acceptance.provider import DIMENSIONS, Simulator

PASSING = {"code": "provider_unavailable", "retryable": True}
"""What is told where it is not known whether the texts or the provider are to blame."""
FINAL = {"code": "provider_error", "retryable": False}
EITHER = [PASSING, FINAL]
"""What a text is told that alone gets bad answers: that it is to blame, where texts of others could show that."""
POISON: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = [
    ("wrong_count", {}, EITHER),
    ("too_many", {}, EITHER),
    ("wrong_dimensions", {}, EITHER),
    ("ragged", {}, EITHER),
    ("nan", {}, EITHER),
    ("infinity", {}, EITHER),
    ("bad_base64", {}, EITHER),
    ("truncated", {}, EITHER),
    ("html", {}, EITHER),
    ("status", {"status": 400, "message": "no"}, [FINAL]),
    ("status", {"status": 422}, [FINAL]),
]
"""What a call is answered with while a certain text is in it."""
OUTAGES: list[tuple[str, dict[str, Any]]] = [
    ("drop", {}),
    ("reset", {}),
    ("status", {"status": 500}),
    ("status", {"status": 503, "body": "<html>Bad Gateway</html>"}),
]
"""What says nothing about the texts of a call: it is tried again whole."""


def _check(error: Message, wanted: list[dict[str, Any]], kind: str) -> None:
    assert error["type"] == "error", f"{kind}: {error}"
    assert {"code": error["code"], "retryable": error["retryable"]} in wanted, f"{kind}: {error}"
    assert error["details"]["attempts"][-1]["endpoint"] == "sim"
    assert "secret" not in str(error), f"{kind}: the error quotes the text"
    assert "<" not in str(error), f"{kind}: the error quotes the provider's page"


async def test_a_bad_answer_to_one_text_fails_its_request_and_no_other_that_shared_its_calls(
    shared: Running, provider: Simulator
) -> None:
    provider.control(latency_ms=10)
    bad = {f"bad-{n}-{kind}": (kind, fields, wanted) for n, (kind, fields, wanted) in enumerate(POISON)}
    for name, (kind, fields, _) in bad.items():
        provider.fault(kind, marker=f"secret of {name};", count=-1, **fields)
    load = Load(shared.url, shared.key, "bystander", agents=2, max_attempts=1)
    async with load.running(), session(shared.url, shared.key) as peer:
        await load.more(5)
        for name in bad:
            await peer.begin(name, ["innocent", f"secret of {name};"])
        for name, (kind, _, wanted) in bad.items():
            _check(await peer.answer(name), wanted, kind)
        after = await peer.embed("after-the-bad-ones", "the connection is still good")
        assert after["type"] == "embedding.result"
        await load.more(5)
    events = await shared.site.events()
    audit(events)
    for name, (_, _, wanted) in bad.items():
        history = [e for e in events if e.stream == f"request/default/{name}"]
        assert [e.type for e in history] == [REQUESTED, FAILED]
        assert history[1].data["code"] in [w["code"] for w in wanted]
        assert "secret" not in str(history[1].data)
    failed = {e.data["request_id"] for e in events if e.type == FAILED}
    assert not failed & load.answered.keys()


async def test_a_provider_that_is_down_for_some_requests_is_tried_four_times_and_its_failures_are_logged(
    shared: Running, provider: Simulator
) -> None:
    async with session(shared.url, shared.key) as peer:
        for number, (kind, fields) in enumerate(OUTAGES):
            provider.fault(kind, marker=f"secret {number};", count=-1, **fields)
            # A size of its own is a call of its own: an outage takes everything down that is in the same call.
            await peer.begin(f"down-{number}", f"secret {number};", dimensions=DIMENSIONS + 1 + number)
        assert (await peer.embed("up", "not in those calls"))["type"] == "embedding.result"
        for number, (kind, _) in enumerate(OUTAGES):
            error = await peer.answer(f"down-{number}")
            _check(error, [PASSING], kind)
            assert len(error["details"]["attempts"]) == 4
    for number in range(len(OUTAGES)):
        history = await shared.site.request_events(f"down-{number}")
        assert [e.type for e in history] == [REQUESTED, FAILED]
        assert not history[1].data.get("billed_tokens", 0)


@pytest.mark.parametrize("kind", ["shuffled", "float", "no_usage", "slow", "same_index"])
async def test_an_unusual_but_right_answer_is_taken(shared: Running, provider: Simulator, kind: str) -> None:
    texts = [f"{kind} {n}" for n in range(3)]
    provider.fault(kind, marker=f"{kind} 1", delay_ms=50)
    async with session(shared.url, shared.key) as peer:
        answer = await peer.embed(f"unusual-{kind}", texts)
    check_vectors(texts, rows_of(answer), kind)


async def test_a_provider_that_hangs_past_the_deadline_costs_its_asker_the_deadline_and_no_more(
    shared: Running, provider: Simulator
) -> None:
    provider.fault("hang", marker="wait for ever", count=-1)
    async with session(shared.url, shared.key) as peer:
        started = time.monotonic()
        error = await peer.embed("hangs", "wait for ever", deadline_ms=400)
        assert (error["code"], error["retryable"]) == ("deadline_exceeded", True)
        assert 0.4 <= time.monotonic() - started < 2
        assert (await peer.embed("next", "not in the way"))["type"] == "embedding.result"
        await shared.site.logged("hangs", events=2)
        provider.control(clear=True)
        late = await peer.embed("hangs", "wait for ever")
        assert (late["type"], late["usage"]["billed_tokens"]) == ("embedding.result", 0)
    history = await shared.site.request_events("hangs")
    assert [e.type for e in history] == [REQUESTED, FAILED, REQUESTED, GENERATED]
    outcome = history[1].data
    assert (outcome["code"], outcome["estimated"]) == ("deadline_exceeded", True)
    assert outcome["billed_tokens"] == 3, "what was sent before the deadline is billed, once"


async def test_a_provider_that_asks_for_a_pause_is_given_it_and_the_request_is_answered(
    shared: Running, provider: Simulator
) -> None:
    provider.fault("status", status=429, retry_after="1", marker="too fast")
    async with session(shared.url, shared.key) as peer:
        started = time.monotonic()
        answer = await peer.embed("paced", "too fast")
        assert answer["type"] == "embedding.result", answer
        assert time.monotonic() - started >= 0.95
    outcome = (await shared.site.request_events("paced"))[-1]
    assert outcome.type == GENERATED
    assert [a["reason"] for a in outcome.data["attempts"]] == ["rate_limited"]


async def test_a_client_that_vanishes_in_flight_disturbs_nobody_and_its_request_has_an_outcome(
    shared: Running, provider: Simulator
) -> None:
    provider.control(hold=True)
    async with session(shared.url, shared.key) as gone, session(shared.url, shared.key) as stays:
        await gone.begin("left-behind", "its sender goes away")
        await stays.begin("stays", "its sender stays")
        for name in ("left-behind", "stays"):
            await shared.site.logged(name)
        transport = gone.connection.transport
        assert isinstance(transport, asyncio.WriteTransport)
        transport.abort()
        await gone.closed()
        provider.control(hold=False)
        assert (await stays.answer("stays"))["type"] == "embedding.result"
        await shared.site.logged("left-behind", events=2)
        again = await stays.embed("left-behind", "its sender goes away")
        assert again["type"] == "embedding.result"
        assert again["replayed"]
