"""Who holds a JSON Web Token: verified once, then remembered by its digest for as long as it, its signer and its tenant are good."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import structlog

from domain.errors import GatewayError
from domain.tenancy import SCOPES, Directory, Principal
from gateway.auth.issuer import Issuer
from gateway.auth.token import SignerUnknown, Token, TokenRefused, expiry, parse_token, verify_signature

REMEMBERED = 10_000
"""Tokens kept verified; the least recently used one goes first."""
MAX_NAME = 128
"""Characters of a subject and of an agent: each may become an agent's id."""
_LINES_PER_SECOND = 10
_log = structlog.get_logger("emberlog.auth")


class UnknownSigner(GatewayError):
    """`unauthorized`, as for whatever is wrong with a token; but the keys of its issuer may have changed since they were read."""

    def __init__(self, issuer: Issuer) -> None:
        super().__init__("unauthorized", _MESSAGE)
        self.issuer = issuer


_MESSAGE = (
    "the JSON Web Token is not accepted: send one that has not expired, of an issuer, audience and tenant this gateway is configured for, "
    "as 'Authorization: Bearer <token>'"
)


class Authenticator:
    """Knows the principals of tokens. Everything here but `run` and `close` is synchronous and asks nobody."""

    def __init__(self, issuers: Sequence[Issuer], directory: Directory, clock: Callable[[], float] = time.time) -> None:
        self._issuers = {issuer.name: issuer for issuer in issuers}
        self._directory = directory
        self._clock = clock
        self._known: OrderedDict[bytes, Principal] = OrderedDict()
        self._signers: frozenset[str] = frozenset()
        self._second = self._lines = 0
        for issuer in issuers:
            issuer.changed = self._keys_changed
        self._keys_changed()

    async def run(self) -> None:
        """Keep every issuer's keys fresh until cancelled."""
        async with asyncio.TaskGroup() as group:
            for issuer in self._issuers.values():
                group.create_task(issuer.run())

    async def close(self) -> None:
        """Give up what is under way."""
        for issuer in self._issuers.values():
            await issuer.close()

    def authenticate(self, text: str) -> Principal:
        """The principal of a token. Raises `unauthorized`, the same whatever is wrong; as `UnknownSigner` where fresher keys may help."""
        if not self._issuers:
            raise GatewayError("unauthorized", "JSON Web Tokens are not configured on this gateway: send an API key")
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        known = self._known.pop(digest, None)
        if known is None or not self.valid(known):
            known = self._verified(text)
        self._known[digest] = known
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return known

    def valid(self, principal: Principal) -> bool:
        """Whether a token's principal is still good: not expired, its signer among its issuer's keys, its tenant not shredded."""
        tenant = principal.tenant
        return (
            principal.signer in self._signers
            and principal.expires_at is not None
            and principal.expires_at > self._clock()
            and (tenant is None or (tenant in self._directory.tenants and tenant not in self._directory.shredded))
        )

    def _verified(self, text: str) -> Principal:
        issuer: Issuer | None = None
        try:
            token = parse_token(text)
            named = token.claims.get("iss")
            issuer = self._issuers.get(named) if isinstance(named, str) else None
            if issuer is None:
                raise TokenRefused("of no issuer that is configured")
            return self._principal(token, issuer)
        except TokenRefused as refused:
            self._note(str(refused), issuer)
            if isinstance(refused, SignerUnknown):
                assert issuer is not None
                raise UnknownSigner(issuer) from None
            raise GatewayError("unauthorized", _MESSAGE) from None

    def _principal(self, token: Token, issuer: Issuer) -> Principal:
        key = verify_signature(token, issuer.keys, issuer.allowed)
        # From here on it is what the issuer says; whether it may say so is another matter.
        claims, settings = token.claims, issuer.settings
        expires_at = expiry(
            claims,
            audience=settings.audience,
            leeway=settings.leeway_seconds,
            max_lifetime=settings.max_lifetime_seconds,
            now=self._clock(),
        )
        subject = _name(claims, "sub")
        if subject is None:
            raise TokenRefused("no subject")
        scopes = _scopes(claims.get(settings.scopes_claim))
        tenant = self._tenant(issuer, claims, scopes)
        return Principal(
            key=f"{issuer.name}:{subject}",
            tenant=tenant,
            scopes=scopes if tenant is None else scopes - {"operator"},
            expires_at=expires_at,
            agent=_name(claims, settings.agent_claim),
            kind="jwt",
            subject=subject,
            signer=key.signer,
        )

    def _tenant(self, issuer: Issuer, claims: dict[str, Any], scopes: frozenset[str]) -> str | None:
        """The tenant of a token, None for the installation. Raises `TokenRefused`.

        A token that names none is the installation's where its issuer has no tenants, or where it has the scope operator besides; else it
        is of its issuer's only tenant.
        """
        claim, settings = issuer.settings.tenant_claim, issuer.settings
        if claim in claims:
            tenant = claims[claim]
            if not isinstance(tenant, str) or tenant not in issuer.tenants:
                raise TokenRefused("of a tenant that is not its issuer's")
        elif settings.installation and (not issuer.tenants or "operator" in scopes):
            return None
        elif len(issuer.tenants) == 1:
            [tenant] = issuer.tenants
        else:
            raise TokenRefused("it names no tenant, and its issuer has several")
        if tenant not in self._directory.tenants or tenant in self._directory.shredded:
            raise TokenRefused("of a tenant that there is not, or not any more")
        return tenant

    def _keys_changed(self) -> None:
        self._signers = frozenset().union(*(issuer.keys.signers for issuer in self._issuers.values()))

    def _note(self, reason: str, issuer: Issuer | None) -> None:
        """A line of the server's log, at most ten a second: a peer that sends nothing but bad tokens must not fill it."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines <= _LINES_PER_SECOND:
            _log.info("jwt_refused", reason=reason, issuer=issuer.name if issuer else None)


def _name(claims: dict[str, Any], claim: str) -> str | None:
    """A claim that becomes a name in the log: 1 to 128 printable characters. None where it is absent. Raises `TokenRefused`."""
    value = claims.get(claim)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME or not value.isprintable():
        raise TokenRefused("its subject or agent is no name of 1 to 128 printable characters")
    return value


def _scopes(claimed: object) -> frozenset[str]:
    """The scopes we know, of a string with blanks between them or of an array. Others are somebody else's."""
    given = claimed.split(" ") if isinstance(claimed, str) else claimed
    return frozenset(scope for scope in SCOPES if isinstance(given, list) and scope in given)


async def authenticated(authenticate: Callable[[str], Principal], token: str) -> Principal:
    """Who holds a token or an API key; where fresher keys of its issuer may help, those are waited for. Raises `unauthorized`."""
    try:
        return authenticate(token)
    except UnknownSigner as unknown:
        await unknown.issuer.look_again()
        return authenticate(token)
