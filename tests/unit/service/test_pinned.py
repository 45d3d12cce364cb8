"""Requests of our own to one endpoint, such as the probes of an attestation, are calls like any other to its circuit."""

from __future__ import annotations

import pytest

from adapters.breaker import COUNTED, AioBreaker, CircuitPolicy
from domain.ports.breaker import CircuitState
from domain.ports.provider import EmbedCall, ProviderError, ProviderFault
from gateway.wire.messages import EmbeddingGenerate
from tests.unit.service.conftest import Recorder, Rig, make_rig


async def probe(rig: Rig, number: int) -> str:
    """The reason of its failed attempt."""
    message, reply = EmbeddingGenerate(id=f"p{number}", input=["a probe"], model="m", cache="off"), Recorder()
    rig.service.generate(rig.principal, "a", message, ["a probe"], reply, pinned=rig.catalogue.candidates("m")[0])
    refusal = (await reply.wait()).refusal
    assert refusal is not None
    [attempt] = (refusal.details or {})["attempts"]
    return str(attempt["reason"])


@pytest.mark.parametrize("fault", [ProviderFault.TIMEOUT, ProviderFault.SERVER, ProviderFault.RATE_LIMITED])
async def test_a_probe_that_fails_counts_for_the_circuit_as_any_call_does(fault: ProviderFault) -> None:
    def failing(call: EmbedCall) -> None:
        raise ProviderError(fault, "as told")

    breaker = AioBreaker(CircuitPolicy(failures=2))
    rig = await make_rig(breakers=lambda _: breaker)
    rig.provider.behaviour = failing
    told = [await probe(rig, number) for number in range(2)]
    assert told == [fault.value] * 2
    assert breaker.state is (CircuitState.OPEN if fault in COUNTED else CircuitState.CLOSED)
    await rig.service.close()
    await rig.appender.close()
