"""Where the services of a data folder keep their files, and the note in the folder when that is elsewhere.

Usually everything lies in the data folder: `postgres/` (the cluster), `run/` (sockets, 0700), `log/`. Two things move:
- the cluster and the sockets, when the user that runs them cannot pass one of the parents (root's home, a 0700 folder);
- the sockets, when their path would pass the kernel's limit or hold characters that a connection string cannot carry.
`place.json` in the data folder then says where they are. Permissions of folders that we did not make are never changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from adapters.embedded.account import Account, choose_account
from adapters.embedded.errors import ServiceFailed
from adapters.embedded.files import write_atomically

PLACE_NAME = "place.json"
SOCKET_PATH_LIMIT = 107
"""Bytes of a Unix socket's path: sun_path has 108 with the terminating NUL (unix(7))."""
_OWNER_NAME = "data-folder"
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+-]+")
_LONGEST_SOCKET_NAME = ".s.PGSQL.5432"
SYSTEM_PLACE = Path("/var/lib/emberlog")
"""Where root keeps what the servers' user cannot reach elsewhere. Not below /var/tmp: what is old there may be swept away."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one data folder's services. `home` holds the cluster and is the data folder unless that is out of reach."""

    data_dir: Path
    home: Path
    sockets: Path
    account: Account

    @property
    def cluster(self) -> Path:
        """Postgres's data directory."""
        return self.home / "postgres"

    @property
    def cluster_name(self) -> str:
        """What every process of the cluster carries in its title, so that it can be told from any other."""
        return "emberlog-" + hashlib.blake2b(os.fsencode(self.cluster), digest_size=8).hexdigest()

    @property
    def valkey_socket(self) -> Path:
        """The socket that Valkey listens on."""
        return self.sockets / "valkey.sock"

    def log(self, service: str) -> Path:
        """The log file of a service."""
        return self.data_dir / "log" / f"{service}.log"


def make_data_folder(data_dir: Path) -> Path:
    """Make the folder when it is missing (0700; 0711 for root, whose servers run as another user) and return its real path."""
    try:
        if not data_dir.exists():
            data_dir.mkdir(parents=True, mode=0o700, exist_ok=True)
            data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        return data_dir.resolve(strict=True)
    except OSError as error:
        raise ServiceFailed(
            f"the data folder {data_dir} cannot be made: {error.strerror}; set EMBERLOG_DATA_DIR to a folder that can be written"
        ) from None


def prepare(data_dir: Path) -> Layout:
    """Decide where everything lies, make the folders, keep the note. The caller holds the folder's lock."""
    note = _read_note(data_dir)
    noted_home = note.get("home")
    home = Path(noted_home) if noted_home else data_dir
    if noted_home and not home.is_dir():
        raise ServiceFailed(
            f"{data_dir / PLACE_NAME} says that the database of this data folder is in {home}, which does not exist: "
            f"bring it back, or remove {data_dir / PLACE_NAME} to start with an empty database"
        )
    if noted_home and ((owner := whose(home)) is None or not owner.exists()):
        _say_whose(home, data_dir)  # the data folder was moved
    account = choose_account(home / "postgres")
    if not account.can_pass(home):
        if (home / "postgres").exists():
            raise ServiceFailed(
                f"the user that owns the database in {home / 'postgres'} (uid {account.uid}) cannot pass one of its parent folders: "
                "give that folder its x permission back, or move the data folder"
            )
        home = _make_home_elsewhere(data_dir)
    sockets = _socket_folder(home, note.get("sockets"), account)
    kept = {"home": str(home)} if home != data_dir else {}
    if sockets.parent != home:
        kept["sockets"] = str(sockets)
    if kept != note:
        write_atomically(data_dir / PLACE_NAME, json.dumps(kept, indent=1).encode() + b"\n")
    (data_dir / "log").mkdir(mode=0o700, exist_ok=True)
    return Layout(data_dir, home, sockets, account)


def system_place() -> Path:
    """`SYSTEM_PLACE`, made when it is missing. Raises `OSError`."""
    if not SYSTEM_PLACE.exists():
        SYSTEM_PLACE.mkdir(exist_ok=True)
        SYSTEM_PLACE.chmod(0o755)  # whatever the umask is: the servers' user has to pass
    return SYSTEM_PLACE


def _read_note(data_dir: Path) -> dict[str, str]:
    path = data_dir / PLACE_NAME
    try:
        note = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        note = None
    if not isinstance(note, dict) or not all(isinstance(value, str) for value in note.values()):
        raise ServiceFailed(
            f"{path} cannot be read; expected a JSON map with the folder of the database under 'home': "
            "put that back, or remove the file to start with an empty database"
        )
    return note


def _make_home_elsewhere(data_dir: Path) -> Path:
    try:
        home = Path(tempfile.mkdtemp(dir=system_place(), prefix="data-"))
    except OSError as error:
        raise ServiceFailed(
            f"the user that runs Postgres cannot pass the parent folders of {data_dir}, and {SYSTEM_PLACE} cannot be used "
            f"instead ({error.strerror}): set EMBERLOG_DATA_DIR to a folder that every user may pass"
        ) from None
    home.chmod(0o711)
    _say_whose(home, data_dir)
    return home


def whose(home: Path) -> Path | None:
    """The data folder that a home elsewhere says it belongs to."""
    try:
        return Path(os.fsdecode((home / _OWNER_NAME).read_bytes().rstrip(b"\n")))
    except FileNotFoundError:
        return None


def _say_whose(home: Path, data_dir: Path) -> None:
    (home / _OWNER_NAME).write_bytes(os.fsencode(data_dir) + b"\n")


def _socket_folder(home: Path, noted: str | None, account: Account) -> Path:
    folder = home / "run"
    if len(os.fsencode(folder / _LONGEST_SOCKET_NAME)) <= SOCKET_PATH_LIMIT and _PLAIN_PATH.fullmatch(str(folder)):
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
    elif noted and is_private(Path(noted), account):
        return Path(noted)
    else:
        # Not the temporary folder of the environment: that may be as long as the data folder's path. It is 0700; the note keeps it.
        folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="emberlog-"))
    account.owns(folder)
    return folder


def is_private(folder: Path, account: Account) -> bool:
    """Whether a short socket folder of an earlier start can be used again: still a folder, ours, closed to others."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == account.uid and stat.S_IMODE(status.st_mode) == 0o700
