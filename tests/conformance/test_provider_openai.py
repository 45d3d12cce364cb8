"""The OpenAI provider against a simulated server: the contract of every provider, and what is OpenAI's own."""

from __future__ import annotations

import asyncio
import ssl
import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from adapters.providers.openai import OpenAIProvider
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedCall, Provider, ProviderError, ProviderFault
from gateway.bench.faults import Control, Fault
from gateway.bench.simulator import Simulator, SimulatorOptions, vector_of
from tests.conformance.http_rig import HttpRig
from tests.conformance.provider_contract import KEY, MODEL_SIZE, SECRET_TEXT, ProviderContract, Rig
from tests.support.certificates import certificate


def opens(url: str, max_concurrency: int, key: str) -> OpenAIProvider:
    return OpenAIProvider(Endpoint("e", "openai", {}, base_url=f"{url}/v1", max_concurrency=max_concurrency), key)


@pytest.fixture(params=["base64", "float"])
async def simulator(request: pytest.FixtureRequest) -> AsyncIterator[Simulator]:
    """A server that gives base64 when asked, and one that answers lists of numbers whatever is asked."""
    async with Simulator(SimulatorOptions(key=KEY, max_inputs=300, base64=request.param == "base64")) as running:
        yield running


@pytest.fixture
def rig(simulator: Simulator) -> HttpRig:
    return HttpRig(simulator, "text-embedding-3-small", opens)


@pytest.fixture
async def provider(rig: HttpRig) -> AsyncIterator[Provider]:
    opened = rig.open()
    yield opened
    await opened.close()


class TestOpenAIKeepsTheContract(ProviderContract):
    """Against both kinds of server."""

    shell: ClassVar[dict[str, str]] = {
        "OPENAI_API_KEY": "sk-of-the-shell",
        "OPENAI_ADMIN_KEY": "sk-admin-of-the-shell",
        "OPENAI_ORG_ID": "org-of-the-shell",
        "OPENAI_PROJECT_ID": "project-of-the-shell",
        "OPENAI_BASE_URL": "http://of-the-shell.invalid/v1",
        "OPENAI_CUSTOM_HEADERS": "x-account: of-the-shell",
    }


class TestWhatOpenAISays:
    async def error(self, rig: Rig, provider: Provider, fault: Fault | None, *texts: str) -> ProviderError:
        if fault is not None:
            rig.fault(fault)
        with pytest.raises(ProviderError) as caught:
            await provider.embed(EmbedCall(texts or ("a", "b"), rig.model, 10.0))
        return caught.value

    @pytest.mark.parametrize(
        ("message", "code", "index"),
        [
            ("This model's maximum context length is 8192 tokens, however you requested 10738 tokens.", None, None),
            ("Invalid 'input[7]': maximum context length is 8192 tokens.", None, 7),
            ("Invalid 'input': maximum context length is 8192 tokens.", None, None),
            ("the request exceeds the available context size", "exceed_context_size_error", None),
            ("Input validation error: `inputs` must have less than 512 tokens. Given: 600", None, None),
        ],
    )
    async def test_a_text_over_the_models_limit_is_too_long_with_its_index_where_told(
        self, rig: Rig, provider: Provider, message: str, code: str | None, index: int | None
    ) -> None:
        error = await self.error(rig, provider, Fault("status", status=400, message=message, code=code))
        assert (error.fault, error.index, error.fault.retryable) == (ProviderFault.TOO_LONG, index, False)

    async def test_too_many_texts_are_too_large(self, rig: Rig, provider: Provider, simulator: Simulator) -> None:
        simulator.control(Control(max_inputs=3))
        error = await self.error(rig, provider, None, "a", "b", "c", "d")
        assert (error.fault, error.status) == (ProviderFault.TOO_LARGE, 400)
        assert "array_above_max_length" in error.detail

    async def test_too_many_tokens_in_a_call_are_too_large(
        self, rig: Rig, provider: Provider, simulator: Simulator
    ) -> None:
        simulator.control(Control(max_tokens=10))
        error = await self.error(rig, provider, None, "one two three four five six", "one two three four five six")
        assert error.fault is ProviderFault.TOO_LARGE

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"retry_after": "7"}, 7.0),
            ({"retry_after": "0.25"}, 0.25),
            ({"retry_after_ms": "350"}, 0.35),
            ({"retry_after_ms": "350", "retry_after": "9"}, 0.35),
            ({"retry_after": "soon"}, None),
            ({"retry_after": "-1"}, None),
            ({"retry_after": "inf"}, None),
            ({}, None),
        ],
    )
    async def test_a_rate_limit_says_when_to_come_back(
        self, rig: Rig, provider: Provider, headers: dict[str, str], seconds: float | None
    ) -> None:
        error = await self.error(rig, provider, Fault("status", status=429, **headers))  # type: ignore[arg-type]  # strings only
        assert (error.fault, error.retry_after) == (ProviderFault.RATE_LIMITED, seconds)

    async def test_a_rate_limit_may_name_the_hour(self, rig: Rig, provider: Provider) -> None:
        when = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
        error = await self.error(rig, provider, Fault("status", status=429, retry_after=when))
        assert error.retry_after == pytest.approx(89.5, abs=1.5)
        past = format_datetime(datetime.now(UTC) - timedelta(seconds=90), usegmt=True)
        error = await self.error(rig, provider, Fault("status", status=503, retry_after=past))
        assert (error.fault, error.retry_after) == (ProviderFault.SERVER, 0.0)

    async def test_an_exhausted_account_is_a_rate_limit_that_says_so(self, rig: Rig, provider: Provider) -> None:
        error = await self.error(rig, provider, Fault("status", status=429, code="insufficient_quota"))
        assert error.fault is ProviderFault.RATE_LIMITED
        assert "insufficient_quota" in error.detail

    async def test_names_that_are_not_known_are_not_passed_on_though_they_look_like_identifiers(
        self, rig: Rig, provider: Provider
    ) -> None:
        error = await self.error(
            rig, provider, Fault("status", status=400, code="karmesinrot", type="invalid_value", param="karmesinrot")
        )
        assert "karmesin" not in error.detail
        assert "type invalid_value" in error.detail

    async def test_codes_that_are_no_identifiers_are_not_passed_on(self, rig: Rig, provider: Provider) -> None:
        error = await self.error(
            rig, provider, Fault("status", status=400, code=SECRET_TEXT, type=KEY + "\n", param="input[1]")
        )
        assert "Karmesin" not in error.detail
        assert KEY not in error.detail
        assert "param input[1]" in error.detail

    async def test_an_unknown_model_is_refused(self, rig: Rig, provider: Provider) -> None:
        with pytest.raises(ProviderError) as caught:
            await provider.embed(EmbedCall(["a"], "text-embedding-9", 10.0))
        assert (caught.value.fault, caught.value.status) == (ProviderFault.NOT_SERVED, 404)

    async def test_token_arrays_get_the_vectors_of_their_text(self, rig: Rig, provider: Provider) -> None:
        answer = await provider.embed(EmbedCall([[15339, 1917], [64]], rig.model, 10.0))
        assert np.array_equal(answer.vectors[0], vector_of("hello world", MODEL_SIZE))
        assert answer.tokens == 3


class TestHeaders:
    async def sent(self, options: dict[str, str], key: str | None) -> dict[str, str]:
        """The headers of one call, by lower-case name."""
        seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.set_result(await reader.readuntil(b"\r\n\r\n"))
            writer.close()

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        provider = OpenAIProvider(Endpoint("e", "openai", {}, base_url=url, options=options), key)
        with pytest.raises(ProviderError):
            await provider.embed(EmbedCall(["a"], "m", 10.0))
        await provider.close()
        server.close()
        await server.wait_closed()
        lines = (await seen).decode().split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}

    async def test_the_account_is_the_endpoints(self) -> None:
        plain = await self.sent({}, "sk-endpoint")
        assert plain["authorization"] == "Bearer sk-endpoint"
        assert plain["accept-encoding"] == "identity"
        assert not any("organization" in name or "project" in name for name in plain)
        named = await self.sent({"organization": "org-1", "project": "proj-1"}, "sk-endpoint")
        assert (named["openai-organization"], named["openai-project"]) == ("org-1", "proj-1")

    async def test_without_a_key_no_credential_is_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-shell")
        assert "authorization" not in await self.sent({}, None)


@pytest.mark.parametrize("key", ["sk-\u043a\u043b\u044e\u0447", "sk-1\r\nx-more: headers", "sk-1\x00"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="expected printable ASCII") as caught:
        OpenAIProvider(Endpoint("e", "openai", {}), key)
    assert "sk-" not in "".join(traceback.format_exception(caught.value))


def test_an_unknown_encoding_format_is_refused_when_the_endpoint_is_opened() -> None:
    with pytest.raises(ValueError, match="expected 'base64' or 'float'"):
        OpenAIProvider(Endpoint("e", "openai", {}, options={"encoding_format": "int8"}), KEY)


async def test_a_server_whose_certificate_nobody_trusts_is_told_nothing(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(65536))
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(tmp_path))
    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    provider = OpenAIProvider(Endpoint("e", "openai", {}, base_url=url), KEY)
    with pytest.raises(ProviderError) as caught:
        await provider.embed(EmbedCall([SECRET_TEXT], "m", 10.0))
    assert caught.value.fault is ProviderFault.CONNECTION
    await provider.close()
    server.close()
    await server.wait_closed()
    assert b"".join(heard) == b""
