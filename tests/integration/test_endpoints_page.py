"""Every command of `docs/endpoints.md`, as it stands there, on a gateway's database and a server that speaks OpenAI's API."""

from __future__ import annotations

import asyncio
import base64
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.provider import MODEL, Simulator
from tests.support.cli import Cli
from tests.support.databases import with_user

PAGE = Path(__file__).parents[2] / "docs" / "endpoints.md"
NAMES = {"NAME": "main", "MODEL": MODEL}
KEY = "sk-of-the-page-0123456789"


def page_commands() -> list[str]:
    """Of the blocks, then those within sentences that are not among them. What begins with `curl` is of the API's tests."""
    text = re.sub(r"\b(NAME|MODEL)\b", lambda found: NAMES[found[0]], PAGE.read_text())
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    shown = re.findall(r"^(emberlog .*?)(?: +#.*)?$", blocks, re.MULTILINE) + re.findall(r"`(emberlog [^`]*)`", text)
    return list(dict.fromkeys(shown))


@pytest.fixture
def provider() -> Iterator[Simulator]:
    started = Simulator()
    yield started
    started.close()


@pytest.fixture
async def cli(migrated_dsn: str, tmp_path: Path, provider: Simulator) -> Cli:
    key, config = tmp_path / "secret.key", tmp_path / "emberlog.toml"
    key.write_bytes(base64.b64encode(bytes(32)))
    (tmp_path / "key.txt").write_text(KEY)
    config.write_text("".join(
        f'[[endpoints]]\nname = "{name}"\nprovider = "openai"\nbase_url = "{provider.url}/v1"\nmodels = ["{MODEL}"]\n'
        for name in ("main", "eu")
    ))  # fmt: skip
    made = Cli({
        "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
        "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
        "EMBERLOG_REDIS_URL": "none",
        "EMBERLOG_SECRET_KEY_FILE": str(key),
        "EMBERLOG_CONFIG": str(config),
        "EMBERLOG_DRAIN_SECONDS": "1",
        "OPENAI_KEY_EU": KEY,
    })  # fmt: skip
    assert (await made.run("tenants", "create", "acme")).code == 0
    return made


async def shell(cli: Cli, folder: Path, line: str) -> tuple[int, str]:
    """A line for a shell, with redirections: its exit code, and what it wrote."""
    command = line.replace("emberlog", f"{shlex.quote(sys.executable)} -m gateway.cli", 1)
    process = await asyncio.create_subprocess_shell(
        command, cwd=folder, env={**cli.environment, "PYTHONPATH": str(PAGE.parents[1])},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_every_command_of_the_page_does_what_it_says(cli: Cli, provider: Simulator, tmp_path: Path) -> None:
    added = {"emberlog models deploy": ["--base-url", f"{provider.url}/v1"], "emberlog models undeploy": ["openai-eu"]}
    said: dict[str, str] = {}
    for line in page_commands():
        if "<" in line:
            code, said[line] = await shell(cli, tmp_path, line)
        else:
            more = next((m for command, m in added.items() if line.startswith(command)), [])
            outcome = await cli.run(*shlex.split(line)[1:], *more)
            code, said[line] = outcome.code, outcome.out + outcome.error
        assert code == 0, f"{line}: {said[line]}"

    def of(command: str) -> str:
        return next(text for line, text in said.items() if line.startswith(f"emberlog {command}"))

    assert "main" in of("endpoints list")
    assert of("models attest").count("attested") == 2
    assert "openai-eu: ready" in of("models deploy")
    assert "openai-eu: stopped" in of("models undeploy")
    assert of("credentials set") == "my-openai: revision 1 for openai\n"
    assert KEY not in str(said)
    listed: list[dict[str, Any]] = await cli.json("credentials", "list", "--tenant", "acme")
    assert [(c["name"], c["tenant"], c["provider"]) for c in listed] == [("my-openai", "acme", "openai")]


def test_the_page_is_read_to_its_end() -> None:
    shown = " ".join(page_commands())
    for command in (
        "endpoints list", "endpoints show", "endpoints health", "endpoints reset-breaker", "models attest", "--new-references",
        "models deploy", "models undeploy", "credentials set",
    ):  # fmt: skip
        assert command in shown, command
