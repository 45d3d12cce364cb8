"""Where a webhook may connect to: public addresses only, so that nobody reaches what stands behind the gateway through it.

The name is resolved once, every address that it has is judged, and the connection goes to those very addresses: a name that resolves
otherwise a moment later (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from domain.webhook_url import Address

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Name and port -> its addresses. Raises OSError."""

# The registries of special addresses at IANA, written out: the standard library's own answer differs between Python's patch releases.
_V4 = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
        "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
        "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # the host's own services at Azure, though the address is public
    )
]  # fmt: skip
# Only 2000::/3 is handed out at all; these parts of it are special.
_V6_GLOBAL = IPv6Network("2000::/3")
_V6 = [
    IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
]  # fmt: skip
_NAT64 = IPv6Network("64:ff9b::/96")
_PRIVATE: list[IPv4Network | IPv6Network] = [
    IPv4Network("10.0.0.0/8"), IPv4Network("100.64.0.0/10"), IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16"),
    IPv6Network("fc00::/7"),
]  # fmt: skip
_METADATA: list[IPv4Network | IPv6Network] = [
    IPv4Network("100.100.100.200/32"),
    IPv6Network("fd00:ec2::/32"),
    IPv6Network("fd20:ce::/32"),
]
"""Metadata services that stand in private ranges; most stand at a link-local address, which is refused whatever is allowed."""


class Forbidden(Exception):
    """A webhook may not connect there; the message names no address, for its reader may not know the network."""


def effective(text: str) -> IPv4Address | IPv6Address:
    """The address that a packet to `text` ends at: the IPv4 address within a mapped or NAT64 one."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def public(text: str) -> bool:
    """Whether anybody on the internet could reach this address."""
    address = effective(text)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _V4)
    return address in _V6_GLOBAL and not any(address in network for network in _V6)


def allowed(text: str, *, scheme: str = "https", allow_private: bool = False) -> bool:
    """Whether a webhook may connect to this address."""
    address = effective(text)
    if scheme == "http":
        return allow_private and address.is_loopback
    if public(text):
        return True
    if not allow_private or any(address in network for network in _METADATA):
        return False
    return address.is_loopback or any(address in network for network in _PRIVATE)


async def resolve_name(host: str, port: int) -> list[str]:
    """Ask the system's resolver. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def reachable(address: Address, *, allow_private: bool, resolve: Resolve = resolve_name) -> list[str]:
    """The addresses to connect to. Raises `Forbidden` if one of the host's addresses must not be, OSError if it has none."""
    try:
        found = [str(ip_address(address.host))]
    except ValueError:
        found = await resolve(address.host, address.port)
    if not found:
        raise OSError("the name has no address")
    if not all(allowed(a, scheme=address.scheme, allow_private=allow_private) for a in found):
        raise Forbidden(
            "the host has an address that webhooks may not reach: expected public addresses only"
            if address.scheme == "https"
            else "http is for this machine itself only: use https"
        )
    return found
