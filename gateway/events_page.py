"""`docs/events.md`, written from the event types themselves: `make docs`."""

from __future__ import annotations

import ast
import inspect
import textwrap

import msgspec

from domain.events import EVENT_TYPES, EventData
from domain.upcasters import STEPS

_HEAD = """# Events

Every event of the log, as `emberlog events tail --json` shows it. This page is made from the code by `make docs`.

Each event has a `position` (1..N without a gap), an `id` (a UUID that never changes), the `tenant` (`_system` for the installation's
own), a `stream`, a `version` within the stream for decisions (null for facts), its `type` and `schema_version`, `recorded_at` and `data`.
No event holds a text, a vector, a token or a key: fingerprints are keyed per tenant, free metadata is sealed with the tenant's key.

Fields at their default are left out of `data`. Fields marked *sealed* are encrypted with the tenant's key, those marked *keyed* are
fingerprints made with it: when the key is destroyed, the former cannot be opened and the latter not be guessed any more.

An event is never rewritten. One of an older schema version is read by way of the upcasters, which take its data from version to version.
One of a newer version is left to a build that knows it, but for what takes access away (`key.revoked`, `tenant.shredded`): every
build obeys that, by the fields it knows.

"""


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD + _overview(), *(_section(struct) for struct in EVENT_TYPES.values())])


def _overview() -> str:
    lines = ["| type | kind | schema version | upcasters from |", "|---|---|---|---|"]
    for name, struct in EVENT_TYPES.items():
        steps = ", ".join(str(version) for version in _steps(name)) or "none"
        lines.append(f"| [`{name}`](#{name.translate(_ANCHOR)}) | {_kind(struct)} | {struct.SCHEMA} | {steps} |")
    return "\n".join([*lines, ""])


_ANCHOR = str.maketrans("", "", ".")


def _steps(name: str) -> list[int]:
    """The schema versions of a type that there is a step from."""
    return sorted(version for kind, version in STEPS if kind == name)


def _kind(struct: type[EventData]) -> str:
    return "decision" if struct.DECISION else "fact"


def _section(struct: type[EventData]) -> str:
    lines = [
        f"## {struct.TYPE}",
        "",
        _prose(struct),
        "",
        f"{_kind(struct).capitalize()} in the stream {_streams(struct)}. {_versions(struct)}",
        "",
        "| field | type | default |",
        "|---|---|---|",
    ]
    fields = [
        f"| `{field.encode_name}` | {_type(struct, field.name)}{_protection(struct, field.name)} | {_default(field)} |"
        for field in msgspec.structs.fields(struct)
    ]
    return "\n".join([*lines, *fields, ""])


def _streams(struct: type[EventData]) -> str:
    return " or ".join(f"`{stream}`" for stream in struct.STREAMS)


def _versions(struct: type[EventData]) -> str:
    """Today's schema version, and from which there are steps: each leads one version on."""
    steps = " and ".join(f"{version} to {version + 1}" for version in _steps(struct.TYPE))
    return f"Schema version {struct.SCHEMA}; {f'upcasters {steps}' if steps else 'no upcasters'}."


def _protection(struct: type[EventData], field: str) -> str:
    return ", *sealed*" if field in struct.SEALED else ", *keyed*" if field in struct.KEYED else ""


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
