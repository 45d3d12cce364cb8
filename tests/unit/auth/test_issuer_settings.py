"""`[[jwt_issuers]]`: what a table has to say, and what it is told where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.settings import InvalidSettings, Settings, load_settings

GOOD: dict[str, Any] = {
    "issuer": "https://id.example",
    "audience": "emberlog",
    "jwks_url": "https://id.example/keys",
    "tenants": ["acme"],
}


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def load(*tables: dict[str, Any]) -> Settings:
    return load_settings(jwt_issuers=list(tables))


def refusal(*tables: dict[str, Any]) -> str:
    with pytest.raises(InvalidSettings) as failed:
        load(*tables)
    return str(failed.value)


def test_a_table_of_a_file_has_sensible_defaults(tmp_path: Path) -> None:
    config = tmp_path / "emberlog.toml"
    config.write_text(
        '[[jwt_issuers]]\nissuer = "https://id.example"\naudience = "emberlog"\njwks_url = "https://id.example/keys"\ntenant = "acme"\n'
    )
    [issuer] = load_settings(config).jwt_issuers
    assert issuer.allowed == {"RS256", "ES256"}
    assert issuer.bound_to == {"acme"}
    assert (issuer.leeway_seconds, issuer.refresh_seconds, issuer.max_lifetime_seconds) == (30, 300, None)
    assert (issuer.tenant_claim, issuer.scopes_claim, issuer.agent_claim) == ("tenant", "scope", "agent")
    assert not issuer.installation
    [shared] = load({**GOOD, "jwks_url": None, "secret_env": "S"}).jwt_issuers
    assert shared.allowed == {"HS256"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"jwks_url": None}, "exactly one of jwks_file, jwks_url and secret_env"),
        ({"secret_env": "S"}, "exactly one of jwks_file, jwks_url and secret_env"),
        ({"algorithms": ["HS256"]}, "HS256 needs a secret"),
        ({"jwks_url": None, "secret_env": "S", "algorithms": ["HS256", "RS256"]}, "only HS256 is possible"),
        ({"jwks_url": None, "secret_env": "S", "algorithms": ["ES256"]}, "only HS256 is possible"),
        ({"algorithms": ["none"]}, "jwt_issuers.0.algorithms.0"),
        ({"algorithms": ["RS512"]}, "jwt_issuers.0.algorithms.0"),
        ({"tenants": []}, "set tenant or tenants"),
        ({"tenant": "acme"}, "not both"),
        ({"tenants": ["*"]}, "cannot be a tenant's id"),
        ({"tenants": ["_system"]}, "cannot be a tenant's id"),
        ({"audience": ""}, "jwt_issuers.0.audience"),
        ({"issuer": "two words"}, "jwt_issuers.0.issuer"),
        ({"tenant_claim": "aud"}, "has a meaning of its own"),
        ({"leeway_seconds": -1}, "jwt_issuers.0.leeway_seconds"),
        ({"leeway_seconds": 3600}, "jwt_issuers.0.leeway_seconds"),
        ({"max_lifetime_seconds": 0}, "jwt_issuers.0.max_lifetime_seconds"),
        ({"refresh_seconds": 1}, "jwt_issuers.0.refresh_seconds"),
        ({"key_url": "x"}, "jwt_issuers.0.key_url: there is no such setting"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(change: dict[str, Any], told: str) -> None:
    assert told in refusal({**GOOD, **change})


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example/keys", "http://10.0.0.1/keys", "ftp://id.example/keys", "file:///etc/passwd", "//id.example/keys", "id.example/keys", "https://",
        "https:///keys", "https://user:pass@id.example/keys", "https://id.example:99999/keys", "https://id.example/keys#one", "https://id.example/a b",
        "https://id.example/\r\nhost: evil", "https://ïd.example/keys", "https://[::1/keys", "http://localhost.evil.example/",
    ],
)  # fmt: skip
def test_keys_come_by_https_or_from_this_machine(url: str) -> None:
    assert "expected https://HOST/PATH" in refusal({**GOOD, "jwks_url": url})


@pytest.mark.parametrize(
    "url", ["https://id.example", "https://id.example:8443/k?x=1", "http://127.0.0.1:1/", "http://[::1]:1/k", "http://localhost/k"]
)  # fmt: skip
def test_addresses_that_may_be_asked_are_taken(url: str) -> None:
    assert load({**GOOD, "jwks_url": url}).jwt_issuers[0].jwks_url == url


def test_two_issuers_cannot_be_taken_for_one_another() -> None:
    assert "two are named" in refusal(GOOD, {**GOOD, "tenants": ["globex"]})
    assert "could not be told apart" in refusal(GOOD, {**GOOD, "issuer": "https://id.example:8443"})
    assert len(load(GOOD, {**GOOD, "issuer": "https://id.example.org"}).jwt_issuers) == 2


def test_an_issuer_of_the_installation_needs_no_tenant() -> None:
    assert load({**GOOD, "tenants": [], "installation": True}).jwt_issuers[0].bound_to == frozenset()
