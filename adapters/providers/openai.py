"""The `openai` provider: any server that speaks OpenAI's embeddings API, through the official SDK.

The SDK builds the request, authenticates, pools connections and raises its errors; its retries are off, its parsing is bypassed.
Vectors are asked for in base64 and decoded straight into one array; servers that answer floats nevertheless are understood.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from typing import Literal

import aiohttp
import httpx2
import msgspec
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient, RequestOptions

from adapters.providers.lists import Entry, integer, page, text
from adapters.providers.openai_answer import read_answer
from adapters.providers.openai_errors import connection_error, status_error
from adapters.providers.sizes import most_bytes, too_much
from domain.catalogue import Endpoint
from domain.ports.lists_models import ListedModel, Listing
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault, Text

DEFAULT_BASE_URL = "https://api.openai.com/v1"

# OpenAI's front closes idle connections after minutes; ours go first, so that a call seldom meets a connection just closed.
_KEEPALIVE_SECONDS = 30.0


class _Body(msgspec.Struct, omit_defaults=True, gc=False):
    model: str
    input: Sequence[Text]
    encoding_format: str
    dimensions: int | None = None


_encode = msgspec.json.Encoder().encode


@cache
def _trusted() -> ssl.SSLContext:
    """The authorities that certificates are held against, read once: each reading takes 20 ms of the loop."""
    return httpx2.create_ssl_context()


_most: ContextVar[int] = ContextVar("most")
"""The bytes that may be read of the answer to this task's call."""


class _TooMuch(Exception):
    """An answer is larger."""


class _Bounded(httpx2.Response):
    """An answer that is read no further than it may be large."""

    most: int

    async def aread(self) -> bytes:
        if not self.is_stream_consumed:
            parts, size = [], 0
            async with contextlib.aclosing(self.aiter_bytes()) as read:
                async for part in read:
                    size += len(part)
                    if size > self.most:
                        raise _TooMuch
                    parts.append(part)
            self._content = b"".join(parts)
        return self._content


async def _bound(response: httpx2.Response) -> None:
    """See to it that the answer is read so. A hook of the client, called before anything is read."""
    response.__class__ = _Bounded
    assert isinstance(response, _Bounded)
    response.most = _most.get()


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
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ValueError(
                f"endpoint {endpoint.name!r}: the key holds characters that no HTTP header can carry; expected printable ASCII"
            )
        limits = httpx2.Limits(
            max_connections=endpoint.max_concurrency,
            max_keepalive_connections=endpoint.max_concurrency,
            keepalive_expiry=_KEEPALIVE_SECONDS,
        )
        self._client = AsyncOpenAI(
            api_key=key or "none",
            base_url=self.address(endpoint),
            max_retries=0,
            timeout=None,  # the whole call has one deadline, set in `embed`
            # A redirect would carry texts and key to a place that nobody configured.
            http_client=DefaultAioHttpClient(
                limits=limits,
                timeout=None,
                follow_redirects=False,
                verify=_trusted(),
                event_hooks={"response": [_bound]},
            ),
        )
        # Said with each request, our credential beats what OPENAI_API_KEY holds for another server.
        # Unpacking vectors costs more than reading them as they are (docs/decisions/0022-http-providers.md).
        self._headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            **self.credential(key),
        }
        # The SDK takes these from the process's environment, which speaks of one account; an endpoint names its own.
        self._client.admin_api_key = None
        self._client.organization = options.get("organization")
        self._client.project = options.get("project")
        self._client._custom_headers = {}
        self._query: dict[str, object] = {}
        self._closed = False

    def address(self, endpoint: Endpoint) -> str:
        """What the paths of the API are relative to."""
        return endpoint.base_url or DEFAULT_BASE_URL

    def credential(self, key: str | None) -> Mapping[str, str | openai.Omit]:
        """The header that carries the key."""
        return {"Authorization": f"Bearer {key}" if key else openai.Omit()}

    def path(self, model: str) -> str:
        """Where the embeddings of a model are."""
        return "/embeddings"

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        """Embed once. Raises `ProviderError` and nothing else (cancellation passes)."""
        try:
            body = _encode(_Body(call.model, call.texts, self._encoding, call.dimensions))
        except UnicodeEncodeError:
            body = None
        if body is None:
            raise ProviderError(ProviderFault.REFUSED, "a text holds a lone surrogate and cannot be sent as UTF-8")
        content = await self._ask("post", self.path(call.model), call.timeout, body, len(call.texts))
        return read_answer(content, len(call.texts), call.dimensions)

    async def warm_up(self) -> None:
        """Nothing to get ready: the first call connects."""

    async def check(self, timeout: float) -> None:
        """List the models: what every server of this API answers without a charge."""
        try:
            await self._ask("get", "/models", timeout)
        except ProviderError as error:
            if error.status not in (404, 405):  # a server without that list is there all the same
                raise

    async def list_models(self, timeout: float) -> Listing | None:
        """All models that the key may use; what they are for is told by their names alone."""
        return page(await self._ask("get", "/models", timeout), "data", _listed)[0]

    async def close(self) -> None:
        """Close every connection; calls in flight fail. Idempotent."""
        if not self._closed:
            self._closed = True
            await self._client.close()

    async def _ask(
        self, method: Literal["get", "post"], path: str, timeout: float, body: bytes | None = None, texts: int = 0
    ) -> bytes:
        self._must_be_open()
        most = most_bytes(texts)
        _most.set(most)
        # The error is raised outside the except blocks: what the SDK raises holds the request, and with it the texts.
        error: ProviderError
        options: RequestOptions = {"headers": self._headers, "params": self._query}
        try:
            async with asyncio.timeout(timeout):
                if method == "get":
                    response = await self._client.get(path, cast_to=httpx2.Response, options=options)
                else:
                    response = await self._client.post(path, cast_to=httpx2.Response, content=body, options=options)
            return response.content
        except TimeoutError:
            error = ProviderError(ProviderFault.TIMEOUT, f"no answer within {timeout:g} s")
        except asyncio.CancelledError:
            # A client that closes cancels who waits for a connection, which is no cancellation of the caller's.
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            error = _closed_meanwhile()
        except openai.APIStatusError as caught:
            error = status_error(caught)
        except _TooMuch:
            error = too_much(most)
        except (openai.OpenAIError, aiohttp.ClientError, httpx2.HTTPError, OSError) as caught:
            error = connection_error(caught)
        except RuntimeError:
            if not self._closed:
                raise
            error = _closed_meanwhile()
        raise error

    def _must_be_open(self) -> None:
        if self._closed:
            raise ProviderError(ProviderFault.CONNECTION, "this provider was closed")


def _listed(entry: Entry) -> ListedModel:
    # Servers that imitate OpenAI may say the longest text too.
    return ListedModel(text(entry, "id"), created=integer(entry, "created"), max_tokens=integer(entry, "max_model_len"))


def _closed_meanwhile() -> ProviderError:
    return ProviderError(ProviderFault.CONNECTION, "this provider was closed during the call")
