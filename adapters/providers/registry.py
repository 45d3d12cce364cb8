"""From an endpoint's provider name to the adapter that serves it. Each SDK is imported when the first endpoint needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path

from domain.catalogue import Endpoint
from domain.ports.provider import Provider

ENTRY_POINTS = "emberlog.providers"
"""The entry point group in which an installed package offers providers: callables with the signature of `open_provider`."""

Opener = Callable[[Endpoint, Mapping[str, str], Path], Provider]


class EndpointError(ValueError):
    """An endpoint cannot be opened as configured: the message names the endpoint, what is missing and what to do."""


def open_provider(endpoint: Endpoint, environ: Mapping[str, str], store: Path) -> Provider:
    """The provider of an endpoint. `environ` holds the API keys that `api_key_env` names; `store` is where local models are kept.

    Raises `EndpointError` for an unknown provider, a package that is not installed or a variable that is not set.
    """
    opener = _OPENERS.get(endpoint.provider) or _installed(endpoint)
    try:
        return opener(endpoint, environ, store)
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("adapters", "domain"):
            raise  # ours: a fault, not a missing extra
        raise EndpointError(
            f"endpoint {endpoint.name!r}: provider {endpoint.provider!r} needs a package that is not installed ({error.name}); "
            f"install the extra: pip install 'emberlog[{endpoint.provider}]'"
        ) from error


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


def _open_openai(endpoint: Endpoint, environ: Mapping[str, str], store: Path) -> Provider:
    key = api_key(endpoint, environ)
    if key is None and endpoint.base_url is None:
        raise EndpointError(
            f"endpoint {endpoint.name!r}: api.openai.com needs a key; set api_key_env to the variable that holds it "
            '(such as "OPENAI_API_KEY"), or base_url to a server that needs none'
        )
    from adapters.providers.openai import OpenAIProvider

    try:
        return OpenAIProvider(endpoint, key)
    except ValueError as error:
        raise EndpointError(str(error)) from None


def _open_local(endpoint: Endpoint, environ: Mapping[str, str], store: Path) -> Provider:
    from adapters.providers.local.provider import LocalProvider

    return LocalProvider(store)


_OPENERS: dict[str, Opener] = {"openai": _open_openai, "local": _open_local}


def _installed(endpoint: Endpoint) -> Opener:
    found = entry_points(group=ENTRY_POINTS)
    for entry in found:
        if entry.name == endpoint.provider:
            opener: Opener = entry.load()
            return opener
    known = ", ".join(sorted({*_OPENERS, *found.names}))
    raise EndpointError(f"endpoint {endpoint.name!r}: unknown provider {endpoint.provider!r}; known here: {known}")
