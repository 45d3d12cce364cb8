"""An installation under test: a data folder or database, its settings, its gateways and its management commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from adapters.embedded import state
from gateway.demo.process import GatewayProcess
from tests.acceptance.http import request
from tests.acceptance.ledger import Event
from tests.acceptance.provider import MODEL, Simulator
from tests.support.cli import run_forked
from tests.support.folders import noted_places
from tests.support.ports import free_port
from tests.support.waiting import until

REPOSITORY = Path(__file__).parents[2]
_EVENTS = Path(__file__).with_name("events.sql").read_text()


@dataclass(frozen=True)
class Key:
    """An API key as `emberlog keys create` shows it."""

    id: str
    token: str


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


def endpoints_toml(simulator: Simulator, *, local: bool = False, timeout_ms: int = 10_000) -> str:
    """Settings with the simulator as the provider `openai`, and the local model beside it where asked."""
    text = (
        f'[[endpoints]]\nname = "sim"\nprovider = "openai"\nbase_url = "{simulator.url}/v1"\napi_key_env = "SIMULATOR_KEY"\n'
        f'models = ["{MODEL}"]\ntimeout_ms = {timeout_ms}\n'
    )
    if local:
        text += '\n[[endpoints]]\nname = "local"\nprovider = "local"\nmodels = ["all-MiniLM-L6-v2"]\n'
    return text


class Site:
    """`folder` must be one that every user may pass: the embedded Postgres may run as another user.

    `dsn` is a superuser's connection string of an external database; without it Postgres is embedded in `folder/data`.
    """

    def __init__(self, folder: Path, config: str | None, *, dsn: str | None = None, **env: str) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.log = folder / "gateway.log"
        self._dsn = dsn
        self.env: dict[str, str] = {
            "SIMULATOR_KEY": "simulated",
            "EMBERLOG_DATA_DIR": str(self.data_dir),
            # Every test is a client of the same address, and some do nothing but fail to get in.
            "EMBERLOG_FAILED_LOGINS_PER_MINUTE": "100000",
            # Most tests count the calls that their own requests cause; test_endpoints.py has probes too.
            "EMBERLOG_ATTEST_ENDPOINTS": "false",
            **env,
        }
        if config is not None:
            path = folder / "emberlog.toml"
            path.write_text(config)
            self.env["EMBERLOG_CONFIG"] = str(path)

    def gateway(self, *, port: int | None = None, log: str = "gateway.log", **env: str) -> GatewayProcess:
        """A gateway of this site, not yet started. Without `port` it takes one that is free now and keeps it."""
        address = f"127.0.0.1:{free_port() if port is None else port}"
        return GatewayProcess(self.data_dir, address, self.folder / log, {**self.env, **env})

    async def run(self, *words: str, timeout: float = 60, **env: str) -> Ended:
        """Run `emberlog` with these words to its end."""
        ended = await run_forked(words, self.environment(env), timeout)
        return Ended(ended.code, ended.out, ended.error)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of a command of this site."""
        return {**os.environ, **self.env, **more}

    async def ask(self, *words: str) -> Any:
        """The JSON that a management command prints with `--json`; it must end well."""
        ended = await self.run(*words, "--json")
        assert ended.code == 0, f"emberlog {' '.join(words)}: exit code {ended.code}\n{ended.err}"
        return json.loads(ended.out)

    async def create_key(self, tenant: str | None, scopes: str = "agent,admin", *, url: str | None = None) -> Key:
        """A new key of `tenant`, or of the installation; returned once the gateway at `url` knows it, which it must within a second."""
        whose = () if tenant is None else ("--tenant", tenant)
        made = await self.ask("keys", "create", *whose, "--scopes", scopes)
        key = Key(made["id"], made["key"])
        if url is not None:

            async def known() -> bool:
                return (await request(f"{url}/v1/models", key=key.token)).status not in (401, 429)

            await until(known, what="a new key is known to the gateway", timeout=1)
        return key

    @property
    def dsn(self) -> str:
        """An owner's connection string to the log, whoever runs its server."""
        if self._dsn is not None:
            return self._dsn
        running = state.running(self.data_dir)
        assert running is not None, "no gateway of this site runs"
        assert running.owner_dsn is not None
        return running.owner_dsn

    async def events(self) -> list[Event]:
        """The whole log, read with plain SQL: what the gateway itself says of its log is not the judge here."""
        connection = await asyncpg.connect(self.dsn)
        try:
            rows = await connection.fetch(_EVENTS)
        finally:
            await connection.close()
        return [
            Event(r["position"], str(r["event_id"]), r["tenant"], r["stream"], r["type"], json.loads(r["data"]))
            for r in rows
        ]

    async def request_events(self, request_id: str, tenant: str = "default") -> list[Event]:
        """The events of one request, in order."""
        return [e for e in await self.events() if e.stream == f"request/{tenant}/{request_id}"]

    async def logged(self, request_id: str, *, events: int = 1, tenant: str = "default") -> list[Event]:
        """The events of a request, once there are so many."""

        async def found() -> list[Event]:
            history = await self.request_events(request_id, tenant)
            return history if len(history) >= events else []

        return await until(found, what=f"{request_id} has {events} event(s) in the log")

    async def files_with(self, *words: str) -> dict[str, set[str]]:
        """For each word the names of the files (log, database, write-ahead log, whatever the site keeps) whose bytes hold it."""

        def search() -> dict[str, set[str]]:
            held: dict[str, set[str]] = {word: set() for word in words}
            places = [self.folder, *map(Path, noted_places(self.data_dir).values())]
            for path in {file for place in places for file in place.rglob("*")}:
                with contextlib.suppress(OSError):
                    if path.is_file():
                        content = path.read_bytes()
                        for word in words:
                            if word.encode() in content:
                                held[word].add(path.name)
            return held

        return await asyncio.to_thread(search)
