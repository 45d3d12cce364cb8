"""A price set on a running gateway is charged at once, its end too, and the costs say so to the nano-dollar."""

from __future__ import annotations

from typing import Any

from tests.acceptance.conftest import Running
from tests.acceptance.http import request
from tests.acceptance.peer import session
from tests.acceptance.provider import MODEL, Simulator
from tests.support.waiting import until

TEXT = "vingt-deux caractères!"


async def test_a_tenants_price_is_charged_while_it_holds_and_the_list_price_before_and_after(
    shared: Running, provider: Simulator
) -> None:
    await shared.site.ask("tenants", "create", "priced")
    key = (await shared.site.create_key("priced", "agent,billing", url=shared.url)).token
    operator = (await shared.site.create_key(None, "operator", url=shared.url)).token
    costs: list[dict[str, Any]] = []
    async with session(shared.url, key, "buyer") as peer:
        costs.append((await peer.embed("p1", TEXT, cache="off"))["cost"])
        price = {"id": "priced-1", "model": MODEL, "provider": "openai", "unit": "character", "for_tenant": "priced"}
        made = await request(f"{shared.url}/api/v1/prices", {**price, "usd_per_million": "7.5"}, key=operator)
        assert made.status == 201, made.body
        costs.append((await peer.embed("p2", TEXT, cache="off"))["cost"])
        assert (await peer.embed("p2", TEXT, cache="off"))["cost"] == costs[1], "a replay repeats the first bill"
        await shared.site.ask("prices", "end", "priced-1")

        async def ended() -> bool:
            answer = await peer.embed("estimate", TEXT, dry_run=True)
            return bool(answer["cost"]["price"] == costs[0]["price"])

        await until(ended, what="the price that a command ended is not charged any more", timeout=2)
        assert (await peer.embed("p2", TEXT, cache="off"))["cost"] == costs[1], "whatever the price is by then"
        costs.append((await peer.embed("p3", TEXT, cache="off"))["cost"])
    assert costs[1] == {"nano_usd": 22 * 7500, "price": "priced-1"}
    assert costs[2] == costs[0] != costs[1]
    tail = await shared.site.ask("events", "tail", "--types", "embedding.generated", "--tenant", "priced")
    told = await request(f"{shared.url}/api/v1/costs?after_position={tail['cursor']}&group_by=agent", key=key)
    assert told.status == 200, told.body
    total = told.json()["total"]
    assert total["nano_usd"] == sum(cost["nano_usd"] for cost in costs)
    assert (total["requests"], total["characters"], total["unpriced"]) == (3, 22, 0)
    commanded = await shared.site.ask("costs", "--tenant", "priced", "--group-by", "tenant")
    assert commanded["costs"][0]["nano_usd"] == total["nano_usd"]
