"""The `openai` provider: any server that speaks OpenAI's embeddings API, through the official SDK.

The SDK builds the request, authenticates, pools connections and raises its errors; its retries are off, its parsing is bypassed.
Vectors are asked for in base64 and decoded straight into one array; servers that answer floats nevertheless are understood.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp
import httpx2
import msgspec
import numpy as np
import openai
import pybase64
from numpy.typing import NDArray
from openai import AsyncOpenAI, DefaultAioHttpClient

from adapters.providers.openai_errors import connection_error, status_error
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault, Text

DEFAULT_BASE_URL = "https://api.openai.com/v1"

# OpenAI's front closes idle connections after minutes; ours go first, so that a call seldom meets a connection just closed.
_KEEPALIVE_SECONDS = 30.0


class _Body(msgspec.Struct, omit_defaults=True, gc=False):
    model: str
    input: Sequence[Text]
    encoding_format: str
    dimensions: int | None = None


class _Item(msgspec.Struct, gc=False):
    embedding: str | list[float]
    index: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None


class _Answer(msgspec.Struct, gc=False):
    data: list[_Item]
    usage: _Usage | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Answer).decode


class OpenAIProvider:
    """One configured endpoint. At most `endpoint.max_concurrency` connections are open at once, kept alive between calls.

    `key` None sends no credential. Endpoint options taken: `organization`, `project`, `encoding_format` (`base64`, or `float` for
    a server that refuses base64).
    """

    def __init__(self, endpoint: Endpoint, key: str | None) -> None:
        options = endpoint.options
        self._encoding = options.get("encoding_format", "base64")
        if self._encoding not in ("base64", "float"):
            raise ValueError(
                f"endpoint {endpoint.name!r}: option encoding_format is {self._encoding!r}; expected 'base64' or 'float'"
            )
        limits = httpx2.Limits(
            max_connections=endpoint.max_concurrency,
            max_keepalive_connections=endpoint.max_concurrency,
            keepalive_expiry=_KEEPALIVE_SECONDS,
        )
        self._client = AsyncOpenAI(
            api_key=key or "none",
            base_url=endpoint.base_url or DEFAULT_BASE_URL,
            max_retries=0,
            timeout=None,  # the whole call has one deadline, set in `embed`
            # A redirect would carry texts and key to a place that nobody configured.
            http_client=DefaultAioHttpClient(limits=limits, timeout=None, follow_redirects=False),
        )
        # Said with each request, our credential beats what OPENAI_API_KEY holds for another server.
        self._headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {key}" if key else openai.Omit(),
        }
        # The SDK takes these from the process's environment, which speaks of one account; an endpoint names its own.
        self._client.admin_api_key = None
        self._client.organization = options.get("organization")
        self._client.project = options.get("project")
        self._client._custom_headers = {}
        self._closed = False

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        """Embed once. Raises `ProviderError` and nothing else (cancellation passes)."""
        if self._closed:
            raise ProviderError(ProviderFault.CONNECTION, "this provider was closed")
        content = await self._post(call)
        answer = _parse(content)
        vectors = _matrix(_in_order(answer.data, len(call.texts)), call.dimensions)
        tokens = answer.usage.prompt_tokens if answer.usage is not None else None
        if tokens is not None and tokens < 0:
            raise ProviderError(ProviderFault.BAD_ANSWER, "the usage is a negative number of tokens")
        one = tokens is not None and len(call.texts) == 1
        return EmbedAnswer(vectors, tokens, [tokens] if one and tokens is not None else None)

    async def warm_up(self) -> None:
        """Nothing to get ready: the first call connects."""

    async def check(self, timeout: float) -> None:
        """List the models: what every server of this API answers without a charge."""
        if self._closed:
            raise ProviderError(ProviderFault.CONNECTION, "this provider was closed")
        error: ProviderError | None = None
        try:
            async with asyncio.timeout(timeout):
                await self._client.get("/models", cast_to=httpx2.Response, options={"headers": self._headers})
        except TimeoutError:
            error = ProviderError(ProviderFault.TIMEOUT, f"no answer within {timeout:g} s")
        except openai.APIStatusError as caught:
            error = status_error(caught)
        except (openai.OpenAIError, aiohttp.ClientError, httpx2.HTTPError, OSError) as caught:
            error = connection_error(caught)
        if error is not None and error.status not in (404, 405):  # a server without that list is there all the same
            raise error

    async def close(self) -> None:
        """Close every connection; calls in flight fail. Idempotent."""
        if not self._closed:
            self._closed = True
            await self._client.close()

    async def _post(self, call: EmbedCall) -> bytes:
        # The error is raised outside the except blocks: what the SDK raises holds the request, and with it the texts.
        error: ProviderError
        try:
            body = _encode(_Body(call.model, call.texts, self._encoding, call.dimensions))
            async with asyncio.timeout(call.timeout):
                response = await self._client.post(
                    "/embeddings",
                    cast_to=httpx2.Response,
                    content=body,
                    options={"headers": self._headers},
                )
            return response.content
        except TimeoutError:
            error = ProviderError(ProviderFault.TIMEOUT, f"no answer within {call.timeout:g} s")
        except openai.APIStatusError as caught:
            error = status_error(caught)
        except (openai.OpenAIError, aiohttp.ClientError, httpx2.HTTPError, OSError) as caught:
            error = connection_error(caught)
        except UnicodeEncodeError:
            error = ProviderError(ProviderFault.REFUSED, "a text holds a lone surrogate and cannot be sent as UTF-8")
        except RuntimeError:
            if not self._closed:
                raise
            error = ProviderError(ProviderFault.CONNECTION, "this provider was closed during the call")
        raise error


def _bad(detail: str) -> ProviderError:
    return ProviderError(ProviderFault.BAD_ANSWER, detail, status=200)


def _parse(content: bytes) -> _Answer:
    try:
        return _decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    if content.lstrip()[:1] == b"<":
        raise _bad("the body is HTML or XML, not JSON: is base_url right, or does a proxy answer?")
    raise _bad(f"the body ({len(content)} bytes) is not an embeddings answer: truncated or of another shape")


def _in_order(items: list[_Item], count: int) -> list[_Item]:
    """The items by their index; an answer without any index is taken in its own order."""
    if len(items) != count:
        raise _bad(f"{len(items)} vectors for {count} texts")
    ordered: list[_Item | None] = [None] * count
    unnumbered = 0
    for position, item in enumerate(items):
        index = item.index
        if index is None:
            unnumbered += 1
            index = position
        if not 0 <= index < count or ordered[index] is not None:
            raise _bad(f"the indices are not 0 to {count - 1}, each once")
        ordered[index] = item
    if 0 < unnumbered < count:
        raise _bad("some vectors have an index and some have none")
    return ordered  # type: ignore[return-value]  # count distinct indices fill every place


def _matrix(items: list[_Item], dimensions: int | None) -> NDArray[np.float32]:
    """The vectors as one float32 array of shape (len(items), dimensions), finite."""
    if isinstance(items[0].embedding, str):
        vectors = _from_base64(items, dimensions)
    else:
        vectors = _from_numbers(items, dimensions)
    if not np.isfinite(vectors).all():
        raise _bad("a vector holds NaN or infinity")
    return vectors


def _from_base64(items: list[_Item], dimensions: int | None) -> NDArray[np.float32]:
    rows: list[bytes] = []
    for item in items:
        if not isinstance(item.embedding, str):
            raise _bad("some vectors are base64 and some are lists")
        try:
            rows.append(pybase64.b64decode(item.embedding, validate=True))
        except ValueError:
            break
    if len(rows) < len(items):
        raise _bad("a vector is not base64")
    size = len(rows[0])
    if size % 4 or any(len(row) != size for row in rows):
        raise _bad("the vectors differ in size or are not whole float32 numbers")
    _check_size(size // 4, dimensions)
    return np.frombuffer(bytearray().join(rows), dtype="<f4").reshape(len(rows), size // 4)


def _from_numbers(items: list[_Item], dimensions: int | None) -> NDArray[np.float32]:
    rows = [item.embedding for item in items]
    size = len(rows[0])
    if any(isinstance(row, str) for row in rows):
        raise _bad("some vectors are base64 and some are lists")
    if any(len(row) != size for row in rows):
        raise _bad("the vectors differ in size")
    _check_size(size, dimensions)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, which the caller refuses
        return np.array(rows, dtype=np.float32)


def _check_size(size: int, dimensions: int | None) -> None:
    if size == 0:
        raise _bad("the vectors are empty")
    if dimensions is not None and size != dimensions:
        raise _bad(f"vectors of {size} dimensions, {dimensions} were asked for")
