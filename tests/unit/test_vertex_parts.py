"""What the Vertex provider is made of, without a server: settings, answers read out of protobuf, tokens kept fresh."""

from __future__ import annotations

import asyncio
import json
import queue
import struct
from typing import Any

import numpy as np
import pytest
from google.auth.credentials import TokenState
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.protobuf.struct_pb2 import ListValue, Value
from hypothesis import given
from hypothesis import strategies as st

from adapters.providers.registry import EndpointError, open_provider
from adapters.providers.vertex import VertexProvider
from adapters.providers.vertex_account import ServiceAccount
from adapters.providers.vertex_answer import read_answer
from adapters.providers.vertex_token import Token
from domain.catalogue import Endpoint
from domain.ports.provider import ProviderError, ProviderFault

KEY = {"type": "service_account", "project_id": "p-1", "client_email": "a@p-1.example", "private_key": "karmesin"}


def endpoint(base_url: str | None = None, tenant: str | None = None, **options: str) -> Endpoint:
    return Endpoint("e", "vertex", {}, base_url=base_url, options=options, tenant=tenant)


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "base_url", "expected"),
        [
            ({}, None, "option region is ''; expected a region such as us-central1"),
            ({"region": "evil.example/x"}, None, "option region"),
            (
                {"region": "us-central1", "project": "a/b"},
                None,
                "option project is 'a/b'; expected the id of a project",
            ),
            ({"region": "us-central1"}, "ftp://host", "expected https://host or http://host:port"),
            ({"region": "us-central1"}, "https://host/v1", "without a path"),
            ({"region": "us-central1"}, "https://user@host", "expected https://host"),
        ],
    )
    def test_what_cannot_work_is_refused_when_the_endpoint_is_opened(
        self, options: dict[str, str], base_url: str | None, expected: str
    ) -> None:
        with pytest.raises(ValueError, match="endpoint 'e': ") as caught:
            VertexProvider(endpoint(base_url, **options), json.dumps(KEY))
        assert expected in str(caught.value)

    @pytest.mark.parametrize(
        "secret",
        [
            "karmesin",
            "[]",
            json.dumps(
                KEY | {"type": "external_account", "credential_source": {"executable": {"command": "karmesin"}}}
            ),
            json.dumps(KEY | {"type": "authorized_user"}),
            json.dumps({k: v for k, v in KEY.items() if k != "private_key"} | {"karmesin": 1}),
            json.dumps(KEY | {"private_key": ["karmesin"]}),
            "\ud800",
        ],
    )
    def test_only_the_key_of_a_service_account_is_a_credential_and_no_other_is_repeated(self, secret: str) -> None:
        with pytest.raises(ValueError, match="not the JSON of a service account's key") as caught:
            ServiceAccount.read(secret)
        assert "karmesin" not in str(caught.value)
        assert caught.value.__context__ is None

    def test_a_project_that_is_none_is_not_repeated_where_the_credential_names_it(self) -> None:
        with pytest.raises(ValueError, match="the credential's project_id is not the id of a project") as caught:
            VertexProvider(endpoint(region="us-central1"), json.dumps(KEY | {"project_id": "karmesin/x"}))
        assert "karmesin" not in str(caught.value)
        VertexProvider(endpoint(region="us-central1", project="p-2"), json.dumps(KEY | {"project_id": "karmesin/x"}))

    def test_a_key_is_not_shown(self) -> None:
        assert "karmesin" not in repr(ServiceAccount.read(json.dumps(KEY)))

    @pytest.mark.parametrize(
        ("base_url", "region", "target", "tls"),
        [
            (None, "europe-west4", "europe-west4-aiplatform.googleapis.com:443", True),
            (None, "global", "aiplatform.googleapis.com:443", True),
            ("https://aiplatform.eu.rep.googleapis.com/", "eu", "aiplatform.eu.rep.googleapis.com:443", True),
            ("http://127.0.0.1:9000", "eu", "127.0.0.1:9000", False),
            ("https://[::1]", "eu", "[::1]:443", True),
        ],
    )
    def test_the_address_is_the_regions_or_the_one_that_is_set(
        self, base_url: str | None, region: str, target: str, tls: bool
    ) -> None:
        provider = VertexProvider(endpoint(base_url, region=region), json.dumps(KEY))
        assert (provider._target, provider._tls) == (target, tls)

    def test_a_tenants_endpoint_does_not_use_the_machines_credentials(self, tmp_path: Any) -> None:
        with pytest.raises(EndpointError, match="needs a credential of the tenant's"):
            open_provider(endpoint(tenant="t", region="us-central1"), {}, tmp_path)
        open_provider(endpoint(tenant="t", region="us-central1"), {}, tmp_path, json.dumps(KEY))

    def test_a_missing_package_is_named_with_its_extra(self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(EndpointError, match=r"pip install 'emberlog\[vertex\]'"):
            open_provider(endpoint(region="us-central1"), {}, tmp_path)


def prediction(values: ListValue | None = None, **statistics: float | bool) -> Value:
    made = Value()
    fields = made.struct_value.fields["embeddings"].struct_value.fields
    if values is not None:
        fields["values"].list_value.CopyFrom(values)
    for name, value in statistics.items():
        target = fields["statistics"].struct_value.fields[name]
        if isinstance(value, bool):
            target.bool_value = value
        else:
            target.number_value = value
    return made


def numbers(*values: Any) -> ListValue:
    made = ListValue()
    made.extend(values)
    return made


class TestAnswers:
    @given(st.lists(st.floats(width=64, allow_nan=False, min_value=-3e38, max_value=3e38), min_size=1, max_size=50))
    def test_the_fast_way_gives_what_protobuf_gives_number_by_number(self, values: list[float]) -> None:
        given_values = numbers(*values)
        slow = np.array([value.number_value for value in given_values.values], dtype=np.float32)
        fast = read_answer([prediction(given_values)], 1, None, False).vectors
        assert fast.tobytes() == slow.tobytes()

    @pytest.mark.parametrize(
        "values",
        [
            numbers(1.0, None),
            numbers(1.0, True),
            numbers("1.0", 1.0),
            numbers("seven..", 1.0),  # as many bytes as a number
            numbers([1.0], 1.0),
            numbers(),
            None,
        ],
    )
    def test_what_is_no_number_is_a_bad_answer(self, values: ListValue | None) -> None:
        with pytest.raises(ProviderError) as caught:
            read_answer([prediction(values)], 1, None, False)
        assert caught.value.fault is ProviderFault.BAD_ANSWER

    def test_a_number_with_a_field_that_protobuf_does_not_know_is_a_bad_answer(self) -> None:
        strange = ListValue.FromString(b"\x0a\x0b\x11" + struct.pack("<d", 1.0) + b"\x78\x01")
        with pytest.raises(ProviderError, match="not a number"):
            read_answer([prediction(strange)], 1, None, False)

    @pytest.mark.parametrize("count", [-1.0, 1.5, float("nan"), float("inf"), 1e18])
    def test_a_token_count_is_a_whole_number_from_0_up(self, count: float) -> None:
        with pytest.raises(ProviderError, match="token count"):
            read_answer([prediction(numbers(1.0), token_count=count)], 1, None, False)

    def test_counts_are_given_for_all_texts_or_none(self) -> None:
        both = [prediction(numbers(1.0), token_count=3), prediction(numbers(2.0), token_count=4)]
        answer = read_answer(both, 2, 1, False)
        assert (answer.tokens, answer.text_tokens) == (7, [3, 4])
        answer = read_answer([both[0], prediction(numbers(2.0))], 2, 1, False)
        assert (answer.tokens, answer.text_tokens) == (None, None)

    def test_a_prediction_of_another_kind_is_a_bad_answer(self) -> None:
        with pytest.raises(ProviderError, match="is this an embedding model"):
            read_answer([Value(string_value="a poem")], 1, None, False)

    def test_a_text_that_was_cut_is_refused_unless_cutting_is_allowed(self) -> None:
        cut = [prediction(numbers(1.0), truncated=False), prediction(numbers(1.0), truncated=True)]
        with pytest.raises(ProviderError) as caught:
            read_answer(cut, 2, None, False)
        assert (caught.value.fault, caught.value.index) == (ProviderFault.TOO_LONG, 1)
        assert read_answer(cut, 2, None, True).vectors.shape == (2, 1)


class Credentials:
    """Google's interface, with a refresh that the test ends."""

    def __init__(self) -> None:
        self.token_state = TokenState.INVALID
        self.refreshes = 0
        self.begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._ends: queue.SimpleQueue[GoogleAuthError | None] = queue.SimpleQueue()

    def end(self, error: GoogleAuthError | None = None) -> None:
        """Let the refresh that is under way end so."""
        self.begun.clear()
        self._ends.put(error)

    def refresh(self, request: object) -> None:
        self.refreshes += 1
        self._loop.call_soon_threadsafe(self.begun.set)
        error = self._ends.get(timeout=10)
        if error is not None:
            raise error
        self.token_state = TokenState.FRESH

    def apply(self, headers: dict[str, str]) -> None:
        headers["authorization"] = f"Bearer {self.refreshes}"
        headers["X-Goog-User-Project"] = "quota-1"


def bearer(number: int) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {number}"), ("x-goog-user-project", "quota-1"))


class TestTokens:
    async def test_callers_share_one_renewal_and_one_token(self) -> None:
        credentials = Credentials()
        token = Token(credentials)
        waiting = [asyncio.create_task(token.metadata()) for _ in range(5)]
        await credentials.begun.wait()
        credentials.end()
        assert await asyncio.gather(*waiting) == [bearer(1)] * 5
        assert await token.metadata() == bearer(1)
        assert credentials.refreshes == 1

    async def test_a_token_near_its_end_is_used_while_the_next_is_fetched(self) -> None:
        credentials = Credentials()
        token = Token(credentials)
        first = asyncio.create_task(token.metadata())
        await credentials.begun.wait()
        credentials.end()
        await first
        credentials.token_state = TokenState.STALE
        assert await token.metadata() == bearer(1)
        await credentials.begun.wait()
        assert await token.metadata() == bearer(1)
        renewing = token._renewing
        assert renewing is not None
        credentials.end()
        await renewing
        assert await token.metadata() == bearer(2)
        assert credentials.refreshes == 2

    @pytest.mark.parametrize(
        ("error", "fault"),
        [
            (TransportError("karmesin"), ProviderFault.CONNECTION),
            (RefreshError("karmesin", retryable=True), ProviderFault.SERVER),
            (RefreshError("karmesin"), ProviderFault.AUTHENTICATION),
        ],
    )
    async def test_a_renewal_that_fails_says_why_and_is_tried_again(
        self, error: GoogleAuthError, fault: ProviderFault
    ) -> None:
        credentials = Credentials()
        token = Token(credentials)
        asked = asyncio.create_task(token.metadata())
        await credentials.begun.wait()
        credentials.end(error)
        with pytest.raises(ProviderError) as caught:
            await asked
        assert (caught.value.fault, caught.value.__context__) == (fault, None)
        assert "karmesin" not in str(caught.value)
        asked = asyncio.create_task(token.metadata())
        await credentials.begun.wait()
        credentials.end()
        assert await asked == bearer(2)

    async def test_a_caller_that_gives_up_ends_the_renewal_for_nobody_else(self) -> None:
        credentials = Credentials()
        token = Token(credentials)
        hasty, patient = asyncio.create_task(token.metadata()), asyncio.create_task(token.metadata())
        await credentials.begun.wait()
        hasty.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hasty
        credentials.end()
        assert await patient == bearer(1)
