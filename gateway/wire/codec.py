"""Client messages from bytes, and what is wrong with those that are none.

Decoding is typed, so the cost of a message is bounded by its fields: unknown ones are skipped, never built. The reasons for a
refusal are looked up afterwards, where time does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from domain.errors import GatewayError
from gateway.wire.messages import (
    AgentRegister,
    ClientMessage,
    EmbeddingGenerate,
    RequestCancel,
    SearchQuery,
    SessionOpen,
)
from gateway.wire.salvage import salvage_id

SMALL = 64 * 1024
"""Every message but `embedding.generate` and `search.query` fits in so many bytes."""
TYPES: dict[str, type[msgspec.Struct]] = {
    str(t.__struct_config__.tag): t for t in (SessionOpen, AgentRegister, EmbeddingGenerate, SearchQuery, RequestCancel)
}

decode_fast = msgspec.msgpack.Decoder(ClientMessage).decode
encode = msgspec.msgpack.Encoder().encode

_PATH = re.compile(r" - at (`key` in )?`\$([^`]*)`$")
_MISSING = re.compile(r"missing required field `([^`]+)`")
_INDEX = re.compile(r"\[(\d+|\.\.\.)\]")


class Refused(Exception):
    """A message that cannot be taken. `malformed`: not MessagePack or not a map. `kind`: its type, where that could be read."""

    def __init__(
        self, error: GatewayError, *, message_id: str | None = None, kind: str | None = None, malformed: bool = False
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.message_id = message_id
        self.kind = kind
        self.malformed = malformed


class _Envelope(msgspec.Struct):
    type: msgspec.Raw = msgspec.Raw()
    id: msgspec.Raw = msgspec.Raw()


_decode_envelope = msgspec.msgpack.Decoder(_Envelope).decode
_decode_str = msgspec.msgpack.Decoder(str).decode


def decode(data: bytes) -> ClientMessage:
    """The message. Raises `Refused`."""
    try:
        if len(data) > SMALL:
            _refuse_large(data)
        message: ClientMessage = decode_fast(data)
    except (ValueError, RecursionError) as failure:
        raise explain(data, failure) from None
    # Most small messages hold no zero byte at all; only the others are looked through string by string.
    if b"\0" in data and not (type(message) is EmbeddingGenerate and _plain(message)):
        _refuse_nul(message)
    return message


def explain(data: bytes, failure: Exception) -> Refused:
    """Why `decode_fast` failed on these bytes."""
    try:
        envelope = _decode_envelope(data)
    except (ValueError, RecursionError) as wrong:
        return _no_envelope(data, wrong)
    message_id, kind = _id(envelope.id), _string(envelope.type)
    if kind is None:
        what = "is missing" if not bytes(envelope.type) else "is not a string"
        return Refused(_invalid(f"`type` {what}: expected one of {', '.join(TYPES)}", "type"), message_id=message_id)
    if kind not in TYPES:
        error = GatewayError(
            "unknown_type",
            f"unknown message type {kind[:64]!r}: expected one of {', '.join(TYPES)}",
            details={"field": "type"},
        )
        return Refused(error, message_id=message_id, kind=kind)
    return Refused(_field_error(data, kind, failure), message_id=message_id, kind=kind)


def _no_envelope(data: bytes, wrong: Exception) -> Refused:
    """What is wrong with a frame whose type and id cannot even be looked up."""
    message_id = salvage_id(data)
    if isinstance(wrong, UnicodeDecodeError):
        return Refused(_invalid("a field name is not UTF-8: expected one map with string keys"), message_id=message_id)
    if isinstance(wrong, RecursionError):
        why = "the message is nested too deeply: expected one map of plain fields"
    elif not isinstance(wrong, msgspec.ValidationError):
        why = f"the frame is not one MessagePack map ({wrong}): send one whole map per binary frame"
    elif "`key` in" in str(wrong):
        return Refused(
            _invalid("a field name is not a string: expected one map with string keys"), message_id=message_id
        )
    else:
        why = "the message is not a map: expected one MessagePack map per binary frame"
    return Refused(_invalid(why), message_id=message_id, malformed=True)


def _field_error(data: bytes, kind: str, failure: Exception) -> GatewayError:
    if isinstance(failure, UnicodeDecodeError):
        field = _unreadable(data, kind)
        return _invalid(f"`{field}` holds a string that is not valid UTF-8 (lone surrogates are not)", field)
    if isinstance(failure, RecursionError):
        return _invalid("the message is nested too deeply: expected one map of plain fields")
    return field_error(failure, TYPES[kind])


def field_error(failure: Exception, struct: type[msgspec.Struct], prefix: str = "") -> GatewayError:
    """What msgspec's `ValidationError` about a `struct` means to its sender: the field, the index, what was expected.

    A wrong type is `invalid_message`; a value outside its range, or none of its choices, `invalid_request`.
    """
    text = str(failure)
    field, index = _where(text)
    field = prefix or field
    problem = _PATH.sub("", text)
    if "Invalid enum value" in text:
        expected = ", ".join(_choices(struct, field))
        return _invalid(f"`{field}` has an unknown value: expected one of {expected}", field, code="invalid_request")
    if str(2**63 - 1) in text or str(-(2**63)) in text:
        return _invalid(f"`{field}` is beyond the 64-bit integers", field)
    problem = problem.replace("`array`", "a list").replace("`object`", "a map").replace("`", "")
    bound = re.search(r"of length|[<>]=", text) is not None and field != "id"
    code = "invalid_request" if bound else "invalid_message"
    return _invalid(f"`{field}`: {problem[:1].lower()}{problem[1:]}", field, index, code=code)


def _where(text: str) -> tuple[str, int | None]:
    """The field (dotted) and the index inside it that a decoder's message points at."""
    match = _PATH.search(text)
    path = match[2] if match else ""
    missing = _MISSING.search(text)
    if missing:
        path = f"{path}.{missing[1]}"
    indexes = [i for i in _INDEX.findall(path) if i != "..."]
    return _INDEX.sub("", path).strip(".") or "type", int(indexes[0]) if indexes else None


def _choices(struct: type[msgspec.Struct], field: str) -> list[str]:
    info: Any = msgspec.inspect.type_info(struct)
    for part in field.split("."):
        info = next((f.type for f in info.fields if f.encode_name == part), None)
        for option in getattr(info, "types", (info,)):
            if isinstance(option, msgspec.inspect.LiteralType):
                return [str(v) for v in option.values]
            if isinstance(option, msgspec.inspect.StructType):
                info = option
    return []


def _unreadable(data: bytes, kind: str) -> str:
    """The field whose string is not UTF-8, found by decoding them one by one."""
    fields = msgspec.structs.fields(TYPES[kind])
    raw_type = msgspec.defstruct("Raw", [(f.encode_name, msgspec.Raw, msgspec.Raw()) for f in fields])
    raw = msgspec.msgpack.decode(data, type=raw_type)
    for field in fields:
        value = getattr(raw, field.encode_name)
        try:
            if bytes(value):
                msgspec.msgpack.decode(value, type=field.type)
        except UnicodeDecodeError:
            return field.encode_name
        except ValueError:
            continue
    return "type"


def _refuse_large(data: bytes) -> None:
    """Only texts make a message large; the rest would let a few bytes build a mountain of small objects."""
    envelope = _decode_envelope(data)
    kind = _string(envelope.type)
    if kind in TYPES and kind not in ("embedding.generate", "search.query"):
        error = _invalid(f"a message of type {kind} may have at most {SMALL} bytes", "type")
        raise Refused(error, message_id=_id(envelope.id), kind=kind)


def _plain(message: EmbeddingGenerate) -> bool:
    """Whether no string of the message holds a NUL, decided quickly; False also where only a closer look can tell."""
    source = message.input
    return (
        ("\0" not in source if isinstance(source, str) else "\0" not in "".join(source))
        and "\0" not in message.id
        and (message.model is None or "\0" not in message.model)
        and (message.thread is None or "\0" not in message.thread)
        and (message.task is None or "\0" not in message.task)
        and message.metadata is None
        and message.store is None
    )


def _refuse_nul(message: ClientMessage) -> None:
    error = nul_error(message)
    if error is not None:
        raise Refused(
            error, message_id=message.id if "\0" not in message.id else None, kind=str(message.__struct_config__.tag)
        )


def nul_error(message: msgspec.Struct) -> GatewayError | None:
    """What is wrong with the first string of a message that holds a NUL, naming its field; None when none does."""
    for path, index, value in _strings(message, "", None):
        if "\0" in value:
            return _invalid(f"`{path}` holds a NUL character, which no string may", path, index)
    return None


def _strings(value: object, path: str, index: int | None) -> Iterator[tuple[str, int | None, str]]:
    if isinstance(value, str):
        yield path, index, value
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _strings(item, path, i)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield path, None, key
            yield from _strings(item, path, None)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _strings(getattr(value, name), f"{path}.{name}" if path else name, None)


def _string(raw: msgspec.Raw) -> str | None:
    try:
        value = _decode_str(raw)
    except (ValueError, RecursionError):
        return None
    return value


def _id(raw: msgspec.Raw) -> str | None:
    value = _string(raw)
    return value if value is not None and 1 <= len(value) <= 64 and "\0" not in value else None


def _invalid(
    message: str, field: str | None = None, index: int | None = None, *, code: str = "invalid_message"
) -> GatewayError:
    details: dict[str, Any] = {}
    if field is not None:
        details["field"] = field
    if index is not None:
        details["index"] = index
    return GatewayError(code, message, details=details or None)
