"""A used-up quota, from the request to whoever should know, on a whole gateway."""

from __future__ import annotations

import json

from standardwebhooks.webhooks import Webhook

from tests.acceptance.conftest import Running
from tests.acceptance.http import request
from tests.acceptance.provider import MODEL, Simulator
from tests.support.receiver import receiver
from tests.support.waiting import until

TENANT = "alerted"
QUOTA = ("quotas", "set", "--tenant", TENANT, "--scope", "tenant", "--unit", "requests", "--window", "month")


async def test_a_used_up_quota_is_told_to_the_webhook_and_its_end_too(shared: Running, provider: Simulator) -> None:
    site = shared.site
    async with receiver() as made:
        await site.ask("tenants", "create", TENANT)
        key = await site.create_key(TENANT, url=shared.url)
        types = "alert.raised,alert.resolved"
        webhook = await site.ask("webhooks", "create", "--tenant", TENANT, "--url", made.url, "--types", types)
        await site.ask(*QUOTA, "--limit", "1")

        async def refused() -> bool:
            answer = await request(f"{shared.url}/v1/embeddings", {"input": "a text", "model": MODEL}, key=key.token)
            return answer.status == 402

        await until(refused, what="the quota is used up")
        [message] = await made.has(1)
        Webhook(webhook["secret"]).verify(message.body, message.headers)
        alert = json.loads(message.body)["data"]
        assert (alert["kind"], alert["used"] >= alert["limit"]) == ("quota_exceeded", True)

        async def raised() -> bool:
            shown = await request(f"{shared.url}/api/v1/alerts/{alert['alert']}", key=key.token)
            return bool(json.loads(shown.body).get("state") == "raised")

        await until(raised, what="the view shows the alert")
        await site.ask(*QUOTA, "--limit", "1000")
        message = (await made.has(2))[1]
        data = json.loads(message.body)["data"]
        assert (data["alert"], data["reason"]) == (alert["alert"], "raised")
        await site.ask("webhooks", "delete", webhook["id"], "--tenant", TENANT)
    assert webhook["secret"].encode() not in site.log.read_bytes()
