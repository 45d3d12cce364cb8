"""How long a change of configuration takes to be in force in another gateway process: changed in one, asked of the other."""

from __future__ import annotations

import asyncio
import http.client
import shutil
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from adapters.embedded import running
from gateway.bench.run import BenchFailed, temporary_folder, without_settings
from gateway.demo.process import GatewayProcess

_PATH = "/api/v1/tenant-settings"
_POLICIES = ("any", "same_space")
_GIVE_UP = 30.0


async def run(changes: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Make `changes` changes at one gateway, and ask another over and over until it shows each; the document of `bench config`."""
    folder = temporary_folder()
    first = GatewayProcess(folder / "data", "127.0.0.1:0", folder / "first.log", {"EMBERLOG_LOG_LEVEL": "warning"})
    second: GatewayProcess | None = None
    try:
        with without_settings():
            say("starting two gateways on one database")
            await first.start()
            found = running(folder / "data")
            if first.key is None or found is None or found.app_dsn is None:
                raise BenchFailed("the first gateway did not come up as a new installation")
            second = GatewayProcess(
                folder / "second", "127.0.0.1:0", folder / "second.log",
                {
                    "EMBERLOG_LOG_LEVEL": "warning", "EMBERLOG_DATABASE_URL": found.app_dsn, "EMBERLOG_REDIS_URL": "none",
                    "EMBERLOG_SECRET_KEY_FILE": str(folder / "data" / "secret.key"),
                },
            )  # fmt: skip
            await second.start()
            say(f"making {changes} changes")
            return await asyncio.to_thread(_measure, first.url, second.url, first.key, changes)
    finally:
        if second is not None:
            await second.stop()
        await first.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _measure(first: str, second: str, key: str, changes: int) -> dict[str, Any]:
    at_one, at_other = _Client(first, key), _Client(second, key)
    answered, in_force = [], []
    for number in range(changes):
        wanted = _POLICIES[number % 2]
        began = time.perf_counter()
        at_one.ask("PUT", {"failover": wanted})
        answered.append(time.perf_counter() - began)
        while at_other.ask("GET")["failover"] != wanted:
            if time.perf_counter() - began > _GIVE_UP:
                raise BenchFailed(f"a change was not in force in the other process after {_GIVE_UP:.0f} s")
        in_force.append(time.perf_counter() - began)
    return {"changes": changes, "answered": _summary(answered), "in_force_elsewhere": _summary(in_force)}


def _summary(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        name: round(ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] * 1000, 1)
        for name, fraction in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))
    }


class _Client:
    """One connection with a key."""

    def __init__(self, url: str, key: str) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        self._connection = http.client.HTTPConnection(address.hostname, address.port, timeout=_GIVE_UP)
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    def ask(self, method: str, body: Any = None) -> dict[str, Any]:
        """The answer's document. Raises `BenchFailed` for an error."""
        self._connection.request(method, _PATH, None if body is None else msgspec.json.encode(body), self._headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise BenchFailed(f"a gateway answered {method} {_PATH} with {answer.status}")
        found: dict[str, Any] = msgspec.json.decode(data)
        return found
