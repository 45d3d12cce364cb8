"""A process that has loaded `emberlog` and runs each command in a fork of itself: `python -m tests.support.preloaded`.

Loading takes a command twenty times as long as its work, and tests run hundreds. Every command still is a process of its own, with
its own environment, descriptors and exit code; what it lacks is a start of its own, which `Cli.start` and the acceptance tests have.

It prints the abstract name of the socket it listens on and ends with its standard input. A connection carries one request, `Request` as JSON
with the descriptors for standard output and standard error, and the exit code back; a command whose asker has left is killed.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import sys

import msgspec

import gateway.cli

LONGEST_REQUEST = 1 << 17
_NEEDED_BY_MOST = ("gateway.house", "gateway.manage", "gateway.telemetry.logs", "rich.console", "rich.table")


class Request(msgspec.Struct, frozen=True):
    """What to run: `emberlog` with these words, in this folder and exactly this environment."""

    words: list[str]
    environment: dict[str, str]
    folder: str


def fork_for_each(listener: socket.socket) -> Request:
    """Serve. Returns in the forks only, each with the request it is for."""
    askers: dict[int, socket.socket] = {}  # by the pid of their command, until they leave or are told
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    raise SystemExit
                if key.fileobj is listener:
                    asker = listener.accept()[0]
                    text, descriptors, _, _ = socket.recv_fds(asker, LONGEST_REQUEST, 2)
                    pid = os.fork()
                    if pid == 0:
                        for other in (listener, asker, *askers.values()):
                            other.close()
                        return become(msgspec.json.decode(text, type=Request), descriptors)
                    for descriptor in descriptors:
                        os.close(descriptor)
                    askers[pid] = asker
                    selector.register(asker, selectors.EVENT_READ, pid)
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
                elif isinstance(key.fileobj, int):  # it has ended
                    selector.unregister(key.fileobj)
                    os.close(key.fileobj)
                    code = os.waitstatus_to_exitcode(os.waitpid(key.data, 0)[1])
                    if key.data in askers:
                        with askers.pop(key.data) as asker:
                            selector.unregister(asker)
                            asker.sendall(b"%d" % code)
                elif key.data in askers:  # who asked has left
                    with askers.pop(key.data) as asker:
                        selector.unregister(asker)
                    os.kill(key.data, signal.SIGKILL)


def become(request: Request, written: list[int]) -> Request:
    """Be that command from here on, writing to these two descriptors."""
    for number, descriptor in enumerate([os.open(os.devnull, os.O_RDONLY), *written]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    return request


def main() -> None:
    for module in pkgutil.iter_modules(gateway.cli.__path__, "gateway.cli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in _NEEDED_BY_MOST:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0emberlog-test-{os.getpid()}")
        listener.listen(128)
        print(listener.getsockname()[1:].decode(), flush=True)
        request = fork_for_each(listener)
    sys.argv = ["emberlog", *request.words]
    runpy.run_module("gateway.cli", run_name="__main__")


if __name__ == "__main__":
    main()
