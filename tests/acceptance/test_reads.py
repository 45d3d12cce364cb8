"""Reads over HTTP on a whole gateway: what a request left behind, as its tenant's consumers and the operator see it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from projections.runner import ALL
from tests.acceptance.conftest import Running
from tests.acceptance.http import Answer, request
from tests.acceptance.peer import session
from tests.acceptance.provider import MODEL, Simulator

DOCUMENT = Path(__file__).parents[2] / "docs" / "billing.md"


async def pages(url: str, key: str, cursor: str = "") -> list[Answer]:
    """Every page from a cursor on; the last is the empty one at the end."""
    found: list[Answer] = []
    while True:
        page = await request(f"{url}&after={cursor}", key=key)
        assert page.status == 200, page.body
        found.append(page)
        if page.headers["x-emberlog-cursor"] == cursor:
            return found
        cursor = page.headers["x-emberlog-cursor"]


async def test_a_consumer_reads_the_bill_of_a_request_from_its_event_and_from_the_usage(
    shared: Running, provider: Simulator
) -> None:
    key = (await shared.site.create_key("default", "billing", url=shared.url)).token
    events, usage = (f"{shared.url}/api/v1/{name}" for name in ("events", "usage"))
    before = (await pages(f"{events}?limit=1000", key))[-1].headers["x-emberlog-cursor"]
    async with session(shared.url, shared.key, "consumed") as peer:
        answer = await peer.embed("consumed", "a text for the consumer")
    read = await pages(f"{events}?limit=1000&types=embedding.generated", key, before)
    [event] = [e for page in read for e in page.json()["events"] if e["data"]["agent"] == "consumed"]
    assert event["id"] == answer["event"]
    assert event["data"]["nano_usd"] == answer["cost"]["nano_usd"]
    assert "position" not in event
    assert "provider_nano_usd" not in event["data"]

    cursor = read[-1].headers["x-emberlog-cursor"]
    used = await request(f"{usage}?after_position={cursor}", key=key)
    [row] = [r for r in used.json()["usage"] if r["agent"] == "consumed"]
    assert (row["model"], row["requests"], row["nano_usd"]) == (MODEL, 1, answer["cost"]["nano_usd"])
    assert set(used.json()["complete_to"]) == {"time"}
    own = await request(usage, key=shared.key, headers={"x-emberlog-agent": "consumed"})
    assert {r["agent"] for r in own.json()["usage"]} >= {"consumed"}


async def test_a_consumers_cursor_is_that_of_the_commands_and_the_operator_sees_more(
    shared: Running, provider: Simulator
) -> None:
    operator = (await shared.site.create_key(None, "operator", url=shared.url)).token
    billing = (await shared.site.create_key("default", "billing", url=shared.url)).token
    tail = await shared.site.ask("events", "tail", "--types", "key.created")
    whole = await request(f"{shared.url}/api/v1/events?types=key.created&limit=1000", key=operator)
    assert whole.json()["events"] == tail["events"]
    mine = await request(f"{shared.url}/api/v1/events?types=key.created&limit=1000", key=billing)
    assert {e["tenant"] for e in mine.json()["events"]} == {"default"}
    assert all("hash" not in e["data"] for e in mine.json()["events"])
    behind = await request(f"{shared.url}/api/v1/events?types=key.created&after={tail['cursor']}", key=operator)
    assert behind.json() == {"events": []}

    views = (await request(f"{shared.url}/api/v1/projections", key=operator)).json()["projections"]
    assert {view["id"] for view in views} == {view.name for view in ALL}
    assert {view["state"] for view in views} <= {"live", "lagging"}
    refused = await request(f"{shared.url}/api/v1/projections", key=billing)
    assert (refused.status, refused.json()["error"]["code"]) == (403, "forbidden")


async def test_every_example_for_billing_consumers_works(shared: Running) -> None:
    key = (await shared.site.create_key("default", "billing", url=shared.url)).token
    cursor = (await request(f"{shared.url}/api/v1/events", key=key)).headers["x-emberlog-cursor"]
    text = DOCUMENT.read_text()
    examples = [
        shlex.split(line.replace("$KEY", key).replace("$URL", shared.url).replace("$CURSOR", cursor))
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(examples) == text.count("curl -")
    for command, *words in examples:
        assert command == "curl"
        headers = dict(words[at + 1].split(": ") for at, word in enumerate(words) if word == "-H")
        assert (await request(words[-1], headers=headers)).status == 200, words[-1]
