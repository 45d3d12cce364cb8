"""`emberlog serve` and `emberlog demo`: the commands that run something rather than manage it."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def fail(message: str) -> typer.Exit:
    """Say on standard error what went wrong; raise what this returns to end with exit code 1."""
    print(f"emberlog: {message}", file=sys.stderr)
    return typer.Exit(1)


def serve(
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; EMBERLOG_CONFIG is the same.")] = None,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; requests in flight are finished first."""
    gc.disable()  # what is loaded stays: looking through it again and again is a sixth of the start
    import structlog
    import uvloop

    from adapters.catalogue import CatalogueError
    from adapters.embedded import EmbeddedError
    from adapters.postgres.migrator import MigrationError
    from adapters.providers.local.files import ModelError
    from adapters.providers.registry import EndpointError
    from domain.ports.event_log import LogUnavailable
    from gateway.house import NotReady
    from gateway.secrets import SecretKeyError
    from gateway.serve import serve as run
    from gateway.settings import InvalidSettings, load_settings, unknown_variables
    from gateway.telemetry.logs import configure_logs
    from gateway.telemetry.tracing import TracingUnavailable

    gc.freeze()
    gc.enable()
    if config is not None:
        os.environ["EMBERLOG_CONFIG"] = str(config.absolute())  # worker processes read it too
    try:
        settings = load_settings()
        configure_logs(settings.log_level, settings.log_format)
        if unknown := unknown_variables():
            structlog.get_logger("emberlog.serve").warning("unknown_variables", names=unknown)
        uvloop.run(run(settings))
    except InvalidSettings as error:
        raise fail(f"the settings are wrong:\n{error}") from None
    except (
        CatalogueError,
        EmbeddedError,
        EndpointError,
        LogUnavailable,
        MigrationError,
        ModelError,
        NotReady,
        SecretKeyError,
        TracingUnavailable,
        ValueError,
    ) as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"cannot listen or reach a service: {error}") from None


def demo(
    texts: Annotated[int, typer.Option(min=64, help="How many docstrings to embed.")] = 3000,
) -> None:
    """Embed the standard library's docstrings with eight agents, kill the gateway once on the way, answer three questions."""
    try:
        import emberlog_client  # noqa: F401 (a distribution of its own; said clearly here rather than deep below)
    except ImportError:
        raise fail(
            "the demo needs the client: pip install emberlog-client (in a checkout: pip install ./client)"
        ) from None
    from rich.console import Console

    from gateway.demo.run import demo as run

    asyncio.run(run(texts, Console()))
