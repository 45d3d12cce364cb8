"""A tenant's models on a running gateway: what is configured is in force at once, and where a quota is used up another model answers only
where it may, and says so in the answer, the log and the metrics.
"""

from __future__ import annotations

from typing import Any

from tests.acceptance.conftest import Running
from tests.acceptance.http import request
from tests.acceptance.peer import session
from tests.acceptance.provider import MODEL, Simulator

LOCAL, SIZE = "all-MiniLM-L6-v2", 384


async def test_a_used_up_quota_moves_requests_to_the_next_model_where_they_allow_it(
    shared: Running, provider: Simulator
) -> None:
    await shared.site.ask("tenants", "create", "chooser")
    key = (await shared.site.create_key("chooser", "agent,admin", url=shared.url)).token

    async def ask(path: str, body: dict[str, object] | None = None, method: str | None = None) -> dict[str, object]:
        answer = await request(f"{shared.url}{path}", body, key=key, method=method)
        assert answer.status in (200, 201), answer.body
        found: dict[str, object] = answer.json()
        return found

    async with session(shared.url, key, "reader") as peer:

        async def embed(request_id: str, text: str, **fields: object) -> dict[str, Any]:
            asked = {"model": None, "dimensions": SIZE, **fields}  # both models have vectors of that size
            return await peer.embed(request_id, text, **asked)

        small = {"model_id": MODEL, "is_default": True, "daily_token_limit": 6, "fallback_models": [LOCAL]}
        await ask("/api/v1/tenant-models", small)
        refused = await embed("s0", "one", model=LOCAL)
        assert (refused["type"], refused["code"]) == ("error", "model_not_enabled")
        await ask("/tenant-models", {"model_id": LOCAL})
        first = await embed("s1", "one two three")
        assert (first["model"], first["failover"], first["usage"]["tokens"]) == (MODEL, None, 3)

        dry = await embed("s2", "one two three four", model=MODEL, failover="any", dry_run=True)
        assert (dry["model"], dry["failover"]["reason"], dry["event"]) == (LOCAL, "quota", None)
        assert [r["model"] for r in dry["reasons"]] == [MODEL, LOCAL]
        kept = await embed("s3", "one two three four", model=MODEL)
        assert (kept["code"], kept["details"]["alternatives"]) == ("quota_exceeded", [LOCAL])
        assert (kept["details"]["limit"], kept["details"]["window"]) == (6, "day")
        other = await embed("s4", "one two three four", model=MODEL, failover="any")
        assert (other["model"], other["space"]) == (LOCAL, f"{LOCAL}@1/384/unit")
        assert other["failover"] == {
            "from": {"endpoint": "sim", "model": MODEL}, "to": {"endpoint": "local", "model": LOCAL}, "reason": "quota",
        }  # fmt: skip
        unnamed = await embed("s5", "one two three four")
        assert unnamed["model"] == LOCAL
        again = await embed("s4", "one two three four", model=MODEL, failover="any")
        assert (again["replayed"], again["failover"], again["event"]) == (True, other["failover"], other["event"])

        await ask("/api/v1/tenant-settings", {"failover": "any"}, "PUT")
        assert (await embed("s6", "one two three four", model=MODEL))["model"] == LOCAL
        await ask(f"/api/v1/tenant-models/{MODEL}", {"daily_token_limit": 1000}, "PUT")
        raised = await embed("s7", "one two three four", model=MODEL)
        assert (raised["model"], raised["failover"]) == (MODEL, None)

    found = await ask("/api/v1/embedding-models/select", {"token_estimate": 100})
    assert (found["model_id"], found["selection_reason"], found["fallback_models"]) == (
        MODEL,
        "tenant_default",
        [LOCAL],
    )
    tail = await shared.site.ask("events", "tail", "--types", "embedding.generated", "--tenant", "chooser")
    switched = [e["data"].get("failover") for e in tail["events"]]
    assert [s for s in switched if s] == [{"model": MODEL, "endpoint": "sim", "reason": "quota"}] * 3
    metrics = await request(f"{shared.url}/metrics")
    counted = f'embedding_model_switches_total{{from_model="{MODEL}",reason="quota",tenant_id="chooser",to_model="{LOCAL}"}} 3.0'
    assert counted in metrics.body.decode()
