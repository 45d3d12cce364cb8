"""Settings: defaults < TOML file (`--config`, `EMBERLOG_CONFIG`) < `.env` < environment (`EMBERLOG_*`), validated whole at start.

Errors name the dotted path of each failing field; secrets are masked wherever a setting is printed.
"""

from __future__ import annotations

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from adapters.providers.registry import with_defaults
from domain.catalogue import Endpoint
from gateway.auth.settings import JwtIssuerSettings, check_issuers

PREFIX = "EMBERLOG_"
_UNKNOWN = "there is no such setting: mend its name or take it out; docs/operations.md lists those there are"


class InvalidSettings(Exception):
    """The settings cannot be used. The message lists each failing field by its dotted path, what was wrong and what was expected."""


def _reachable(path: Path) -> Path:
    return path.expanduser().absolute()


def _given(path: object) -> object:
    if path == "":  # it would be taken for the folder of the moment
        raise ValueError("is empty: give a path, or leave it unset")
    return path


AbsolutePath = Annotated[Path, BeforeValidator(_given), AfterValidator(_reachable)]


class EndpointSettings(BaseModel):
    """One `[[endpoints]]` table: a place that serves models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    provider: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    base_url: str | None = None
    api_key_env: str | None = None
    region: str | None = None
    project: str | None = None
    api_version: str | None = None
    options: dict[str, str] = {}
    models: dict[str, str]
    max_inputs: int | None = Field(default=None, ge=1)
    max_tokens_per_call: int | None = Field(default=None, ge=1)
    max_concurrency: int = Field(default=8, ge=1, le=1024)
    timeout_ms: int = Field(default=30_000, ge=1, le=600_000)
    weight: int = Field(default=1, ge=0)

    @field_validator("models", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        """A list of catalogue ids, or of {catalogue id = provider's own id} tables, becomes one map ("" = the offering's id)."""
        if not isinstance(value, list):
            return value
        models: dict[str, str] = {}
        for item in value:
            if isinstance(item, str):
                models[item] = ""
            elif isinstance(item, dict):
                models.update(item)
            else:
                raise ValueError("expected catalogue ids, or tables {catalogue id = provider's own id}")
        return models

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        """The same addresses as endpoints that are deployed have: a password within would be shown with them."""
        if value is not None and not re.fullmatch(r"https?://[^\s@?#]{1,500}", value):
            raise ValueError("expected http:// or https://, a host and a path, without user, query or fragment")
        return value

    @model_validator(mode="after")
    def _said_once(self) -> EndpointSettings:
        for name in ("region", "project", "api_version"):
            if getattr(self, name) is not None and name in self.options:
                raise ValueError(f"{name} stands beside the options and among them: say it once")
        return self

    def endpoint(self) -> Endpoint:
        """The domain's endpoint, with the provider's usual address and key variable filled in."""
        named = {"region": self.region, "project": self.project, "api_version": self.api_version}
        return with_defaults(
            Endpoint(
                name=self.name,
                provider=self.provider,
                models=self.models,
                base_url=self.base_url,
                api_key_env=self.api_key_env,
                max_inputs=self.max_inputs,
                max_tokens_per_call=self.max_tokens_per_call,
                max_concurrency=self.max_concurrency,
                timeout=self.timeout_ms / 1000,
                weight=self.weight,
                options=self.options | {name: value for name, value in named.items() if value is not None},
            )
        )


LOCAL_ENDPOINT = EndpointSettings(
    name="local",
    provider="local",
    models={"all-MiniLM-L6-v2": ""},
    max_concurrency=2,  # it has one worker thread: a second call waits ready behind the first, more would only queue there
)


class Settings(BaseSettings):
    """Every setting of the gateway and its commands. Field `x_y` is `EMBERLOG_X_Y` in the environment and `x_y` in the TOML file."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    listen: str = "127.0.0.1:8080"
    data_dir: AbsolutePath = Field(default=Path(".emberlog"), validate_default=True)
    database_url: SecretStr | None = None
    database_owner_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    secret_key_file: AbsolutePath | None = None
    model_store: AbsolutePath | None = None
    workers: int = Field(default=1, ge=1, le=64)
    tls_cert: AbsolutePath | None = None
    tls_key: AbsolutePath | None = None
    trusted_proxies: Annotated[list[str], NoDecode] = []
    endpoints: list[EndpointSettings] = []
    jwt_issuers: list[JwtIssuerSettings] = []

    drain_seconds: float = Field(default=30.0, ge=0, le=3600)
    instance_lease_seconds: float = Field(default=10.0, ge=1, le=300)
    max_connections: int | None = Field(default=None, ge=1, le=1_000_000)
    failed_logins_per_minute: int = Field(default=60, ge=1, le=1_000_000)
    max_queued_texts: int = Field(default=200_000, ge=1, le=1_000_000_000)
    max_provider_calls: int = Field(default=10_000, ge=1, le=10_000_000)
    database_pool_size: int = Field(default=4, ge=1, le=100)
    archive_dir: AbsolutePath | None = None
    archive_after_days: int | None = Field(default=None, ge=3, le=36_500)
    cache_bytes: int = Field(default=128 * 1024 * 1024, ge=0, le=2**50)
    cache_ttl_seconds: int = Field(default=3600, ge=1, le=366 * 24 * 3600)
    system_budget_nano_usd: int = Field(default=1_000_000_000, ge=0, le=10**18)
    attest_endpoints: bool = True
    attest_every_hours: int = Field(default=24, ge=1, le=8_784)
    attestation_tokens_per_month: int = Field(default=5_000_000, ge=0, le=10**18)
    discovery_hours: int = Field(default=24, ge=0, le=8_784)
    discovery_state: Literal["draft", "testing"] = "draft"
    breaker_failures: int = Field(default=5, ge=1, le=1000)
    breaker_open_seconds: float = Field(default=30.0, ge=1, le=3600)
    breaker_trial_calls: int = Field(default=3, ge=1, le=1000)
    breaker_successes: int = Field(default=2, ge=1, le=1000)
    health_check_seconds: float = Field(default=30.0, ge=1, le=3600)
    webhook_allow_private: bool = False
    alertmanager_url: SecretStr | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not (colon and host and port.isdigit() and int(port) < 65536):
            raise ValueError("expected HOST:PORT, for example 127.0.0.1:8080")
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for part in value:
            try:
                ip_network(part, strict=False)
            except ValueError:
                raise ValueError(f"{part!r} is no address and no network, such as 10.0.0.1 or 10.0.0.0/8") from None
        return value

    @model_validator(mode="after")
    def _whole(self) -> Settings:
        names = [e.name for e in self.endpoints]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"endpoints: two are named {name!r}; names must be unique")
        check_issuers(self.jwt_issuers)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: set both or neither")
        if self.archive_after_days is not None and self.archive_folder is None:
            raise ValueError(
                "archive_after_days: with a database of your own, set archive_dir too: segments need a folder"
            )
        if self.workers > 1 and self.redis_off:
            raise ValueError("workers: without Redis (redis_url=none) only one process is supported; set workers to 1")
        return self

    @property
    def host_port(self) -> tuple[str, int]:
        """`listen` taken apart; an IPv6 host without its brackets."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def embedded_postgres(self) -> bool:
        """Whether the gateway runs its own Postgres in the data folder."""
        return self.database_url is None

    @property
    def archive_folder(self) -> Path | None:
        """Where archive segments lie: the configured folder, or one in the data folder when Postgres is embedded."""
        if self.archive_dir is None and self.embedded_postgres:
            return self.data_dir / "archive"
        return self.archive_dir

    @property
    def redis_off(self) -> bool:
        """Whether Redis is switched off."""
        return self.redis_url is not None and self.redis_url.get_secret_value() == "none"

    @property
    def embedded_valkey(self) -> bool:
        """Whether the gateway runs its own Valkey in the data folder."""
        return self.redis_url is None

    def configured_endpoints(self) -> list[Endpoint]:
        """The endpoints, or the local model's when none is configured."""
        return [e.endpoint() for e in self.endpoints or [LOCAL_ENDPOINT]]

    @staticmethod
    def environment() -> dict[str, str]:
        """What `api_key_env` and the like are looked up in: the environment, with `.env` behind it."""
        values = {name: value for name, value in dotenv_values(".env").items() if value is not None}
        return {**values, **os.environ}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Strongest first: arguments, environment, `.env`, the TOML file."""
        return init_settings, env_settings, _OwnDotEnv(settings_cls), TomlConfigSettingsSource(settings_cls)


class _OwnDotEnv(DotEnvSettingsSource):
    """`.env` is shared with other programs and holds providers' keys: only `EMBERLOG_*` is ours to be strict about."""

    def __call__(self) -> dict[str, Any]:
        own = PREFIX.lower()
        return {k: v for k, v in super().__call__().items() if k in self.settings_cls.model_fields or k.startswith(own)}


def load_settings(config: Path | None = None, **overrides: Any) -> Settings:
    """The settings of this process. `config` (or `EMBERLOG_CONFIG`) names the TOML file; `overrides` win over everything.

    Raises `InvalidSettings`.
    """
    path = config or (Path(os.environ["EMBERLOG_CONFIG"]) if os.environ.get("EMBERLOG_CONFIG") else None)
    if path is not None and not path.is_file():
        raise InvalidSettings(
            f"config: there is no file {path}; give the path of a TOML file or leave EMBERLOG_CONFIG unset"
        )

    class Configured(Settings):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return Configured(**overrides)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc'])) or 'settings'}: {_UNKNOWN if e['type'] == 'extra_forbidden' else e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_url=False, include_input=False)
        ]
        raise InvalidSettings("\n".join(lines)) from None
    except (SettingsError, ValueError) as error:
        raise InvalidSettings(f"{path or 'settings'}: {error}") from None


def unknown_variables() -> list[str]:
    """`EMBERLOG_*` variables of the environment that no setting reads: most likely misspelt."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {PREFIX + "CONFIG"}
    return sorted(v for v in os.environ if v.startswith(PREFIX) and v.split("__")[0] not in known)
