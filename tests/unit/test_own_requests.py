"""Requests of our own: whose account they are on, and what bounds each account."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from domain.catalogue import Catalogue, Endpoint, Model, Offering
from domain.errors import GatewayError
from domain.plane import ControlPlane
from domain.ports.provider import Text
from domain.prices import UNKNOWN
from gateway.catalogue.own_requests import ATTESTATION, VALIDATION, OwnRequests, pinned_ask
from gateway.control import Decide
from gateway.wire.messages import EmbeddingGenerate


class FoldedAtOnce:
    """A `Control` whose decisions are folded as soon as they are made."""

    def __init__(self) -> None:
        self.plane = ControlPlane()
        self.written = 0

    async def run(self, decide: Decide, *, stream: str) -> None:
        for decision in decide(self.plane):
            self.written += 1
            self.plane.apply(self.written, decision.tenant, stream, None, decision.data)

    def limits(self) -> dict[str, int]:
        return {k.subject: q.limit for k, q in self.plane.quotas.of("_system").items() if q.hard}


async def nothing() -> None:
    """There is a key already."""


def own(control: FoldedAtOnce, tokens: int = 1000) -> OwnRequests:
    return OwnRequests(cast("Any", control), nothing, 7, tokens)


async def test_each_tenant_whose_endpoints_are_attested_has_a_budget_of_its_own() -> None:
    control = FoldedAtOnce()
    await own(control).ready()
    await own(control).ready("acme")
    await own(control).ready("other")
    everybodys = {VALIDATION: 7, ATTESTATION: 1000}
    assert control.limits() == everybodys | {"attestation:acme": 100, "attestation:other": 100}
    written = control.written
    for owner in (None, "acme", "other"):
        await own(control).ready(owner)
    assert control.written == written, "what stands is not said again"
    await own(control, tokens=2000).ready()
    assert control.limits() == {VALIDATION: 7, ATTESTATION: 2000, "attestation:acme": 200, "attestation:other": 200}


@pytest.mark.parametrize(("tenant", "agent"), [(None, "attestation"), ("acme", "attestation:acme")])
async def test_probes_are_on_the_account_of_the_endpoints_owner(tenant: str | None, agent: str) -> None:
    asked: list[tuple[str, str]] = []

    class Service:
        def generate(
            self, principal: Any, agent: str, message: EmbeddingGenerate, texts: Sequence[Text], reply: Any, **more: Any
        ) -> Any:
            asked.append((agent, principal.tenant))
            raise GatewayError("quota_exceeded", "no")

    model = Model("m", "1", 4, 100, None, unit=True, rank=1)
    endpoint = Endpoint("e", "p", {"m": ""}, tenant=tenant)
    catalogue = Catalogue([model], [Offering("m", "p", "pm", UNKNOWN, 8, 100)], [endpoint])
    [candidate] = catalogue.all_candidates("m")
    with pytest.raises(GatewayError):
        await pinned_ask(cast("Any", Service()))(candidate, ["a"], None, None)
    assert asked == [(agent, "_system")]
