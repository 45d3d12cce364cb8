"""The frozen corpus: events as past releases wrote them, which every build must read as the same facts.

`tests/corpus/events-<release>.ndjson` holds the events, in an order in which they may stand in a log; the same line of
`events-<release>.read.ndjson` holds what the event is read as, every field written out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

FOLDER = Path(__file__).parents[1] / "corpus"


class CorpusEvent(NamedTuple):
    """An event of the corpus. `data` is its JSON as it was written."""

    type: str
    schema_version: int
    tenant: str
    stream: str
    data: bytes


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    schema_version: int
    tenant: str
    stream: str
    data: msgspec.Raw


def releases(folder: Path = FOLDER) -> list[Path]:
    """The files of the corpus, oldest name first."""
    return sorted(path for path in folder.glob("events-*.ndjson") if not path.name.endswith(".read.ndjson"))


def corpus(folder: Path = FOLDER) -> Iterator[CorpusEvent]:
    """Every event of every release."""
    for path in releases(folder):
        for line in msgspec.json.Decoder(_Line).decode_lines(path.read_bytes()):
            yield CorpusEvent(line.type, line.schema_version, line.tenant, line.stream, bytes(line.data))


def readings(folder: Path = FOLDER) -> Iterator[dict[str, Any]]:
    """What each event of `corpus` is read as, in the same order."""
    for path in releases(folder):
        yield from msgspec.json.Decoder(dict[str, Any]).decode_lines(path.with_suffix(".read.ndjson").read_bytes())


def written_out(value: Any) -> Any:
    """Decoded data with every field, those at their default as well, which the encoding leaves out."""
    if isinstance(value, msgspec.Struct):
        return {f.encode_name: written_out(getattr(value, f.name)) for f in msgspec.structs.fields(value)}
    if isinstance(value, list):
        return [written_out(item) for item in value]
    if isinstance(value, dict):
        return {key: written_out(item) for key, item in value.items()}
    return value
