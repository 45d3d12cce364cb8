"""The few lines between our process and a server's: become its user, ask to be told when the supervisor dies, and exec.

Run as a script by its path, with this interpreter isolated from any environment (`python -I -S`); it imports nothing of ours.
Arguments: supervisor's pid, death signal, uid, gid, umask (octal), then the command. uid -1 means: stay who we are.

A process of its own, not a `preexec_fn`: that would run Python between fork and exec in a process with threads. The signal is
asked for after the change of user, which would clear it.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Does not return: execs the command, or exits 127 with one line on stderr."""
    parent, death_signal, uid, gid = (int(value) for value in arguments[:4])
    command = arguments[5:]
    os.umask(int(arguments[4], 8))
    try:
        if uid >= 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the supervisor died before its child started")
        os.execv(command[0], command)  # noqa: S606 - no shell is the point; the command is the supervisor's own
    except OSError as error:
        print(f"cannot start {command[0]} as uid {uid if uid >= 0 else os.getuid()}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
