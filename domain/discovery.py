"""Deciding on what a provider's list of models says: which are new, which changed, which are gone. No list is trusted: what is garbled is left
out, what is missing has to be missing twice, and a list that lacks most of what it held decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import takewhile
from typing import TYPE_CHECKING

import msgspec

from domain.catalogue import EMBEDDING
from domain.decision import Decision
from domain.discoveries import Discovered
from domain.events import (
    SYSTEM_TENANT,
    EventData,
    ModelRegistered,
    ModelSpec,
    ModelStateChanged,
    ModelUpdated,
    OfferingSpec,
)
from domain.model_catalog import CatalogModel, frozen_changes
from domain.model_config import MAX_CREATED, MAX_DIMENSIONS, MAX_LISTED, MAX_TOKENS, check_model
from domain.model_decisions import Step, decide_change, model_stream
from domain.model_lifecycle import AVAILABLE, DRAFT, EDGES, REMOVED, TESTING, UNAVAILABLE
from domain.ports.lists_models import ListedModel, Listing
from domain.problems import Problems

if TYPE_CHECKING:
    from domain.plane import ControlPlane

DISCOVERY = "discovery"
"""The origin of what is registered here, and who decides it."""
APART_SECONDS = 1800
"""Two lists that lack a model count as two where so much time lies between them: whoever runs discovery twice by hand deprecates nothing."""
MAX_DISCOVERED = 200
"""Models that lists may have added at one provider: what is beyond them waits until an operator removes some."""
ASSUMED = ("dimensions-assumed", "max-tokens-assumed")
"""Capabilities of a draft whose list said nothing of its sizes: they are those of the most like model of the provider, to be checked."""


class Read(msgspec.Struct, frozen=True):
    """A list that was read: its embedding models, each once, and how many entries were of no use. `error`: why it decides nothing."""

    entries: list[ListedModel]
    skipped: int
    error: str | None = None


class Absences(msgspec.Struct, frozen=True):
    """What a list holds of our models, and lacks: see `DiscoveryRan`. `error`: why it cannot be believed."""

    listed: frozenset[str]
    absent: dict[str, int]
    gone: frozenset[str]
    error: str | None = None


def read(listings: Sequence[Listing]) -> Read:
    """The lists of a provider's endpoints as one. An entry that is there more than once counts once, with the first of each fact."""
    entries: dict[str, ListedModel] = {}
    garbled, total = sum(max(0, listing.garbled) for listing in listings), 0
    for model in (model for listing in listings for model in listing.models):
        total += 1
        if not _readable(model.id):
            garbled += 1
        elif model.embeds or (model.embeds is None and "embed" in model.id.lower()):
            entry = _cleaned(model)
            known = entries.get(entry.id)
            entries[entry.id] = entry if known is None else _merged(known, entry)
    error = None
    if garbled * 2 > total + sum(listing.garbled for listing in listings):
        error = f"the list is garbled: {garbled} of its entries cannot be read"
    return Read(list(entries.values()), garbled, error)


def absences(
    before: Discovered | None, plane: ControlPlane, provider: str, entries: Iterable[ListedModel], *, now: int
) -> Absences:
    """What a list holds and lacks, in the light of the lists before. `now` is in seconds since the epoch."""
    present: set[str] = set()
    for entry in entries:
        if not entry.deprecated:
            present.update(model.id for model in matching(plane, provider, entry))
    if before is None:
        return Absences(frozenset(present), {}, frozenset())
    newly = before.listed - present
    if not _believable(len(newly), len(before.listed), bool(present)):
        error = f"the list lacks {len(newly)} of the {len(before.listed)} models that it held: nothing is deprecated"
        return Absences(before.listed, dict(before.absent), before.gone, error)
    absent = {
        model: before.absent.get(model, now)
        for model in sorted((newly | before.absent.keys()) - present)
        if (known := plane.models.models.get(model)) is not None and known.state in (AVAILABLE, UNAVAILABLE)
    }
    gone = frozenset(
        model for model, since in absent.items() if model in before.absent and now - since >= APART_SECONDS
    )
    return Absences(frozenset(present), absent, gone)


def to_deprecate(
    plane: ControlPlane, source: str, seen: Absences, serving: Mapping[str, AbstractSet[str]]
) -> list[str]:
    """The models that are gone from every source that serves them or lists them. `serving`: the sources of each model's endpoints."""
    others = {name: found for name, found in plane.discoveries.sources.items() if name != source}
    found = []
    for model in sorted(seen.gone):
        gone = {source, *(name for name, other in others.items() if model in other.gone)}
        held = {name for name, other in others.items() if model in other.listed}
        if not (held | serving.get(model, frozenset())) - gone:
            found.append(model)
    return found


def matching(plane: ControlPlane, provider: str, entry: ListedModel) -> list[CatalogModel]:
    """The catalogue's models that the entry is, by their offerings; not those that were removed."""
    ids = {entry.id, *entry.aliases}
    return [
        model
        for model in plane.models.models.values()
        if model.state != REMOVED and any(o.provider == provider and o.provider_model in ids for o in model.offerings)
    ]


def decide_entry(
    plane: ControlPlane, provider: str, entry: ListedModel, *, state: str = DRAFT, actor: str = DISCOVERY
) -> list[Decision]:
    """Register a model that the catalogue lacks, as a draft or `testing`, or change the facts of one that a list added. Of what operators or
    releases said nothing is changed. Raises `invalid_config` where the list says too little or the name is another model's.
    """
    known = matching(plane, provider, entry)
    if known:
        # By an alias an entry is known, and says nothing: the model has an entry of its own.
        own = [m for m in known if m.origin == DISCOVERY and _offers(m, provider, entry.id)]
        return [decision for model in own for decision in _changed(model, entry, actor)]
    if entry.deprecated:
        return []
    problems = Problems()
    model = _id(entry.id)
    taken = plane.models.models.get(model)
    if taken is not None and taken.origin == DISCOVERY and (taken.state, "update") in EDGES:
        offering, _ = _offering(plane, provider, entry, taken.spec.dimensions, taken.spec.max_tokens)
        return _updated(taken, taken.spec, [*taken.offerings, offering], actor)
    if taken is not None or model in plane.models.aliases:
        problems.add("model_id", f"{model[:80]!r} is the name of another model")
    elif (
        sum(m.origin == DISCOVERY and m.state != REMOVED for m in plane.models.models.values() if _at(m, provider))
        >= MAX_DISCOVERED
    ):
        problems.add(
            "model_id", f"{MAX_DISCOVERED} models of {provider} that were discovered are in the catalogue already"
        )
    problems.check(f"entry {entry.id[:80]!r}")
    like = _alike(plane, provider, entry.id)
    dimensions = entry.dimensions or (like[0].spec.dimensions if like is not None else None)
    max_tokens = entry.max_tokens or (like[0].spec.max_tokens if like is not None else None)
    if dimensions is None or max_tokens is None:
        problems.add(
            "dimensions" if dimensions is None else "max_tokens", "the list does not say, and no model is alike"
        )
        problems.check(f"entry {entry.id[:80]!r}")
    assert dimensions is not None
    assert max_tokens is not None
    offering, unit = _offering(plane, provider, entry, dimensions, max_tokens)
    spec = ModelSpec(
        version="1",
        dimensions=dimensions,
        max_tokens=max_tokens,
        unit=unit,
        aliases=_aliases(plane, model, entry),
        capabilities=[
            flag for flag, said in zip(ASSUMED, (entry.dimensions, entry.max_tokens), strict=True) if said is None
        ],
        owned_by=provider,
        created=entry.created or 0,
    )
    check_model(problems, model, spec, [offering])
    problems.check(f"entry {entry.id[:80]!r}")
    events: list[EventData] = [
        ModelRegistered(model=model, spec=spec, offerings=[offering], origin=DISCOVERY, actor=actor)
    ]
    if state == TESTING:
        events.append(
            ModelStateChanged(model=model, state=TESTING, previous=DRAFT, reason="discovery_state", actor=actor)
        )
    return [Decision(SYSTEM_TENANT, model_stream(model), event) for event in events]


def decide_gone(plane: ControlPlane, model: str, source: str, *, now: float, actor: str = DISCOVERY) -> list[Decision]:
    """Deprecate a model that is gone, with the usual grace; nothing where that is done or its state does not take it."""
    known = plane.models.models.get(model)
    if known is None or known.state not in (AVAILABLE, UNAVAILABLE):
        return []
    reason = f"two lists of {source} in a row lacked it"
    return decide_change(plane, model, {}, [Step("deprecate", reason)], now=now, actor=actor)


def _believable(lacking: int, held: int, any_left: bool) -> bool:
    """Whether a list may lack so many of the models that it held: one, or half of them, where any is left."""
    return not lacking or (any_left and lacking <= max(1, held // 2))


def _readable(model: object) -> bool:
    return isinstance(model, str) and 1 <= len(model) <= 256 and model.isprintable() and not model.isspace()


def _cleaned(model: ListedModel) -> ListedModel:
    """Without what cannot be: a fact that is out of range is one that the list does not say."""
    return msgspec.structs.replace(
        model,
        embeds=True,
        created=_within(model.created, MAX_CREATED),
        dimensions=_within(model.dimensions, MAX_DIMENSIONS),
        max_tokens=_within(model.max_tokens, MAX_TOKENS),
        aliases=tuple(sorted({alias for alias in model.aliases if _readable(alias)} - {model.id}))[:MAX_LISTED],
    )


def _within(value: int | None, most: int) -> int | None:
    return value if isinstance(value, int) and 1 <= value <= most else None


def _merged(first: ListedModel, second: ListedModel) -> ListedModel:
    return msgspec.structs.replace(
        first,
        created=first.created or second.created,
        dimensions=first.dimensions or second.dimensions,
        max_tokens=first.max_tokens or second.max_tokens,
        aliases=tuple(sorted({*first.aliases, *second.aliases}))[:MAX_LISTED],
        deprecated=first.deprecated and second.deprecated,
    )


def _id(model: str) -> str:
    """The provider's id as one of ours."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._:+-") else "-" for c in model).lstrip("._:+-")
    return kept[:128]


def _at(model: CatalogModel, provider: str) -> bool:
    return any(offering.provider == provider for offering in model.offerings)


def _offers(model: CatalogModel, provider: str, provider_model: str) -> bool:
    return any(o.provider == provider and o.provider_model == provider_model for o in model.offerings)


def _aliases(plane: ControlPlane, model: str, entry: ListedModel) -> list[str]:
    """Its ids at the provider that name no other model and may be names."""
    names = [
        name
        for name in dict.fromkeys((entry.id, *entry.aliases))
        if name != model and name not in plane.models.models and name not in plane.models.aliases
    ]
    return [name for name in names if len(name) <= 200 and not any(c.isspace() or c == "@" for c in name)][:MAX_LISTED]


def _alike(plane: ControlPlane, provider: str, name: str) -> tuple[CatalogModel, OfferingSpec] | None:
    """The model at the provider whose id begins most like this one; none that a list added, whose facts may be assumed themselves."""
    found = [
        (model, offering)
        for model in plane.models.models.values()
        if model.origin != DISCOVERY and model.spec.type == EMBEDDING
        for offering in model.offerings
        if offering.provider == provider
    ]
    return max(found, key=lambda f: (_common(f[1].provider_model, name), f[0].id), default=None)


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _offering(
    plane: ControlPlane, provider: str, entry: ListedModel, dimensions: int, max_tokens: int
) -> tuple[OfferingSpec, bool]:
    """The caps and settings of the most like offering, for this model, and whether its vectors are brought to length 1."""
    like = _alike(plane, provider, entry.id)
    if like is None:
        return OfferingSpec(provider, entry.id, max_inputs=1, max_tokens_per_call=max_tokens), True
    model, offering = like
    return (
        OfferingSpec(
            provider,
            entry.id,
            max_inputs=offering.max_inputs,
            max_tokens_per_call=max(offering.max_tokens_per_call, max_tokens),
            config=offering.config,
        ),
        model.spec.unit,
    )


def _changed(model: CatalogModel, entry: ListedModel, actor: str) -> list[Decision]:
    if (model.state, "update") not in EDGES:
        return []
    said = {
        field: value
        for field in ("dimensions", "max_tokens")  # `created` is, at some, the time of the list
        if (value := getattr(entry, field)) is not None and value != getattr(model.spec, field)
    }
    wanted = msgspec.structs.replace(model.spec, **said)
    kept = {field: getattr(model.spec, field) for field in frozen_changes(model, wanted)}
    confirmed = {
        flag for flag, value in zip(ASSUMED, (entry.dimensions, entry.max_tokens), strict=True) if value is not None
    }
    capabilities = [c for c in model.spec.capabilities if c not in confirmed]
    spec = msgspec.structs.replace(wanted, **kept, capabilities=capabilities)
    offerings = [
        msgspec.structs.replace(o, max_tokens_per_call=max(o.max_tokens_per_call, spec.max_tokens))
        for o in model.offerings
    ]
    return _updated(model, spec, offerings, actor)


def _updated(model: CatalogModel, spec: ModelSpec, offerings: list[OfferingSpec], actor: str) -> list[Decision]:
    if spec == model.spec and offerings == model.offerings:
        return []
    problems = Problems()
    check_model(problems, model.id, spec, offerings)
    problems.check(f"model {model.id!r}")
    data = ModelUpdated(model=model.id, spec=spec, offerings=offerings, origin=DISCOVERY, actor=actor)
    return [Decision(SYSTEM_TENANT, model_stream(model.id), data)]
