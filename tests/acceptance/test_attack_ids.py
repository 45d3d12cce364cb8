"""One id asked in two ways at once: as a dry run, as a stream and not, with other deadlines, and given up."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.conftest import Running
from tests.acceptance.ledger import GENERATED, REQUESTED
from tests.acceptance.peer import session
from tests.acceptance.provider import Simulator
from tests.acceptance.site import Site, endpoints_toml


async def test_a_dry_run_with_the_id_of_a_request_in_flight_disturbs_neither_it_nor_its_resend(
    shared: Running, provider: Simulator
) -> None:
    provider.control(hold=True)
    async with session(shared.url, shared.key) as one, session(shared.url, shared.key) as two:
        await one.begin("dry-and-wet", "paid for once")
        await shared.site.logged("dry-and-wet")
        assert (await two.embed("dry-and-wet", "paid for once", dry_run=True))["event"] is None
        await two.begin("dry-and-wet", "paid for once")
        await two.embed("dry-and-wet-probe", "the resend was read before this", dry_run=True)
        provider.control(hold=False)
        first, second = await one.answer("dry-and-wet"), await two.answer("dry-and-wet")
    assert (first["replayed"], second["replayed"]) == (False, True)
    assert first["usage"] == second["usage"]
    history = await shared.site.request_events("dry-and-wet")
    assert [e.type for e in history] == [REQUESTED, GENERATED]
    assert history[1].data["billed_tokens"] > 0, "the provider was paid and the tenant was not billed"


async def test_a_gateway_that_did_a_long_dry_run_drains_without_waiting_for_it(
    folder: Path, provider: Simulator
) -> None:
    site = Site(folder, endpoints_toml(provider))
    gateway = site.gateway(EMBERLOG_DRAIN_SECONDS="600")
    await gateway.start()
    assert gateway.key is not None
    async with session(gateway.url, gateway.key) as peer:
        # Long enough to be counted beside the loop.
        assert (await peer.embed("long", "word " * 20_000, dry_run=True, truncate="end"))["event"] is None
    assert await gateway.stop() == 0
