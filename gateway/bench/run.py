"""`emberlog bench`: a gateway, a simulated provider and a load generator, each a process of its own, and what they took.

The gateway is a fresh installation in a temporary folder with Postgres and Valkey of its own, `fsync` on as ever; nothing of the
caller's settings or data is used. Everything runs on this machine and talks over loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from gateway.bench.cpu import Cores, cpu_seconds, move_services, peak_memory, pinned
from gateway.bench.load import LoadResult
from gateway.bench.provider import SimulatedProvider
from gateway.bench.report import Measured, show
from gateway.bench.scenarios import MODEL, Scenario, standard
from gateway.demo.process import GatewayProcess

_KEY_VARIABLE = "BENCH_PROVIDER_KEY"
_SETTINGS = "EMBERLOG_"


class BenchFailed(Exception):
    """The bench could not be run; the message says which process failed and how."""


class BenchOptions(msgspec.Struct, kw_only=True):
    """Which scenarios, and how long each is measured after its warm-up (seconds). `keep` leaves the data folder behind."""

    scenarios: list[Scenario]
    seconds: float = 10.0
    warmup: float = 3.0
    keep: bool = False


CountEvents = Callable[[GatewayProcess], Awaitable[int | None]]
"""Tells how many events the log of a gateway holds; None where that cannot be told."""


async def run(
    options: BenchOptions, say: Callable[[str], None] = lambda line: None, count_events: CountEvents | None = None
) -> dict[str, Any]:
    """Run the scenarios one after another on one gateway; returns the document of `emberlog bench --json`.

    `say` is told what is going on. Raises `BenchFailed` and `gateway.demo.process.GatewayFailed`.
    """
    cores = Cores()
    folder = temporary_folder()
    count = count_events or _head_of_log
    figures: list[dict[str, Any]] = []
    try:
        with without_settings():
            say("starting the simulated provider")
            async with SimulatedProvider.started(cores.simulator) as provider:
                say("starting the gateway with its own Postgres and Valkey")
                async with _gateway(folder, provider, cores) as gateway:
                    for scenario in options.scenarios:
                        say(f"measuring: {scenario.name}")
                        measured = await _measure(scenario, options, gateway, provider, cores, count)
                        figures.append(measured.figures())
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return {"machine": _machine(cores), "scenarios": figures}


@contextlib.asynccontextmanager
async def _gateway(folder: Path, provider: SimulatedProvider, cores: Cores) -> AsyncIterator[GatewayProcess]:
    config = folder / "emberlog.toml"
    config.write_text(
        f'[[endpoints]]\nname = "simulated"\nprovider = "openai"\nbase_url = "{provider.url}/v1"\n'
        f'api_key_env = "{_KEY_VARIABLE}"\nmodels = ["{MODEL}"]\n'
    )
    env = {"EMBERLOG_CONFIG": str(config), "EMBERLOG_LOG_LEVEL": "warning", _KEY_VARIABLE: "simulated"}
    gateway = GatewayProcess(folder / "data", "127.0.0.1:0", folder / "gateway.log", env)
    try:
        with pinned(cores.gateway):
            await gateway.start()
        move_services(gateway.pid, cores.services)
        yield gateway
    finally:
        await gateway.stop()


async def _measure(
    scenario: Scenario,
    options: BenchOptions,
    gateway: GatewayProcess,
    provider: SimulatedProvider,
    cores: Cores,
    count: CountEvents,
) -> Measured:
    if gateway.key is None:
        raise BenchFailed("the gateway printed no development key; was its data folder not empty?")
    await provider.control(latency_ms=scenario.provider_ms)
    events_before = await count(gateway)
    load = scenario.load(gateway.url, gateway.key, options.warmup, options.seconds)
    with pinned(cores.load):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.bench.load", "--options", msgspec.json.encode(load).decode(), stdout=asyncio.subprocess.PIPE
        )  # fmt: skip
    assert process.stdout is not None
    cpu_before: dict[str, float] = {}
    cpu: dict[str, float] = {}
    stats = await provider.stats()
    result: LoadResult | None = None
    try:
        while line := await process.stdout.readline():
            said = msgspec.json.decode(line)
            if said["phase"] == "measuring":
                await provider.control(reset=True)
                cpu_before = cpu_seconds(gateway.pid)
            elif said["phase"] == "measured":
                cpu = {group: spent - cpu_before.get(group, 0.0) for group, spent in cpu_seconds(gateway.pid).items()}
                stats = await provider.stats()
            elif said["phase"] == "result":
                result = msgspec.convert(said["result"], LoadResult, strict=False)
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if result is None:
        raise BenchFailed(f"the load generator ended with code {process.returncode} before it had a result")
    events_after = await count(gateway)
    events = None if events_before is None or events_after is None else events_after - events_before
    return Measured(
        scenario=scenario, load=result, cpu=cpu, provider=stats, events=events, peak_memory=peak_memory(gateway.pid)
    )


async def _head_of_log(gateway: GatewayProcess) -> int | None:
    """The position of the newest event, asked of `emberlog log head` between the measurements, never during one."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", "log", "head", "--json", env=gateway.environment, stdout=asyncio.subprocess.PIPE
    )  # fmt: skip
    out, _ = await process.communicate()
    if process.returncode:
        return None
    position: int = msgspec.json.decode(out)["position"]
    return position


def temporary_folder() -> Path:
    """A new folder for a bench's data."""
    folder = Path(tempfile.mkdtemp(prefix="emberlog-bench-"))
    folder.chmod(0o711)  # Postgres may have to run as another user, who must be able to reach its folder
    return folder


@contextlib.contextmanager
def without_settings() -> Iterator[None]:
    """Hide the caller's settings, so that a bench never writes to the database of a real installation."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_SETTINGS)}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _machine(cores: Cores) -> dict[str, Any]:
    return {
        "python": sys.version.split()[0],
        "cores": len(cores.all),
        "gateway_cores": sorted(cores.gateway),
        "simulator_cores": sorted(cores.simulator),
        "load_cores": sorted(cores.load),
        "service_cores": sorted(cores.services),
        "fsync": "on",
    }


def bench(
    seconds: float = 10.0,
    agents: int = 64,
    provider_ms: float = 5.0,
    rate: float = 2000.0,
    json: bool = False,
    keep: bool = False,
) -> None:
    """Measure this machine: requests/s, latency, CPU per request, texts per provider call, events/s.

    `seconds`: how long each scenario is measured. `agents`: connections. `provider_ms`: how long the simulated provider takes in the
    closed loops. `rate`: requests a second offered in the open loop. `json`: one JSON document on stdout instead of the table.
    """
    import uvloop
    from rich.console import Console

    console = Console(stderr=True)
    options = BenchOptions(scenarios=standard(agents, provider_ms, rate), seconds=seconds, keep=keep)
    with console.status("preparing") as status:
        on_terminal = console.is_terminal
        document = uvloop.run(run(options, lambda line: status.update(line) if on_terminal else console.print(line)))
    if json:
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    else:
        show(document["scenarios"], document["machine"], Console())


def main() -> None:
    """The command line of `python -m gateway.bench.run`."""
    import typer

    typer.run(bench)


if __name__ == "__main__":
    main()
