"""The client's end of the wire: MessagePack maps in binary frames, and the address they go to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgpack

from .errors import ProtocolViolation

SUBPROTOCOL = "emberlog.v1.msgpack"
PATH = "/v1/agent"

_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def pack(message: Mapping[str, Any]) -> bytes:
    """One message as the bytes of one binary frame."""
    packed: bytes = msgpack.packb(message, use_bin_type=True)
    return packed


def unpack(frame: bytes | str) -> dict[str, Any]:
    """One frame as a map. Raises `ProtocolViolation` for anything else."""
    if isinstance(frame, str):
        raise ProtocolViolation("the gateway sent a text frame; this client speaks MessagePack in binary frames")
    try:
        message = msgpack.unpackb(frame, raw=False, strict_map_key=False)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolViolation(f"the gateway sent {len(frame)} bytes that are not MessagePack") from error
    if not isinstance(message, dict):
        raise ProtocolViolation("the gateway sent MessagePack that is not a map")
    return message


def socket_url(url: str) -> str:
    """The WebSocket address behind what people paste: `http(s)://host`, `ws(s)://host/prefix`, or the full one.

    Raises `ValueError` for other schemes, and for a user, password or query: credentials do not belong in addresses.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise ValueError("the gateway's address must look like http://host:port or wss://host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("the gateway's address must be without user, query and fragment; pass the key as `key`")
    path = parts.path.rstrip("/")
    if not path.endswith(PATH):
        path += PATH
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, "", ""))
