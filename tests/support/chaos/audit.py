"""What became of every request of a run: from what its sender was told, and from what the log says of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import msgspec
import numpy as np

from domain.decoding import decode_data
from domain.events import EmbeddingFailed, EmbeddingGenerated, EmbeddingRequested, EventData
from domain.ports.event_log import StoredEvent
from gateway.service.outcomes import uuid_text
from tests.support.chaos.load import Asked
from tests.support.chaos.places import drifted
from tests.support.chaos.plans import Plan
from tests.support.chaos.site import PICO, Site
from tests.unit.service.conftest import Words


class Verdict(msgspec.Struct):
    """Requests by what became of them; `requests` is the sum of the first four. The others have to be 0.

    `lost`: no answer, or none before a generous deadline. `needless`: refused although another endpoint would have answered.
    `billed_twice`: more than one billed outcome of an id or one of an attempt, more billed than reserved, or not what its texts are.
    `wrong_order`: a vector that is not its text's, of another text or of none. `notes` say which, by request.
    """

    requests: int = 0
    answered: int = 0
    refused: int = 0
    given_up: int = 0
    lost: int = 0
    needless: int = 0
    billed_twice: int = 0
    wrong_space: int = 0
    wrong_order: int = 0
    left: int = 0
    notes: list[str] = []

    @property
    def wrong(self) -> int:
        """How much is not as it has to be."""
        return self.lost + self.needless + self.billed_twice + self.wrong_space + self.wrong_order + self.left

    def __add__(self, other: Verdict) -> Verdict:
        """The sum of two runs."""
        return Verdict(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))


async def audit(site: Site, plan: Plan, asked: Sequence[Asked]) -> Verdict:
    """Look at everything. To be called once all requests have ended."""
    found = Verdict(requests=len(asked))
    stored = await site.log.read(0, 100_000)
    for one in asked:
        _told(found, site, plan, one)
    _billed(found, stored, asked)
    for what in site.left:
        found.left += 1
        found.notes.append(f"left behind: {what}")
    return found


def _told(found: Verdict, site: Site, plan: Plan, one: Asked) -> None:
    """What its sender got."""
    reply, name = one.reply, f"{one.tenant}/{one.message.id}"
    if reply.answer is not None:
        found.answered += 1
        _vectors(found, site, one, name)
    elif reply.refusal is None:
        found.lost += 1
        found.notes.append(f"{name}: never told anything")
    elif reply.refusal.code == "cancelled" or (reply.refusal.code == "deadline_exceeded" and one.hurries):
        found.given_up += 1
    elif reply.refusal.code == "deadline_exceeded":
        found.lost += 1
        found.notes.append(f"{name}: not answered in all its time")
    else:
        found.refused += 1
        if not _may_be_refused(plan, one):
            found.needless += 1
            found.notes.append(f"{name} ({one.message.failover}): {reply.refusal.code}: {reply.refusal.message}")


def _may_be_refused(plan: Plan, one: Asked) -> bool:
    if one.reply.refusal is None or one.reply.refusal.code in ("internal", "overloaded", "unavailable"):
        return False
    if plan.of_texts and not plan.elsewhere:
        return one.bad
    if plan.fault is None and not plan.gone:
        return False
    return not plan.elsewhere or one.message.failover == "none"


def _vectors(found: Verdict, site: Site, one: Asked, name: str) -> None:
    answer, size = one.reply.answer, site.place.kind.size
    assert answer is not None
    right = {"m": site.place.vector, "n": lambda text: drifted(text, size)}
    if answer.space != f"{answer.model}@1/{size}/raw" or answer.dimensions != size or answer.model not in right:
        found.wrong_space += 1
        found.notes.append(f"{name}: model {answer.model}, space {answer.space}")
        return
    if answer.model == "n" and one.message.failover != "any":
        found.wrong_space += 1
        found.notes.append(f"{name}: another model than it was asked for")
        return
    rows = one.reply.streamed if one.message.stream else one.reply.rows
    expected = np.stack([right[answer.model](text) for text in one.texts])
    if rows is None or rows.shape != expected.shape:
        found.wrong_order += 1
        found.notes.append(f"{name}: no vectors, or not as many as texts")
    elif not np.array_equal(rows, expected):
        other = right["n" if answer.model == "m" else "m"]
        if any(np.array_equal(row, other(text)) for row, text in zip(rows, one.texts, strict=True)):
            found.wrong_space += 1
            found.notes.append(f"{name}: vectors of another model than the answer says")
        else:
            found.wrong_order += 1
            found.notes.append(f"{name}: vectors of other texts")


def _billed(found: Verdict, stored: Sequence[StoredEvent], asked: Sequence[Asked]) -> None:
    """What the log says of each id."""
    by_id: dict[tuple[str, str], list[tuple[StoredEvent, EventData]]] = defaultdict(list)
    for event in stored:
        data = decode_data(event.type, event.data, event.schema_version)
        if isinstance(data, EmbeddingRequested | EmbeddingGenerated | EmbeddingFailed):
            by_id[event.tenant, data.request_id].append((event, data))
    answers: dict[tuple[str, str], list[Asked]] = defaultdict(list)
    for one in asked:
        answers[one.tenant, one.message.id].append(one)
    for key, events in by_id.items():
        for wrong in _of_one_id(events, answers[key]):
            found.billed_twice += 1
            found.notes.append(f"{'/'.join(key)}: {wrong}")
    for key, ones in answers.items():
        if key not in by_id and any(one.reply.answer is not None for one in ones):
            found.billed_twice += 1
            found.notes.append(f"{'/'.join(key)}: answered, and not in the log")


def _of_one_id(events: Sequence[tuple[StoredEvent, EventData]], ones: Sequence[Asked]) -> list[str]:
    wrong = []
    requested = {data.attempt: data for _, data in events if isinstance(data, EmbeddingRequested)}
    outcomes = [(event, data) for event, data in events if isinstance(data, EmbeddingGenerated | EmbeddingFailed)]
    times = Counter(data.attempt for _, data in outcomes)
    if set(times) != set(requested) or any(count > 1 for count in times.values()):
        wrong.append(f"attempts {sorted(requested)} have outcomes {dict(times)}")
        return wrong
    if len([data for _, data in outcomes if data.billed_tokens or data.nano_usd]) > 1:
        wrong.append("more than one attempt of it is billed")
    paid, words = False, Words()
    full = sum(words.count(text) for text in set(ones[0].texts))
    for event, data in outcomes:
        reserved = requested[data.attempt]
        # What goes on to another model is priced and held anew; what was logged first bounds its tokens alone.
        most = reserved.reserved_nano_usd
        if data.billed_tokens > reserved.reserved_tokens or (most is not None and (data.nano_usd or 0) > most):
            wrong.append(
                f"billed {data.billed_tokens} tokens, {data.nano_usd} nano-dollars; {reserved.reserved_tokens}, {reserved.reserved_nano_usd} reserved"
            )
        if data.billed_tokens > full:
            wrong.append(f"billed {data.billed_tokens} tokens of {full}")
        if isinstance(data, EmbeddingGenerated):
            if ones[0].its_own and ones[0].message.cache == "off" and not paid and data.billed_tokens != full:
                wrong.append(f"billed {data.billed_tokens} tokens of {full} that nobody else asked for")
            cheapest = data.billed_tokens * min(PICO.values()) // 1000
            if data.provider_nano_usd is None or data.nano_usd is None or data.provider_nano_usd < cheapest:
                wrong.append("the providers charge less than what is billed costs at the cheapest of them")
            told = {one.reply.answer.event for one in ones if one.reply.answer is not None}
            if told - {uuid_text(event.event_id)}:
                wrong.append("its answers name another event")
        paid = paid or data.billed_tokens > 0
    return wrong
