"""An issuer's keys: where they come from, when they are read again, and what happens to open sessions when they change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus

from domain.errors import GatewayError
from domain.events import TenantCreated
from domain.tenancy import Directory, Principal
from gateway.auth.authenticator import Authenticator, authenticated
from gateway.auth.issuer import Issuer, open_issuer
from gateway.auth.settings import JwtIssuerSettings
from tests.support.key_server import KeyServer, answer, flood, key_server, silence
from tests.support.tokens import AUDIENCE, ISSUER, SECRET, claims, jwk, jwks, rsa_key, signed
from tests.unit.wire.fake_service import FakeService
from tests.unit.wire.harness import QUICK, Gateway

FIRST, BOTH, SECOND = (
    jwks(jwk(rsa_key(), "one")),
    jwks(jwk(rsa_key(), "one"), jwk(rsa_key("next"), "two")),
    jwks(jwk(rsa_key("next"), "two")),
)


def settings(**others: Any) -> JwtIssuerSettings:
    return JwtIssuerSettings(**{"issuer": ISSUER, "audience": AUDIENCE, "tenant": "acme", **others})


class TokenService(FakeService):
    """The service of the wire's tests, taking the tokens of one issuer."""

    def __init__(self, issuer: Issuer) -> None:
        super().__init__()
        directory = Directory()
        directory.apply(1, "acme", TenantCreated(tenant="acme"))
        self.issuer = issuer
        self.tokens = Authenticator([issuer], directory)

    def authenticate(self, token: str) -> Principal:
        return self.tokens.authenticate(token)

    def valid(self, principal: Principal) -> bool:
        return self.tokens.valid(principal)


class Rotation:
    """An issuer whose keys are at an address; `later` lets the time between two readings pass."""

    def __init__(self, server: KeyServer) -> None:
        self.server = server
        self.now = 1000.0
        server.respond = answer(FIRST)
        self.issuer = open_issuer(settings(jwks_url=server.url), {})
        self.issuer._clock = lambda: self.now
        self.service = TokenService(self.issuer)

    def later(self) -> None:
        self.now += 30.0

    async def knows(self, token: str) -> bool:
        try:
            await authenticated(self.service.authenticate, token)
        except GatewayError:
            return False
        return True


@pytest_asyncio.fixture
async def server() -> AsyncIterator[KeyServer]:
    async with key_server() as server:
        yield server


@pytest_asyncio.fixture
async def rotation(server: KeyServer) -> AsyncIterator[Rotation]:
    made = Rotation(server)
    yield made
    await made.service.tokens.close()


def old() -> str:
    return signed(claims())


def new() -> str:
    return signed(claims(), rsa_key("next"), kid="two")


async def test_the_first_token_waits_for_the_keys_and_many_wait_for_one_reading(rotation: Rotation) -> None:
    assert all(await asyncio.gather(*(rotation.knows(old()) for _ in range(50))))
    assert len(rotation.server.requests) == 1


async def test_an_unknown_key_is_asked_for_at_once_but_once_in_thirty_seconds(rotation: Rotation) -> None:
    assert await rotation.knows(old())
    rotation.server.respond = answer(BOTH)
    assert not await rotation.knows(new()), "it was read less than 30 seconds ago"
    rotation.now += 29.9
    for _ in range(100):
        assert not await rotation.knows(signed(claims(), rsa_key("mallory"), kid="made up"))
    assert len(rotation.server.requests) == 1
    rotation.later()
    assert await rotation.knows(new())
    assert await rotation.knows(old())
    assert len(rotation.server.requests) == 2


async def test_a_wrong_signature_asks_for_no_keys(rotation: Rotation) -> None:
    assert await rotation.knows(old())
    rotation.later()
    assert not await rotation.knows(signed(claims(), rsa_key("mallory")))
    assert len(rotation.server.requests) == 1


@pytest.mark.parametrize(
    "respond",
    [
        answer(b"", status="503 Down"),
        answer(b"<html>"),
        answer(b'{"keys": []}'),
        answer(b'{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "one"}]}'),
        answer(b'{"keys": [], ' + FIRST[1:]),
        answer(jwks({"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "one"})),
        answer(b"[" * 100_000),
        flood,
    ],
    ids=["down", "html", "empty", "weak", "twice", "symmetric", "deep", "huge"],
)
async def test_the_old_keys_are_kept_when_the_new_cannot_be_read(rotation: Rotation, respond: Any) -> None:
    assert await rotation.knows(old())
    principal = await authenticated(rotation.service.authenticate, old())
    rotation.server.respond = respond
    rotation.later()
    with capture_logs() as lines:
        assert not await rotation.knows(new())
    assert [line["event"] for line in lines].count("jwks_not_read") == 1
    assert rotation.service.valid(principal)
    assert await rotation.knows(signed(claims(sub="another")))
    rotation.server.respond = answer(SECOND)
    rotation.later()
    assert await rotation.knows(new())
    assert not rotation.service.valid(principal), "this would fail if the keys were never replaced"


async def test_a_silent_server_delays_only_those_who_need_new_keys(rotation: Rotation) -> None:
    assert await rotation.knows(old())
    rotation.server.respond = silence
    rotation.server.arrived.clear()
    rotation.later()
    waiting = asyncio.create_task(rotation.knows(new()))
    async with asyncio.timeout(10):
        await rotation.server.arrived.wait()
    assert rotation.service.authenticate(signed(claims(sub="another")))
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert rotation.issuer._reading is not None, "whoever gives up waiting does not end the reading for others"


async def test_keys_are_read_in_the_background_from_the_start(rotation: Rotation) -> None:
    read = asyncio.Event()
    changed = rotation.issuer.changed

    def heard() -> None:
        changed()
        read.set()

    rotation.issuer.changed = heard
    running = asyncio.create_task(rotation.service.tokens.run())
    async with asyncio.timeout(10):
        await read.wait()
    assert rotation.service.authenticate(old())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# -- sessions -----------------------------------------------------------------------------------------------------------


async def test_keys_rotate_under_open_sessions(rotation: Rotation) -> None:
    async with Gateway(rotation.service, QUICK).running() as gateway, gateway.session(old()) as first:
        rotation.server.respond = answer(BOTH)
        rotation.later()
        async with gateway.session(new()) as second:
            assert (await first.embed())["type"] == "embedding.result", "its key is still there"
            rotation.server.respond = answer(SECOND)
            rotation.later()
            await rotation.issuer.look_again()
            assert await first.closed(within=1) == 4401
            assert (await second.embed())["type"] == "embedding.result"
        with pytest.raises(InvalidStatus) as refused:
            async with gateway.client(old()):
                pass
        assert refused.value.response.status_code == 401


async def test_a_session_ends_when_its_token_does_while_another_of_the_same_subject_stays(server: KeyServer) -> None:
    service = TokenService(open_issuer(settings(secret_env="S", leeway_seconds=0), {"S": SECRET}))
    ahead = [0.0]
    clock = service.tokens._clock
    service.tokens._clock = lambda: clock() + ahead[0]
    short = signed(claims(), SECRET, algorithm="HS256")
    long = signed(claims(exp=int(clock()) + 6000), SECRET, algorithm="HS256")
    async with (
        Gateway(service, QUICK).running() as gateway,
        gateway.session(short) as one,
        gateway.session(long) as two,
    ):
        ahead[0] = 599.0 - 5
        assert (await one.embed())["type"] == "embedding.result"
        ahead[0] = 600.0
        assert await one.closed(within=1) == 4401
        assert (await two.embed())["type"] == "embedding.result"


async def test_a_browsers_token_of_a_new_key_opens_its_session_and_what_follows_is_held(rotation: Rotation) -> None:
    assert await rotation.knows(old())
    rotation.server.respond = answer(BOTH)
    rotation.later()
    async with Gateway(rotation.service, QUICK).running() as gateway, gateway.client(None) as client:
        await client.send({"type": "session.open", "id": "o", "agent": {"id": "a"}, "token": new()})
        assert (await client.embed())["type"] == "session.opened"
        assert (await client.receive())["type"] == "embedding.result"


async def test_a_browsers_token_of_a_key_that_never_comes_is_refused(rotation: Rotation) -> None:
    assert await rotation.knows(old())
    rotation.later()
    async with Gateway(rotation.service, QUICK).running() as gateway, gateway.client(None) as client:
        refused = await client.ask({"type": "session.open", "id": "o", "agent": {"id": "a"}, "token": new()})
        assert (refused["type"], refused["code"]) == ("error", "unauthorized")
        assert await client.closed() == 4401


async def test_little_is_held_for_a_browser_that_is_not_known_yet(rotation: Rotation) -> None:
    rotation.server.respond = silence
    text = "x" * 40_000
    async with Gateway(rotation.service, QUICK).running() as gateway, gateway.client(None) as client:
        await client.send({"type": "session.open", "id": "o", "agent": {"id": "a"}, "token": new()})
        await client.send({"type": "embedding.generate", "id": "r1", "input": text})
        refused = await client.ask({"type": "embedding.generate", "id": "r2", "input": text})
        assert (refused["id"], refused["code"]) == ("r2", "too_many_in_flight")


# -- files and secrets --------------------------------------------------------------------------------------------------


async def test_the_keys_of_a_file_are_read_again_as_those_of_an_address(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(FIRST)
    issuer = open_issuer(settings(jwks_file=file), {})
    service = TokenService(issuer)
    assert service.authenticate(old())
    file.write_bytes(BOTH)
    assert await authenticated(service.authenticate, new())
    file.unlink()
    issuer._began = float("-inf")
    assert not await issuer.look_again()
    assert service.authenticate(signed(claims(sub="another")))


async def test_a_shared_secret_never_asks_anybody() -> None:
    issuer = open_issuer(settings(secret_env="S"), {"S": SECRET})
    assert not await issuer.look_again()
    await issuer.run()


@pytest.mark.parametrize(
    ("where", "environment", "why"),
    [
        ({"secret_env": "S"}, {}, r"variable S \(secret_env\) is not set"),
        ({"secret_env": "S"}, {"S": "x" * 31}, "31 bytes: HS256 needs 32"),
        ({"jwks_file": "/nowhere/keys.json"}, {}, "jwks_file: .*No such file"),
        ({"jwks_file": "/dev/null"}, {}, "no JSON object"),
        ({"jwks_file": "/dev/zero"}, {}, "more than 262144 bytes"),
    ],
)
def test_keys_that_are_not_where_the_settings_say_stop_the_start(
    where: Any, environment: dict[str, str], why: str
) -> None:
    with pytest.raises(ValueError, match=why) as failed:
        open_issuer(settings(**where), environment)
    assert str(failed.value).startswith(f"jwt_issuers: {ISSUER}: ")
