"""A tenant that is shredded while its requests are on their way."""

from __future__ import annotations

import pytest

from domain.errors import GatewayError
from domain.events import EmbeddingFailed, EmbeddingGenerated
from domain.fingerprint import tenant_tag
from domain.tenancy import Principal
from tests.unit.service.conftest import Rig

GLOBEX = Principal("k2", "globex", frozenset({"agent"}))


def shred(rig: Rig) -> None:
    """As the gateway does when it sees the event."""
    rig.service._tenant_keys.pop("acme")
    rig.service.shred("acme")


async def other_tenant_asks(rig: Rig) -> None:
    rig.principal = GLOBEX
    reply = await rig.ask("theirs", id="g1")
    assert reply.refusal is None


@pytest.mark.parametrize("shredded", [True, False])
async def test_what_it_has_in_flight_fails_for_good_and_leaves_nothing_in_the_cache(rig: Rig, shredded: bool) -> None:
    rig.provider.gate.clear()
    reply, _ = rig.send(["one", "two"], metadata={"project": "apollo"})
    await rig.provider.called.wait()
    if shredded:
        shred(rig)
    rig.provider.gate.set()
    await reply.wait()
    await other_tenant_asks(rig)
    tags = sorted({key[:8] for key in rig.lru._entries})
    if not shredded:  # the control: the very same request leaves its vectors
        assert reply.refusal is None
        assert tags == sorted([tenant_tag("acme"), tenant_tag("globex")])
        return
    assert reply.refusal is not None
    assert (reply.refusal.code, reply.refusal.retryable) == ("unauthorized", False)
    [failed] = await rig.events("embedding.failed")
    assert isinstance(failed, EmbeddingFailed)
    assert (failed.code, failed.retryable, failed.billed_tokens, failed.metadata) == ("unauthorized", False, 0, None)
    assert tags == [tenant_tag("globex")]


async def test_a_request_whose_first_event_is_being_committed_ends_without_a_call(rig: Rig) -> None:
    reply, _ = rig.send("one")
    shred(rig)
    await reply.wait()
    assert reply.refusal is not None
    assert reply.refusal.code == "unauthorized"
    assert rig.provider.calls == []
    await other_tenant_asks(rig)


async def test_an_outcome_that_was_being_committed_stands(rig: Rig) -> None:
    reply, _ = rig.send("one")
    settle = rig.service._settle

    def shred_while_settling(*arguments: object) -> None:
        settle(*arguments)
        shred(rig)

    rig.service._settle = shred_while_settling
    await reply.wait()
    assert reply.refusal is None
    [generated] = await rig.events("embedding.generated")
    assert isinstance(generated, EmbeddingGenerated)


async def test_a_resend_that_waited_does_not_become_the_next_attempt(rig: Rig) -> None:
    rig.provider.gate.clear()
    first, _ = rig.send("one", deadline_ms=50)
    await rig.provider.called.wait()
    second, _ = rig.send("one", deadline_ms=10_000)
    settle = rig.service._settle

    def shred_while_settling(*arguments: object) -> None:
        settle(*arguments)
        if "acme" in rig.service._tenant_keys:
            shred(rig)

    rig.service._settle = shred_while_settling
    await first.wait()
    await second.wait()
    assert first.refusal is not None
    assert first.refusal.code == "deadline_exceeded"
    assert second.refusal is not None
    assert second.refusal.code == "unauthorized"
    assert len(await rig.events("embedding.requested")) == 1
    rig.provider.gate.set()


async def test_it_is_asked_nothing_new_and_repeats_nothing(rig: Rig) -> None:
    assert (await rig.ask("one")).refusal is None
    shred(rig)
    for request_id in ("r1", "r2"):
        with pytest.raises(GatewayError, match="shredded") as refused:
            rig.send("one", id=request_id)
        assert (refused.value.code, refused.value.retryable) == ("unauthorized", False)
