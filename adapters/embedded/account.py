"""Which user runs the servers, and which folders that user can pass through.

Postgres refuses to run as root, so root hands both servers to an unprivileged user; anyone else runs them as themselves.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from adapters.embedded.errors import ServiceFailed

CANDIDATES = ("postgres", "nobody")
"""Users tried in this order when we are root: a dedicated one first, else the one every system has."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user that the servers run as. `switch` is whether the child has to become it."""

    uid: int
    gid: int
    switch: bool

    def owns(self, path: Path) -> None:
        """Give a file or folder of ours to this user (nothing to do when it is us)."""
        if self.switch:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def can_pass(self, folder: Path) -> bool:
        """Whether this user may pass through every folder from / down to `folder`, by the permission bits."""
        return all(self._may_enter(step) for step in (*reversed(folder.parents), folder))

    def _may_enter(self, folder: Path) -> bool:
        if self.uid == 0:
            return True
        status = folder.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & 0o100)
        if status.st_gid == self.gid:
            return bool(status.st_mode & 0o010)
        return bool(status.st_mode & 0o001)


def choose_account(cluster: Path) -> Account:
    """The user for a cluster: ourselves unless we are root, else its present owner, else the first of `CANDIDATES` there is."""
    me = os.geteuid()
    owner = cluster.stat().st_uid if cluster.exists() else None
    if me != 0:
        if owner not in (None, me):
            raise ServiceFailed(
                f"the database in {cluster} belongs to uid {owner} and this process runs as uid {me}: "
                "run as that user (or as root), or set EMBERLOG_DATA_DIR to another folder"
            )
        return Account(me, os.getegid(), switch=False)
    if owner:
        return Account(owner, cluster.stat().st_gid, switch=True)
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_uid, entry.pw_gid, switch=True)
    raise ServiceFailed(
        "Postgres does not run as root and this system has none of the users "
        f"{', '.join(CANDIDATES)}: create one (useradd --system postgres), run as an ordinary user, or set EMBERLOG_DATABASE_URL"
    )
