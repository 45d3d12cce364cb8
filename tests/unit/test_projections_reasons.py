"""Why a view halted or parked an event: said without what the event holds, and told from what is no event's fault."""

from __future__ import annotations

import asyncpg
import pytest

from domain.upcasters import UnknownSchema
from projections.projection import GapInLog
from projections.worker import passing, poison, reason


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (asyncpg.NumericValueOutOfRangeError('value "123456" is out of range for type bigint'), "22003: value ... is out of range for type bigint"),
        (asyncpg.InvalidTextRepresentationError('invalid input syntax for type integer: "my "secret""'), "22P02: invalid input syntax for type integer"),
        (asyncpg.DatetimeFieldOverflowError('a "sec"ret" and "more" of it'), "22008: a ... of it"),
        (asyncpg.DatetimeFieldOverflowError('cut off within "the value'), "22008: cut off within ..."),
        (asyncpg.NotNullViolationError('null value in column "agent" violates not-null constraint'), '23502: null value in column "agent" violates not-null constraint'),
        (asyncpg.UndefinedTableError('relation "x" does not exist'), '42P01: relation "x" does not exist'),
        (asyncpg.RaiseError('cannot fold: "secret"'), "P0001: cannot fold"),
    ],
)  # fmt: skip
def test_a_reason_names_tables_and_columns_and_no_value(error: Exception, said: str) -> None:
    assert reason(error) == f"{type(error).__name__}: {said}"


@pytest.mark.parametrize(
    ("error", "of_the_event", "passes"),
    [
        (asyncpg.NumericValueOutOfRangeError(""), True, False),
        (asyncpg.CheckViolationError(""), True, False),
        (asyncpg.RaiseError(""), True, False),
        (asyncpg.UndefinedTableError(""), False, False),
        (asyncpg.InsufficientPrivilegeError(""), False, False),
        (asyncpg.InternalServerError(""), False, False),
        (asyncpg.DiskFullError(""), False, True),
        (asyncpg.DeadlockDetectedError(""), False, True),
        (asyncpg.LockNotAvailableError(""), False, True),
        (asyncpg.AdminShutdownError(""), False, True),
        (UnknownSchema(""), False, False),
        (GapInLog(""), False, False),
    ],
)
def test_what_an_event_is_at_fault_for_is_told_from_what_passes_and_from_what_a_person_must_mend(
    error: Exception, of_the_event: bool, passes: bool
) -> None:
    assert (poison(error), passing(error)) == (of_the_event, passes)
