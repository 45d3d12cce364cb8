"""What a user installs: the wheels, in an environment and a folder of their own."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.site import REPOSITORY

_ASKS = """
import sys
from emberlog_client import SyncClient
import emberlog_client, gateway
for module in (emberlog_client, gateway):
    assert module.__file__.startswith(sys.prefix), module.__file__
with SyncClient(sys.argv[1], sys.argv[2], proxy=None) as client:
    result = client.generate(["a text", "another"])
print(result.vectors.shape, result.space)
"""


def _build(project: Path, out: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out), str(project)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = out.glob("*.whl")
    return wheel


def _files(pattern: str) -> set[str]:
    """Names of the packages' files in the repository."""
    packages = ("adapters", "domain", "gateway", "migrations", "projections")
    found = {
        p.relative_to(REPOSITORY).as_posix() for package in packages for p in (REPOSITORY / package).rglob(pattern)
    }
    assert found, f"the repository has no {pattern}"
    return found


def _install(wheels: list[Path], environment: Path) -> None:
    """An environment with the wheels alone, and this one's dependencies (but not its editable projects) behind them."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "--disable-pip-version-check",
         "install", "--quiet", "--no-deps", "--no-index", *map(str, wheels)],
        check=True, capture_output=True,
    )  # fmt: skip
    (site_packages,) = (environment / "lib").glob("python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")


@pytest.mark.usefixtures("_plain_environment")
async def test_the_wheels_hold_everything_that_serving_needs(folder: Path) -> None:
    server, client = await asyncio.gather(
        asyncio.to_thread(_build, REPOSITORY, folder / "server"),
        asyncio.to_thread(_build, REPOSITORY / "client", folder / "client"),
    )
    held = set(zipfile.ZipFile(server).namelist())
    for pattern in ("*.sql", "*.toml", "*py.typed"):
        assert _files(pattern) <= held, f"{pattern} files are missing from the wheel"
    assert not [name for name in held if name.startswith("tests/")]
    assert "emberlog_client/py.typed" in zipfile.ZipFile(client).namelist()
    environment = folder / "environment"
    await asyncio.to_thread(_install, [server, client], environment)

    log = folder / "serve.log"
    with log.open("wb") as errors:
        serving = await asyncio.create_subprocess_exec(
            str(environment / "bin" / "emberlog"), "serve", stdout=asyncio.subprocess.PIPE, stderr=errors, cwd=folder,
            env={**os.environ, "EMBERLOG_LISTEN": "127.0.0.1:0", "EMBERLOG_DATA_DIR": "data"},
        )  # fmt: skip
    assert serving.stdout is not None
    try:
        async with asyncio.timeout(60):
            line = (await serving.stdout.readline()).decode()
        listening = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
        assert listening is not None, log.read_text()
        key = re.search(r"em_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", log.read_text())
        assert key is not None, log.read_text()
        asking = await asyncio.create_subprocess_exec(
            str(environment / "bin" / "python"), "-c", _ASKS, listening[1], key[0],
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=folder,
        )  # fmt: skip
        out, err = await asking.communicate()
        assert asking.returncode == 0, err.decode()
        assert out.decode().strip() == "(2, 384) all-MiniLM-L6-v2@1/384/unit"
    finally:
        if serving.returncode is None:
            serving.terminate()
        await serving.communicate()
    assert serving.returncode == 0
