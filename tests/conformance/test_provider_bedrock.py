"""The Bedrock provider against a simulated Bedrock that verifies signatures: the contract of every provider, and what is Bedrock's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, CredentialRetrievalError, EndpointConnectionError
from botocore.parsers import ResponseParserError

from adapters.providers.bedrock import BedrockProvider
from adapters.providers.bedrock_errors import error_of
from adapters.providers.registry import EndpointError, open_provider
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedCall, Provider, ProviderError, ProviderFault
from gateway.bench.faults import Control, Fault
from gateway.bench.simulator import Simulator, SimulatorOptions
from tests.conformance.http_rig import HttpRig
from tests.conformance.provider_contract import KEY, SECRET_TEXT, STATUSES, ProviderContract, Rig, listener
from tests.support.bedrock import REGION, BedrockApi
from tests.support.bedrock_sigv4 import Account
from tests.support.certificates import certificate

ACCOUNT = Account("AKIASIMULATED", KEY)
API_KEY = "ABSKc2ltdWxhdGVkLWtleQ=="
TITAN = "amazon.titan-embed-text-v2:0"
COHERE_V3 = "cohere.embed-english-v3"
COHERE_V4 = "cohere.embed-v4:0"

BY_SHAPE = "the answer has a list of vectors, without an index"


def secret_of(key: str = KEY, *, name: str = ACCOUNT.key, token: str | None = None) -> str:
    """An access key as a tenant gives it."""
    told = {"aws_access_key_id": name, "aws_secret_access_key": key}
    return json.dumps(told if token is None else told | {"aws_session_token": token})


def opens(
    url: str, max_concurrency: int = 4, key: str | None = KEY, *, secret: str | None = None, **options: str
) -> BedrockProvider:
    endpoint = Endpoint(
        "e", "bedrock", {}, base_url=url, max_concurrency=max_concurrency, options={"region": REGION} | options
    )
    return BedrockProvider(endpoint, {}, secret if secret is not None or key is None else secret_of(key))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own proxy is not for servers in this process."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def api() -> BedrockApi:
    return BedrockApi(ACCOUNT, api_key=API_KEY)


@pytest.fixture
async def simulator(api: BedrockApi) -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorOptions(max_inputs=96), api) as running:
        yield running


@pytest.fixture
def rig(simulator: Simulator, request: pytest.FixtureRequest) -> HttpRig:
    return HttpRig(simulator, getattr(request.cls, "model", TITAN), opens)


@pytest.fixture
async def provider(rig: HttpRig) -> AsyncIterator[Provider]:
    opened = rig.open()
    await opened.warm_up()  # not in the time of a call that is to time out once it was sent
    yield opened
    await opened.close()


class BedrockContract(ProviderContract):
    statuses: ClassVar = {**STATUSES, 408: ProviderFault.TIMEOUT, 424: ProviderFault.SERVER}
    shell: ClassVar = {
        "AWS_ACCESS_KEY_ID": "AKIA-of-the-shell",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-shell",
        "AWS_SESSION_TOKEN": "token-of-the-shell",
        "AWS_BEARER_TOKEN_BEDROCK": "ABSK-of-the-shell",
        "AWS_PROFILE": "profile-of-the-shell",
        "AWS_REGION": "region-of-the-shell",
        "AWS_DEFAULT_REGION": "region-of-the-shell",
        "AWS_ENDPOINT_URL": "http://of-the-shell.invalid",
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "http://of-the-shell.invalid",
        "AWS_ROLE_ARN": "arn:of-the-shell",
    }


class TestTitanKeepsTheContract(BedrockContract):
    model = TITAN
    size = 1024
    max_inputs = 1
    usage = "text"
    left_out: ClassVar = {
        "test_vectors_listed_in_another_order_are_put_back_by_their_index": "one text a call, one vector",
        "test_an_answer_that_is_not_what_was_asked_is_a_bad_answer[too_many]": "the answer has room for one vector",
        "test_an_answer_that_is_not_what_was_asked_is_a_bad_answer[same_index]": "one text a call, one vector",
    }


class TestCohereV3KeepsTheContract(BedrockContract):
    model = COHERE_V3
    size = 1024
    other_size = None
    max_inputs = 96
    input_types: ClassVar = {
        None: "search_document",
        "document": "search_document",
        "query": "search_query",
        "classification": "classification",
        "clustering": "clustering",
    }
    left_out: ClassVar = {
        "test_vectors_listed_in_another_order_are_put_back_by_their_index": BY_SHAPE,
        "test_dimensions_are_sent_only_when_they_are_asked_for": "the model has one size",
        "test_an_answer_that_is_not_what_was_asked_is_a_bad_answer[same_index]": BY_SHAPE,
        "test_an_answer_that_is_not_what_was_asked_is_a_bad_answer[wrong_dimensions]": "no size can be asked for",
    }


class TestCohereV4KeepsTheContract(BedrockContract):
    model = COHERE_V4
    size = 1536
    max_inputs = 96
    too_long_index = False
    input_types: ClassVar = TestCohereV3KeepsTheContract.input_types
    left_out: ClassVar = {
        "test_vectors_listed_in_another_order_are_put_back_by_their_index": BY_SHAPE,
        "test_an_answer_that_is_not_what_was_asked_is_a_bad_answer[same_index]": BY_SHAPE,
    }


class TestWhatIsAsked:
    @pytest.mark.parametrize(
        ("call", "body"),
        [
            (EmbedCall(["a"], TITAN, 9), {"inputText": "a"}),
            (
                EmbedCall(["a"], TITAN, 9, 256, config={"family": "titan", "normalize": "true"}),
                {"inputText": "a", "dimensions": 256, "normalize": True},
            ),
            (EmbedCall(["a"], TITAN, 9, config={"normalize": "false"}), {"inputText": "a", "normalize": False}),
            (
                EmbedCall(["a", "b"], COHERE_V3, 9, input_type="query", config={"family": "cohere", "truncate": "END"}),
                {"texts": ["a", "b"], "input_type": "search_query", "truncate": "END"},
            ),
            (
                EmbedCall(["a"], "eu.cohere.embed-v4:0", 9, 512),
                {"texts": ["a"], "input_type": "search_document", "truncate": "NONE", "output_dimension": 512},
            ),
        ],
    )
    async def test_the_body_is_the_familys_and_holds_nothing_that_was_not_asked_for(
        self, api: BedrockApi, provider: Provider, call: EmbedCall, body: dict[str, Any]
    ) -> None:
        await provider.embed(call)
        assert api.bodies == [body]

    @pytest.mark.parametrize(
        ("call", "fault", "words"),
        [
            (EmbedCall(["a", "b"], TITAN, 9), ProviderFault.TOO_LARGE, "one text a call"),
            (EmbedCall(["\ud800"], TITAN, 9), ProviderFault.REFUSED, "lone surrogate"),
            (EmbedCall([[1, 2]], TITAN, 9), ProviderFault.REFUSED, "no token lists"),
            (EmbedCall(["a"], "arn:aws:bedrock:eu-west-1:1:x/y", 9), ProviderFault.REFUSED, "family"),
            (EmbedCall(["a"], TITAN, 9, config={"normalize": "yes"}), ProviderFault.REFUSED, "'true' or 'false'"),
            (EmbedCall(["a"], COHERE_V3, 9, input_type="image"), ProviderFault.REFUSED, "input type"),
        ],
    )
    async def test_what_cannot_be_asked_is_refused_before_anything_is_sent(
        self, rig: Rig, provider: Provider, call: EmbedCall, fault: ProviderFault, words: str
    ) -> None:
        with pytest.raises(ProviderError, match=words) as caught:
            await provider.embed(call)
        assert caught.value.fault is fault
        assert caught.value.__context__ is None
        assert rig.stats().calls == 0

    async def test_vectors_by_type_are_understood_as_well(self, provider: Provider, monkeypatch: Any) -> None:
        monkeypatch.setattr(BedrockApi, "answer", _by_type(BedrockApi.answer))
        answer = await provider.embed(EmbedCall(["a", "b"], COHERE_V4, 9))
        assert answer.vectors.shape == (2, 1536)
        assert answer.tokens == 2

    async def test_titans_tokens_may_stand_in_the_header_alone(self, provider: Provider, monkeypatch: Any) -> None:
        monkeypatch.setattr(BedrockApi, "answer", _without(BedrockApi.answer, "inputTextTokenCount"))
        answer = await provider.embed(EmbedCall(["hello world"], TITAN, 9))
        assert (answer.tokens, answer.text_tokens) == (2, [2])


def _by_type(answer: Callable[..., Any]) -> Callable[..., Any]:
    return lambda api, asked, fault: answer(api, asked._replace(request="cohere by type"), fault)


def _without(answer: Callable[..., Any], field: str) -> Callable[..., Any]:
    def told(api: BedrockApi, asked: Any, fault: Fault | None) -> Any:
        whole = answer(api, asked, fault)
        return whole._replace(body=json.dumps({k: v for k, v in json.loads(whole.body).items() if k != field}).encode())

    return told


class TestWhatBedrockSays:
    @pytest.mark.parametrize(
        ("status", "code", "fault"),
        [
            (429, "ThrottlingException", ProviderFault.RATE_LIMITED),
            (400, "ServiceQuotaExceededException", ProviderFault.RATE_LIMITED),
            (400, "ThrottlingException", ProviderFault.RATE_LIMITED),
            (408, "ModelTimeoutException", ProviderFault.TIMEOUT),
            (429, "ModelNotReadyException", ProviderFault.SERVER),
            (424, "ModelErrorException", ProviderFault.SERVER),
            (500, "InternalServerException", ProviderFault.SERVER),
            (503, "ServiceUnavailableException", ProviderFault.SERVER),
            (403, "AccessDeniedException", ProviderFault.AUTHENTICATION),
            (400, "ExpiredTokenException", ProviderFault.AUTHENTICATION),
            (400, "UnrecognizedClientException", ProviderFault.AUTHENTICATION),
            (404, "ResourceNotFoundException", ProviderFault.NOT_SERVED),
            (400, "ValidationException", ProviderFault.REFUSED),
        ],
    )
    async def test_each_code_has_its_place_and_is_named(
        self, rig: Rig, provider: Provider, status: int, code: str, fault: ProviderFault
    ) -> None:
        error = await refused(rig, provider, Fault("status", status=status, code=code, message=SECRET_TEXT))
        assert (error.fault, error.status) == (fault, status)
        assert f"code {code}" in error.detail
        assert "Karmesin" not in str(error)

    async def test_a_code_that_is_not_known_is_not_passed_on(self, rig: Rig, provider: Provider) -> None:
        error = await refused(rig, provider, Fault("status", status=400, code="KarmesinException"))
        assert error.detail == "HTTP 400: Bedrock refuses the request"

    @pytest.mark.parametrize(
        ("message", "fault", "index"),
        [
            (
                "400 Bad Request: Too many input tokens. Max input tokens: 8192, request input token count: 9875 ",
                ProviderFault.TOO_LONG,
                0,
            ),
            ("Malformed input request: expected maxLength: 50000, actual: 160000, please", ProviderFault.TOO_LONG, 0),
            (
                "Malformed input request: #/texts/3: expected maxLength: 2048, actual: 19882, please",
                ProviderFault.TOO_LONG,
                3,
            ),
            ("Input is too long for requested model.", ProviderFault.TOO_LONG, 0),
            (
                "Malformed input request: #/texts: expected maximum item count: 96, found: 97, please",
                ProviderFault.TOO_LARGE,
                None,
            ),
            (
                "Invocation of model ID x with on-demand throughput isn’t supported. Retry with an inference profile",
                ProviderFault.NOT_SERVED,
                None,
            ),
        ],
    )
    async def test_what_is_too_long_and_what_is_too_large_is_told_by_the_message(
        self, rig: Rig, provider: Provider, message: str, fault: ProviderFault, index: int | None
    ) -> None:
        error = await refused(rig, provider, Fault("status", status=400, message=message))
        assert (error.fault, error.index) == (fault, index)

    @pytest.mark.parametrize(
        ("original", "fault"), [(400, ProviderFault.REFUSED), (429, ProviderFault.SERVER), (500, ProviderFault.SERVER)]
    )
    async def test_an_error_of_the_model_is_told_by_what_the_model_answered(
        self, rig: Rig, provider: Provider, original: int, fault: ProviderFault
    ) -> None:
        body = json.dumps({"message": "no", "originalStatusCode": original})
        told = {"x-amzn-ErrorType": "ModelErrorException:http://internal.amazon.com/coral/"}
        error = await refused(rig, provider, Fault("status", status=424, body=body, headers=told))
        assert error.fault is fault

    @pytest.mark.parametrize("body", ["[]", '"no"', "\xff", ""])
    async def test_an_error_in_no_shape_of_awss_still_is_a_provider_error(
        self, rig: Rig, provider: Provider, body: str
    ) -> None:
        error = await refused(rig, provider, Fault("status", status=500, body=body))
        assert error.fault is ProviderFault.SERVER


async def refused(rig: Rig, provider: Provider, fault: Fault | None) -> ProviderError:
    if fault is not None:
        rig.fault(fault)
    return await refused_call(provider)


async def refused_call(provider: Provider) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.embed(EmbedCall(["a"], TITAN, 9))
    assert caught.value.__context__ is None
    return caught.value


class TestCredentials:
    @pytest.mark.parametrize(
        ("secret", "code"),
        [
            (secret_of("another-secret-key"), "InvalidSignatureException"),
            (secret_of(name="AKIANOBODY"), "UnrecognizedClientException"),
            (secret_of(token="a-session"), "UnrecognizedClientException"),
        ],
    )
    async def test_a_credential_that_aws_does_not_know_is_refused_by_the_signature(
        self, rig: HttpRig, secret: str, code: str
    ) -> None:
        provider = opens(rig.simulator.url, secret=secret)
        error = await refused(rig, provider, None)
        assert (error.fault, error.status) == (ProviderFault.AUTHENTICATION, 403)
        assert code in error.detail
        await provider.close()

    async def test_a_clock_that_is_wrong_is_found_out(self, simulator: Simulator, api: BedrockApi) -> None:
        api._clock = lambda: time.time() + 901
        provider = opens(simulator.url)
        error = await refused(HttpRig(simulator, TITAN, opens), provider, None)
        assert error.fault is ProviderFault.AUTHENTICATION
        await provider.close()

    async def test_a_temporary_key_is_sent_with_its_session(self, simulator: Simulator, api: BedrockApi) -> None:
        api.account = Account("ASIATEMPORARY", KEY, "a-session")
        provider = opens(simulator.url, secret=secret_of(name="ASIATEMPORARY", token="a-session"))
        await provider.embed(EmbedCall(["a"], TITAN, 9))
        await provider.close()

    async def test_without_a_secret_the_sdk_finds_credentials_in_its_own_way(
        self, simulator: Simulator, aws: pytest.MonkeyPatch
    ) -> None:
        aws.setenv("AWS_ACCESS_KEY_ID", ACCOUNT.key)
        aws.setenv("AWS_SECRET_ACCESS_KEY", ACCOUNT.secret)
        provider = opens(simulator.url, key=None)
        await provider.embed(EmbedCall(["a"], TITAN, 9))
        await provider.close()

    async def test_a_profile_beats_every_variable_and_brings_its_region(
        self, simulator: Simulator, aws: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        config = tmp_path / "config"
        config.write_text(
            f"[profile work]\nregion = {REGION}\naws_access_key_id = {ACCOUNT.key}\naws_secret_access_key = {ACCOUNT.secret}\n"
        )
        aws.setenv("AWS_CONFIG_FILE", str(config))
        aws.setenv("AWS_ACCESS_KEY_ID", "AKIA-of-the-shell")
        aws.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-shell")
        aws.setenv("AWS_BEARER_TOKEN_BEDROCK", "ABSK-of-the-shell")
        endpoint = Endpoint("e", "bedrock", {}, base_url=simulator.url, options={"profile": "work"})
        provider = BedrockProvider(endpoint, {}, None)
        await provider.embed(EmbedCall(["a"], TITAN, 9))
        await provider.close()

    @pytest.mark.parametrize("act", ["embed", "warm_up", "check"])
    async def test_without_any_credentials_it_says_so_and_looks_again_the_next_time(
        self, simulator: Simulator, aws: pytest.MonkeyPatch, act: str
    ) -> None:
        provider = opens(simulator.url, key=None)
        acts: dict[str, Callable[[], Awaitable[object]]] = {
            "embed": lambda: provider.embed(EmbedCall(["a"], TITAN, 9)),
            "warm_up": provider.warm_up,
            "check": lambda: provider.check(9.0),
        }
        with pytest.raises(ProviderError, match="finds no AWS credentials") as caught:
            await acts[act]()
        assert caught.value.fault is ProviderFault.AUTHENTICATION
        assert caught.value.__context__ is None
        aws.setenv("AWS_ACCESS_KEY_ID", ACCOUNT.key)
        aws.setenv("AWS_SECRET_ACCESS_KEY", ACCOUNT.secret)
        await acts[act]()
        await provider.close()

    async def test_credentials_that_were_renewed_where_the_sdk_found_them_are_taken_up(
        self, simulator: Simulator, aws: pytest.MonkeyPatch
    ) -> None:
        aws.setattr("adapters.providers.bedrock.RENEW_SECONDS", -1.0)
        aws.setenv("AWS_ACCESS_KEY_ID", ACCOUNT.key)
        aws.setenv("AWS_SECRET_ACCESS_KEY", "an-old-one")
        provider = opens(simulator.url, key=None)
        rig = HttpRig(simulator, TITAN, opens)
        assert (await refused(rig, provider, None)).fault is ProviderFault.AUTHENTICATION
        aws.setenv("AWS_SECRET_ACCESS_KEY", ACCOUNT.secret)
        await provider.embed(EmbedCall(["a"], TITAN, 9))
        await provider.close()

    async def test_a_profile_that_is_not_there_is_our_credential_not_the_callers_request(
        self, simulator: Simulator, aws: pytest.MonkeyPatch
    ) -> None:
        provider = opens(simulator.url, key=None, profile="nobody")
        error = await refused(HttpRig(simulator, TITAN, opens), provider, None)
        assert error.fault is ProviderFault.AUTHENTICATION
        assert "ProfileNotFound" in error.detail
        await provider.close()

    @pytest.mark.parametrize(
        "secret",
        ["", "AKIASIMULATED:hunter2", '{"aws_access_key_id": "hunter2"}', '{"aws_access_key_id": "hunter2", "aws_secret_access_key": ""}',
         '{"hunter2', '{"aws_access_key_id":"a","aws_secret_access_key":"hunter2","region":"x"}', "hunter2"],
    )  # fmt: skip
    def test_a_secret_of_another_form_is_refused_without_being_quoted(self, secret: str) -> None:
        with pytest.raises(ValueError, match="aws_secret_access_key") as caught:
            opens("http://127.0.0.1:9", secret=secret)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__context__ is None


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which the SDK finds nothing, and asks nobody on the network."""
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_BEARER_TOKEN_BEDROCK",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    return monkeypatch


class TestApiKeys:
    @pytest.fixture
    async def url(self, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
        """The server behind TLS, trusted."""
        cert, key = certificate(tmp_path)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(cert))
        async with tls(simulator.url, cert, key) as address:
            yield address

    async def test_an_api_key_is_sent_as_it_is_over_tls(
        self, url: str, api: BedrockApi, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "ABSK-of-the-shell")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA-of-the-shell")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-shell")
        provider = opens(url, secret=API_KEY)
        await provider.check(9.0)
        await provider.embed(EmbedCall(["a"], TITAN, 9))
        assert {request.headers["authorization"] for request in api.requests} == {f"Bearer {API_KEY}"}
        await provider.close()

    async def test_a_wrong_api_key_is_our_credential_also_to_a_check(self, url: str, rig: Rig) -> None:
        provider = opens(url, secret="bedrock-api-key-d3Jvbmc=")
        assert (await refused(rig, provider, None)).fault is ProviderFault.AUTHENTICATION
        with pytest.raises(ProviderError) as caught:
            await provider.check(9.0)
        assert caught.value.fault is ProviderFault.AUTHENTICATION
        await provider.close()

    async def test_a_call_over_tls_is_given_up_as_well(self, url: str, rig: HttpRig) -> None:
        provider = opens(url, 1, secret=API_KEY)
        await provider.embed(EmbedCall(["a"], TITAN, 9))
        rig.fault(Fault("stall"))
        with pytest.raises(ProviderError) as caught:
            await provider.embed(EmbedCall(["a"], TITAN, 0.5))
        assert caught.value.fault is ProviderFault.TIMEOUT
        await rig.abandoned(1)
        await provider.embed(EmbedCall(["a"], TITAN, 9))
        await provider.close()

    async def test_the_sdk_finds_an_api_key_in_its_variable(self, url: str, aws: pytest.MonkeyPatch) -> None:
        aws.setenv("AWS_BEARER_TOKEN_BEDROCK", API_KEY)
        provider = opens(url, key=None)
        await provider.embed(EmbedCall(["a"], TITAN, 9))
        await provider.close()

    async def test_one_that_the_sdk_finds_is_not_sent_in_the_clear_either(
        self, rig: HttpRig, aws: pytest.MonkeyPatch
    ) -> None:
        aws.setenv("AWS_BEARER_TOKEN_BEDROCK", API_KEY)
        provider = opens(rig.simulator.url, key=None)
        error = await refused(rig, provider, None)
        assert error.fault is ProviderFault.AUTHENTICATION
        assert "https" in error.detail
        assert rig.stats().calls == 0
        await provider.close()

    async def test_calls_go_through_the_proxy_of_the_environment(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with connecting_proxy() as (port, heard):
            monkeypatch.setenv("https_proxy", f"http://us%40er:pass@127.0.0.1:{port}")
            provider = opens(url, secret=API_KEY)
            await provider.embed(EmbedCall(["a"], TITAN, 9))
            await provider.close()
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            past = opens(url, secret=API_KEY)
            await past.embed(EmbedCall(["a"], TITAN, 9))
            await past.close()
        assert len(heard) == 1
        assert heard[0].startswith(f"CONNECT {url.removeprefix('https://')} ".encode())
        assert b"\r\nproxy-authorization: basic " + b64encode(b"us@er:pass").lower() in heard[0].lower()

    async def test_a_proxy_of_what_is_not_encrypted_is_told_where_to(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with listener("babbles") as proxy:
            monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
            provider = opens("http://bedrock.invalid")
            error = await refused_call(provider)
            assert error.fault is ProviderFault.CONNECTION
            await provider.close()
            assert proxy.heard, error
            assert proxy.heard[0].startswith(
                b"POST http://bedrock.invalid/model/amazon.titan-embed-text-v2%3A0/invoke "
            )

    async def test_a_certificate_that_nobody_vouches_for_is_a_connection_error(
        self, url: str, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AWS_CA_BUNDLE")
        provider = opens(url, secret=API_KEY)
        error = await refused(rig, provider, None)
        assert error.fault is ProviderFault.CONNECTION
        assert "certificate" in error.detail
        assert rig.stats().calls == 0
        await provider.close()

    def test_an_api_key_is_not_sent_in_the_clear(self) -> None:
        with pytest.raises(ValueError, match="https"):
            opens("http://127.0.0.1:9", secret=API_KEY)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, until one side has enough."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def forwarder(
    target: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[str]],
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """A port whose connections are passed on to `host:port` as `target` says for each."""
    tasks: set[asyncio.Task[None]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = (await target(reader, writer)).split(":")
        there, back = await asyncio.open_connection(host, int(port))
        for task in (asyncio.create_task(pump(reader, back)), asyncio.create_task(pump(there, writer))):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def connecting_proxy() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A proxy that opens ways (CONNECT), and what it was asked."""
    heard: list[bytes] = []

    async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return heard[-1].split()[1].decode()

    async with forwarder(target) as port:
        yield port, heard


@asynccontextmanager
async def tls(url: str, cert: Path, key: Path) -> AsyncIterator[str]:
    """The server at `url`, behind TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)

    async def target(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> str:
        return url.removeprefix("http://")

    async with forwarder(target, context) as port:
        yield f"https://127.0.0.1:{port}"


def client_error(code: str, status: int, operation: str) -> ClientError:
    said = {"Error": {"Code": code, "Message": SECRET_TEXT}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(said, operation)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (client_error("AccessDenied", 403, "AssumeRole"), ProviderFault.AUTHENTICATION),
        (client_error("ValidationError", 400, "AssumeRoleWithWebIdentity"), ProviderFault.AUTHENTICATION),
        (client_error("Throttling", 400, "AssumeRole"), ProviderFault.RATE_LIMITED),
        (client_error("InternalFailure", 500, "AssumeRole"), ProviderFault.SERVER),
        (CredentialRetrievalError(provider="p", error_msg=SECRET_TEXT), ProviderFault.AUTHENTICATION),
        (ConnectTimeoutError(endpoint_url="https://sts"), ProviderFault.TIMEOUT),
        (EndpointConnectionError(endpoint_url="https://sts"), ProviderFault.CONNECTION),
        (ResponseParserError(SECRET_TEXT), ProviderFault.BAD_ANSWER),
        (KeyError(SECRET_TEXT), ProviderFault.SERVER),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_what_the_sdk_meets_on_its_way_to_credentials_has_its_place(error: Exception, fault: ProviderFault) -> None:
    told = error_of(error, 1, 9.0)
    assert told.fault is fault
    assert "Karmesin" not in str(told)


class TestThreads:
    async def test_calls_that_hang_starve_no_later_one(self, rig: HttpRig) -> None:
        provider = rig.open(max_concurrency=2)
        rig.fault(Fault("hang", count=20))
        hung = [provider.embed(EmbedCall([f"t{i}"], TITAN, 0.2)) for i in range(20)]
        ends = await asyncio.gather(*hung, return_exceptions=True)
        assert {end.fault for end in ends if isinstance(end, ProviderError)} == {ProviderFault.TIMEOUT}
        assert len(ends) == 20
        rig.simulator.control(Control(clear=True))
        await asyncio.gather(*(provider.embed(EmbedCall([f"t{i}"], TITAN, 9)) for i in range(4)))
        assert rig.stats().in_flight == 0
        await provider.close()

    async def test_a_call_that_was_cancelled_before_its_turn_is_never_sent(self, rig: HttpRig) -> None:
        provider = rig.open(max_concurrency=1)
        rig.fault(Fault("hang"))
        first = asyncio.create_task(provider.embed(EmbedCall(["first"], TITAN, 9)))
        await rig.calls(1)
        second = asyncio.create_task(provider.embed(EmbedCall(["second"], TITAN, 9)))
        await asyncio.sleep(0)  # its turn to ask for a thread
        for task in (second, first):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await provider.embed(EmbedCall(["third"], TITAN, 9))
        assert [texts[0] for texts in rig.simulator.texts] == ["first", "third"]
        await provider.close()

    async def test_without_its_connection_being_cut_a_cancelled_call_would_keep_its_thread(
        self, rig: HttpRig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The control: what the tests of cancelling and of timeouts show is the work of the cut."""
        provider = rig.open(max_concurrency=1)
        await provider.warm_up()
        monkeypatch.setattr("adapters.providers.bedrock_transport._Cuttable.cut", lambda *_: None)
        rig.fault(Fault("hang"))
        hung = asyncio.create_task(provider.embed(EmbedCall(["a"], TITAN, 1.0)))
        await rig.calls(1)
        hung.cancel()
        with pytest.raises(ProviderError) as caught:
            await provider.embed(EmbedCall(["b"], TITAN, 0.2))
        assert caught.value.fault is ProviderFault.TIMEOUT
        await provider.embed(EmbedCall(["c"], TITAN, 9))  # the thread was free once its socket's own time was over
        await provider.close()

    async def test_calls_given_up_at_any_moment_never_mix_up_the_answers_of_others(self, rig: HttpRig) -> None:
        provider = rig.open(max_concurrency=3)
        chance = random.Random(5)

        async def one(number: int) -> bool:
            text = f"text {number}"
            call = asyncio.create_task(provider.embed(EmbedCall([text], TITAN, 9)))
            if number % 2:
                for _ in range(chance.randrange(40)):  # loop turns: before the thread, while it sends, while it reads
                    await asyncio.sleep(0)
                call.cancel()
            try:
                answer = await call
            except asyncio.CancelledError:
                return False
            assert np.array_equal(answer.vectors[0], rig.vector(text, 1024))
            return True

        answered = await asyncio.gather(*(one(number) for number in range(200)))
        assert all(answered[::2])
        assert not all(answered[1::2])
        await provider.close()

    async def test_the_event_loop_goes_on_while_a_call_waits(self, rig: HttpRig) -> None:
        provider = rig.open()
        rig.hold(True)
        call = asyncio.create_task(provider.embed(EmbedCall(["a"], TITAN, 9)))
        await rig.calls(1)  # answered by a server that runs in this very loop
        rig.hold(False)
        await call
        await provider.close()

    async def test_a_check_waits_behind_no_call(self, rig: HttpRig) -> None:
        provider = rig.open(max_concurrency=1)
        rig.fault(Fault("hang"))
        hung = asyncio.create_task(provider.embed(EmbedCall(["a"], TITAN, 9)))
        await rig.calls(1)
        await provider.check(9.0)
        await provider.close()
        with pytest.raises(ProviderError):
            await hung

    async def test_no_thread_is_left_once_it_was_closed_in_the_middle_of_calls(self, rig: HttpRig) -> None:
        before = set(threading.enumerate())
        provider = rig.open()
        rig.fault(Fault("hang", count=3))
        hung = [asyncio.create_task(provider.embed(EmbedCall(["a"], TITAN, 9))) for _ in range(3)]
        await rig.calls(3)
        ours = set(threading.enumerate()) - before
        assert len(ours) == 3
        await provider.close()
        await asyncio.gather(*hung, return_exceptions=True)
        for thread in ours:
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()


class TestChecks:
    async def test_a_caller_that_is_known_but_may_not_list_passes(self, simulator: Simulator, api: BedrockApi) -> None:
        api.refuse_lists = True
        provider = opens(simulator.url)
        await provider.check(9.0)
        await provider.close()

    async def test_a_server_without_that_list_passes_and_one_that_fails_does_not(
        self, simulator: Simulator, api: BedrockApi, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        provider = opens(simulator.url)
        for status, fault in ((404, None), (400, None), (500, ProviderFault.SERVER), (429, ProviderFault.RATE_LIMITED)):
            told = api.fault_answer(Fault("status", status=status))
            monkeypatch.setattr(api, "other", lambda _, told=told: told)
            try:
                await provider.check(9.0)
                met = None
            except ProviderError as error:
                met = error.fault
            assert met is fault, status
        await provider.close()


class TestOpening:
    def test_a_region_is_needed_and_the_environments_is_taken(self, aws: pytest.MonkeyPatch) -> None:
        aws.delenv("AWS_DEFAULT_REGION", raising=False)
        endpoint = Endpoint("e", "bedrock", {})
        for region in ({}, {"AWS_REGION": "not a region"}):
            with pytest.raises(EndpointError, match="option region or AWS_REGION"):
                open_provider(endpoint, region, Path())
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            open_provider(endpoint, {name: "eu-west-1"}, Path())

    def test_a_tenants_endpoint_takes_nothing_of_the_installations(self, aws: pytest.MonkeyPatch) -> None:
        aws.setenv("AWS_REGION", REGION)
        mine = Endpoint("e", "bedrock", {}, options={"region": REGION}, tenant="acme")
        with pytest.raises(EndpointError, match="a credential of the tenant's"):
            open_provider(mine, {}, Path())
        with pytest.raises(EndpointError, match="option region"):
            open_provider(Endpoint("e", "bedrock", {}, tenant="acme"), {"AWS_REGION": REGION}, Path(), secret_of())
        open_provider(mine, {}, Path(), secret_of())

    @pytest.mark.parametrize("wrong", ["bedrock.local", "ftp://bedrock"])
    def test_an_address_that_is_none_is_refused(self, wrong: str) -> None:
        with pytest.raises(ValueError, match="base_url"):
            opens(wrong)

    def test_a_profile_beside_a_credential_is_refused(self) -> None:
        with pytest.raises(ValueError, match="profile"):
            opens("https://bedrock.invalid", profile="work")

    async def test_the_regions_own_address_is_the_default_whatever_the_environment_says(
        self, aws: pytest.MonkeyPatch
    ) -> None:
        aws.setenv("AWS_ENDPOINT_URL", "http://of-the-shell.invalid")
        provider = open_provider(Endpoint("e", "bedrock", {}, options={"region": REGION}), {}, Path(), secret_of())
        assert isinstance(provider, BedrockProvider)
        await provider.warm_up()
        assert provider._client.meta.endpoint_url == f"https://bedrock-runtime.{REGION}.amazonaws.com"
        await provider.close()


async def test_texts_are_not_logged_even_where_everything_is(
    rig: Rig, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "urllib3")
    await provider.embed(EmbedCall([SECRET_TEXT], TITAN, 9))
    assert "Karmesin" not in caplog.text
