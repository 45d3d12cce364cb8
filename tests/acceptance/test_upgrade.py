"""An upgrade as the gateways of the release before see it: a newer release migrates the database under them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from typing import Any

from adapters.postgres.migrator import Migration, load_migrations, migrate
from tests.acceptance.http import request
from tests.acceptance.load import check_vectors
from tests.acceptance.peer import rows_of, session
from tests.acceptance.provider import Simulator
from tests.acceptance.site import REPOSITORY, Site
from tests.support.waiting import until


def _made(name: str, sql: str, *, after_deploy: bool = False) -> Migration:
    return Migration(name, sql, hashlib.sha256(sql.encode()).digest(), after_deploy)


NEWER = [
    *load_migrations(),
    _made("9990_more_columns", "ALTER TABLE emberlog.instances ADD COLUMN release text; ALTER TABLE emberlog.events ADD COLUMN more text"),
    _made("9991_more_tables", "CREATE TABLE emberlog.novelties (id bigint PRIMARY KEY)"),
    _made("9992_no_more", "ALTER TABLE emberlog.instances DROP COLUMN description", after_deploy=True),
]  # fmt: skip


async def _ready(url: str) -> tuple[int, str]:
    answer = await request(f"{url}/readyz")
    body: dict[str, Any] = answer.json()
    return answer.status, body["checks"]["migrations"]


async def test_gateways_serve_while_a_newer_release_migrates_and_stand_back_when_its_upgrade_is_finished(
    migrated: Site, provider: Simulator
) -> None:
    await migrated.ask("tenants", "create", "acme")
    key = await migrated.create_key("acme")
    gateway = migrated.gateway()
    await gateway.start()
    answered = 0
    seen: list[tuple[int, str]] = [await _ready(gateway.url)]
    stop = asyncio.Event()

    async def ask() -> None:
        nonlocal answered
        async with session(gateway.url, key.token) as peer:
            while not stop.is_set():
                texts = [f"one {answered}", f"two {answered}"]
                check_vectors(texts, rows_of(await peer.embed(f"upgrade-{answered}", texts)), "upgrade")
                answered += 1

    async def probe() -> None:
        while not stop.is_set():
            seen.append(await _ready(gateway.url))
            await asyncio.sleep(0.02)  # a probe asks now and then, as a load balancer does

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask())
            group.create_task(probe())
            await until(lambda: answered > 10, what="the gateway is in use")
            assert await migrate(migrated.dsn, migrations=NEWER) == ["9990_more_columns", "9991_more_tables"]
            during = answered
            await until(lambda: seen[-1][1] == "newer", what="the probe is told of the newer schema")
            await until(lambda: answered > during + 10, what="it goes on to answer")
            stop.set()
        assert {status for status, _ in seen} == {200}
        assert {state for _, state in seen} == {"current", "newer"}
        assert "schema_changed" in migrated.log.read_text()

        second = migrated.gateway(log="second.log")
        await second.start()
        assert await _ready(second.url) == (200, "newer")
        assert "9991_more_tables" in (migrated.folder / "second.log").read_text()
        assert await second.stop() == 0
        assert [t["id"] for t in await migrated.ask("tenants", "list")] == ["acme"]
        assert await migrated.ask("migrate") == {"applied": [], "after_deploy_pending": []}

        assert await migrate(migrated.dsn, after=True, migrations=NEWER) == ["9992_no_more"]

        async def stands_back() -> bool:
            return await _ready(gateway.url) == (503, "ahead")

        await until(stands_back, what="the gateway is not ready any more")
    finally:
        await gateway.stop()
    for words in (("serve",), ("migrate",), ("tenants", "list")):
        ended = await migrated.run(*words, EMBERLOG_LISTEN="127.0.0.1:0")
        assert (ended.code, "9992_no_more" in ended.err) == (1, True), words


_RELEASE_TO_COME = """
import sys
from adapters.postgres import migrator
ours = migrator.load_migrations()
migrator.load_migrations = lambda: [*ours, migrator.Migration("9992_no_more", "SELECT 1", b"", after_deploy=True)]
from gateway.cli import main
sys.argv[0] = "emberlog"
main()
"""


async def _of_the_release_to_come(site: Site, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _RELEASE_TO_COME, *words,
        stdout=asyncio.subprocess.PIPE, env=site.environment({}), cwd=REPOSITORY,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_migrating_names_what_is_left_for_the_end_of_the_upgrade_and_ends_it_when_told(migrated: Site) -> None:
    told = await _of_the_release_to_come(migrated, "migrate")
    assert "nothing to do" in told
    assert "9992_no_more" in told
    assert "emberlog migrate --after" in told
    pending = {"applied": [], "after_deploy_pending": ["9992_no_more"]}
    assert json.loads(await _of_the_release_to_come(migrated, "migrate", "--json")) == pending
    ended = {"applied": ["9992_no_more"], "after_deploy_pending": []}
    assert json.loads(await _of_the_release_to_come(migrated, "migrate", "--after", "--json")) == ended
    assert await _of_the_release_to_come(migrated, "migrate") == "nothing to do: the database's schema is current\n"
