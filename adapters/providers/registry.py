"""From an endpoint's provider name to the adapter that serves it. Each SDK is imported when the first endpoint needs it.

A provider of ours is a row of `PROVIDERS`; an installed package adds one through an entry point (docs/providers.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

import msgspec

from domain.catalogue import Endpoint
from domain.ports.provider import Provider

ENTRY_POINTS = "emberlog.providers"
"""The entry point group in which an installed package offers providers: each an `Opener` under the provider's name."""

Opener = Callable[[Endpoint, Mapping[str, str], Path, str | None], Provider]
"""Opens an endpoint: the endpoint, the environment, where local models are kept, and the credential (None: there is none).

Raises `ValueError` for an endpoint that cannot be opened as it is configured, saying what is wrong and what was expected.
"""

Key = Literal["needed", "at_own_address", "chain", "none"]
"""Whether a provider is called with a key: always; at its own address only (a compatible server of one's own may take none);
never by itself, since the SDK finds the installation's credentials in its own way (`chain`), or not at all.
"""


class ProviderFacts(msgspec.Struct, frozen=True):
    """What is known of a provider before its adapter is loaded.

    `base_url` is its own address, None where each account has its own or the SDK knows; `api_key_env` the variable that holds the key
    where the endpoint names none; `options` what an endpoint may set beside; `extra` the extra of this package that installs the SDK.
    """

    open: Opener
    key: Key = "needed"
    base_url: str | None = None
    api_key_env: str | None = None
    options: frozenset[str] = frozenset()
    extra: str | None = None


class EndpointError(ValueError):
    """An endpoint cannot be opened as configured: the message names the endpoint, what is missing and what to do."""


def with_defaults(endpoint: Endpoint) -> Endpoint:
    """The endpoint with the provider's own address, and the variable that usually holds its key, where it names none.

    Where a provider may be called without a key, that variable is for its own address alone: other servers get no key of ours. Nor
    does a tenant's endpoint.
    """
    facts = PROVIDERS.get(endpoint.provider)
    if facts is None:
        return endpoint
    base_url = endpoint.base_url or facts.base_url
    usual = endpoint.tenant is None and (facts.key == "needed" or base_url == facts.base_url)
    return msgspec.structs.replace(
        endpoint, base_url=base_url, api_key_env=endpoint.api_key_env or (facts.api_key_env if usual else None)
    )


def load_provider(provider: str) -> None:
    """Import what opens this provider's endpoints. That takes up to a second, which a thread may spend ahead of `open_provider`, while the
    loop goes on; what cannot be imported is told by that.
    """
    with suppress(Exception):
        if provider in PROVIDERS:
            import_module(f"adapters.providers.{provider}")
        else:
            for entry in entry_points(group=ENTRY_POINTS, name=provider):
                entry.load()


def open_provider(endpoint: Endpoint, environ: Mapping[str, str], store: Path, secret: str | None = None) -> Provider:
    """The provider of an endpoint. `secret` is its credential; without one, that is what the variable `api_key_env` of `environ` holds.
    `store` is where local models are kept. A tenant's endpoint is opened with the tenant's own credential or none: nothing of
    the installation's environment is for it.

    Raises `EndpointError` for an unknown provider, a package that is not installed, a missing credential or an option that is wrong.
    """
    facts = PROVIDERS.get(endpoint.provider)
    opener = facts.open if facts is not None else _installed(endpoint)
    if endpoint.tenant is not None:
        environ = {}
    key = secret if secret is not None else None if endpoint.tenant is not None else api_key(endpoint, environ)
    if facts is not None:
        _check(endpoint, facts, key)
    try:
        return opener(endpoint, environ, store, key)
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("adapters", "domain"):
            raise  # ours: a fault, not a missing extra
        advice = f"install the extra: pip install 'emberlog[{facts.extra}]'" if facts is not None else "install it"
        raise EndpointError(
            f"endpoint {endpoint.name!r}: provider {endpoint.provider!r} needs a package that is not installed ({error.name}); "
            f"{advice}"
        ) from error
    except EndpointError:
        raise
    except ValueError as error:
        told = str(error)
        raise EndpointError(told if told.startswith("endpoint ") else f"endpoint {endpoint.name!r}: {told}") from None


def api_key(endpoint: Endpoint, environ: Mapping[str, str]) -> str | None:
    """The key in the variable that the endpoint names, None where it names none. Raises `EndpointError` for an unset variable."""
    if endpoint.api_key_env is None:
        return None
    key = environ.get(endpoint.api_key_env, "").strip()
    if not key:
        raise EndpointError(
            f"endpoint {endpoint.name!r}: the environment variable {endpoint.api_key_env} (api_key_env) is not set or empty; "
            "set it to the provider's API key, or name another variable"
        )
    return key


def _check(endpoint: Endpoint, facts: ProviderFacts, key: str | None) -> None:
    unknown = sorted(endpoint.options.keys() - facts.options)
    if unknown:
        raise EndpointError(
            f"endpoint {endpoint.name!r}: provider {endpoint.provider!r} has no option {unknown[0]!r}; "
            f"it takes: {', '.join(sorted(facts.options)) or 'none'}"
        )
    if key is not None:
        return
    if endpoint.tenant is not None and facts.key == "chain":
        raise EndpointError(
            f"endpoint {endpoint.name!r}: a tenant's endpoint at {endpoint.provider!r} needs a credential of the tenant's; "
            "the installation's own are not used for it"
        )
    if facts.key == "needed" or (facts.key == "at_own_address" and endpoint.base_url in (None, facts.base_url)):
        usual = f' (such as "{facts.api_key_env}")' if facts.api_key_env else ""
        other = ", or base_url to a server that needs none" if facts.key == "at_own_address" else ""
        raise EndpointError(
            f"endpoint {endpoint.name!r}: provider {endpoint.provider!r} needs a key; "
            f"set api_key_env to the variable that holds it{usual}{other}"
        )


# One function a provider, so that its SDK is imported when its first endpoint is opened and not before.


def _openai(endpoint: Endpoint, environ: Mapping[str, str], store: Path, key: str | None) -> Provider:
    from adapters.providers.openai import OpenAIProvider

    return OpenAIProvider(endpoint, key)


def _azure(endpoint: Endpoint, environ: Mapping[str, str], store: Path, key: str | None) -> Provider:
    from adapters.providers.azure import AzureProvider

    return AzureProvider(endpoint, key)


def _local(endpoint: Endpoint, environ: Mapping[str, str], store: Path, key: str | None) -> Provider:
    from adapters.providers.local.provider import LocalProvider

    return LocalProvider(store)


def _vertex(endpoint: Endpoint, environ: Mapping[str, str], store: Path, key: str | None) -> Provider:
    from adapters.providers.vertex import VertexProvider

    return VertexProvider(endpoint, key)


def _bedrock(endpoint: Endpoint, environ: Mapping[str, str], store: Path, key: str | None) -> Provider:
    from adapters.providers.bedrock import BedrockProvider

    return BedrockProvider(endpoint, environ, key)


def _cohere(endpoint: Endpoint, environ: Mapping[str, str], store: Path, key: str | None) -> Provider:
    from adapters.providers.cohere import CohereProvider

    return CohereProvider(endpoint, key)


def _gemini(endpoint: Endpoint, environ: Mapping[str, str], store: Path, key: str | None) -> Provider:
    from adapters.providers.gemini import GeminiProvider

    return GeminiProvider(endpoint, key)


def _jina(endpoint: Endpoint, environ: Mapping[str, str], store: Path, key: str | None) -> Provider:
    from adapters.providers.jina import JinaProvider

    return JinaProvider(endpoint, key)


def _mistral(endpoint: Endpoint, environ: Mapping[str, str], store: Path, key: str | None) -> Provider:
    from adapters.providers.mistral import MistralProvider

    return MistralProvider(endpoint, key)


def _voyage(endpoint: Endpoint, environ: Mapping[str, str], store: Path, key: str | None) -> Provider:
    from adapters.providers.voyage import VoyageProvider

    return VoyageProvider(endpoint, key)


PROVIDERS: dict[str, ProviderFacts] = {
    "azure": ProviderFacts(
        _azure,
        api_key_env="AZURE_OPENAI_API_KEY",
        options=frozenset({"api_version", "encoding_format"}),
        extra="openai",
    ),
    "bedrock": ProviderFacts(_bedrock, key="chain", options=frozenset({"region", "profile"}), extra="bedrock"),
    "cohere": ProviderFacts(
        _cohere,
        base_url="https://api.cohere.com",
        api_key_env="COHERE_API_KEY",
        options=frozenset({"encoding_format"}),
    ),
    "gemini": ProviderFacts(
        _gemini, base_url="https://generativelanguage.googleapis.com", api_key_env="GEMINI_API_KEY"
    ),
    "jina": ProviderFacts(
        _jina,
        base_url="https://api.jina.ai/v1",
        api_key_env="JINA_API_KEY",
        options=frozenset({"encoding_format"}),
    ),
    "local": ProviderFacts(_local, key="none", extra="local"),
    "mistral": ProviderFacts(
        _mistral,
        base_url="https://api.mistral.ai",
        api_key_env="MISTRAL_API_KEY",
        options=frozenset({"encoding_format"}),
    ),
    "openai": ProviderFacts(
        _openai,
        key="at_own_address",
        base_url="https://api.openai.com/v1",
        api_key_env="OPENAI_API_KEY",
        options=frozenset({"organization", "project", "encoding_format"}),
        extra="openai",
    ),
    "vertex": ProviderFacts(_vertex, key="chain", options=frozenset({"region", "project"}), extra="vertex"),
    "voyage": ProviderFacts(
        _voyage,
        base_url="https://api.voyageai.com/v1",
        api_key_env="VOYAGE_API_KEY",
        options=frozenset({"encoding_format"}),
    ),
}
"""The providers of ours, by name."""


def _installed(endpoint: Endpoint) -> Opener:
    found = entry_points(group=ENTRY_POINTS)
    for entry in found:
        if entry.name == endpoint.provider:
            opener: Opener = entry.load()
            return opener
    known = ", ".join(sorted({*PROVIDERS, *found.names}))
    raise EndpointError(f"endpoint {endpoint.name!r}: unknown provider {endpoint.provider!r}; known here: {known}")
