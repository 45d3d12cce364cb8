"""`docs/events.md`, written from the event types themselves: `make docs`."""

from __future__ import annotations

import ast
import inspect
import textwrap

import msgspec

from domain.events import EVENT_TYPES, EventData

_HEAD = """# Events

Every event of the log, as `emberlog events tail --json` shows it. This page is made from the code by `make docs`.

Each event has a `position` (1..N without a gap), an `id` (a UUID that never changes), the `tenant` (`_system` for the installation's
own), a `stream`, a `version` within the stream for decisions (null for facts), its `type` and `schema_version`, `recorded_at` and `data`.
No event holds a text, a vector, a token or a key: fingerprints are keyed per tenant, free metadata is sealed with the tenant's key.

Fields at their default are left out of `data`.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(_section(struct) for struct in EVENT_TYPES.values())])


def _section(struct: type[EventData]) -> str:
    lines = [
        f"## {struct.TYPE}",
        "",
        _prose(struct),
        "",
        f"Schema version {struct.SCHEMA}.",
        "",
        "| field | type | default |",
        "|---|---|---|",
    ]
    fields = [
        f"| `{field.encode_name}` | {_type(struct, field.name)} | {_default(field)} |"
        for field in msgspec.structs.fields(struct)
    ]
    return "\n".join([*lines, *fields, ""])


def _prose(struct: type[EventData]) -> str:
    text = textwrap.dedent(inspect.getdoc(struct) or "").strip()
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _type(struct: type[EventData], name: str) -> str:
    """The annotation as it is written, which says more than a schema would."""
    for node in ast.parse(textwrap.dedent(inspect.getsource(struct))).body[0].body:  # type: ignore[attr-defined]  # it is a class
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            return f"`{ast.unparse(node.annotation)}`".replace("|", "\\|")
    raise LookupError(f"{struct.__name__} has no field {name}")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return f"`{field.default_factory()}`"
    return "" if field.default is msgspec.NODEFAULT else f"`{msgspec.json.encode(field.default).decode()}`"


if __name__ == "__main__":
    print(page(), end="")
