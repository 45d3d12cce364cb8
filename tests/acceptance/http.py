"""Plain HTTP requests to a gateway, without a client library that would retry or hide anything."""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What came back. Header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


async def request(
    url: str,
    body: Any = None,
    *,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    method: str | None = None,
) -> Answer:
    """GET, or POST where there is a JSON body, unless another `method` is given."""
    given = {"content-type": "application/json", **(headers or {})}
    if key is not None:
        given["authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()

    def ask() -> Answer:
        try:
            answer = urllib.request.urlopen(
                urllib.request.Request(url, data, given, method=method), timeout=30, context=tls
            )
        except urllib.error.HTTPError as refused:
            answer = refused
        with answer:
            return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())

    return await asyncio.to_thread(ask)
