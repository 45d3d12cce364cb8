"""The Vertex provider against a real gRPC server: the contract of every provider, and what is Vertex's own."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import grpc
import jwt
import numpy as np
import pytest
import uvloop
from google.cloud.aiplatform_v1.types import PredictRequest
from google.protobuf.struct_pb2 import Value
from google.rpc.error_details_pb2 import ErrorInfo
from numpy.typing import NDArray

from adapters.providers.vertex import VertexProvider
from adapters.providers.vertex_link import _request
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedCall, Provider, ProviderError, ProviderFault
from gateway.bench.faults import Control, Fault
from gateway.bench.simulator import Stats
from gateway.bench.vectors import vector_of
from tests.conformance.provider_contract import KEY, SECRET_TEXT, ProviderContract, Rig
from tests.support.certificates import certificate
from tests.support.proxy import CuttingProxy
from tests.support.vertex_server import (
    CODES,
    EMAIL,
    PROJECT,
    REGION,
    SCOPE,
    Account,
    Refusal,
    VertexServer,
    count_tokens,
)
from tests.support.vertex_tokens import TokenServer

MODEL = "text-embedding-005"
SIZE = 768


class VertexRig:
    """The server behind a proxy that can break the line. A key is the id of a service account's key: only `KEY` is the right one."""

    def __init__(self, server: VertexServer, proxy: CuttingProxy, account: Account, stranger: Account) -> None:
        self.model = MODEL
        self.server = server
        self.proxy = proxy
        self._accounts = {KEY: account}
        self._stranger = stranger
        server.cut = self._cut

    def open(
        self, *, max_concurrency: int = 4, key: str = KEY, port: int | None = None, **options: str
    ) -> VertexProvider:
        account = self._accounts.get(key, self._stranger)
        return VertexProvider(
            endpoint(port or self.proxy.port, max_concurrency, options), account.json(private_key_id=key)
        )

    def fault(self, fault: Fault) -> None:
        self.server.faults.apply(Control(faults=[fault]))

    def hold(self, on: bool) -> None:
        self.server.hold(on)

    def stats(self) -> Stats:
        return self.server.stats

    async def calls(self, count: int) -> Stats:
        await self.server.until(lambda stats: stats.calls >= count)
        return self.server.stats

    async def abandoned(self, count: int) -> None:
        await self.server.until(lambda stats: stats.abandoned >= count)

    def vector(self, text: str, dimensions: int) -> NDArray[np.float32]:
        return vector_of(text, dimensions)

    def tokens(self, text: str) -> int:
        return count_tokens(text)

    def input_type(self) -> object:
        return self.server.request["instances"][0]["task_type"]

    def _cut(self, kind: str) -> None:
        if kind == "drop":
            self.proxy.cut()
        else:
            self.proxy.cut_after(answered=1000)


def endpoint(port: int, max_concurrency: int = 4, options: Mapping[str, str] = {}, *, scheme: str = "http") -> Endpoint:
    return Endpoint(
        "simulated",
        "vertex",
        {},
        base_url=f"{scheme}://127.0.0.1:{port}",
        max_concurrency=max_concurrency,
        options={"region": REGION, **options},
    )


@pytest.fixture(scope="module")
def account() -> Account:
    return Account()


@pytest.fixture(scope="module")
def stranger() -> Account:
    return Account()


@pytest.fixture
async def server(account: Account) -> AsyncIterator[VertexServer]:
    async with VertexServer(account) as running:
        yield running


@pytest.fixture
async def tokens() -> AsyncIterator[TokenServer]:
    async with TokenServer() as running:
        yield running


@pytest.fixture
async def rig(server: VertexServer, account: Account, stranger: Account) -> AsyncIterator[VertexRig]:
    async with CuttingProxy(("127.0.0.1", server.port)) as proxy:
        yield VertexRig(server, proxy, account, stranger)


@pytest.fixture
async def provider(rig: VertexRig) -> AsyncIterator[Provider]:
    opened = rig.open()
    await opened.check(30.0)  # connected, with a token: what calls of a tenth of a second need not wait for
    yield opened
    await opened.close()


class TestVertexKeepsTheContract(ProviderContract):
    """With `text-embedding-005`, which takes 250 texts a call."""

    size: ClassVar[int] = SIZE
    max_inputs: ClassVar[int] = 250
    too_long_index: ClassVar[bool] = False
    usage = "text"
    input_types: ClassVar[Mapping[str | None, object]] = {
        None: "RETRIEVAL_DOCUMENT",
        "query": "RETRIEVAL_QUERY",
        "document": "RETRIEVAL_DOCUMENT",
        "classification": "CLASSIFICATION",
        "clustering": "CLUSTERING",
    }
    statuses: ClassVar[Mapping[int, ProviderFault]] = {
        400: ProviderFault.REFUSED,
        401: ProviderFault.AUTHENTICATION,
        403: ProviderFault.AUTHENTICATION,
        404: ProviderFault.NOT_SERVED,
        409: ProviderFault.SERVER,
        429: ProviderFault.RATE_LIMITED,
        499: ProviderFault.SERVER,
        500: ProviderFault.SERVER,
        501: ProviderFault.SERVER,
        503: ProviderFault.SERVER,
        504: ProviderFault.TIMEOUT,
    }
    shell: ClassVar[Mapping[str, str]] = {
        "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/of-the-shell.json",
        "GOOGLE_CLOUD_PROJECT": "project-of-the-shell",
        "GOOGLE_CLOUD_QUOTA_PROJECT": "quota-of-the-shell",
        "GOOGLE_API_KEY": "key-of-the-shell",
    }
    left_out: ClassVar[Mapping[str, str]] = {
        "test_vectors_listed_in_another_order_are_put_back_by_their_index": "predictions have no index",
        "test_an_answer_that_is_not_what_was_asked_is_a_bad_answer[same_index]": "predictions have no index",
        "test_a_redirect_is_not_followed_and_carries_nothing_away": "gRPC knows no redirects",
        "test_no_call_takes_longer_than_its_timeout_and_its_connection_is_given_up[stall]": "a gRPC message is whole or is not there",
        "test_no_more_connections_are_open_than_the_endpoint_allows": "calls share one connection; see the test of calls at once",
    }


class TestCalls:
    async def test_a_model_that_takes_one_text_a_call_answers_as_many_calls_at_once_as_the_endpoint_allows(
        self, rig: VertexRig
    ) -> None:
        provider = rig.open(max_concurrency=3)
        rig.hold(True)
        calls = [
            asyncio.create_task(provider.embed(EmbedCall([f"t{i}"], "gemini-embedding-001", 10.0))) for i in range(10)
        ]
        await rig.calls(3)
        rig.hold(False)
        for i, call in enumerate(calls):
            assert np.array_equal((await call).vectors, [vector_of(f"t{i}", 3072)])
        stats = rig.stats()
        assert (stats.calls, stats.connections, stats.max_in_flight) == (10, 1, 3)
        await provider.close()

    async def test_what_is_asked_is_the_publishers_model_untruncated(self, rig: VertexRig, provider: Provider) -> None:
        await provider.embed(EmbedCall(["a", "b"], MODEL, 10.0, 256, "query"))
        assert rig.server.request == {
            "endpoint": f"projects/{PROJECT}/locations/{REGION}/publishers/google/models/{MODEL}",
            "instances": [
                {"content": "a", "task_type": "RETRIEVAL_QUERY"},
                {"content": "b", "task_type": "RETRIEVAL_QUERY"},
            ],
            "parameters": {"autoTruncate": False, "outputDimensionality": 256.0},
        }
        await provider.embed(EmbedCall(["a"], MODEL, 10.0))
        assert rig.server.request["parameters"] == {"autoTruncate": False}

    async def test_a_lone_surrogate_is_refused_before_anything_is_sent(self, rig: Rig, provider: Provider) -> None:
        with pytest.raises(ProviderError) as caught:
            await provider.embed(EmbedCall(["\ud800"], MODEL, 10.0))
        assert caught.value.fault is ProviderFault.REFUSED
        assert caught.value.__context__ is None
        assert rig.stats().calls == 0

    async def test_a_text_that_was_cut_though_nobody_allowed_it_is_too_long_by_its_index(
        self, rig: Rig, provider: Provider
    ) -> None:
        with pytest.raises(ProviderError) as caught:
            await provider.embed(EmbedCall(["a", "cut anyway"], MODEL, 10.0))
        assert (caught.value.fault, caught.value.index) == (ProviderFault.TOO_LONG, 1)

    async def test_an_offering_may_allow_the_provider_to_cut(self, rig: Rig, provider: Provider) -> None:
        call = EmbedCall(["word " * 3000], MODEL, 10.0, config={"auto_truncate": "true"})
        assert (await provider.embed(call)).tokens == 2048


class TestWhatVertexSays:
    async def error(self, rig: Rig, provider: Provider, fault: Fault | None, *texts: str) -> ProviderError:
        if fault is not None:
            rig.fault(fault)
        with pytest.raises(ProviderError) as caught:
            await provider.embed(EmbedCall(texts or ("a", "b"), MODEL, 10.0))
        return caught.value

    @pytest.mark.parametrize(
        ("message", "texts", "fault", "index"),
        [
            ("The input token count is 2500 but the model supports up to 2048.", 2, ProviderFault.TOO_LONG, None),
            ("The input token count is 2500 but the model supports up to 2048.", 1, ProviderFault.TOO_LONG, 0),
            ("The input token count is 27083 but the model supports up to 20000.", 2, ProviderFault.TOO_LARGE, None),
            ("The input token count is 27083 but the model supports up to 20000.", 1, ProviderFault.TOO_LONG, 0),
            (
                "The input token count (26210) exceeds the maximum number of tokens allowed (20000).",
                2,
                ProviderFault.TOO_LARGE,
                None,
            ),
            ("5 instance(s) is allowed per prediction. Actual: 6", 6, ProviderFault.TOO_LARGE, None),
            ("The input token count exceeds the maximum.", 2, ProviderFault.TOO_LONG, None),
            ("Unsupported task_type.", 2, ProviderFault.REFUSED, None),
        ],
    )
    async def test_sizes_are_told_apart_by_what_they_are_of(
        self, rig: Rig, provider: Provider, message: str, texts: int, fault: ProviderFault, index: int | None
    ) -> None:
        error = await self.error(rig, provider, Fault("status", status=400, message=message), *["a"] * texts)
        assert (error.fault, error.index, error.status) == (fault, index, 400)

    async def test_too_many_tokens_in_a_call_are_too_large(self, rig: Rig, provider: Provider) -> None:
        error = await self.error(rig, provider, None, *["word " * 2000] * 11)
        assert (error.fault, error.status) == (ProviderFault.TOO_LARGE, 400)

    async def test_an_account_that_is_not_set_up_is_our_matter(self, rig: Rig, provider: Provider) -> None:
        error = await self.error(rig, provider, Fault("status", status=400, type="FAILED_PRECONDITION"))
        assert error.fault is ProviderFault.AUTHENTICATION

    async def test_reasons_are_named_where_they_are_known_and_only_then(self, rig: Rig, provider: Provider) -> None:
        known = await self.error(rig, provider, Fault("status", status=403, code="SERVICE_DISABLED"))
        assert "reason SERVICE_DISABLED" in known.detail
        strange = await self.error(rig, provider, Fault("status", status=403, code="KARMESINROT"))
        assert "karmesin" not in strange.detail.lower()

    async def test_a_fraction_of_a_second_to_wait_is_kept(self, rig: Rig, provider: Provider) -> None:
        error = await self.error(rig, provider, Fault("status", status=429, retry_after="0.25"))
        assert error.retry_after == 0.25


class TestTheClient:
    async def test_googles_own_log_of_requests_is_off_whoever_listens(
        self, rig: VertexRig, provider: Provider, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        google = logging.getLogger("google")  # which passes nothing on to the root, where the contract listens
        monkeypatch.setattr(google, "level", logging.DEBUG)
        monkeypatch.setattr(google, "handlers", [caplog.handler])
        logging.getLogger("google.anything").debug("heard")
        await provider.embed(EmbedCall([SECRET_TEXT], MODEL, 10.0))
        rig.fault(Fault("status", status=500, message=SECRET_TEXT))
        with pytest.raises(ProviderError):
            await provider.embed(EmbedCall([SECRET_TEXT], MODEL, 10.0))
        shown = repr([record.__dict__ for record in caplog.records])
        assert "heard" in shown
        assert "Karmesin" not in shown
        assert rig.server.metadata["authorization"].removeprefix("Bearer ") not in shown

    def test_it_works_on_the_loop_that_the_gateway_uses(self, account: Account) -> None:
        async def embed() -> NDArray[np.float32]:
            async with VertexServer(account) as server:
                provider = VertexProvider(endpoint(server.port), account.json())
                calls = [provider.embed(EmbedCall([f"t{i}"], MODEL, 10.0)) for i in range(8)]
                answers = await asyncio.gather(*calls)
                await provider.close()
                return np.concatenate([answer.vectors for answer in answers])

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            vectors = runner.run(embed())
        assert np.array_equal(vectors, [vector_of(f"t{i}", SIZE) for i in range(8)])


class TestTheServer:
    """The negative control: it takes nothing but what is right."""

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (lambda request: None, None),
            (lambda request: request.instances[0].struct_value.fields["title"].MergeFrom(Value(string_value="t")), 400),
            (lambda request: request.instances[0].struct_value.fields.pop("task_type"), 400),
            (
                lambda request: request.instances[0].struct_value.fields["content"].MergeFrom(Value(string_value="")),
                400,
            ),
            (
                lambda request: request.parameters.struct_value.fields["auto_truncate"].MergeFrom(
                    Value(bool_value=True)
                ),
                400,
            ),
            (lambda request: request.instances.extend([request.instances[0]] * 250), 400),
            (lambda request: request.MergeFrom(type(request)(endpoint="projects/other/locations/x")), 404),
        ],
    )
    async def test_a_request_that_is_wrong_is_refused(
        self, server: VertexServer, change: Callable[[Any], object], code: int | None
    ) -> None:
        request = _request(
            EmbedCall(["a"], MODEL, 10.0),
            f"projects/{PROJECT}/locations/{REGION}/publishers/google/models/{MODEL}",
            False,
        )
        message = PredictRequest.pb(request)
        change(message)
        server.token = "right"
        assert await self.status(server.port, message, "Bearer right") is (None if code is None else CODES[code])

    @pytest.mark.parametrize(
        "claims",
        [{}, {"scope": "other"}, {"iss": "other"}, {"exp": 1}, {"exp": 1e10}],
        ids=["right", "scope", "account", "expired", "too long"],
    )
    async def test_a_token_that_is_wrong_is_refused(
        self, server: VertexServer, account: Account, claims: dict[str, Any]
    ) -> None:
        request = _request(
            EmbedCall(["a"], MODEL, 10.0),
            f"projects/{PROJECT}/locations/{REGION}/publishers/google/models/{MODEL}",
            False,
        )
        now = int(time.time())
        right = {"iss": EMAIL, "sub": EMAIL, "scope": SCOPE, "iat": now, "exp": now + 3600}
        token = account.sign(right | claims)
        found = await self.status(server.port, PredictRequest.pb(request), f"Bearer {token}")
        assert found is (CODES[401] if claims else None)

    async def status(self, port: int, message: Any, authorization: str) -> grpc.StatusCode | None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            predict = channel.unary_unary(
                "/google.cloud.aiplatform.v1.PredictionService/Predict",
                request_serializer=type(message).SerializeToString,
            )
            try:
                await predict(message, metadata=(("authorization", authorization),), timeout=10)
            except grpc.aio.AioRpcError as error:
                return error.code()
        return None


class TestTheLine:
    async def fault(self, provider: Provider) -> ProviderFault | None:
        try:
            await provider.embed(EmbedCall(["a"], MODEL, 10.0))
        except ProviderError as error:
            return error.fault
        return None

    async def test_a_server_that_comes_back_is_called_again_within_seconds(self, rig: VertexRig) -> None:
        rig.proxy.refuse()
        provider = rig.open()
        assert [await self.fault(provider) for _ in range(3)] == [ProviderFault.CONNECTION] * 3
        rig.proxy.refuse(False)
        async with asyncio.timeout(10):  # gRPC's own pauses grow to two minutes
            while await self.fault(provider) is not None:
                await asyncio.sleep(0.02)  # the channel tells nobody when it tries again
        await provider.close()

    async def test_texts_and_tokens_go_to_no_server_whose_certificate_is_not_known(
        self, account: Account, tmp_path: Path
    ) -> None:
        async with VertexServer(account, tls=certificate(tmp_path)) as impostor:
            secret = account.json()
            provider = VertexProvider(endpoint(impostor.port, scheme="https"), secret)
            with pytest.raises(ProviderError) as caught:
                await provider.embed(EmbedCall(["a"], MODEL, 10.0))
            assert caught.value.fault is ProviderFault.CONNECTION
            assert impostor.stats.calls == 0
            await provider.close()

    async def test_a_check_is_a_sign_of_life_also_where_the_account_may_do_no_more_than_embed(
        self, rig: VertexRig, provider: Provider
    ) -> None:
        rig.server.location_error = Refusal(
            CODES[403], "Permission denied", [ErrorInfo(reason="IAM_PERMISSION_DENIED")]
        )
        await provider.check(10.0)
        rig.server.location_error = Refusal(CODES[403], "Not enabled", [ErrorInfo(reason="SERVICE_DISABLED")])
        with pytest.raises(ProviderError) as caught:
            await provider.check(10.0)
        assert caught.value.fault is ProviderFault.AUTHENTICATION
        rig.server.location_error = Refusal(CODES[503], "overloaded")
        with pytest.raises(ProviderError) as caught:
            await provider.check(10.0)
        assert caught.value.fault is ProviderFault.SERVER


class TestCredentials:
    async def test_the_token_is_signed_by_the_account_once_and_nothing_of_the_shell_is_told(
        self, rig: VertexRig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in TestVertexKeepsTheContract.shell.items():
            monkeypatch.setenv(name, value)
        provider = rig.open()
        await provider.embed(EmbedCall(["a"], MODEL, 10.0))
        first = rig.server.metadata["authorization"]
        await provider.embed(EmbedCall(["a"], MODEL, 10.0))
        assert rig.server.metadata["authorization"] == first
        assert "of-the-shell" not in repr(rig.server.metadata)
        await provider.close()

    async def test_the_machines_own_credentials_get_their_token_from_the_token_server(
        self,
        server: VertexServer,
        tokens: TokenServer,
        stranger: Account,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        file = tmp_path / "credentials.json"
        file.write_text(stranger.json(token_uri=tokens.url, quota_project_id="quota-1"))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        provider = VertexProvider(endpoint(server.port), None)
        server.token = tokens.token
        first, second = await asyncio.gather(
            provider.embed(EmbedCall(["a"], MODEL, 10.0)), provider.embed(EmbedCall(["b"], MODEL, 10.0))
        )
        assert np.array_equal(first.vectors, [vector_of("a", SIZE)])
        assert np.array_equal(second.vectors, [vector_of("b", SIZE)])
        assert len(tokens.assertions) == 1, "one token for all calls"
        claims = jwt.decode(
            tokens.assertions[0], stranger.public, algorithms=["RS256"], audience="https://oauth2.googleapis.com/token"
        )
        assert (claims["iss"], claims["scope"]) == (EMAIL, SCOPE)
        assert server.metadata["authorization"] == f"Bearer {tokens.token}"
        await provider.close()

    async def test_a_token_that_is_refused_is_our_credential_and_one_that_cannot_be_asked_for_a_connection(
        self,
        server: VertexServer,
        tokens: TokenServer,
        stranger: Account,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        file = tmp_path / "credentials.json"
        file.write_text(stranger.json(token_uri=tokens.url))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        provider = VertexProvider(endpoint(server.port), None)
        tokens.refuses = True
        embed = partial(provider.embed, EmbedCall([SECRET_TEXT], MODEL, 10.0))
        asks: list[Callable[[], Awaitable[object]]] = [embed, partial(provider.check, 10.0), provider.warm_up]
        for ask in asks:
            with pytest.raises(ProviderError) as caught:
                await ask()
            assert (caught.value.fault, caught.value.__context__) == (ProviderFault.AUTHENTICATION, None)
            assert "of-the-token-server" not in str(caught.value)
        await tokens.close()
        with pytest.raises(ProviderError) as caught:
            await provider.embed(EmbedCall(["a"], MODEL, 10.0))
        assert caught.value.fault is ProviderFault.CONNECTION
        assert server.stats.calls == 0
        await provider.close()

    async def test_a_machine_without_credentials_is_told_what_to_set(
        self, server: VertexServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
        provider = VertexProvider(endpoint(server.port), None)
        with pytest.raises(ProviderError, match="api_key_env to a variable that holds the JSON") as caught:
            await provider.warm_up()
        assert caught.value.fault is ProviderFault.AUTHENTICATION
        await provider.close()

    async def test_a_key_that_is_cut_off_is_our_credential(self, server: VertexServer, account: Account) -> None:
        broken = account.json(private_key="-----BEGIN PRIVATE KEY-----\nkarmesin")
        provider = VertexProvider(endpoint(server.port), broken)
        with pytest.raises(ProviderError, match="is the private key whole") as caught:
            await provider.warm_up()
        assert caught.value.fault is ProviderFault.AUTHENTICATION
        assert "karmesin" not in "".join(traceback.format_exception(caught.value))
        await provider.close()


def test_loading_the_client_does_not_hold_up_the_loop(account: Account) -> None:
    """In a process of its own, since it is loaded once: nothing of Google's before, and the loop turns while it comes."""
    told = json.loads(
        subprocess.run(
            [sys.executable, "-c", LOADING], input=account.json(), capture_output=True, text=True, check=True
        ).stdout
    )
    assert told["before"] == []
    assert told["turns"] > 50
    assert told["longest"] < told["whole"] / 2


LOADING = """
import asyncio, json, sys, time
from adapters.providers.vertex import VertexProvider
from domain.catalogue import Endpoint

def loaded():
    return [m for m in sys.modules if m.partition(".")[0] == "grpc" or m.startswith(("google.auth", "google.cloud."))]

async def main():
    provider = VertexProvider(Endpoint("e", "vertex", {}, options={"region": "us-central1"}), sys.stdin.read())
    before = loaded()
    begun = time.perf_counter()
    warming = asyncio.create_task(provider.warm_up())
    turns = []
    while not warming.done():
        turn = time.perf_counter()
        await asyncio.sleep(0.001)
        turns.append(time.perf_counter() - turn)
    await warming
    print(json.dumps({"before": before, "turns": len(turns), "longest": max(turns), "whole": time.perf_counter() - begun}))
    await provider.close()

asyncio.run(main())
"""
