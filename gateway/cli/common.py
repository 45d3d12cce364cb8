"""What every management command shares: its options, its one way of running and failing, its one way of printing.

Exit codes: 0 done, 1 failed, 2 wrong usage. With `--json` standard output holds one JSON document and nothing else; whatever goes
wrong is one line on standard error.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from gateway.manage import Installation
    from gateway.settings import Settings

T = TypeVar("T")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
LedgerOption = Annotated[
    Path | None, typer.Option("--ledger", help="The shred ledger; by default shredded.ndjson in the archive folder.")
]
TenantVersionOption = Annotated[
    int | None,
    typer.Option(
        "--expected-version", help="The tenant's version that was read: where it is another by now, nothing changes."
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file of settings; EMBERLOG_CONFIG is the same.")
]


class Failed(Exception):
    """The command cannot do what was asked; the message is all that is printed. `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def execute(config: Path | None, work: Callable[[Settings], Awaitable[T]]) -> T:
    """Run `work` with the settings, to its end or to Ctrl-C or SIGTERM; whatever fails becomes a line and an exit code."""
    import signal

    import asyncpg

    from adapters.embedded import EmbeddedError
    from adapters.postgres.migrator import MigrationError
    from adapters.postgres.pool import RoleMissing
    from adapters.providers.registry import EndpointError
    from domain.errors import GatewayError
    from domain.ports.event_log import InstanceFenced, LogDamaged, LogUnavailable
    from domain.upcasters import UnknownSchema
    from gateway.house import NotReady
    from gateway.secrets import SecretKeyError
    from gateway.settings import InvalidSettings, load_settings
    from gateway.shred_ledger import LedgerUnusable
    from gateway.telemetry.logs import configure_logs
    from projections.projection import GapInLog, ProjectionHalted, Refused
    from projections.worker import reason

    async def supervised(settings: Settings) -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work(settings)

    try:
        settings = load_settings(config)
        configure_logs("critical", "console")
        logging.getLogger().setLevel(logging.CRITICAL + 1)  # what a user must know is the line we end with
        return asyncio.run(supervised(settings))
    except Failed as error:
        raise _exit(str(error), error.code) from None
    except GatewayError as error:
        raise _exit(f"{error.code}: {error.message}", 2 if error.code == "invalid_config" else 1) from None
    except InvalidSettings as error:
        raise _exit(f"the settings are wrong: {error}", 1) from None
    except (
        EmbeddedError,
        EndpointError,
        GapInLog,
        LedgerUnusable,
        LogDamaged,
        LogUnavailable,
        MigrationError,
        NotReady,
        ProjectionHalted,
        Refused,
        RoleMissing,
        SecretKeyError,
        UnknownSchema,
    ) as error:
        raise _exit(str(error), 1) from None
    except InstanceFenced:
        raise _exit("the command took too long and was shut out of the log: run it again", 1) from None
    except BrokenPipeError:
        # Whoever read our output has left. Nothing more can be said, nor is anything wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(130) from None
    except asyncpg.PostgresError as error:
        raise _exit(f"the database refused: {reason(error)}", 1) from None
    except (OSError, asyncpg.InterfaceError, ValueError) as error:
        raise _exit(f"the database cannot be reached: {type(error).__name__}: {error}", 1) from None


def with_installation(config: Path | None, work: Callable[[Installation], Awaitable[T]]) -> T:
    """`execute` with the installation open."""

    async def opened(settings: Settings) -> T:
        from gateway.manage import open_installation

        async with open_installation(settings) as installation:
            return await work(installation)

    return execute(config, opened)


def _exit(message: str, code: int) -> typer.Exit:
    typer.echo(f"emberlog: {printable(' '.join(message.split()))}", err=True)
    return typer.Exit(code)


def encode(value: Any) -> str:
    """JSON of plain data or structs, on one line."""
    import msgspec

    return msgspec.json.encode(value).decode()


def tell(value: Any, as_json: bool, *lines: str) -> None:
    """Print `value` as JSON, or the lines for a person."""
    for line in (encode(value),) if as_json else lines:
        typer.echo(line)


def fields(value: Mapping[str, Any]) -> list[str]:
    """The lines for a person of one object: a field each, whole however long; objects within it as JSON."""
    width = max(map(len, value))
    texts = ((n, "" if v is None else printable(v) if isinstance(v, str) else encode(v)) for n, v in value.items())
    return [f"{name:<{width}}  {text}".rstrip() for name, text in texts]


def printable(text: str) -> str:
    """The text without what a terminal would act upon: agents, threads and keys bear the names that clients gave them."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show(value: Any, as_json: bool, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print `value` as JSON, or a table of `rows`."""
    if as_json:
        typer.echo(encode(value))
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    # Folded, never cut: the next command needs the whole of a name or an id.
    table = Table(*(Column(name, overflow="fold") for name in columns), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("" if cell is None else Text(printable(str(cell))) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = 1000  # whoever reads this is a program: nothing is cut off
    console.print(table)


def parse_time(text: str | None, option: str) -> datetime | None:
    """A point in time from ISO 8601 (UTC where no offset is given). Wrong usage otherwise."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        # To UTC here, where the years at either end, which may have no counterpart there, are still wrong usage.
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text[:40]!r} is no time: expected ISO 8601, for example 2026-01-31 or 2026-01-31T12:00:00Z",
            param_hint=option,
        ) from None


def parse_place(text: str, option: str) -> int | datetime:
    """A place in the log: a position (digits alone, so 20260131 is one), or a point in time. Wrong usage otherwise."""
    if text.isdecimal():
        if len(text) > 18:
            raise typer.BadParameter("expected a position of the log, at most 18 digits", param_hint=option)
        return int(text)
    time = parse_time(text, option)
    assert time is not None
    return time


def parse_duration(text: str, option: str) -> timedelta:
    """A positive duration such as 90s, 15m, 12h, 30d. Wrong usage otherwise."""
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    number, unit = text[:-1], text[-1:]
    try:
        duration = timedelta(**{units[unit]: int(number)})
    except (KeyError, ValueError, OverflowError):
        duration = timedelta(0)
    if duration <= timedelta(0):
        raise typer.BadParameter(
            f"{text[:40]!r} is no duration: expected a number and s, m, h or d, for example 30d", param_hint=option
        )
    return duration


def split_list(text: str) -> list[str]:
    """A comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]
