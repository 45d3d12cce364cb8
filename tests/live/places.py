"""Where the shipped models are served for real, as far as this environment has credentials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adapters.catalogue import shipped
from adapters.providers.local.files import default_store
from adapters.providers.registry import PROVIDERS, ProviderFacts, open_provider, with_defaults
from domain.catalogue import Endpoint
from domain.events import ModelSpec, OfferingSpec
from domain.ports.provider import EmbedCall, Provider

Names = tuple[tuple[str, ...], ...]
"""Variables that are needed: one of each group."""

# Of providers whose SDK finds credentials in its own way, or which have an address an account. Others need their key alone.
_NEEDS: dict[str, Names] = {
    "azure": (("AZURE_OPENAI_API_KEY",), ("AZURE_OPENAI_ENDPOINT",)),
    "bedrock": (("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"), ("AWS_REGION", "AWS_DEFAULT_REGION")),
    "vertex": (("GOOGLE_APPLICATION_CREDENTIALS",), ("GOOGLE_CLOUD_PROJECT",), ("GOOGLE_CLOUD_LOCATION",)),
    "local": (),
}
_ADDRESS = {"azure": ("AZURE_OPENAI_ENDPOINT",)}
_OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "bedrock": {"region": ("AWS_REGION", "AWS_DEFAULT_REGION"), "profile": ("AWS_PROFILE",)},
    "vertex": {"project": ("GOOGLE_CLOUD_PROJECT",), "region": ("GOOGLE_CLOUD_LOCATION",)},
}


@dataclass(frozen=True)
class Place:
    """A model at a provider, and the endpoint that reaches it. `key` None: the SDK finds credentials by itself, or there are none."""

    model: str
    spec: ModelSpec
    offering: OfferingSpec
    endpoint: Endpoint
    environ: Mapping[str, str]

    @property
    def name(self) -> str:
        return f"{self.offering.provider}/{self.model}"

    def open(self, key: str | None = None) -> Provider:
        """The adapter, with the credential of the environment or this one."""
        return open_provider(self.endpoint, self.environ, default_store(), key)

    def call(self, *texts: str, dimensions: int | None = None, input_type: str | None = None) -> EmbedCall:
        return EmbedCall(texts, self.offering.provider_model, 60.0, dimensions, input_type, self.offering.config)


def needs(provider: str, facts: ProviderFacts) -> Names:
    """The variables that a provider's endpoints need."""
    return _NEEDS.get(provider, ((facts.api_key_env,),) if facts.api_key_env else ())


def missing(provider: str, environ: Mapping[str, str]) -> str | None:
    """What to set before a provider can be asked, None where nothing is missing."""
    lacking = [
        " or ".join(group) for group in needs(provider, PROVIDERS[provider]) if not any(environ.get(n) for n in group)
    ]
    return f"set {', '.join(lacking)}" if lacking else None


def places(environ: Mapping[str, str]) -> list[Place]:
    """Every model of the release at every provider that this environment has credentials for."""
    found = []
    for entry in shipped().models:
        for offering in entry.offerings:
            name = offering.provider
            if name not in PROVIDERS or missing(name, environ) is not None:
                continue
            endpoint = with_defaults(
                Endpoint(
                    name,
                    name,
                    {entry.id: ""},
                    base_url=_first(_ADDRESS.get(name, ()), environ),
                    options={
                        option: value
                        for option, variables in _OPTIONS.get(name, {}).items()
                        if (value := _first(variables, environ)) is not None
                    },
                )
            )
            found.append(Place(entry.id, entry.spec, offering, endpoint, environ))
    return found


def _first(variables: tuple[str, ...], environ: Mapping[str, str]) -> str | None:
    return next((environ[name] for name in variables if environ.get(name)), None)
