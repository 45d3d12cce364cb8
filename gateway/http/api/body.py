"""Bodies of the management API: JSON of the route's struct, every failing field told at once."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import msgspec

from domain.errors import GatewayError, invalid_request
from domain.problems import Problems
from gateway.http.body import not_json

MAX_BYTES = 1024 * 1024


def decode(data: bytes, struct: type) -> Any:
    """The body as `struct`. Raises `invalid_message` for what is no JSON, `invalid_config` naming every field of a wrong type, missing or unknown."""
    if not data:
        message = "the body is empty: expected one JSON object, {} where nothing is to be said"
        raise GatewayError("invalid_message", message, details={"field": "body"})
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise not_json(error) from None
    if not isinstance(raw, dict):
        raise invalid_request("the body must be one JSON object", "body")
    problems = Problems()
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    nul = b"\\u0000" in data  # the only way in which JSON can say it
    for name, value in raw.items():
        if problems.full:
            break
        field = fields.get(name)
        if field is None:
            problems.add(name[:64], f"there is no such field; expected some of {', '.join(fields)}")
            continue
        try:
            msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            where, _, why = str(error).rpartition(" - at `$")
            problem = where or str(error)
            if problem.startswith("Invalid enum value") and (known := _choices(field.type)):
                problem = f"{problem[:80]}; expected one of {', '.join(known)}"
            problems.add(name + why.rstrip("`") if where else name, problem)
        except RecursionError:
            problems.add(name, "nested too deeply")
        else:
            if nul and _holds_nul(value):
                problems.add(name, "holds a NUL character, which no text may")
    for name, field in fields.items():
        if field.required and name not in raw:
            problems.add(name, "is missing")
    problems.check("the body")
    return msgspec.convert(raw, struct)


def _choices(kind: Any) -> list[str]:
    """The values of the `Literal` types in it."""
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return [choice for part in get_args(kind) for choice in _choices(part)]


def _holds_nul(value: Any) -> bool:
    """Whether a text somewhere in it does."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            if "\0" in one:
                return True
        elif isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list):
            left += one
    return False
