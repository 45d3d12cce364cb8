"""Who owes what when a request is given up in the middle of trouble."""

from __future__ import annotations

from tests.acceptance.conftest import Running
from tests.acceptance.ledger import FAILED, GENERATED, REQUESTED
from tests.acceptance.peer import session
from tests.acceptance.provider import Simulator


async def test_who_cancels_between_two_tries_does_not_pay_for_the_one_that_the_provider_refused(
    shared: Running, provider: Simulator
) -> None:
    provider.fault("status", status=503, marker="out of order", count=-1)
    async with session(shared.url, shared.key) as peer:
        await peer.begin("between-tries", "out of order")
        await provider.called(1)
        # An answer to a later question shows that the failure of the first call has been taken in.
        await peer.embed("between-tries-probe", "in order")
        await peer.send({"type": "request.cancel", "id": "between-tries"})
        assert (await peer.answer("between-tries"))["code"] == "cancelled"
    requested, failed = await shared.site.request_events("between-tries")
    assert (requested.type, failed.type) == (REQUESTED, FAILED)
    assert (failed.data.get("billed_tokens", 0), failed.data.get("nano_usd", 0)) == (0, 0)
    assert not failed.data.get("provider_nano_usd", 0)


async def test_after_a_refused_try_the_one_who_still_waits_pays_for_the_text_and_not_the_one_who_left(
    shared: Running, provider: Simulator
) -> None:
    provider.fault("status", status=503, marker="shared trouble", count=1)
    async with session(shared.url, shared.key) as one, session(shared.url, shared.key) as two:
        await one.begin("left", "shared trouble")
        await provider.called(1)
        await two.begin("stayed", "shared trouble")
        await two.embed("stayed-probe", "in order too")
        await one.send({"type": "request.cancel", "id": "left"})
        assert (await one.answer("left"))["code"] == "cancelled"
        answer = await two.answer("stayed")
    assert answer["usage"]["billed_tokens"] > 0, "the provider is paid and nobody is billed"
    left = (await shared.site.request_events("left"))[-1]
    assert not left.data.get("billed_tokens", 0)
    assert [e.type for e in await shared.site.request_events("stayed")] == [REQUESTED, GENERATED]
