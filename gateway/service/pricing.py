"""What a request costs: its prices are pinned when it is admitted, and whatever the book says later, it is billed by them.

The tenant is billed its own price or the list price, `pending.price`; what the provider charges us is reckoned at the list price. Prices are
per token, or per character (code point) of the texts as they are sent; an unknown price gives an unknown amount, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from domain.catalogue import Candidate, Offering
from domain.errors import GatewayError
from domain.money import Price, charge_nano_usd
from domain.ports.provider import Text
from domain.prices import UNKNOWN, PriceBook
from gateway.service.pending import Pending, Sent

_MICROS = 1_000_000


def pin(pending: Pending, prices: PriceBook) -> None:
    """Fix its prices as of its arrival, at every endpoint that may come to answer it, and count what they are of.

    To be called once its endpoint is chosen and its texts are as they will be sent. Endpoints whose price is unknown are taken from its
    candidates where that of the chosen one is known: what it reserves has to bound what it is billed. Raises `invalid_request` for
    tokens where characters are billed.
    """
    at, tenant = pending.at // _MICROS, pending.tenant
    chosen = pending.candidate.offering
    priced = {chosen.provider: prices.both(chosen.model, chosen.provider, tenant, at)}
    if len(pending.candidates) > 1:
        for candidate in pending.candidates:
            offering = candidate.offering
            if offering.provider not in priced:
                priced[offering.provider] = prices.both(offering.model, offering.provider, tenant, at)
    for price, listed in priced.values():
        if price.unit == "character" or listed.unit == "character":
            _count_characters(pending, priced)
            break
    pending.priced = priced
    take_price(pending)
    if len(priced) > 1:
        _keep_bounded(pending, None)


def take_price(pending: Pending) -> None:
    """Bill it by the prices of the endpoint that it is at."""
    pending.price, _ = pending.priced[pending.candidate.offering.provider]


def within(pending: Pending, cap: int) -> bool:
    """Whether it costs at most `cap` nano-dollars where it is sent; it is not sent where it would cost more, or nobody knows what."""
    price = cost(pending.price, pending.total_tokens, pending.total_characters)
    if price is None or price > cap:
        return False
    if len(pending.priced) > 1:
        _keep_bounded(pending, cap)
    return True


def _keep_bounded(pending: Pending, cap: int | None) -> None:
    """Leave out the endpoints whose price is unknown though that of the chosen one is known, and those beyond the cap."""
    if pending.price.unit_pico_usd is None:
        return
    costs = {
        provider: cost(price, pending.total_tokens, pending.total_characters)
        for provider, (price, _) in pending.priced.items()
    }
    bounded = {p for p, nano_usd in costs.items() if nano_usd is not None and (cap is None or nano_usd <= cap)}
    if len(bounded) < len(costs):
        pending.priced = {p: pair for p, pair in pending.priced.items() if p in bounded}
        pending.candidates = [c for c in pending.candidates if c.offering.provider in bounded]


def _count_characters(pending: Pending, priced: dict[str, tuple[Price, Price]]) -> None:
    if isinstance(pending.texts[0], str):
        pending.characters = [len(text) for text in pending.texts]
        pending.total_characters = sum(pending.characters)
        return
    chosen = pending.candidate.offering
    for provider, (price, listed) in list(priced.items()):
        if price.unit == "character" and provider == chosen.provider:
            raise GatewayError(
                "invalid_request",
                f"{chosen.model!r} at {provider} is billed by characters: send strings, not token arrays",
                details={"field": "input"},
            )
        if price.unit == "character":
            del priced[provider]
        elif listed.unit == "character":
            priced[provider] = (price, Price(listed.id, None))
    pending.candidates = [c for c in pending.candidates if c.offering.provider in priced]


def reserved_nano_usd(pending: Pending) -> int | None:
    """The most that it is billed: every text of it, none from the cache, at the dearest endpoint that may answer. None where its price is unknown."""
    most = cost(pending.price, pending.total_tokens, pending.total_characters)
    if most is None or len(pending.priced) == 1:
        return most
    return max(
        most,
        *(cost(price, pending.total_tokens, pending.total_characters) or 0 for price, _ in pending.priced.values()),
    )


def provider_cost(pending: Pending) -> int | None:
    """What the providers charge us for it: the texts that were answered, each where it was, and calls that failed and may be charged all
    the same. None where the price of any of it is unknown.

    Nothing where an endpoint is called with the tenant's own credential: the provider bills the tenant itself.
    """
    total = 0
    for sent in pending.sent.values():
        if sent.tokens and not _own(sent.candidate):
            nano_usd = _charge(pending, sent)
            if nano_usd is None:
                return None
            total += nano_usd
    for wasted in pending.for_nothing.values():
        if wasted is None:
            return None
        total += wasted
    return total


def left_behind(pending: Pending) -> None:
    """It goes on with another model: what it was answered so far is of no use, and charged to us all the same."""
    for name, sent in pending.sent.items():
        if sent.tokens and not _own(sent.candidate):
            _add_waste(pending, name, _charge(pending, sent))


def _charge(pending: Pending, sent: Sent) -> int | None:
    return cost(_listed(pending, sent.candidate), sent.tokens, sent.characters)


def _own(candidate: Candidate) -> bool:
    return candidate.endpoint.credential is not None and candidate.endpoint.tenant is not None


def _listed(pending: Pending, candidate: Candidate) -> Price:
    return pending.priced.get(candidate.offering.provider, (UNKNOWN, UNKNOWN))[1]


def _add_waste(pending: Pending, endpoint: str, nano_usd: int | None) -> None:
    before = pending.for_nothing.get(endpoint, 0)
    pending.for_nothing[endpoint] = None if before is None or nano_usd is None else before + nano_usd


def waste(pending: Pending, index: int, tokens: int, candidate: Candidate) -> None:
    """A call with this text failed, and the provider may charge us for it."""
    if _own(candidate):
        return
    characters = pending.characters[index] if pending.characters is not None else 0
    _add_waste(pending, candidate.endpoint.name, cost(_listed(pending, candidate), tokens, characters))


def bill(pending: Pending) -> tuple[int, int, int | None]:
    """The tokens, the characters and the nano-dollars (None: the price is unknown) that it is billed, never more than it reserved.

    Only what has moved on to another model may come to more, where that is dearer or counts more tokens: the excess is ours.
    """
    if pending.paid:
        return 0, 0, 0
    tokens, characters = pending.billed_tokens, pending.billed_characters
    nano_usd = cost(pending.price, tokens, characters)
    most_tokens, most = pending.reserved
    if nano_usd is not None and most is not None and nano_usd > most:
        nano_usd = most
    return min(tokens, most_tokens), characters, nano_usd


def cost(price: Price, tokens: int, characters: int) -> int | None:
    """So many tokens, or characters, at this price: rounded up once."""
    return charge_nano_usd(characters if price.unit == "character" else tokens, price.unit_pico_usd)


def list_cost(prices: PriceBook, offering: Offering, at: float, tokens: int, texts: Iterable[Text]) -> int | None:
    """What the provider charges us for these texts at the time `at` (seconds since the epoch). None where that is unknown."""
    price = prices.list_price(offering.model, offering.provider, at)
    if price.unit == "token":
        return charge_nano_usd(tokens, price.unit_pico_usd)
    sent: Sequence[Text] = list(texts)
    if not all(isinstance(text, str) for text in sent):
        return None
    return charge_nano_usd(sum(map(len, sent)), price.unit_pico_usd)
