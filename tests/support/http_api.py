"""What the simulated APIs of Cohere, Mistral, Voyage and Jina share: strict fields, the caps of a call, vectors in the forms that JSON has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import aiohttp
import msgspec
import numpy as np
import pybase64
from numpy.typing import NDArray

from gateway.bench.connection import Answer, Request
from gateway.bench.faults import Fault
from gateway.bench.tokens import Counter
from gateway.bench.wire_api import Asked, Limits, Refused, fault_headers
from tests.conformance.http_rig import rows_of
from tests.conformance.provider_contract import KEY

UNMEANT = "Something is wrong with this request."


class Reading:
    """Reads the fields of a body, each once and of the right type; `refuse(detail)` answers what is wrong as the provider does."""

    def __init__(self, request: Request, refuse: Callable[[str], Refused]) -> None:
        self._refuse = refuse
        if request.method != b"POST":
            self.wrong(f"method {request.method.decode()}: expected POST")
        if request.headers.get(b"content-type", b"").partition(b";")[0] != b"application/json":
            self.wrong("content-type: expected application/json")
        try:
            self._left: dict[str, Any] = msgspec.json.decode(request.body, type=dict[str, Any])
        except msgspec.MsgspecError:
            self.wrong("the body is not a JSON object")

    def wrong(self, detail: str) -> NoReturn:
        raise self._refuse(detail)

    def text(self, name: str, *options: str) -> str:
        found: str = self._one(name, str, options)
        return found

    def texts(self, name: str) -> list[str]:
        found: list[str] = self._one(name, list, ())
        if not found or any(type(item) is not str or not item for item in found):
            self.wrong(f"{name}: expected a list of texts, none empty")
        return found

    def maybe(self, name: str, kind: type, *options: Any) -> Any:
        """The field where it is there; null is as good as absent, as the SDKs have it."""
        if self._left.get(name) is None:
            self._left.pop(name, None)
            return None
        return self._one(name, kind, options)

    def end(self) -> None:
        """Refuse what was not read: the real ones do, or it would have no effect that anybody notices."""
        if self._left:
            self.wrong(f"unknown parameter: {', '.join(sorted(self._left))}")

    def _one(self, name: str, kind: type, options: tuple[Any, ...]) -> Any:
        if name not in self._left:
            self.wrong(f"{name}: field required")
        value = self._left.pop(name)
        if type(value) is not kind or (options and value not in options):
            self.wrong(f"{name}: expected {', '.join(map(str, options)) or kind.__name__}")
        return value


class JsonApi:
    """A `WireApi` but for what is one provider's: its path, how it reads a call, how it answers and how it says no."""

    path = "/v1/embeddings"
    models: Mapping[str, int]

    def __init__(self, *, base64: bool = True) -> None:
        self.base64 = base64

    def error(self, status: int, message: str, code: str | None = None) -> dict[str, Any]:
        """The provider's error body."""
        raise NotImplementedError

    def no_such_model(self, model: str) -> Refused:
        raise NotImplementedError

    def wrong_key(self) -> Answer:
        raise NotImplementedError

    def refused(self, status: int, message: str, code: str | None = None) -> Refused:
        return Refused(Answer(status, msgspec.json.encode(self.error(status, message, code))))

    def embeds(self, target: bytes) -> bool:
        return target == self.path.encode()

    def credential(self, request: Request) -> bytes:
        kind, _, key = request.headers.get(b"authorization", b"").partition(b" ")
        return key if kind == b"Bearer" else b""

    def unauthorised(self) -> Answer:
        return self.wrong_key()

    def fault_answer(self, fault: Fault) -> Answer:
        headers = fault_headers(fault)
        if fault.body is not None:
            return Answer(fault.status, fault.body.encode(), headers, b"text/html")
        body = self.error(fault.status, fault.message or UNMEANT, fault.code)
        return Answer(fault.status, msgspec.json.encode(body), headers)

    def other(self, request: Request) -> Answer:
        return Answer(404, msgspec.json.encode(self.error(404, "page not found")))

    def size(self, model: str, dimensions: int | None, allowed: Callable[[int], bool], reading: Reading) -> int:
        """The size of the vectors that are asked for."""
        if model not in self.models:
            raise self.no_such_model(model)
        if dimensions is None:
            return self.models[model]
        if not allowed(dimensions):
            reading.wrong(f"{dimensions} is no size of {model}")
        return dimensions


def data_of(asked: Asked, fault: Fault | None, base64: bool) -> list[dict[str, Any]]:
    """The entries of `data`, spoilt as `fault` says."""
    indices, rows = rows_of(asked, fault)
    as_base64 = base64 and not (fault is not None and fault.kind == "float")
    shown = [as_text(row) if as_base64 else numbers(row) for row in rows]
    if fault is not None and fault.kind == "bad_base64":
        shown[-1] = "not base64 at all!"
    return [{"object": "embedding", "index": i, "embedding": row} for i, row in zip(indices, shown, strict=True)]


def as_text(row: NDArray[np.float32]) -> str:
    return pybase64.b64encode(row.astype("<f4").tobytes()).decode()


def numbers(row: NDArray[np.float32]) -> list[float]:
    found: list[float] = row.astype(float).tolist()
    return found


def body_of(told: dict[str, Any], fault: Fault | None) -> Answer:
    """As JSON; Python's own encoder writes NaN and Infinity, which are no JSON, and so do servers that use it."""
    lax = fault is not None and fault.kind in ("nan", "infinity")
    return Answer(200, json.dumps(told).encode() if lax else msgspec.json.encode(told))


def cut(texts: list[str], limits: Limits) -> list[str]:
    """What a provider makes of texts over its limit when it is not told to refuse them."""
    return [" ".join(text.split(" ")[: limits.max_input_tokens]) for text in texts]


def counted(texts: list[str], count: Counter, limits: Limits) -> tuple[list[int], int | None, bool]:
    """The tokens of each text, the place of the first that is over the model's limit, and whether the call is over its own."""
    counts = [count(text) for text in texts]
    long = next((place for place, tokens in enumerate(counts) if tokens > limits.max_input_tokens), None)
    return counts, long, sum(counts) > limits.max_tokens


async def post(url: str, body: dict[str, Any], key: str, content_type: str = "application/json") -> tuple[int, bytes]:
    """What a server answers to a body that no adapter of ours would send."""
    headers = {"authorization": f"Bearer {key}", "content-type": content_type}
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as response:
        return response.status, await response.read()


async def check_strictness(url: str, good: dict[str, Any], wrong: list[dict[str, Any]]) -> None:
    """The negative control of a simulated server: it takes the good body, and none that differs in what `wrong` says (None: left out)."""
    status, told = await post(url, good, KEY)
    assert status == 200, told
    status, _ = await post(url, good, KEY, "text/plain")
    assert 400 <= status < 500
    status, _ = await post(url, good, "sk-wrong")
    assert status == 401
    for change in wrong:
        body = {name: value for name, value in (good | change).items() if value is not None}
        status, told = await post(url, body, KEY)
        assert 400 <= status < 500, f"the server took {change}"
