"""What of an event the tenant's key sealed, for whoever may see it: opened, or said to be gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.secrets import SecretKeyError
from gateway.secrets import open_metadata as unseal_metadata

SHREDDED: dict[str, Any] = {"shredded": True}
"""What is shown in place of what was sealed with a key that is destroyed."""


def open_metadata(tenant: str, data: bytes, keys: Mapping[str, bytes]) -> dict[str, Any] | None:
    """The free metadata in an event's data: plain, `SHREDDED` where the tenant has no key any more, None where there is none.

    Raises `SecretKeyError` where it was sealed with another key than the tenant's; ValueError where it was changed.
    """
    fields = msgspec.json.decode(data)
    sealed = fields.get("metadata") if isinstance(fields, dict) else None
    if not isinstance(sealed, str):
        return None
    if tenant not in keys:
        return SHREDDED
    opened = msgspec.json.decode(unseal_metadata(keys[tenant], sealed))
    if not isinstance(opened, dict):
        raise SecretKeyError("the sealed metadata is no map: it was changed")
    return opened
