"""Opening providers by name: what is missing is named, with what to do about it."""

from __future__ import annotations

import builtins
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from adapters.providers import registry
from adapters.providers.local.provider import LocalProvider
from adapters.providers.openai import OpenAIProvider
from adapters.providers.registry import EndpointError, open_provider
from domain.catalogue import Endpoint
from domain.ports.provider import Provider

STORE = Path("unused")


async def test_an_openai_endpoint_opens_with_the_key_that_its_variable_holds() -> None:
    provider = open_provider(Endpoint("e", "openai", {}, api_key_env="MY_KEY"), {"MY_KEY": "sk-1"}, STORE)
    assert isinstance(provider, OpenAIProvider)
    await provider.close()


@pytest.mark.parametrize("environ", [{}, {"MY_KEY": ""}, {"MY_KEY": "  "}])
def test_an_unset_variable_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(EndpointError, match=r"'e'.*MY_KEY.*not set"):
        open_provider(Endpoint("e", "openai", {}, api_key_env="MY_KEY"), environ, STORE)


async def test_a_server_of_ones_own_needs_no_key_but_openais_does() -> None:
    await open_provider(Endpoint("e", "openai", {}, base_url="http://127.0.0.1:9/v1"), {}, STORE).close()
    with pytest.raises(EndpointError, match="set api_key_env"):
        open_provider(Endpoint("e", "openai", {}), {"OPENAI_API_KEY": "sk-not-named-by-the-endpoint"}, STORE)


async def test_the_local_provider_opens_without_a_key(tmp_path: Path) -> None:
    provider = open_provider(Endpoint("local", "local", {}), {}, tmp_path)
    assert isinstance(provider, LocalProvider)
    await provider.close()


def test_an_unknown_provider_is_answered_with_the_known_ones() -> None:
    with pytest.raises(EndpointError, match=r"unknown provider 'opnai'.*local, openai"):
        open_provider(Endpoint("e", "opnai", {}), {}, STORE)


def test_a_missing_package_is_answered_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_openai(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name == "adapters.providers.openai":
            raise ModuleNotFoundError("No module named 'openai'", name="openai")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_openai)
    with pytest.raises(EndpointError, match=r"openai.*emberlog\[openai\]"):
        open_provider(Endpoint("e", "openai", {}, base_url="http://127.0.0.1:9/v1"), {}, STORE)


def test_a_fault_in_our_own_modules_is_not_taken_for_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(endpoint: Endpoint, environ: Mapping[str, str], store: Path, key: str | None) -> Provider:
        raise ModuleNotFoundError("No module named 'adapters.gone'", name="adapters.gone")

    monkeypatch.setitem(registry.PROVIDERS, "openai", registry.ProviderFacts(broken, key="none"))
    with pytest.raises(ModuleNotFoundError, match=r"adapters\.gone"):
        open_provider(Endpoint("e", "openai", {}), {}, STORE)


def opened_from_elsewhere(endpoint: Endpoint, environ: Mapping[str, str], store: Path, key: str | None) -> Provider:
    return LocalProvider(store)


async def test_an_installed_package_may_offer_a_provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = EntryPoint("elsewhere", f"{__name__}:opened_from_elsewhere", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints([entry]))
    provider = open_provider(Endpoint("e", "elsewhere", {}), {}, tmp_path)
    assert isinstance(provider, LocalProvider)
    await provider.close()


def test_importing_the_registry_imports_no_sdk() -> None:
    code = "import sys, adapters.providers.registry; sys.exit(any(m in sys.modules for m in ('openai', 'aiohttp', 'onnxruntime')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
