"""The `[[jwt_issuers]]` tables: who may issue tokens for this installation, for which tenants, and where their keys are."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from domain.tenancy import TENANT_NAME

Algorithm = Literal["HS256", "RS256", "ES256"]
ClaimName = Annotated[str, Field(min_length=1, max_length=128)]
_RESERVED = {"iss", "aud", "exp", "nbf", "iat", "jti"}


class JwtIssuerSettings(BaseModel):
    """One `[[jwt_issuers]]` table. Times are in seconds; exactly one of `jwks_file`, `jwks_url` and `secret_env` says where the keys are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(min_length=1, max_length=256, pattern=r"^[!-~]+$")
    audience: str = Field(min_length=1, max_length=256)
    algorithms: list[Algorithm] = []
    jwks_file: Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())] | None = None
    jwks_url: str | None = Field(default=None, max_length=2048)
    secret_env: str | None = Field(default=None, min_length=1)
    tenant: str | None = None
    tenants: list[str] = []
    installation: bool = False
    tenant_claim: ClaimName = "tenant"
    scopes_claim: ClaimName = "scope"
    agent_claim: ClaimName = "agent"
    leeway_seconds: int = Field(default=30, ge=0, le=300)
    max_lifetime_seconds: int | None = Field(default=None, ge=1)
    refresh_seconds: float = Field(default=300.0, ge=30, le=86_400)

    @field_validator("jwks_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and not _may_be_fetched(value):
            raise ValueError(
                "expected https://HOST/PATH, or http:// on a loopback address, without a user, a password or a fragment"
            )
        return value

    @field_validator("tenant_claim", "scopes_claim", "agent_claim")
    @classmethod
    def _free(cls, value: str) -> str:
        if value in _RESERVED:
            raise ValueError(f"{value!r} has a meaning of its own in every token: name another claim")
        return value

    @model_validator(mode="after")
    def _whole(self) -> JwtIssuerSettings:
        if sum(place is not None for place in (self.jwks_file, self.jwks_url, self.secret_env)) != 1:
            raise ValueError("set exactly one of jwks_file, jwks_url and secret_env: where the issuer's keys are")
        if self.secret_env is not None and not set(self.algorithms) <= {"HS256"}:
            raise ValueError(
                "algorithms: with secret_env only HS256 is possible; set jwks_file or jwks_url for the others"
            )
        if self.secret_env is None and "HS256" in self.algorithms:
            raise ValueError(
                "algorithms: HS256 needs a secret that both sides know: set secret_env, or leave HS256 out"
            )
        if self.tenant is not None and self.tenants:
            raise ValueError("set tenant or tenants, not both")
        if not self.bound_to and not self.installation:
            raise ValueError(
                "set tenant or tenants: whose tokens the issuer may make; or installation = true for operators' tokens"
            )
        for name in self.bound_to:
            if not TENANT_NAME.fullmatch(name):
                raise ValueError(f"tenants: {name[:64]!r} cannot be a tenant's id")
        return self

    @property
    def bound_to(self) -> frozenset[str]:
        """The tenants that its tokens may be of."""
        return frozenset(self.tenants if self.tenant is None else [self.tenant])

    @property
    def allowed(self) -> frozenset[str]:
        """The algorithms that its tokens may be signed with."""
        return frozenset(self.algorithms or (["HS256"] if self.secret_env is not None else ["RS256", "ES256"]))


def check_issuers(issuers: list[JwtIssuerSettings]) -> None:
    """Raise ValueError where two issuers could be taken for one: `<issuer>:<subject>` must name one subject of one of them."""
    names = sorted(issuer.issuer for issuer in issuers)
    for name, following in pairwise(names):
        if name == following:
            raise ValueError(f"jwt_issuers: two are named {name!r}; give all its tenants in one table")
    for name in names:
        if (longer := next((other for other in names if other.startswith(f"{name}:")), None)) is not None:
            raise ValueError(
                f"jwt_issuers: {longer!r} begins with {name + ':'!r}, so that their subjects could not be told apart: rename one"
            )


def _may_be_fetched(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None or "#" in url or not url.isascii():
        return False
    if any(character <= " " for character in url):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _loopback(host))


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
