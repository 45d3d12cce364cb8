"""A gateway's day with marked secrets: every kind of request and refusal, each with texts, metadata and tokens of its own.

`spend` drives a real gateway through it and hands back what its database holds then, and what must not be in there.
"""

from __future__ import annotations

import contextlib
import random
import string
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import msgspec
from websockets.exceptions import InvalidStatus

from gateway.bench.vectors import vector_of
from gateway.secrets import MasterKey
from tests.acceptance.http import request
from tests.acceptance.peer import Peer, session
from tests.acceptance.provider import DIMENSIONS, MODEL, Simulator
from tests.acceptance.site import Site
from tests.support.leaks import Needle, dump, of_keys, of_texts, of_vectors

AGENT = "agent-in-plain-sight"
_EVENTS = "SELECT tenant, stream, type, schema_version, version, data::text FROM emberlog.events ORDER BY position"


class Written(msgspec.Struct, frozen=True):
    """An event as the log holds it; `data` is its JSON."""

    tenant: str
    stream: str
    type: str
    schema_version: int
    version: int | None
    data: str


@dataclass
class Day:
    """What was secret, and what the database held in the end. `planted` is the content once more after secrets were put into it."""

    texts: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    keys: dict[str, bytes] = field(default_factory=dict)
    tenant_keys: dict[str, bytes] = field(default_factory=dict)
    content: dict[str, str] = field(default_factory=dict)
    planted: dict[str, str] = field(default_factory=dict)
    events: list[Written] = field(default_factory=list)
    _random: random.Random = field(default_factory=lambda: random.Random(20))

    def text(self, name: str) -> str:
        """A text of its own under this name: six words of no language."""
        if name not in self.texts:
            self.texts[name] = " ".join(self._letters(9) for _ in range(6)) + " äß🔥"
        return self.texts[name]

    def word(self, name: str) -> str:
        """The same as one word, that might be an identifier; metadata, tokens and credentials are such, too."""
        return self.words.setdefault(name, self._letters(24))

    def _letters(self, count: int) -> str:
        return "".join(self._random.choice(string.ascii_lowercase) for _ in range(count))

    def needles(self) -> list[Needle]:
        """Everything that must not be found."""
        vectors = {f"vector of {n}": vector_of(t, DIMENSIONS) for n, t in (self.texts | self.words).items()}
        return [*of_texts(self.texts | self.words), *of_keys(self.keys | self.tenant_keys), *of_vectors(vectors)]


async def spend(site: Site, simulator: Simulator) -> Day:
    """The whole day. The site's `SIMULATOR_KEY` is replaced by a marked one."""
    day = Day()
    site.env["SIMULATOR_KEY"] = day.word("the provider's key")
    gateway = site.gateway()
    await gateway.start()
    try:
        assert gateway.key is not None
        _keep_token(day, "development key", gateway.key)
        async with session(gateway.url, gateway.key, AGENT) as peer:
            await _served(day, peer)
            await _refused_by_the_provider(day, peer, simulator)
            await _given_up(day, peer, simulator, site)
            await _refused_by_us(day, peer)
        await _over_http(day, gateway.url, gateway.key)
        await _keys_come_and_go(day, site, gateway.url)
        simulator.control(hold=True)
        with contextlib.suppress(ConnectionError):
            async with session(gateway.url, gateway.key, AGENT) as peer:
                await peer.begin("orphan", day.text("orphan"), metadata={"m": day.word("orphan's metadata")})
                await site.logged("orphan")
                await gateway.kill()
        simulator.behave()
        await gateway.start()
        await site.logged("orphan", events=2)
        async with session(gateway.url, gateway.key, AGENT) as peer:
            await peer.embed("orphan", day.text("orphan"), metadata={"m": day.word("orphan's metadata")})
        await site.ask("usage", "--grain", "minute")  # waits until the views have folded the whole log
        await _look(day, site)
    finally:
        simulator.behave()
        assert await gateway.stop() == 0
    return day


async def _served(day: Day, peer: Peer) -> None:
    await peer.send({
        "type": "agent.register", "id": "register", "capabilities": ["search"], "metadata": {"m": day.word("agent's metadata")},
        "preferences": {"strategy": "cost", "models": [MODEL]},
    })  # fmt: skip
    assert (await peer.take(lambda m: m.get("id") == "register"))["type"] == "agent.registered"
    for replayed in (False, True):
        answer = await peer.embed(
            "plain", [day.text("first"), day.text("second")], metadata={"m": day.word("metadata")}, thread="t-1"
        )
        assert answer["replayed"] is replayed
    for _ in range(2):
        assert (await peer.embed("uncached", day.text("uncached"), cache="off"))["type"] == "embedding.result"
    assert (await peer.embed("dry", day.text("dry run"), dry_run=True))["type"] == "embedding.result"


async def _refused_by_the_provider(day: Day, peer: Peer, simulator: Simulator) -> None:
    """The provider repeats the text, in every field it has, and the request ends with its error."""
    cases: dict[str, dict[str, Any]] = {
        "refused": {"status": 400},
        "unprocessable": {"status": 422},
        "too-long": {"status": 400, "context": "maximum context length is 8192 tokens: "},
        "unauthorized": {"status": 401},
        "failing": {"status": 500},
        "page": {"status": 503, "page": True},
        "page-400": {"status": 400, "page": True},
    }
    provider_key = day.word("the provider's key")
    for name, case in cases.items():
        text, word = day.text(name), day.word(name)
        said = case.get("context", "") + f"{text} {word} {provider_key}"
        fields = (
            {"body": f"<html>{said}</html>"}
            if "page" in case
            else {"message": said, "code": word, "type": word, "param": word}
        )
        simulator.fault("status", status=case["status"], marker=word, count=-1, **fields)
        answer = await peer.embed(name, [text, word], metadata={"m": day.word(f"{name}'s metadata")}, deadline_ms=5000)
        assert answer["type"] == "error", answer
        if not answer["retryable"]:
            again = await peer.embed(name, [text, word], metadata={"m": day.word(f"{name}'s metadata")})
            assert (again["type"], again["message"]) == ("error", answer["message"])
    for kind in ("truncated", "html", "bad_base64", "nan", "wrong_count"):
        simulator.fault(kind, marker=day.word(kind), count=-1)
        assert (await peer.embed(kind, day.word(kind), deadline_ms=3000))["type"] == "error"


async def _given_up(day: Day, peer: Peer, simulator: Simulator, site: Site) -> None:
    simulator.control(hold=True)
    await peer.begin("cancelled", day.text("cancelled"), metadata={"m": day.word("cancelled metadata")})
    await site.logged("cancelled")
    await peer.send({"type": "request.cancel", "id": "cancelled"})
    assert (await peer.answer("cancelled"))["code"] == "cancelled"
    assert (await peer.embed("late", day.text("late"), deadline_ms=300))["code"] == "deadline_exceeded"
    simulator.control(hold=False)


async def _refused_by_us(day: Day, peer: Peer) -> None:
    assert (await peer.embed("plain", day.text("another body")))["code"] == "id_reused"
    assert (await peer.embed("oversized", day.text("oversized") * 4000))["code"] == "invalid_request"
    assert (await peer.embed("empty", [day.text("beside an empty one"), ""]))["code"] == "invalid_request"
    assert (await peer.embed("no-model", day.text("no model"), model=day.word("model")))["code"] == "model_not_found"
    large = {"m": day.word("too much metadata") * 200}
    assert (await peer.embed("metadata", day.text("too much"), metadata=large))["code"] == "invalid_request"
    await peer.send({"type": day.word("unknown type"), "id": "unknown", "input": day.text("unknown type")})
    assert (await peer.answer("unknown"))["code"] == "unknown_type"
    await peer.send(day.text("no map").encode())
    assert (await peer.take(lambda m: m["type"] == "error"))["code"] == "invalid_message"


async def _over_http(day: Day, url: str, key: str) -> None:
    body = {"model": MODEL, "dimensions": DIMENSIONS, "input": day.text("http"), "user": day.word("http user")}
    for _ in range(2):
        answer = await request(f"{url}/v1/embeddings", body, key=key, headers={"idempotency-key": "http"})
        assert answer.status == 200
    tokens = [51234, 61234, 71234, 81234, 91234]
    answer = await request(f"{url}/v1/embeddings", body | {"input": [tokens]}, key=key)
    assert answer.status == 200
    day.words["tokens"] = ", ".join(map(str, tokens))
    wrong = {
        "a key that never was": f"em_{'0' * 16}_{day.word('a token that never was')}{'x' * 19}",
        "no key of ours": day.word("foreign token"),
    }
    for token in wrong.values():
        assert (await request(f"{url}/v1/embeddings", body, key=token)).status == 401
        assert (await request(f"{url}/v1/models", headers={"x-api-key": token})).status == 401
        with contextlib.suppress(InvalidStatus, AssertionError, ConnectionError):
            async with session(url, token):
                raise RuntimeError("a wrong token opened a session")


async def _keys_come_and_go(day: Day, site: Site, url: str) -> None:
    await site.ask("tenants", "create", "second")
    tenant, house = await site.create_key("second", url=url), await site.create_key(None, "operator", url=url)
    for name, key in (("tenant's key", tenant), ("installation's key", house)):
        _keep_token(day, name, key.token)
    async with session(url, tenant.token, AGENT) as peer:
        assert (await peer.embed("plain", day.text("first")))["type"] == "embedding.result"
        await site.ask("keys", "revoke", tenant.id)
        assert await peer.closed() == 4401
    assert (await request(f"{url}/v1/models", key=tenant.token)).status == 401


def _keep_token(day: Day, name: str, token: str) -> None:
    """The secret of an API key, as it is written and as the bytes that it stands for. Its id is no secret."""
    secret = token.split("_", 2)[2]
    day.words[name] = secret
    day.keys[name] = b64decode(secret + "=", altchars=b"-_")


async def _look(day: Day, site: Site) -> None:
    day.content = await dump(site.dsn)
    secret = site.data_dir / "secret.key"
    day.keys["the master key"] = b64decode(secret.read_bytes())
    connection = await asyncpg.connect(site.dsn)
    try:
        day.events = [Written(*row) for row in await connection.fetch(_EVENTS)]
        master = MasterKey.load(secret, create=False)
        for tenant, wrapped in await connection.fetch("SELECT tenant, wrapped FROM emberlog.tenant_keys"):
            day.tenant_keys[tenant] = master.unwrap(tenant, wrapped)
        await _plant(day, connection)
        day.planted = await dump(site.dsn)
    finally:
        await connection.close()


async def _plant(day: Day, connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Put secrets where no secret belongs: a provider's words into an event, a key and a vector into a view's schema."""
    await connection.execute("CREATE TABLE projections.planted (a jsonb, b bytea, c real[])")
    vector = vector_of(day.text("second"), DIMENSIONS)
    await connection.execute(
        "INSERT INTO projections.planted VALUES ($1, $2, $3)",
        msgspec.json.encode({"message": f"Invalid input: '{day.text('first')[5:20]}'"}).decode(),
        b"-" + day.tenant_keys["default"],
        vector.tolist(),
    )
