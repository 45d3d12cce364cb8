"""Opening providers by name: what is missing is named, with what to do about it."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, EntryPoints
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from adapters.providers import registry
from adapters.providers.local.provider import LocalProvider
from adapters.providers.openai import OpenAIProvider
from adapters.providers.registry import EndpointError, load_provider, open_provider
from domain import model_config
from domain.catalogue import Endpoint
from domain.ports.provider import EmbedCall, Provider, ProviderError
from gateway.settings import load_settings

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
    with pytest.raises(EndpointError, match=r"unknown provider 'opnai'.*local, .*openai"):
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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
    package, site = tmp_path_factory.mktemp("acme"), tmp_path_factory.mktemp("site")
    for language in ("ini", "python"):
        text = re.findall(rf"```{language}\n# (\S+)\n(.*?)```", page, re.DOTALL)
        ((name, body),) = text
        (package / name).write_text(body)
    with (package / "pyproject.toml").open("a") as file:
        file.write('[tool.hatch.build.targets.wheel]\ninclude = ["*.py"]\n')
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--disable-pip-version-check", "--target", site, package], check=True)
    return site


class TestAPackageOfSomebodyElse:
    """The example of docs/providers.md, installed as anybody would and served from."""

    @pytest.fixture
    def endpoint(self, site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Endpoint:
        monkeypatch.syspath_prepend(site)
        page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
        config = tmp_path / "emberlog.toml"
        config.write_text(next(t for t in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if '"acme"' in t))
        monkeypatch.chdir(tmp_path)
        (found,) = load_settings(config).configured_endpoints()
        return found

    async def test_it_serves_under_the_name_of_its_entry_point(self, endpoint: Endpoint) -> None:
        provider = open_provider(endpoint, {"ACME_API_KEY": "k"}, STORE)
        answer = await provider.embed(EmbedCall(["a", "bc"], "acme-embed-1", 1.0))
        assert answer.vectors.argmax(axis=1).tolist() == [1, 2]
        await provider.check(1.0)
        await provider.close()
        with pytest.raises(ProviderError):
            await provider.embed(EmbedCall(["a"], "acme-embed-1", 1.0))

    async def test_what_it_finds_wrong_is_told_with_the_endpoints_name(self, endpoint: Endpoint) -> None:
        keyless = msgspec.structs.replace(endpoint, api_key_env=None)
        with pytest.raises(EndpointError, match="endpoint 'acme': acme needs a key: set api_key_env"):
            open_provider(keyless, {}, STORE)

    async def test_an_unknown_provider_is_answered_with_its_name_too(self, endpoint: Endpoint) -> None:
        with pytest.raises(EndpointError, match=r"unknown provider 'acne'; known here: acme, "):
            open_provider(msgspec.structs.replace(endpoint, provider="acne"), {}, STORE)


class TestWhoseCredentialIsUsed:
    @pytest.fixture
    def opened(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Mapping[str, str], str | None]]:
        """What the openers are given."""
        seen: list[tuple[Mapping[str, str], str | None]] = []

        def opener(endpoint: Endpoint, environ: Mapping[str, str], store: Path, key: str | None) -> Provider:
            seen.append((environ, key))
            return LocalProvider(store)

        for name, key in (("keyed", "needed"), ("chained", "chain")):
            monkeypatch.setitem(registry.PROVIDERS, name, registry.ProviderFacts(opener, key=key))  # type: ignore[arg-type]  # a Key
        return seen

    async def test_a_credential_given_beats_the_environment(
        self, opened: list[tuple[Mapping[str, str], str | None]]
    ) -> None:
        endpoint = Endpoint("e", "keyed", {}, api_key_env="MINE")
        await open_provider(endpoint, {"MINE": "from the environment"}, STORE, "given").close()
        await open_provider(endpoint, {"MINE": "from the environment"}, STORE).close()
        assert [key for _, key in opened] == ["given", "from the environment"]

    @pytest.mark.parametrize("provider", ["keyed", "chained"])
    async def test_a_tenants_endpoint_gets_nothing_of_the_installations(
        self, opened: list[tuple[Mapping[str, str], str | None]], provider: str
    ) -> None:
        endpoint = Endpoint("e", provider, {}, api_key_env="MINE", tenant="acme")
        with pytest.raises(EndpointError, match=r"'e'.*needs a"):
            open_provider(endpoint, {"MINE": "the installation's"}, STORE)
        await open_provider(endpoint, {"MINE": "the installation's"}, STORE, "the tenant's").close()
        assert opened == [({}, "the tenant's")]

    async def test_the_installations_own_endpoint_may_leave_credentials_to_the_sdk(
        self, opened: list[tuple[Mapping[str, str], str | None]]
    ) -> None:
        await open_provider(Endpoint("e", "chained", {}), {"AWS_PROFILE": "p"}, STORE).close()
        assert opened == [({"AWS_PROFILE": "p"}, None)]


def test_an_option_that_a_provider_does_not_take_is_answered_with_those_it_takes() -> None:
    endpoint = Endpoint("e", "openai", {}, base_url="http://127.0.0.1:9/v1", options={"organisation": "o"})
    with pytest.raises(
        EndpointError, match=r"no option 'organisation'; it takes: encoding_format, organization, project"
    ):
        open_provider(endpoint, {}, STORE)


def test_every_provider_with_an_adapter_is_known_to_the_catalogue() -> None:
    assert registry.PROVIDERS.keys() <= model_config.PROVIDERS.keys()


NEEDED = {
    "azure": 'base_url = "https://r.openai.azure.com"\n',
    "bedrock": 'region = "us-east-1"\n',
    "vertex": 'region = "us-central1"\nproject = "p"\n',
}
"""What the endpoints of a provider cannot be without, beside a key."""


@pytest.mark.parametrize("name", sorted(registry.PROVIDERS))
async def test_every_provider_opens_from_a_table_of_the_settings_without_a_call(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "emberlog.toml"
    config.write_text(f'[[endpoints]]\nname = "e"\nprovider = "{name}"\nmodels = ["m"]\n{NEEDED.get(name, "")}')
    (endpoint,) = load_settings(config).configured_endpoints()
    provider = open_provider(endpoint, {str(endpoint.api_key_env): "k-0123456789"}, tmp_path)
    await provider.close()
    await provider.close()


def test_what_opens_a_provider_is_loaded_ahead_by_its_name() -> None:
    for provider in registry.PROVIDERS:
        assert find_spec(f"adapters.providers.{provider}") is not None
    code = "import sys; from adapters.providers.registry import load_provider; load_provider('cohere'); sys.exit('aiohttp' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    load_provider("nobody's")
