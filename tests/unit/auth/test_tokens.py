"""Which JSON Web Tokens are taken, and for whom; which are refused, and that nobody is told why."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from domain.errors import GatewayError
from domain.events import TenantCreated, TenantShredded
from domain.tenancy import Directory, Principal
from gateway.auth import authenticator as module
from gateway.auth.authenticator import Authenticator, UnknownSigner
from gateway.auth.issuer import Issuer, open_issuer
from gateway.auth.key_set import parse_key_set
from gateway.auth.settings import JwtIssuerSettings
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    SECRET,
    claims,
    ec_key,
    jwk,
    jwks,
    part,
    public_pem,
    rsa_key,
    signed,
    signed_raw,
)

NOW = 1_800_000_000.0


def said(**others: Any) -> dict[str, Any]:
    return claims(NOW, **others)


def keys() -> bytes:
    return jwks(jwk(rsa_key(), "one", alg="RS256", use="sig"), jwk(ec_key(), "two"))


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


class World:
    """An authenticator with one issuer, a directory of the tenants acme and globex, and a clock that a test moves."""

    def __init__(self, document: bytes | None = None, **settings: Any) -> None:
        self.directory = Directory()
        for position, tenant in enumerate(("acme", "globex"), 1):
            self.directory.apply(position, tenant, TenantCreated(tenant=tenant))
        self.clock = Clock()
        whole = JwtIssuerSettings(
            **{
                "issuer": ISSUER,
                "audience": AUDIENCE,
                "jwks_url": "https://id.example/keys",
                "tenant": "acme",
                **settings,
            }
        )
        if whole.secret_env is not None:
            self.issuer = open_issuer(whole, {whole.secret_env: SECRET})
        else:
            self.issuer = Issuer(whole, parse_key_set(ISSUER, document or keys()), None)
        self.authenticator = Authenticator([self.issuer], self.directory, self.clock)

    def principal(self, token: str) -> Principal:
        return self.authenticator.authenticate(token)

    def refused(self, token: str) -> str:
        """Why, as the server's log says it."""
        with capture_logs() as lines, pytest.raises(GatewayError) as failed:
            self.authenticator.authenticate(token)
        assert (failed.value.code, failed.value.message) == ("unauthorized", module._MESSAGE), "all are told the same"
        assert failed.value.details is None
        [line] = lines
        assert line["event"] == "jwt_refused"
        assert token not in str(lines)
        return str(line["reason"])


@pytest.fixture(autouse=True)
def _every_refusal_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINES_PER_SECOND", 10**9)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(("key", "kid", "algorithm"), [(rsa_key, "one", "RS256"), (ec_key, "two", "ES256")])
def test_a_token_of_the_issuer_is_its_subject_in_its_tenant(world: World, key: Any, kid: str, algorithm: str) -> None:
    principal = world.principal(signed(said(), key(), kid=kid, algorithm=algorithm))
    assert principal.key == f"{ISSUER}:robot"
    assert principal.actor == f"jwt:{ISSUER}:robot"
    assert (principal.tenant, set(principal.scopes), principal.kind) == ("acme", {"agent"}, "jwt")
    assert principal.expires_at == NOW + 600 + 30
    assert (principal.agent, principal.default_agent) == (None, "robot")
    assert world.authenticator.valid(principal)


def test_a_shared_secret_is_the_key_of_hs256() -> None:
    world = World(jwks_url=None, secret_env="JWT_SECRET")
    assert world.principal(signed(said(), SECRET, algorithm="HS256")).tenant == "acme"
    assert world.refused(signed(said(), SECRET + "!", algorithm="HS256")) == "the signature is not the issuer's"
    assert "algorithm" in world.refused(signed(said()))


@pytest.mark.parametrize("kid", [None, "one"])
def test_a_token_without_a_kid_is_tried_with_every_key_of_its_algorithm(kid: str | None) -> None:
    world = World(jwks(jwk(rsa_key("other"), "zero"), jwk(rsa_key(), "one")))
    assert world.principal(signed(said(), kid=kid)).tenant == "acme"


def test_the_claims_are_named_in_the_settings() -> None:
    world = World(tenant_claim="https://x/tenant", scopes_claim="permissions", agent_claim="act_as")
    principal = world.principal(
        signed(said(**{"tenant": ..., "https://x/tenant": "acme", "permissions": ["admin", "agent"], "act_as": "a-1"}))
    )
    assert (principal.tenant, set(principal.scopes)) == ("acme", {"admin", "agent"})
    assert (principal.agent, principal.default_agent) == ("a-1", "a-1")


@pytest.mark.parametrize(
    ("scope", "granted"),
    [
        ("agent billing", {"agent", "billing"}),
        (["agent", "billing"], {"agent", "billing"}),
        ("openid agent profile", {"agent"}),
        ("agent operator", {"agent"}),
        ("agentx Agent  admin", {"admin"}),
        (["agent admin"], set()),
        ([1, None, ["agent"]], set()),
        ({"agent": True}, set()),
        ("", set()),
        (..., set()),
        (7, set()),
    ],
)
def test_only_scopes_that_we_know_are_granted_and_operator_to_no_tenant(
    world: World, scope: Any, granted: set[str]
) -> None:
    assert world.principal(signed(said(scope=scope))).scopes == granted


# -- whose token it is --------------------------------------------------------------------------------------------------


def test_an_issuer_of_one_tenant_need_not_name_it(world: World) -> None:
    assert world.principal(signed(said(tenant=...))).tenant == "acme"


def test_an_issuer_of_several_tenants_has_to_name_one_of_them() -> None:
    world = World(tenant=None, tenants=["acme", "globex"])
    assert world.principal(signed(said(tenant="globex"))).tenant == "globex"
    assert "names no tenant" in world.refused(signed(said(tenant=...)))


@pytest.mark.parametrize("tenant", ["globex", "ACME", "acme ", "", None, 7, ["acme"], {"acme": 1}, "*"])
def test_a_token_of_a_tenant_that_is_not_its_issuers_is_refused(world: World, tenant: object) -> None:
    assert world.refused(signed(said(tenant=tenant))) == "of a tenant that is not its issuer's"


def test_a_token_of_a_tenant_that_there_is_not_is_refused() -> None:
    world = World(tenant="nobody")
    assert "there is not" in world.refused(signed(said(tenant="nobody")))
    assert "there is not" in world.refused(signed(said(tenant=...)))


def test_a_token_of_a_shredded_tenant_is_refused_also_where_it_was_taken_before(world: World) -> None:
    token = signed(said())
    principal = world.principal(token)
    world.directory.apply(9, "acme", TenantShredded(tenant="acme"))
    assert not world.authenticator.valid(principal)
    assert "not any more" in world.refused(token)


def test_operators_are_of_an_issuer_of_the_installation_alone(world: World) -> None:
    token = signed(said(tenant=..., scope="operator admin"))
    assert world.principal(token).tenant == "acme"
    assert world.principal(token).scopes == {"admin"}
    operators = World(installation=True)
    assert operators.principal(token).tenant is None
    assert operators.principal(token).scopes == {"operator", "admin"}
    assert operators.principal(signed(said(scope="operator"))).tenant == "acme", "it names its tenant"
    assert operators.principal(signed(said(tenant=..., scope="billing"))).tenant == "acme", "it does not say operator"


def test_an_issuer_of_the_installation_alone_has_tokens_of_no_tenant() -> None:
    world = World(tenant=None, installation=True)
    assert world.principal(signed(said(tenant=..., scope="billing"))).tenant is None
    assert "tenant" in world.refused(signed(said(tenant="acme", scope="operator")))


# -- forgeries ----------------------------------------------------------------------------------------------------------


def _unsigned(algorithm: str) -> str:
    return f"{part({'alg': algorithm, 'kid': 'one'})}.{part(said())}.{part(b'x')}"


def _mac_with(secret: bytes, kid: str) -> str:
    text = f"{part({'alg': 'HS256', 'kid': kid})}.{part(said())}"
    return f"{text}.{part(hmac.digest(secret, text.encode(), 'sha256'))}"


FORGED: dict[str, tuple[Callable[[], str], str]] = {
    "none": (lambda: _unsigned("none"), "algorithm"),
    "None": (lambda: _unsigned("None"), "algorithm"),
    "none without a signature": (lambda: jwt.encode(said(), "", "none"), "not three parts"),
    "an empty algorithm": (lambda: _unsigned(""), "algorithm"),
    "RS384": (lambda: signed(said(), algorithm="RS384"), "algorithm"),
    "PS256": (lambda: signed(said(), algorithm="PS256"), "algorithm"),
    "HS256 with the public key's PEM": (lambda: _mac_with(public_pem(rsa_key()), "one"), "algorithm"),
    "HS256 with the public key's JWK": (lambda: _mac_with(json.dumps(jwk(rsa_key(), "one")).encode(), "one"), "algorithm"),
    "another RSA key": (lambda: signed(said(), rsa_key("mallory")), "signature"),
    "another RSA key, no kid": (lambda: signed(said(), rsa_key("mallory"), kid=None), "signature"),
    "another EC key": (lambda: signed(said(), ec_key("mallory"), kid="two", algorithm="ES256"), "signature"),
    "ES256 under the RSA key's kid": (lambda: signed(said(), ec_key(), kid="one", algorithm="ES256"), "does not have"),
    "a key of its own in the header": (
        lambda: signed(said(), rsa_key("mallory"), jwk=jwk(rsa_key("mallory"), "one"), jku="http://127.0.0.1:9/"),
        "signature",
    ),
    "another's claims under the signature": (
        lambda: ".".join((signed(said()).split(".")[0], part(said(tenant="globex")), signed(said()).split(".")[2])),
        "signature",
    ),
    "a critical extension": (lambda: signed(said(), crit=["exp"]), "extension"),
    "another audience": (lambda: signed(said(aud="other")), "audience"),
    "other audiences": (lambda: signed(said(aud=["a", "emberlogs"])), "audience"),
    "an audience of another type": (lambda: signed_raw(b'{"alg":"RS256"}', json.dumps(said(aud={"emberlog": 1})).encode()), "audience"),
    "no audience": (lambda: signed(said(aud=...)), "audience"),
    "another issuer": (lambda: signed(said(iss="https://evil.example")), "no issuer"),
    "an issuer that begins alike": (lambda: signed(said(iss=ISSUER + "/")), "no issuer"),
    "no issuer": (lambda: signed(said(iss=...)), "no issuer"),
    "issuers": (lambda: signed_raw(b'{"alg":"RS256"}', json.dumps(said(iss=[ISSUER])).encode()), "no issuer"),
    "expired": (lambda: signed(said(exp=NOW - 31)), "expired"),
    "expired this second": (lambda: signed(said(exp=NOW - 30)), "expired"),
    "no exp": (lambda: signed(said(exp=...)), "never expires"),
    "nbf to come": (lambda: signed(said(nbf=NOW + 32)), "nbf"),
    "iat to come": (lambda: signed(said(iat=NOW + 32)), "iat"),
    "exp as a text": (lambda: signed_raw(b'{"alg":"RS256"}', json.dumps(said(exp=str(NOW + 60))).encode()), "exp"),
    "exp true": (lambda: signed(said(exp=True)), "exp"),
    "exp null": (lambda: signed(said(exp=None)), "exp"),
    "exp far beyond": (lambda: signed(said(exp=10**40)), "exp"),
    "exp infinite": (lambda: signed_raw(b'{"alg":"RS256"}', json.dumps(said()).replace(f'"exp": {int(NOW) + 600}', '"exp": 1e999').encode()), "exp"),
    "exp no number": (lambda: signed_raw(b'{"alg":"RS256"}', json.dumps(said(exp=float("nan"))).encode()), "JSON"),
    "exp of 5000 digits": (lambda: signed_raw(b'{"alg":"RS256"}', json.dumps(said(exp=0)).replace('"exp": 0', '"exp": ' + "9" * 4400).encode()), "JSON"),
    "exp negative": (lambda: signed(said(exp=-1)), "exp"),
    "no subject": (lambda: signed(said(sub=...)), "subject"),
    "an empty subject": (lambda: signed(said(sub="")), "subject"),
    "a subject of two lines": (lambda: signed(said(sub="a\nb")), "subject"),
    "a subject with NUL": (lambda: signed(said(sub="a\0b")), "subject"),
    "half a character as subject": (lambda: signed_raw(b'{"alg":"RS256"}', json.dumps(said(sub="\ud800")).encode()), "subject"),
    "a subject of 129": (lambda: signed(said(sub="x" * 129)), "subject"),
    "an agent that is no text": (lambda: signed(said(agent=["a"])), "agent"),
    "the tenant twice": (lambda: signed_raw(b'{"alg":"RS256"}', json.dumps(said()).replace("{", '{"tenant":"globex",', 1).encode()), "once"),
    "the algorithm twice": (lambda: signed_raw(b'{"alg":"none","alg":"RS256"}', json.dumps(said()).encode()), "once"),
    "a member twice deep inside": (lambda: signed_raw(b'{"alg":"RS256"}', json.dumps(said(x=0)).replace('"x": 0', '"x": [{"a":1,"a":2}]').encode()), "once"),
    "claims that are a list": (lambda: signed_raw(b'{"alg":"RS256"}', b"[]"), "object"),
    "claims in Latin-1": (lambda: signed_raw(b'{"alg":"RS256"}', b'{"sub":"\xe9"}'), "object"),
    "claims nested a thousand deep": (lambda: signed_raw(b'{"alg":"RS256"}', b'{"a":' + b"[" * 5000), "object"),
    "a kid that is no text": (lambda: signed_raw(b'{"alg":"RS256","kid":1}', json.dumps(said()).encode()), "header"),
    "a list of algorithms": (lambda: signed_raw(b'{"alg":["RS256"]}', json.dumps(said()).encode()), "header"),
    "huge": (lambda: signed(said(x="x" * 7000)), "8192"),
    "garbage": (lambda: "a.b.c", "object"),
    "dots alone": (lambda: "..", "three parts"),
    "other dots": (lambda: "a\u2024b.c.d", "three parts"),
    "half a character": (lambda: "\ud800.b.c", "three parts"),
    "standard base64": (lambda: signed(said()) + "+/", "three parts"),
    "padding": (lambda: signed(said()) + "==", "three parts"),
    "a line behind it": (lambda: signed(said()) + "\n", "three parts"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_or_broken_token_is_refused_and_only_the_log_says_why(world: World, name: str) -> None:
    make, why = FORGED[name]
    assert why in world.refused(make())


@pytest.mark.parametrize(
    "kid", ["../../etc/passwd", "one' OR '1'='1", "http://127.0.0.1:9/k", "/dev/null", "", "ONE", "one\0", "x" * 500]
)
def test_a_kid_is_a_name_in_the_set_and_nothing_else(world: World, kid: str) -> None:
    with pytest.raises(UnknownSigner):
        world.principal(signed(said(), kid=kid))
    assert "does not have" in world.refused(signed(said(), kid=kid))


def test_a_lifetime_above_the_bound_is_refused() -> None:
    world = World(max_lifetime_seconds=600)
    assert world.principal(signed(said()))
    assert "max_lifetime" in world.refused(signed(said(exp=NOW + 601)))
    assert "max_lifetime" in world.refused(signed(said(iat=NOW - 10_000)))
    assert "max_lifetime" in world.refused(signed(said(iat=..., exp=NOW + 601)))


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_clocks_may_differ_by_the_leeway(world: World, claim: str) -> None:
    assert world.principal(signed(said(**{claim: NOW + 30})))
    assert world.principal(signed(said(exp=NOW - 29)))


# -- remembered tokens --------------------------------------------------------------------------------------------------


def test_a_token_is_verified_once_and_refused_as_soon_as_it_expires(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = signed(said())
    first = world.principal(token)
    with monkeypatch.context() as patched:
        patched.setattr(module, "verify_signature", None)
        assert world.principal(token) is first
    world.clock.now = NOW + 629.9
    assert world.principal(token) is first
    world.clock.now = NOW + 630
    assert not world.authenticator.valid(first)
    assert world.refused(token) == "expired"


def test_a_refused_token_is_not_remembered_as_good_nor_a_good_one_as_refused(world: World) -> None:
    token = signed(said(nbf=NOW + 100))
    assert world.refused(token)
    world.clock.now = NOW + 100
    assert world.principal(token)


def test_the_tokens_remembered_are_bounded_and_the_least_recently_used_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    tokens = [signed(said(sub=name)) for name in "abc"]
    first = world.principal(tokens[0])
    world.principal(tokens[1])
    assert world.principal(tokens[0]) is first
    world.principal(tokens[2])
    assert world.principal(tokens[0]) is first, "it was used since"
    assert len(world.authenticator._known) == 2


def test_a_key_that_left_the_set_takes_its_tokens_with_it(world: World) -> None:
    token, other = signed(said()), signed(said(), ec_key(), kid="two", algorithm="ES256")
    principal, stays = world.principal(token), world.principal(other)
    world.issuer.keys = parse_key_set(ISSUER, jwks(jwk(ec_key(), "two")))
    world.issuer.changed()
    assert not world.authenticator.valid(principal)
    with pytest.raises(UnknownSigner):
        world.principal(token)
    assert world.authenticator.valid(stays)
    assert world.principal(other) is stays


def test_a_key_under_a_name_used_again_is_another_key(world: World) -> None:
    principal = world.principal(signed(said()))
    world.issuer.keys = parse_key_set(ISSUER, jwks(jwk(rsa_key("next"), "one")))
    world.issuer.changed()
    assert not world.authenticator.valid(principal)
    assert world.refused(signed(said())) == "the signature is not the issuer's"
    assert world.principal(signed(said(), rsa_key("next")))


def test_one_issuers_key_signs_for_it_alone() -> None:
    ours, theirs = World(), World(issuer="https://other.example", tenant="globex")
    theirs.issuer.keys = parse_key_set(theirs.issuer.name, jwks(jwk(rsa_key("other"), "one")))
    both = Authenticator([ours.issuer, theirs.issuer], ours.directory, ours.clock)
    assert both.authenticate(signed(said(iss=theirs.issuer.name, tenant="globex"), rsa_key("other"))).tenant == "globex"
    for forged in (signed(said(), rsa_key("other")), signed(said(iss=theirs.issuer.name, tenant="globex"))):
        with pytest.raises(GatewayError):
            both.authenticate(forged)


def test_the_log_is_not_filled_by_bad_tokens(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINES_PER_SECOND", 10)
    with capture_logs() as lines:
        started = int(time.monotonic())
        for _ in range(200):
            with pytest.raises(GatewayError):
                world.principal("a.b.c")
        seconds = int(time.monotonic()) - started + 1
    assert 10 <= len(lines) <= 10 * seconds


# -- whatever is sent ---------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = ["iss", "aud", "sub", "exp", "nbf", "iat", "tenant", "scope", "agent"]
_SHARED = World(jwks_url=None, secret_env="JWT_SECRET")


@given(
    st.text(max_size=200)
    | st.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}", fullmatch=True)
)
def test_no_text_is_anything_but_taken_or_refused(text: str) -> None:
    with pytest.raises(GatewayError, match="not accepted"):
        _SHARED.principal(text)


@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jku"]), JSON),
    st.binary(max_size=40),
    st.binary(max_size=40),
)
def test_no_header_is_anything_but_refused(header: dict[str, Any], body: bytes, signature: bytes) -> None:
    with pytest.raises(GatewayError, match="not accepted"):
        _SHARED.principal(f"{part(header)}.{part(body)}.{part(signature)}")


@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_whatever_the_issuer_signs_yields_a_principal_of_its_tenant_or_a_refusal(others: dict[str, Any]) -> None:
    text = f"{part({'alg': 'HS256'})}.{part({**said(), **others})}"
    token = f"{text}.{part(hmac.digest(SECRET.encode(), text.encode(), 'sha256'))}"
    try:
        principal = _SHARED.principal(token)
    except GatewayError:
        pass
    else:
        assert principal.tenant == "acme"
        assert principal.expires_at is not None
        assert principal.expires_at > NOW
        assert 1 <= len(principal.default_agent) <= 128
        assert "operator" not in principal.scopes


def test_the_checks_above_can_fail(world: World) -> None:
    """The token that all forgeries are made from is taken."""
    assert world.principal(signed(said()))
    assert world.principal(signed_raw(b'{"alg":"RS256"}', json.dumps(said()).encode()))
    assert World(jwks_url=None, secret_env="S").principal(_mac_with(SECRET.encode(), "any"))
