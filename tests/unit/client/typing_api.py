"""The public API as a typed caller uses it. Never run: `test_typing.py` has mypy check it."""

from __future__ import annotations

from typing import assert_type

import numpy as np
import numpy.typing as npt

from emberlog_client import (
    Chunk,
    Client,
    Estimate,
    Limits,
    Preferences,
    RateLimited,
    Registration,
    Result,
    Session,
    Store,
    SyncClient,
)


async def asynchronous() -> None:
    async with Client("http://host", "key", agent="a", preferences=Preferences("fixed", ["m"])) as c:
        assert_type(c, Client)
        result = await c.generate(
            ["a"],
            model="m",
            encoding="int8",
            failover="any",
            store=Store("s", ["1"]),
            progress=lambda done, total: None,
        )
        assert_type(result, Result)
        assert_type(result.float32(), npt.NDArray[np.float32])
        assert_type(result.cost.nano_usd, int | None)
        assert_type(result.event, str | None)
        assert_type(c.session, Session)
        assert_type(c.limits, Limits)
        stream = c.stream("a", model="m", deadline=1.5, id="x")
        async for chunk in stream:
            assert_type(chunk, Chunk)
        assert_type(stream.result, Result)
        assert_type(await c.estimate(["a"], input_type="query"), Estimate)
        assert_type(await c.register(Preferences()), Registration)
        await c.generate(["a"], encoding="float64")  # type: ignore[arg-type] # not an encoding
        await c.generate([1])  # type: ignore[list-item] # not a text
        c.stream("a", modell="m")  # type: ignore[call-arg] # not an option


def blocking() -> None:
    with SyncClient("http://host", "key", agent="a") as c:
        assert_type(c, SyncClient)
        assert_type(c.generate(["a"], dry_run=True, id="x"), Result)
        for chunk in c.stream(["a"], encoding="ubinary"):
            assert_type(chunk, Chunk)
        try:
            c.generate("a", model=None)
        except RateLimited as error:
            assert_type(error.retry_after, float | None)
        c.generate("a", failover="maybe")  # type: ignore[arg-type] # not a failover mode
