"""What a sender may write freely never becomes a label."""

from __future__ import annotations

from tests.acceptance.conftest import Running
from tests.acceptance.http import request
from tests.acceptance.peer import session
from tests.acceptance.provider import MODEL


async def test_no_name_that_a_sender_makes_up_becomes_a_label_of_the_metrics(shared: Running) -> None:
    async with session(shared.url, shared.key, agent="made-up-agent") as peer:
        for number, fields in enumerate(
            ({}, {"dimensions": 5}, {"task": "made-up-task"}, {"thread": "made-up-thread"})
        ):
            refused = await peer.embed(f"made-up-{number}", [""], **{"model": f"made-up-model-{number}", **fields})
            assert refused["type"] == "error"
        refused = await peer.embed("made-up-known", [""])
        assert refused["code"] == "invalid_request"
    metrics = (await request(f"{shared.url}/metrics")).body.decode()
    assert "made-up" not in metrics
    assert any(line.startswith("embedding_errors_total") and MODEL in line for line in metrics.splitlines())
