"""Commands that run in forks of a loaded process are as apart from each other as if each had been started."""

from __future__ import annotations

import asyncio
import os
import socket
from importlib.metadata import version

from tests.support.cli import run_forked

PLAIN = {k: v for k, v in os.environ.items() if not k.startswith("EMBERLOG_")}


async def test_each_has_its_own_words_environment_output_and_exit_code() -> None:
    wrong = {**PLAIN, "EMBERLOG_WORKERS": "none", "EMBERLOG_DATABASE_URL": "postgresql://nobody@/nothing"}
    told, refused, misspelt = await asyncio.gather(
        run_forked(["--version"], PLAIN), run_forked(["keys", "list"], wrong), run_forked(["kyes"], PLAIN)
    )
    assert (told.code, told.out, told.error) == (0, f"{version('emberlog')}\n", "")
    assert (refused.code, refused.out, "workers" in refused.error) == (1, "", True)
    assert (misspelt.code, misspelt.out, "No such command" in misspelt.error) == (2, "", True)


async def test_one_that_nobody_waits_for_any_more_is_killed() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        dsn = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/nothing?sslmode=disable"
        waiting = asyncio.create_task(run_forked(["keys", "list"], {**PLAIN, "EMBERLOG_DATABASE_URL": dsn}))
        async with asyncio.timeout(30):
            connection, _ = await loop.sock_accept(silent)
        with connection:
            assert await loop.sock_recv(connection, 1 << 16), "the command says who it is, and waits for an answer"
            assert not waiting.done()
            waiting.cancel()
            async with asyncio.timeout(5):  # it would wait for ten
                assert await loop.sock_recv(connection, 1) == b""
