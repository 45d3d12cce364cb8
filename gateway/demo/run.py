"""The demo: eight agents embed the standard library's docstrings, the gateway is killed once, three questions are answered."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from adapters.embedded import remove_data_folder
from emberlog_client import Client
from gateway.demo.corpus import Piece, pieces
from gateway.demo.process import GatewayProcess

AGENTS = 8
PER_REQUEST = 4
PIPELINED = 8
QUESTIONS = (
    "how do I read a compressed archive",
    "wait until another thread is finished",
    "turn an object into JSON text",
)


async def demo(count: int, console: Console) -> None:
    """Run it on `count` texts; raises if any text got no vector or any two answers disagree."""
    folder = Path(tempfile.mkdtemp(prefix="emberlog-demo-"))
    gateway = GatewayProcess(folder / "data", f"127.0.0.1:{_free_port()}", folder / "gateway.log")
    try:
        with console.status("reading the standard library's docstrings"):
            corpus = pieces(count)
        console.print(
            f"{len(corpus)} docstrings of Python {sys.version.split()[0]}, {AGENTS} agents, {PER_REQUEST} texts a request"
        )
        with console.status("starting the gateway with its own Postgres, Valkey and local model"):
            await gateway.start()
        assert gateway.key is not None
        console.print(f"gateway at {gateway.url}, process {gateway.pid}")
        started = time.monotonic()
        vectors, figures = await _embed(corpus, gateway, console)
        seconds = time.monotonic() - started
        await _answer(corpus, vectors, gateway, console)
        await _report(gateway, folder, figures, len(corpus), seconds, console)
    finally:
        await gateway.stop()
        await remove_data_folder(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)
    console.print(
        "\n[bold]To go on[/bold]: run [bold]emberlog serve[/bold]; its first start prints a key. Then, in Python:\n\n"
        "    from emberlog_client import SyncClient\n"
        '    with SyncClient("http://127.0.0.1:8080", "<the key>") as c:\n'
        '        result = c.generate(["a text", "another"])\n'
        "        print(result.vectors.shape, result.space, result.cost)\n"
    )


async def _embed(
    corpus: Sequence[Piece], gateway: GatewayProcess, console: Console
) -> tuple[NDArray[np.float32], collections.Counter[str]]:
    """All vectors, in the corpus's order, and the provider's figures summed over both lives of the gateway."""
    assert gateway.key is not None
    vectors: dict[int, NDArray[np.float32]] = {}
    figures: collections.Counter[str] = collections.Counter()
    batches = [range(i, min(i + PER_REQUEST, len(corpus))) for i in range(0, len(corpus), PER_REQUEST)]
    queue = collections.deque(batches)
    half = asyncio.Event()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("embedding", total=len(corpus))

        async def work(client: Client) -> None:
            while queue:
                batch = queue.popleft()
                result = await client.generate([corpus[i].text for i in batch], input_type="document", deadline=120)
                for index, row in zip(batch, result.vectors, strict=True):
                    vectors[index] = np.asarray(row, dtype=np.float32)
                bar.update(task, completed=len(vectors))
                if len(vectors) >= len(corpus) // 2:
                    half.set()

        async def agent(number: int) -> None:
            assert gateway.key is not None
            async with Client(gateway.url, gateway.key, agent=f"agent-{number}", connect_timeout=60) as client:
                await asyncio.gather(*(work(client) for _ in range(PIPELINED)))

        async def accident() -> None:
            await half.wait()
            figures.update(await _provider_figures(gateway.url))
            at = len(vectors)
            await gateway.kill()
            bar.console.print(
                f"[red]killed the gateway (SIGKILL) after {at} texts[/red]; the agents notice nothing but a pause"
            )
            begun = time.monotonic()
            await gateway.start()
            bar.console.print(f"gateway is back after {time.monotonic() - begun:.1f} s, process {gateway.pid}")

        async with asyncio.TaskGroup() as group:
            group.create_task(accident())
            for number in range(AGENTS):
                group.create_task(agent(number))
    figures.update(await _provider_figures(gateway.url))
    return np.stack([vectors[i] for i in range(len(corpus))]), figures


async def _answer(
    corpus: Sequence[Piece], vectors: NDArray[np.float32], gateway: GatewayProcess, console: Console
) -> None:
    assert gateway.key is not None
    async with Client(gateway.url, gateway.key, agent="reader") as client:
        asked = await client.generate(list(QUESTIONS), input_type="query")
    table = Table("question", "nearest docstrings", "cosine", title="searches over the vectors")
    for question, query in zip(QUESTIONS, asked.float32(), strict=True):
        scores = vectors @ query
        best = np.argsort(scores)[::-1][:3]
        table.add_row(question, "\n".join(corpus[i].name for i in best), "\n".join(f"{scores[i]:.2f}" for i in best))
    console.print(table)


async def _report(
    gateway: GatewayProcess,
    folder: Path,
    figures: collections.Counter[str],
    texts: int,
    seconds: float,
    console: Console,
) -> None:
    usage = await _command(folder, "usage", "--grain", "day", "--json")
    columns = ("requests", "abandoned", "tokens", "billed_tokens", "nano_usd")
    agents: dict[tuple[str, str], collections.Counter[str]] = {}
    for row in usage["usage"]:
        sums = agents.setdefault((str(row["agent"]), str(row["model"])), collections.Counter())
        sums.update({name: int(str(row[name])) for name in columns})
    table = Table(
        "agent", "model", *columns, title="usage, from the log (abandoned: open at the kill, then sent again)"
    )
    for key, sums in sorted(agents.items()):
        table.add_row(*key, *(str(sums[name]) for name in columns))
    console.print(table)
    tail = await _command(folder, "events", "tail", "--json")
    kinds = collections.Counter(event["type"] for event in tail["events"])
    table = Table("event", "in the log", title="what the log holds (no text, no vector, no key)")
    for kind, number in sorted(kinds.items()):
        table.add_row(str(kind), str(number))
    console.print(table)
    calls = max(1, figures["emberlog_provider_calls_total"])
    console.print(
        f"{texts} texts in {seconds:.1f} s, the restart included; {calls} provider calls, "
        f"{figures['emberlog_provider_texts_total'] / calls:.1f} texts per call (requests bring {PER_REQUEST})"
    )


async def _command(folder: Path, *words: str) -> dict[str, list[dict[str, object]]]:
    """A management command against the running gateway's data folder."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", *words, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "EMBERLOG_DATA_DIR": str(folder / "data")},
    )  # fmt: skip
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"emberlog {' '.join(words)} ended with {process.returncode}")
    found: dict[str, list[dict[str, object]]] = json.loads(out)
    return found


async def _provider_figures(url: str) -> collections.Counter[str]:
    """The provider counters of the gateway's metrics, summed over endpoints."""

    def fetch() -> str:
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:  # noqa: S310 (our own gateway on loopback)
            return str(answer.read().decode())

    figures: collections.Counter[str] = collections.Counter()
    with contextlib.suppress(OSError):
        for line in (await asyncio.to_thread(fetch)).splitlines():
            if line.startswith("emberlog_provider_"):
                name, _, value = (
                    line.partition("{")[0].partition(" ")
                    if "{" not in line
                    else (line.split("{")[0], "", line.rsplit(" ", 1)[1])
                )
                figures[name] += int(float(value))
    return figures


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
