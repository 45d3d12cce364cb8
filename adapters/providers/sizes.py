"""How large an answer may be, and how unreadable: what was asked for bounds it, so that no server, whoever runs it, fills a gateway's memory."""

from __future__ import annotations

import msgspec

from domain.ports.provider import ProviderError, ProviderFault

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a body that is no JSON, or not of the shape that was expected, raises when it is decoded; the last one where it is nested without end."""
_OF_ITSELF = 1024 * 1024
"""Bytes of an answer without vectors: an error, a list of models."""
_OF_A_TEXT = 256 * 1024
"""Bytes that the vector of one text may take: 4,096 numbers, each on an indented line of its own, are half of it."""


def most_bytes(texts: int) -> int:
    """The most that is read of an answer to a call of so many texts, unpacked."""
    return _OF_ITSELF + texts * _OF_A_TEXT


def too_much(most: int) -> ProviderError:
    """The answer went on beyond that."""
    return ProviderError(ProviderFault.BAD_ANSWER, f"the body is larger than what was asked for takes ({most} bytes)")
