"""Failed attempts to get in, counted by client address: who fails too often is told to wait. A valid credential is never kept out."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from starlette.types import Scope

from domain.errors import GatewayError
from domain.rate_buckets import SCALE, Claim, drained, fits, wait_ms

ADDRESSES = 65_536
"""Addresses remembered; the one that has not failed for longest goes first."""


class FailedLogins:
    """A token bucket per address, of this process. `clock` is seconds that only grow."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._claim = Claim("", per_minute, 1)
        self._clock = clock
        self._addresses: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def judged(self, error: GatewayError, address: str) -> GatewayError:
        """What the client at `address` is told instead of `error`: `unauthorized` is counted, and is `rate_limited` when there were too many."""
        if error.code != "unauthorized":
            return error
        claim, now = self._claim, int(self._clock() * 1000)
        lacking, at = self._addresses.pop(address, (0, now))
        lacking = drained(lacking, at, claim.limit, now)
        allowed = fits(claim, lacking)
        self._addresses[address] = (lacking + SCALE if allowed else lacking, now)
        if len(self._addresses) > ADDRESSES:
            self._addresses.popitem(last=False)
        if allowed:
            return error
        return GatewayError(
            "rate_limited",
            f"too many requests without a valid credential came from this address, more than {claim.limit} a minute: wait, then send a "
            "valid one, which is not kept waiting",
            details={"scope": "address", "unit": "requests", "limit": claim.limit},
            retry_after_ms=wait_ms(claim, lacking),
        )


def address_of(scope: Scope) -> str:
    """Who a connection comes from, as far as it can be told: an IPv4 address, the /64 network of an IPv6 address, nothing for a local socket.

    Where the peer is a trusted proxy, the server has put the client that it speaks for in its place.
    """
    client = scope.get("client")
    host = str(client[0]) if client else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> 64 << 64))
    return host
