"""`emberlog projections` and `emberlog usage --as-of` as their user runs them, and every command of `docs/projections.md`."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from typer.testing import CliRunner

from gateway.cli import app as cli_app
from gateway.cli import progress as progress_module
from gateway.cli.progress import progress
from projections import cursor
from projections.connect import connect
from projections.generations import take_building
from projections.parking import list_parked, retry
from projections.projection import Projection
from projections.rebuild import Rebuild
from projections.requests import REQUESTS
from projections.runner import ALL
from projections.usage import USAGE
from tests.support.cli import Cli, Outcome
from tests.support.databases import with_user
from tests.support.projecting import Connection, Recorded, generated, some_history, write_log
from tests.support.sealing import PARTITION, unguard
from tests.support.views import fold_to, live_digest, own, plain, rows_of

PAGE = Path(__file__).parents[2] / "docs" / "projections.md"
START = datetime(2026, 1, 30, tzinfo=UTC)
HISTORY = some_history(400, start=START, seconds=700)
LONG = timedelta(seconds=60)
NAMES = ", ".join(projection.name for projection in ALL)


@pytest.fixture
def settings(migrated_dsn: str, tmp_path: Path) -> dict[str, str]:
    key = tmp_path / "secret.key"
    key.write_bytes(base64.b64encode(bytes(32)))
    return {
        "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
        "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
        "EMBERLOG_SECRET_KEY_FILE": str(key),
    }


@pytest.fixture
def cli(settings: dict[str, str]) -> Cli:
    return Cli(settings)


@pytest.fixture
async def app(migrated_dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(with_user(migrated_dsn, "emberlog_gateway"), "command tests")
    yield connection
    await connection.close()


async def head(owner: Connection) -> int:
    return int(await owner.fetchval("SELECT position FROM emberlog.head()"))


async def added(owner: Connection, after: int) -> list[tuple[str, dict[str, Any]]]:
    """The events behind a position: type and data, without when."""
    rows = await owner.fetch("SELECT type, data FROM emberlog.events WHERE position > $1 ORDER BY position", after)
    return [(r["type"], {k: v for k, v in json.loads(r["data"]).items() if k != "at"}) for r in rows]


async def fold_all(owner: Connection, app: Connection) -> int:
    """Both views up to the log's head, as a gateway would; nobody owns them afterwards."""
    at = await head(owner)
    for projection in ALL:
        await fold_to(app, projection, at)
    await cursor.evict_owners(app)
    return at


async def halt(app: Connection, projection: Projection, why: str) -> int:
    """The view stands halted before the next event."""
    fence = await own(app, projection)
    seen = await cursor.look(app, projection)
    await cursor.halt(app, projection, seen.generation, fence, seen.position + 1, why)
    await cursor.evict_owners(app)
    return seen.position + 1


def refused(outcome: Outcome, code: int = 1) -> str:
    """The one line on standard error of a command that failed, which printed nothing else."""
    assert (outcome.code, outcome.out) == (code, "")
    if code == 1:
        assert outcome.error.count("\n") == 1
    assert "Traceback" not in outcome.error
    return outcome.error


async def test_a_rebuild_says_what_it_did_and_adds_one_event_to_the_log(
    cli: Cli, owner: Connection, app: Connection
) -> None:
    await write_log(owner, HISTORY)
    at = await fold_all(owner, app)
    digest = await live_digest(app, USAGE)
    outcome = await cli.run("projections", "rebuild", "usage")
    assert (outcome.code, outcome.error) == (0, "")
    assert re.fullmatch(
        rf"usage: {at} events in [\d.]+ s \([\d,]+/s\), equal at position {at}; "
        r"generation 2 is read now, generation 1 is kept for rollback\n",
        outcome.out,
    )
    fact = {"projection": "usage", "generation": 2, "previous": 1, "up_to": at, "digest": digest, "equal": True}
    assert await added(owner, at) == [("projection.rebuilt", fact)]
    assert await live_digest(app, USAGE) == digest

    outcome = await cli.run("projections", "rebuild", "--all", "--json")
    assert (outcome.code, outcome.error) == (0, "")
    assert outcome.out.count("\n") == 1
    usage, requests, *others = json.loads(outcome.out)
    assert (usage["projection"], usage["generation"], usage["flipped"], usage["differing"]) == ("usage", 3, True, 0)
    assert (requests["projection"], requests["generation"], requests["digest"]) == ("requests", 2, requests["before"])
    assert [other["projection"] for other in others] == [projection.name for projection in ALL[2:]]
    assert [kind for kind, _ in await added(owner, at + 1)] == ["projection.rebuilt"] * len(ALL)
    assert await rows_of(app, USAGE) == plain(USAGE, HISTORY)


async def test_a_planted_difference_is_named_and_only_accepted_if_that_is_said(
    cli: Cli, owner: Connection, app: Connection
) -> None:
    await write_log(owner, HISTORY)
    at = await fold_all(owner, app)
    row = await owner.fetchrow(
        "UPDATE projections.usage_1 SET nano_usd = nano_usd + 17 WHERE ctid = (SELECT ctid FROM projections.usage_1 WHERE grain = 86400 "
        "AND requests > 0 LIMIT 1) RETURNING *"
    )
    assert row is not None
    key = ", ".join(
        f"{column}={'86400' if column == 'grain' else row[column]}"
        for column in ("tenant", "agent", "model", "provider")
    )
    line = f"{key}: nano_usd is {row['nano_usd']}, the log says {row['nano_usd'] - 17}\n"

    verified = await cli.run("projections", "verify", "usage")
    assert (verified.code, verified.error) == (1, "")
    assert f"usage: 1 rows differ from a fresh fold at position {at}" in verified.out
    assert verified.out.endswith(line)
    rebuilt = await cli.run("projections", "rebuild", "usage")
    assert (rebuilt.code, rebuilt.error) == (1, "")
    assert "1 rows differ at position" in rebuilt.out
    assert "generation 1 is still read: look at the rows, then repeat with --accept-differences" in rebuilt.out
    assert rebuilt.out.endswith(line)
    assert await head(owner) == at, "nothing was done, so nothing was logged"
    [found] = json.loads((await cli.run("projections", "rebuild", "usage", "--json")).out)
    assert (found["flipped"], found["differing"], found["resumed"]) == (False, 1, True)
    assert found["differences"][0]["columns"] == {"nano_usd": [row["nano_usd"], row["nano_usd"] - 17]}

    [accepted] = await cli.json("projections", "rebuild", "usage", "--accept-differences")
    assert (accepted["flipped"], accepted["differing"]) == (True, 1)
    assert [(kind, data["equal"]) for kind, data in await added(owner, at)] == [("projection.rebuilt", False)]
    [equal] = await cli.json("projections", "verify", "usage")
    assert (equal["digest"], equal["differing"]) == (equal["expected"], 0)
    assert await rows_of(app, USAGE) == plain(USAGE, HISTORY)

    back = await cli.json("projections", "rollback", "usage")
    assert back == {"projection": "usage", "generation": 1, "previous": 2}
    assert [kind for kind, _ in await added(owner, at + 1)] == ["projection.rolled_back"]
    assert await rows_of(app, USAGE) != plain(USAGE, HISTORY), "what was wrong is read again"


async def test_a_view_and_the_usage_are_shown_as_they_were_at_any_place_of_the_log(
    cli: Cli, owner: Connection, app: Connection
) -> None:
    stood: dict[int, tuple[str, Any]] = {}
    for end in (100, 251, 400):
        await write_log(owner, HISTORY[await head(owner) : end])
        await fold_all(owner, app)
        stood[end] = await live_digest(app, USAGE), await cli.json("usage", "--grain", "hour")
    for end, (digest, usage) in stood.items():
        for place in (str(end), HISTORY[end - 1].at.isoformat()):
            found = await cli.json("projections", "show", "usage", "--as-of", place, "--limit", "2")
            assert (found["position"], found["digest"], len(found["rows"])) == (end, digest, 2)
        assert await cli.json("usage", "--grain", "hour", "--as-of", str(end)) == usage
    now = await cli.json("projections", "show", "usage")
    assert list(now["rows"][0])[:4] == ["grain", "bucket", "tenant", "agent"]
    assert (now["position"], now["digest"]) == (400, stood[400][0])
    text = await cli.run("projections", "show", "usage", "--as-of", "0")
    assert (text.code, text.error) == (0, "")
    assert text.out.startswith("usage at position 0 (before the first event), digest ")
    assert await head(owner) == 400, "looking back leaves no trace"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rebuild"], f"expected one of {NAMES}, or --all"),
        (["rebuild", "nothing"], "expected one of usage, requests"),
        (["rebuild", "usage", "--all"], "expected one of usage, requests"),
        (["verify", "nothing"], "expected one of usage, requests"),
        (["rollback", "nothing"], "expected one of usage, requests"),
        (["show", "nothing"], "expected one of usage, requests"),
        (["park", "nothing"], "expected one of usage, requests"),
        (["parked", "list", "nothing"], f"expected one of {NAMES}"),
        (["parked", "retry", "nothing", "1"], "expected one of usage, requests"),
        (["parked", "discard", "usage", "0"], "greater than or equal to 1"),
        (["parked", "discard", "usage", "first"], "valid integer"),
        (["show", "usage", "--as-of", "yesterday"], "'yesterday' is no time"),
        (["show", "usage", "--as-of=-5"], "'-5' is no time"),
        (["show", "usage", "--as-of", "9" * 19], "at most 18 digits"),
        (["show", "usage", "--limit", "-1"], "greater than or equal to 0"),
    ],
)
def test_wrong_usage_ends_with_exit_code_2_before_anything_is_opened(words: list[str], says: str) -> None:
    result = CliRunner().invoke(cli_app, ["projections", *words])
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "usage", "--as-of", "21"], "the log ends at position 20: expected a position up to there"),
        (["show", "usage", "--as-of", "2100-01-01"], "2100-01-01T00:00:00Z lies in the future"),
        (["show", "usage", "--as-of", "2020-01-01"], "the log holds nothing as old as 2020-01-01T00:00:00Z"),
        (["parked", "retry", "usage", "7"], "no event at position 7 waits for 'usage'"),
        (["parked", "discard", "requests", "7"], "no event at position 7 waits for 'requests'"),
        (["park", "usage"], "'usage' is not halted: there is no event to park"),
        (["rollback", "usage"], "'usage' has no generation to go back to: only a rebuild leaves one, for a week"),
    ],
)
async def test_what_cannot_be_done_is_one_line_and_leaves_the_log_as_it_was(
    cli: Cli, owner: Connection, app: Connection, words: list[str], says: str
) -> None:
    await write_log(owner, HISTORY[:20])
    await fold_all(owner, app)
    digest = await live_digest(app, USAGE)
    assert says in refused(await cli.run("projections", *words, "--json"))
    if words[0] == "show":
        assert says in refused(await cli.run("usage", *words[2:]))
    assert await head(owner) == 20
    assert await live_digest(app, USAGE) == digest


@pytest.mark.parametrize("command", ["list", "rebuild usage", "parked retry usage 7"])
async def test_without_the_database_a_command_says_so(command: str, settings: dict[str, str]) -> None:
    away = Cli({**settings, "EMBERLOG_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    error = refused(await away.run("projections", *command.split()))
    assert error.startswith("emberlog: ")
    assert "127.0.0.1" in error or "reach" in error


async def test_a_second_rebuild_is_refused_while_another_process_is_at_it(
    cli: Cli, owner: Connection, app: Connection
) -> None:
    await write_log(owner, HISTORY[:20])
    await fold_all(owner, app)
    await take_building(app, USAGE, uuid4())
    error = refused(await cli.run("projections", "rebuild", "usage"))
    assert error == (
        "emberlog: a rebuild or rollback of 'usage' is under way in another process: wait for it. If that process was killed, run this "
        "again in 30 s\n"
    )
    assert await head(owner) == 20


async def test_an_event_that_cannot_be_folded_is_let_go_by_and_folded_once_it_can_be(
    cli: Cli, owner: Connection, app: Connection
) -> None:
    """Tokens beyond 64 bits halt the usage view of this very release; what mends it here is a change of the event behind its back."""
    bad = msgspec.structs.replace(generated("x"), tokens=2**80)  # type: ignore[arg-type]  # it is one
    history = [*HISTORY[:20], Recorded(HISTORY[20].at, "t0", bad), *HISTORY[20:40]]
    await write_log(owner, history)
    error = refused(await cli.run("usage", "--wait", "20"))
    assert "the projection 'usage' stands at position 20 and cannot go on: NumericValueOutOfRangeError: 22003" in error
    assert str(2**80) not in error
    [usage, *_] = await cli.json("projections", "list")
    assert (usage["state"], usage["position"], usage["failed_position"], usage["parked"]) == ("halted", 20, 21, 0)
    for command in (["rebuild", "usage"], ["rollback", "usage"]):
        error = refused(await cli.run("projections", *command))
        assert "'usage' is halted before the event at position 21" in error
        assert "`emberlog projections park usage`" in error
    for command in (["usage"], ["projections", "show", "usage"]):
        error = refused(await cli.run(*command, "--as-of", "21"))
        assert "an event at position 21 cannot be folded (NumericValueOutOfRangeError: 22003" in error
        assert str(2**80) not in error
        assert (await cli.run(*command, "--as-of", "20")).code == 0

    before = await head(owner)
    assert await cli.json("projections", "park", "usage") == {"projection": "usage", "position": 21}
    [(kind, data)] = await added(owner, before)
    assert (kind, data["failed_position"]) == ("projection.parked", 21)
    assert (await cli.run("usage")).code == 0
    assert await rows_of(app, USAGE) == plain(USAGE, history, [21])
    [parked] = await cli.json("projections", "parked", "list")
    assert (parked["id"], parked["projection"], parked["position"], parked["discarded_at"]) == (
        "usage/21",
        "usage",
        21,
        None,
    )
    [usage, *_] = await cli.json("projections", "list")
    assert (usage["state"], usage["parked"]) == ("live", 1)
    error = refused(await cli.run("projections", "parked", "retry", "usage", "21"))
    assert "the event at position 21 still cannot be folded: NumericValueOutOfRangeError: 22003" in error
    assert (await cli.run("projections", "verify", "usage")).code == 0
    [rebuilt] = await cli.json("projections", "rebuild", "usage")
    assert (rebuilt["flipped"], rebuilt["digest"]) == (True, rebuilt["before"])

    await unguard(owner)
    await owner.execute(f"UPDATE {PARTITION} SET data = jsonb_set(data, '{{tokens}}', '7') WHERE position = 21")
    before = await head(owner)
    outcome = await cli.run("projections", "parked", "retry", "usage", "21")
    assert (outcome.code, outcome.out) == (0, "usage: retried the event at position 21\n")
    fact = {"projection": "usage", "generation": 2, "failed_position": 21, "action": "retried"}
    assert await added(owner, before) == [("projection.unparked", fact)]
    history[20] = Recorded(HISTORY[20].at, "t0", generated("x"))
    assert await rows_of(app, USAGE) == plain(USAGE, history)
    assert await cli.json("projections", "parked", "list") == []


def test_progress_goes_to_standard_error_now_and_then_and_never_with_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0.0)
    with progress("rebuilding usage") as advance:
        advance(0, 1000)
        advance(250, 1000)
    out, error = capsys.readouterr()
    assert out == ""
    first, second = error.splitlines()
    assert first == "rebuilding usage: 0 of 1,000 events, 0/s"
    assert re.fullmatch(r"rebuilding usage: 250 of 1,000 events, [\d,]+/s, about [\d,]+ s left", second)
    with progress("rebuilding usage", quiet=True) as advance:
        advance(250, 1000)
    assert capsys.readouterr() == ("", "")


def page_commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


async def test_every_command_of_the_page_does_what_it_says(
    cli: Cli, settings: dict[str, str], owner: Connection, app: Connection
) -> None:
    dsn = settings["EMBERLOG_DATABASE_URL"]
    await write_log(owner, HISTORY)
    fence = await own(app, REQUESTS)
    await cursor.fold(app, REQUESTS, 1, fence, 0, 120, LONG)
    await cursor.park(app, REQUESTS, 1, fence, 121, "by hand", LONG)
    await cursor.park(app, REQUESTS, 1, fence, 122, "by hand", LONG)
    await fold_all(owner, app)

    async def halted() -> None:
        await write_log(owner, [Recorded(datetime.now(UTC), "t", generated("y"))])
        await halt(app, USAGE, "why")

    async def mended() -> None:
        [waits] = await list_parked(app, "usage")
        await retry(app, USAGE, waits.position)

    async def accepted() -> None:
        await Rebuild(dsn, REQUESTS).run(accept_differences=True)

    given: dict[str, Callable[[], Awaitable[object]]] = {
        "emberlog projections park usage": halted,
        "emberlog projections verify usage": mended,
        "emberlog projections rebuild --all": accepted,  # the new generation has folded what the one before had given up
    }
    commands = page_commands()
    for command in commands:
        if command in given:
            await given[command]()
        outcome = await cli.run(*shlex.split(command)[1:])
        assert (outcome.code, outcome.error) == (0, ""), command
        assert outcome.out
    for word in (
        "list",
        "verify",
        "rebuild",
        "rollback",
        "show",
        "park",
        "parked list",
        "parked retry",
        "parked discard",
    ):
        assert any(command.startswith(f"emberlog projections {word}") for command in commands), word
    assert any("--as-of" in command for command in commands if command.startswith("emberlog usage"))
