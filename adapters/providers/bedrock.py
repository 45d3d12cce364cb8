"""The `bedrock` provider: Amazon's Titan and Cohere's Embed at Amazon Bedrock, by InvokeModel of the official SDK, boto3.

boto3 blocks, so its calls are made in threads, at most `max_concurrency` at once; its retries are off. A call that times out, is
cancelled or outlives `close` has its connection shut down under it, so that its thread is free for the next.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError

from adapters.providers.answers import bad
from adapters.providers.bedrock_bodies import USAGE_HEADER, answer, request
from adapters.providers.bedrock_client import CONTROL, SERVICE, ApiKey, client_of, credential_of, session_of
from adapters.providers.bedrock_errors import error_of, recognised, stale, timed_out
from adapters.providers.bedrock_transport import Flight, Transport, flying
from adapters.providers.lists import Entry, listing, text, texts
from adapters.providers.sizes import most_bytes, too_much
from domain.catalogue import Endpoint
from domain.ports.lists_models import ListedModel, Listing
from domain.ports.provider import EmbedAnswer, EmbedCall, ProviderError, ProviderFault

T = TypeVar("T")

_REGION = re.compile(r"[a-z0-9-]{1,63}")

RENEW_SECONDS = 10.0
"""How soon after the last time credentials that AWS refuses are looked for anew: a client takes a tenth of a second of the processor."""


class BedrockProvider:
    """One configured endpoint in one region.

    `secret` is an access key in JSON or a Bedrock API key (`bedrock_client.credential_of`); without one the SDK finds credentials in its
    own way. Endpoint options taken: `region` (default AWS_REGION, AWS_DEFAULT_REGION, the profile's), `profile`. `base_url` is another
    address than the region's own. Raises ValueError for an endpoint that cannot be opened so.
    """

    def __init__(self, endpoint: Endpoint, environ: Mapping[str, str], secret: str | None) -> None:
        self._endpoint = endpoint
        self._credential = credential_of(secret)
        if secret is not None and "profile" in endpoint.options:
            raise ValueError("option profile names credentials, and so does the key; expected one of them")
        scheme = urlsplit(endpoint.base_url or "https:").scheme
        if scheme not in ("http", "https"):
            raise ValueError("base_url is no address; expected https://...")
        if scheme == "http" and isinstance(self._credential, ApiKey):
            raise ValueError("a Bedrock API key is only sent over https; expected a base_url of https://...")
        self._region = _region(endpoint, environ, self._credential is None)
        self._client: Any = None
        self._opened = 0.0
        self._opening = threading.Lock()
        self._transport: Transport | None = None
        self._threads = ThreadPoolExecutor(endpoint.max_concurrency, thread_name_prefix="emberlog-bedrock")
        self._checks = ThreadPoolExecutor(1, thread_name_prefix="emberlog-bedrock")  # waits behind no call
        self._flights: set[Flight] = set()
        self._closed = False

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        """Embed once. Raises `ProviderError` and nothing else (cancellation passes)."""
        return await self._fly(self._threads, call.timeout, len(call.texts), lambda: self._invoke(call))

    async def warm_up(self) -> None:
        """Make the client, with credentials, within the endpoint's timeout. Raises `ProviderError`."""
        await self._fly(self._checks, self._endpoint.timeout, 0, self._connected)

    async def check(self, timeout: float) -> None:
        """Ask for a list that costs nothing, of the same host: AWS checks who asks before it checks whether they may."""
        await self._fly(self._checks, timeout, 0, self._look)

    async def list_models(self, timeout: float) -> Listing | None:
        """The embedding models of the region that can be called without a provisioned throughput."""
        return await self._fly(self._checks, timeout, 0, self._list)

    async def close(self) -> None:
        """End the calls in flight, and with them their threads and connections. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for flight in list(self._flights):
            flight.give_up()
        self._threads.shutdown(wait=False)
        self._checks.shutdown(wait=False)
        if self._transport is not None:
            self._transport.close()

    async def _fly(self, threads: ThreadPoolExecutor, timeout: float, texts: int, work: Callable[[], T]) -> T:
        """Do `work` in a thread, for `timeout` seconds at most, the wait for a thread included."""
        if self._closed:
            raise _closed()
        flight = Flight(time.monotonic() + timeout)
        self._flights.add(flight)
        # Errors come out of the thread as values and are raised outside the except block: what the SDK raises holds the request.
        outcome: T | ProviderError
        try:
            async with asyncio.timeout(timeout):
                outcome = await asyncio.get_running_loop().run_in_executor(
                    threads, self._aboard, flight, timeout, texts, work
                )
        except TimeoutError:
            outcome = timed_out(timeout)
        finally:
            self._flights.discard(flight)
            flight.give_up()
        if isinstance(outcome, ProviderError):
            raise outcome
        return outcome

    def _aboard(self, flight: Flight, timeout: float, texts: int, work: Callable[[], T]) -> T | ProviderError:
        try:
            flight.go_on()
            with flying(flight):
                return work()
        except ProviderError as error:
            return error.with_traceback(None)
        except Exception as error:
            if flight.given_up:  # nobody reads this but where the provider was closed
                return _closed()
            if stale(error):
                self._renew()
            return error_of(error, texts, timeout)

    def _invoke(self, call: EmbedCall) -> EmbedAnswer:
        body = request(call)
        said = self._connected().invoke_model(
            modelId=call.model, body=body, contentType="application/json", accept="application/json"
        )
        content, most = said["body"], most_bytes(len(call.texts))
        read = content.read(most)
        if len(read) == most:
            content.close()
            raise too_much(most)
        read += content.read()  # nothing, but that the answer is whole is held against its length here
        return answer(call, read, said["ResponseMetadata"]["HTTPHeaders"].get(USAGE_HEADER))

    def _look(self) -> None:
        try:
            self._connected().list_async_invokes(maxResults=1)
        except Exception as error:
            if not recognised(error):
                raise

    def _list(self) -> Listing:
        session = session_of(self._endpoint, self._credential)
        client = client_of(session, self._endpoint, self._region, self._credential, CONTROL)
        transport = Transport(client.meta.endpoint_url, 1, session.get_config_variable("ca_bundle"))
        try:
            client.meta.events.register(f"before-send.{CONTROL}", transport.send)
            said = client.list_foundation_models(byOutputModality="EMBEDDING")
        except AttributeError:  # a list that is a text or a number is more than the SDK can read
            said = {}
        finally:
            transport.close()
        entries = said.get("modelSummaries")
        if not isinstance(entries, list):  # the SDK reads what is no list, and no JSON, as an answer without one
            raise bad("the body is not a list of models")
        return listing(
            [e for e in entries if "ON_DEMAND" in (e.get("inferenceTypesSupported") or ["ON_DEMAND"])], _listed
        )

    def _connected(self) -> Any:
        """The client, made by the first call that needs it."""
        client = self._client
        if client is None:
            with self._opening:
                if self._client is None:
                    self._client = self._connect()
                    self._opened = time.monotonic()
                client = self._client
        return client

    def _connect(self) -> Any:
        session = session_of(self._endpoint, self._credential)
        client = client_of(session, self._endpoint, self._region, self._credential)
        if self._transport is None:
            # One more than the calls may need: the check's.
            self._transport = Transport(
                client.meta.endpoint_url,
                self._endpoint.max_concurrency + 1,
                session.get_config_variable("ca_bundle"),
            )
        client.meta.events.register(f"before-send.{SERVICE}", self._transport.send)
        return client

    def _renew(self) -> None:
        """Have the SDK look for credentials again: the file or the variable that it found them in may hold new ones by now."""
        if self._credential is None and time.monotonic() - self._opened > RENEW_SECONDS:
            self._client = None


def _region(endpoint: Endpoint, environ: Mapping[str, str], chain: bool) -> str:
    region = endpoint.options.get("region") or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if region is None and chain:
        try:
            region = session_of(endpoint, None).get_config_variable("region")
        except BotoCoreError:  # the chain will say what is wrong when it looks for credentials
            region = None
    if not region or not _REGION.fullmatch(region):
        raise ValueError(
            f'region is {region!r}; expected one of AWS, such as "us-east-1", in option region or AWS_REGION'
        )
    return region


def _listed(entry: Entry) -> ListedModel:
    return ListedModel(
        text(entry, "modelId"),
        embeds="EMBEDDING" in texts(entry, "outputModalities"),
        deprecated=(entry.get("modelLifecycle") or {}).get("status") == "LEGACY",
    )


def _closed() -> ProviderError:
    return ProviderError(ProviderFault.CONNECTION, "this provider was closed")
