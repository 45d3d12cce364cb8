"""Tenants, API keys and agents: the state folded from their events, and the rules for who may do what.

`Directory` is the in-memory snapshot that the hot path reads: no SQL. It is kept current by tailing the log.
"""

from __future__ import annotations

import hmac
import re
import secrets
from hashlib import blake2b
from typing import Literal

import msgspec

from domain.errors import GatewayError
from domain.events import AgentRegistered, EventData, KeyCreated, KeyRevoked, Preferences, TenantCreated, TenantShredded

SCOPES = ("agent", "billing", "admin", "operator")
TENANT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_KEY = re.compile(r"em_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


class Principal(msgspec.Struct, frozen=True):
    """Who is asking: a valid credential, its tenant (None for the installation's) and its scopes.

    `key` is the API key's id, or `<issuer>:<subject>` of a JWT, as `kind` says. With an `agent` it speaks for that agent alone.
    `subject` and `signer` are a JWT's alone: whom it is about, and which of its issuer's keys signed it.
    """

    key: str
    tenant: str | None
    scopes: frozenset[str]
    expires_at: int | None = None
    agent: str | None = None
    kind: Literal["key", "jwt"] = "key"
    subject: str | None = None
    signer: str = ""

    @property
    def default_agent(self) -> str:
        """The agent that a request is of which names none."""
        return self.agent or self.subject or self.key

    @property
    def actor(self) -> str:
        """Who did it, as events say it."""
        return f"{self.kind}:{self.key}"

    def require(self, scope: str) -> None:
        """Raise `forbidden` unless the key has `scope`."""
        if scope not in self.scopes:
            message = f"this key lacks the scope {scope!r}; use a key created with it"
            if scope == "operator" and self.tenant is not None:
                message = "this is for operators: use a key of the installation with the scope 'operator'"
            raise GatewayError("forbidden", message, details={"scope": scope})


class IssuedKey(msgspec.Struct, frozen=True):
    """A new key: the token to show once, and the event that records it."""

    token: str
    event: KeyCreated


def issue_key(
    tenant: str | None,
    scopes: list[str],
    *,
    expires_at: int | None = None,
    name: str | None = None,
    agent: str | None = None,
    actor: str | None = None,
) -> IssuedKey:
    """A key `em_<id>_<secret>` of 256 random bits. Raises `invalid_config` for unknown scopes or operator with a tenant."""
    unknown = [s for s in scopes if s not in SCOPES]
    if unknown or not scopes:
        raise GatewayError(
            "invalid_config",
            f"unknown scopes {[s[:40] for s in unknown[:10]]}: expected some of {', '.join(SCOPES)}",
            details={"field": "scopes"},
        )
    if "operator" in scopes and tenant is not None:
        raise GatewayError(
            "invalid_config",
            "the scope operator is for installation keys only: leave the tenant out",
            details={"field": "scopes"},
        )
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    return IssuedKey(
        f"em_{key_id}_{secret}",
        KeyCreated(
            key=key_id,
            hash=_hash(secret),
            scopes=sorted(set(scopes)),
            tenant=tenant,
            expires_at=expires_at,
            name=name,
            agent=agent,
            actor=actor,
        ),
    )


def _hash(secret: str) -> str:
    return blake2b(secret.encode(), digest_size=32).hexdigest()


def check_tenant_name(name: str) -> None:
    """Raise `invalid_config` unless `name` can be a tenant's id: it appears in streams, metrics and URLs."""
    if not TENANT_NAME.fullmatch(name):
        raise GatewayError(
            "invalid_config",
            f"tenant name {name[:64]!r}: expected 1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit",
            details={"field": "tenant"},
        )


class Directory:
    """Tenants, keys and agents as of `position`. `apply` folds one event; the rest only reads.

    What is asked about a tenant must not take longer for what the others have: `keys_of` (the revoked ones too), `unrevoked` and
    `agents_of` are in the order of the log.
    """

    def __init__(self) -> None:
        self.position = 0
        self.tenants: dict[str, TenantCreated] = {}
        self.keys: dict[str, KeyCreated] = {}
        self.revoked: set[str] = set()
        self.shredded: set[str] = set()
        self.agents: dict[tuple[str, str], AgentRegistered] = {}
        self.agents_of: dict[str, list[str]] = {}
        self.agent_versions: dict[tuple[str, str], int] = {}
        self.tenants_since: dict[str, int] = {}
        self.keys_since: dict[str, int] = {}
        self.keys_of: dict[str | None, list[str]] = {}
        self.unrevoked: dict[str | None, dict[str, None]] = {}
        self.shredded_since: dict[str, int] = {}

    def apply(self, position: int, tenant: str, data: EventData, version: int | None = None, at: int = 0) -> None:
        """Fold an event of the log (in order). `version` is its number in its stream, `at` when it was recorded, in microseconds since the epoch."""
        self.position = position
        match data:
            case TenantCreated():
                self.tenants.setdefault(data.tenant, data)
                self.tenants_since.setdefault(data.tenant, at)
            case KeyCreated():
                if data.key not in self.keys:
                    self.keys_of.setdefault(data.tenant, []).append(data.key)
                    self.unrevoked.setdefault(data.tenant, {})[data.key] = None
                self.keys[data.key] = data
                self.keys_since[data.key] = at
            case KeyRevoked():
                self.revoked.add(data.key)
                if (key := self.keys.get(data.key)) is not None:
                    self.unrevoked[key.tenant].pop(data.key, None)
            case TenantShredded():
                self.shredded.add(data.tenant)
                self.shredded_since.setdefault(data.tenant, at)
            case AgentRegistered():
                if (tenant, data.agent) not in self.agents:
                    self.agents_of.setdefault(tenant, []).append(data.agent)
                self.agents[tenant, data.agent] = data
                self.agent_versions[tenant, data.agent] = version or 0
            case _:
                pass

    def preferences(self, tenant: str, agent: str) -> Preferences | None:
        """What the agent registered, or None."""
        found = self.agents.get((tenant, agent))
        return found.preferences if found else None

    def authenticate(self, token: str, now: float) -> Principal:
        """The principal of an API key. Raises `unauthorized`; the message is the same whatever is wrong with the key.

        `now` is seconds since the epoch. The comparison takes the same time for a wrong secret as for a right one.
        """
        match = _KEY.fullmatch(token)
        key = self.keys.get(match[1]) if match else None
        expected = key.hash if key else "0" * 64
        good = hmac.compare_digest(_hash(match[2] if match else ""), expected)
        if key is None or not good or not self.valid(key.key, now):
            raise GatewayError(
                "unauthorized",
                "the API key is unknown, revoked or expired: send a valid one as 'Authorization: Bearer <key>' or 'X-API-Key'",
            )
        return Principal(
            key=key.key, tenant=key.tenant, scopes=frozenset(key.scopes), expires_at=key.expires_at, agent=key.agent
        )

    def valid(self, key_id: str, now: float) -> bool:
        """Whether the key exists, is not revoked and has not expired, and its tenant was not shredded."""
        key = self.keys.get(key_id)
        return (
            key is not None
            and key_id not in self.revoked
            and key.tenant not in self.shredded
            and (key.expires_at is None or key.expires_at > now)
        )
