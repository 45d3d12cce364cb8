"""Models of the catalogue in a log, and the model_catalog view folded from it in plain Python."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import strategies as st

from domain.events import (
    EventData,
    ModelRegistered,
    ModelSpec,
    ModelStateChanged,
    ModelUpdated,
    ModelValidated,
    OfferingSpec,
)
from domain.model_lifecycle import STATES

if TYPE_CHECKING:  # it imports us
    from tests.support.projecting import Recorded, Row

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ids = st.sampled_from(["m1", "m2"])
_words = st.lists(st.sampled_from(["ä", "b\"'\\", "c/d"]), max_size=2)
_offerings = st.lists(
    st.builds(
        OfferingSpec,
        provider=st.sampled_from(["p", "q"]),
        provider_model=st.sampled_from(["ä", '"']),
        max_inputs=st.integers(1, 9),
        max_tokens_per_call=st.integers(1, 9),
        takes_tokens=st.booleans(),
        config=st.dictionaries(st.sampled_from(["x", "yy", "z"]), st.sampled_from(["ä", '"']), max_size=2),
    ),
    max_size=2,
)
_specs = st.builds(
    ModelSpec,
    version=st.sampled_from(["1", "2"]),
    dimensions=st.integers(1, 9),
    max_tokens=st.integers(1, 9),
    unit=st.booleans(),
    rank=st.sampled_from([1, 1000]),
    name=st.sampled_from([None, "ä"]),
    type=st.sampled_from(["embedding", "other"]),
    tokenizer=st.sampled_from([None, "cl100k_base"]),
    dimensions_allowed=st.lists(st.integers(1, 9), max_size=2),
    dimensions_range=st.sampled_from([None, (2, 9)]),
    aliases=_words,
    supports_binary=st.booleans(),
    minimum_tier=st.sampled_from(["free", "pro"]),
    capabilities=_words,
    owned_by=st.sampled_from(["", "ä"]),
)
_origins = st.sampled_from(["operator", "shipped"])
_states = st.sampled_from(STATES)
MODEL_DATA: st.SearchStrategy[EventData] = st.one_of(
    st.builds(ModelRegistered, model=_ids, spec=_specs, offerings=_offerings, state=_states, origin=_origins),
    st.builds(ModelUpdated, model=_ids, spec=_specs, offerings=_offerings, origin=_origins),
    st.builds(
        ModelStateChanged,
        model=_ids,
        state=_states,
        previous=_states,
        available=st.booleans(),
        reason=st.sampled_from([None, "ä"]),
        removed_at=st.none() | st.integers(0, 2**32),
    ),
    st.builds(
        ModelValidated,
        model=_ids,
        endpoint=st.just("e"),
        passed=st.booleans(),
        at=st.just(1),
        problems=st.lists(st.just("ä"), max_size=1),
    ),
)
"""What an event says of a model."""


def model_event(n: int) -> EventData:
    """The n-th event of a history of three models."""
    model = f"m{n % 3}"
    match n // 3 % 4:
        case 0:
            spec = ModelSpec(version="1", dimensions=8, max_tokens=9, aliases=[f"a{n}"], dimensions_range=(2, 8))
            return ModelRegistered(model=model, spec=spec, offerings=[OfferingSpec("p", "ä", 1, 9, config={"x": "1"})])
        case 1:
            return ModelValidated(model=model, endpoint="e", passed=n % 2 == 0, at=1, problems=["ä"] * (n % 2))
        case 2:
            return ModelStateChanged(model=model, state="deprecated", previous="available", removed_at=n * 86_400)
        case _:
            return ModelUpdated(model=model, spec=ModelSpec(version="2", dimensions=n, max_tokens=9), offerings=[])


def plain_model_catalog(events: Sequence[Recorded], skip: Collection[int] = ()) -> list[Row]:
    """The model_catalog view of these events but those at the positions `skip`, in the order of its key."""
    parts: dict[str, dict[str, tuple[int, Recorded]]] = {}
    times: dict[str, list[datetime]] = {}
    created: dict[str, datetime] = {}
    for position, event in enumerate(events, 1):
        data = event.data
        if position in skip or not isinstance(
            data, ModelRegistered | ModelUpdated | ModelStateChanged | ModelValidated
        ):
            continue
        last, here = parts.setdefault(data.model, {}), (position, event)
        times.setdefault(data.model, []).append(event.at)
        if isinstance(data, ModelRegistered | ModelUpdated):
            last["facts"] = here
        if isinstance(data, ModelRegistered | ModelStateChanged):
            last["state"] = here
        if isinstance(data, ModelRegistered):
            created[data.model] = min(created.get(data.model, event.at), event.at)
        if isinstance(data, ModelValidated):
            last["validation"] = here
    return [
        (
            model, created.get(model), max(times[model]),
            *_facts(last.get("facts")), *_state(last.get("state")), *_validation(last.get("validation")),
        )
        for model, last in sorted(parts.items())
    ]  # fmt: skip


def _facts(last: tuple[int, Recorded] | None) -> list[Any]:
    if last is None:
        return [None] * 20
    position, event = last
    data: Any = event.data
    spec, offerings = data.spec, data.offerings
    return [
        position, spec.name, spec.version, offerings[0].provider if offerings else None, spec.type, spec.model_type,
        spec.dimensions, spec.dimensions_range[0] if spec.dimensions_range else min(spec.dimensions_allowed, default=None),
        spec.max_tokens, spec.unit, spec.tokenizer, spec.rank, jsonb(spec.aliases), jsonb(spec.capabilities),
        spec.supports_binary, bool(spec.dimensions_range or spec.dimensions_allowed), spec.minimum_tier, spec.owned_by,
        jsonb(offerings), data.origin,
    ]  # fmt: skip


def _state(last: tuple[int, Recorded] | None) -> list[Any]:
    if last is None:
        return [None] * 6
    position, event = last
    data: Any = event.data
    available, removed_at = getattr(data, "available", True), getattr(data, "removed_at", None)
    return [
        position, data.state, data.state == "available" or (data.state == "deprecated" and available),
        data.state == "deprecated", None if removed_at is None else _EPOCH + timedelta(seconds=removed_at),
        getattr(data, "reason", None),
    ]  # fmt: skip


def _validation(last: tuple[int, Recorded] | None) -> list[Any]:
    if last is None:
        return [None] * 5
    position, event = last
    data: Any = event.data
    return [position, event.at, data.passed, data.endpoint, jsonb(data.problems)]


def jsonb(value: Any) -> str:
    """A value of event data as Postgres writes it: shorter names first."""

    def ordered(plain: Any) -> Any:
        if isinstance(plain, dict):
            return {k: ordered(plain[k]) for k in sorted(plain, key=lambda k: (len(k.encode()), k))}
        return [ordered(item) for item in plain] if isinstance(plain, list) else plain

    return json.dumps(ordered(msgspec.json.decode(msgspec.json.encode(value))), ensure_ascii=False)
