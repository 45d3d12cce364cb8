"""What one process holds of the quotas, and what its requests have taken of that. Pure arithmetic: no I/O, no clock of its own.

For each window a process has a lease: an amount that the database has granted to it, of which `left` is free. A request takes from
every lease that it draws on, or from none; its outcome settles it: what it did not use is free again. What a lease stands for, `used` +
`reserved` + `left`, is never more than was granted: that is what makes a hard quota exact over many processes.

Every request is counted, also where it draws on no quota yet: a quota that is set in the middle of a window is joined with what has
been used and reserved of the window so far. Times are in seconds of any clock that does not go back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta

import msgspec

from domain.calendar import end_day, period_of
from domain.events import EmbeddingFailed, EmbeddingGenerated, EventData
from domain.quotas import UNITS, Quota, QuotaKey

IDLE_SECONDS = 1.0
"""What a lease has left is given back when nothing was taken from it for so long; ten times sooner where the window is nearly used up."""
REPORT_SECONDS = 1.0
"""How far what others see of this process's use may be behind."""
REFUSED_SECONDS = 0.05
"""For so long nothing is asked for again that was just refused: under a flood of requests one question answers many."""
MAX_ASKS = 200
"""Leases that one call is about: some ten milliseconds of the database's time."""
_FIRST_SHARE = 16
"""A lease is first asked for so many times what the request at hand needs; then for twice as much where it was used up at once."""
_SOON, _LATE = 0.25, 2.0
MAX_AGENTS = 20_000
"""Agents of a tenant that are told apart: who has no quota of its own beyond that counts as one, so that names cost no memory."""
_NOTHING = -(1 << 62)
"""Left of a lease that the database has not been asked for: whatever is settled meanwhile, nothing can be taken from it."""
_NEVER = -(1 << 80)
_NANO_USD = UNITS.index("nano_usd")

Resolve = Callable[[str, str, str], Iterable[tuple[QuotaKey, Quota]]]
"""The quotas that (tenant, agent, model) draws on: `Quotas.binding`."""
Amounts = tuple[int, int, int]
"""Tokens, requests, nano-dollars: in the order of `UNITS`."""


class Lease:
    """What this process holds of one window, in the window's unit. Of a soft quota it only counts: `left` has no meaning there.

    `seen_*` is what the last answer said of the whole window: what all processes have used and hold of it.
    """

    __slots__ = (
        "active", "asked", "gone", "granted_at", "hard", "key", "left", "limit", "low", "period", "position", "refused_need",
        "refused_until", "reported", "reported_at", "reserved", "seen_granted", "seen_used", "share", "taken_at", "tenant", "tight",
        "unit", "used",
    )  # fmt: skip

    def __init__(self, tenant: str, key: QuotaKey, period: str, quota: Quota) -> None:
        self.tenant = tenant
        self.key = key
        self.period = period
        self.unit = UNITS.index(key.unit)
        self.used = self.reserved = 0
        self.left = _NOTHING
        self.low = _NEVER
        """More is asked for once less than this is left."""
        self.share = 0
        """How much beyond the need it asks for."""
        self.asked = False
        """Whether it should ask for more at the next occasion."""
        self.active = False
        """Whether it is among those that are looked at for what to ask and report."""
        self.gone = False
        """Whether its quota was removed: it is reported a last time."""
        self.taken_at = self.granted_at = self.reported_at = float("-inf")
        self.reported = -1
        self.refused_need, self.refused_until = 0, float("-inf")
        self.seen_used = self.seen_granted = 0
        self.tight = False
        self.state(quota)

    def state(self, quota: Quota) -> None:
        """The quota is this from now on."""
        self.limit, self.hard, self.position = quota.limit, quota.hard, quota.position
        self.reported = -1
        self.refused_until = float("-inf")

    @property
    def holds(self) -> int:
        """What this process must have been granted."""
        return self.used + self.reserved + (max(0, self.left) if self.hard else 0)

    def refuses(self, need: int, now: float) -> bool:
        """Whether so much was refused a moment ago."""
        return self.left < need >= self.refused_need and now < self.refused_until

    def refused(self, need: int, now: float) -> None:
        """So much was asked for and cannot be had."""
        self.refused_need = min(need, self.refused_need) if now < self.refused_until else need
        self.refused_until = now + REFUSED_SECONDS


class Account:
    """What one agent of a tenant has used and reserved of one model on one day; and the leases that it draws on."""

    __slots__ = ("agent", "day", "home", "leases", "model", "priced", "reserved", "used", "version")

    def __init__(self, home: _Home, agent: str, model: str, day: str) -> None:
        self.home = home
        self.agent = agent
        self.model = model
        self.day = day
        self.used = [0, 0, 0]
        self.reserved = [0, 0, 0]
        self.leases: list[Lease] = []
        self.priced = False
        """Whether a hard quota of money binds it: what a request costs must be known then."""
        self.version = -1


class _Home:
    """A tenant's accounts, by agent. `version` grows with every change to its quotas."""

    __slots__ = ("accounts", "months", "tenant", "version")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.version = 0
        self.accounts: dict[str, list[Account]] = {}
        self.months: dict[tuple[str, str, str], list[int]] = {}
        """(agent, model, month) -> what was used by accounts that are forgotten."""

    def sums(self, key: QuotaKey, period: str) -> tuple[int, int]:
        """What was used and is reserved of a window by this process."""
        unit, used, reserved = UNITS.index(key.unit), 0, 0
        whole = key.scope in ("tenant", "model")
        for accounts in self.accounts.values() if whole else [self.accounts.get(key.subject, [])]:
            for account in accounts:
                if account.day.startswith(period) and (key.scope != "model" or account.model == key.subject):
                    used += account.used[unit]
                    reserved += account.reserved[unit]
        for (agent, model, month), amounts in self.months.items():
            if month == period and (key.subject == (model if key.scope == "model" else agent) or key.scope == "tenant"):
                used += amounts[unit]
        return used, reserved


class Hold:
    """What a request has taken. Either call ends it; the second does nothing."""

    __slots__ = ("_ledger", "account", "need")

    def __init__(self, ledger: Ledger, account: Account, need: Amounts) -> None:
        self._ledger: Ledger | None = ledger
        self.account = account
        self.need = need

    def of(self, ledger: Ledger) -> bool:
        """Whether it holds something of this ledger."""
        return self._ledger is ledger

    def settle(self, data: EventData) -> None:
        """Its outcome is in the log: the request has used what it bills, and holds nothing more."""
        self._end(billed(data))

    def release(self) -> None:
        """The request has used nothing."""
        self._end((0, 0, 0))

    def _end(self, used: Amounts) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.settle(self.account, self.need, used)


def billed(data: EventData) -> Amounts:
    """What an outcome uses of quotas: the quota view counts the same. An unknown charge counts as none."""
    match data:
        case EmbeddingGenerated():
            return (data.billed_tokens, 1, data.nano_usd or 0)
        case EmbeddingFailed():
            counts = data.billed_tokens > 0 or data.characters > 0
            return (data.billed_tokens, 1 if counts else 0, data.nano_usd or 0)
        case _:
            return (0, 0, 0)


class Ask(msgspec.Struct, frozen=True):
    """What the database is told of a lease and asked for: the process `holds` so much, `used` of it for good, and needs `need` more.

    With `least` of that some of its requests go on. `extra` beyond the need spares it round trips. `position` tells which limit it knew.
    """

    lease: Lease
    position: int
    holds: int
    used: int
    need: int = 0
    least: int = 0
    extra: int = 0


class Answer(msgspec.Struct, frozen=True):
    """What was granted beyond `Ask.holds`, and of the whole window: its limit, what all processes hold, what they said they have used.

    `behind`: nothing is granted yet, because what was used before the quota was set is still being counted.
    """

    given: int
    limit: int
    granted: int
    used: int
    behind: bool = False


class Ledger:
    """The leases and accounts of one process. `wake` is called when the database should be asked soon."""

    def __init__(self, resolve: Resolve, wake: Callable[[], None] = lambda: None) -> None:
        self._resolve = resolve
        self._wake = wake
        self._homes: dict[str, _Home] = {}
        self._accounts: dict[tuple[str, str, str, str], Account] = {}
        self._leases: dict[tuple[str, QuotaKey, str], Lease] = {}
        self._active: list[Lease] = []

    # -- the hot path ---------------------------------------------------------------------------------------------------

    def account(self, tenant: str, agent: str, model: str, day: str) -> Account:
        """The account of these, its leases up to date."""
        account = self._accounts.get((tenant, agent, model, day))
        if account is None:
            account = self._open(tenant, agent, model, day)
        if account.version != account.home.version:
            self._bind(account)
        return account

    def _open(self, tenant: str, agent: str, model: str, day: str) -> Account:
        home = self._homes.get(tenant)
        if home is None:
            home = self._homes[tenant] = _Home(tenant)
        if agent and agent not in home.accounts and len(home.accounts) >= MAX_AGENTS:
            quotas = self._resolve(tenant, agent, model)
            if not any(key.scope not in ("tenant", "model") for key, _ in quotas):
                return self._accounts.get((tenant, "", model, day)) or self._open(tenant, "", model, day)
        account = self._accounts[tenant, agent, model, day] = Account(home, agent, model, day)
        home.accounts.setdefault(agent, []).append(account)
        return account

    def take(self, account: Account, need: Amounts, now: float) -> Hold | None:
        """Take what a request may use from every lease; None, and nothing taken, where one has too little left.

        The account must have come from `account` just now.
        """
        leases = account.leases
        for lease in leases:
            if lease.hard and lease.left < need[lease.unit]:
                return None
        for lease in leases:
            amount = need[lease.unit]
            lease.left -= amount
            lease.reserved += amount
            lease.taken_at = now
            if not lease.active:
                self._activate(lease)
            if lease.left < lease.low and not lease.asked:
                lease.asked = True
                self._wake()
        reserved = account.reserved
        reserved[0] += need[0]
        reserved[1] += need[1]
        reserved[2] += need[2]
        return Hold(self, account, need)

    def settle(self, account: Account, need: Amounts, spent: Amounts) -> None:
        """A request that had taken `need` has used `spent` of it."""
        if account.version != account.home.version:
            self._bind(account)
        used, reserved = account.used, account.reserved
        reserved[0] -= need[0]
        reserved[1] -= need[1]
        reserved[2] -= need[2]
        used[0] += spent[0]
        used[1] += spent[1]
        used[2] += spent[2]
        for lease in account.leases:
            amount, used_up = need[lease.unit], spent[lease.unit]
            lease.reserved -= amount
            lease.used += used_up
            lease.left += amount - used_up
            if not lease.active:
                self._activate(lease)

    def lacking(self, account: Account, need: Amounts) -> Lease | None:
        """The first lease that has too little left for a request."""
        return next((lease for lease in account.leases if lease.hard and lease.left < need[lease.unit]), None)

    # -- what the database is asked -------------------------------------------------------------------------------------

    def asks(
        self, now: float, waiting: Sequence[tuple[Account, Amounts]] = (), *, give_back: bool = False
    ) -> list[Ask]:
        """What to tell and ask the database now. `waiting` are requests that could not be let in, with what they need.

        What has been idle is given back by it, with `give_back` all that is left. What became of the asks must be brought to `answered`.
        """
        short: dict[Lease, list[int]] = {}
        for account, need in waiting:
            for lease in account.leases:
                if lease.hard and lease.left < need[lease.unit]:
                    short.setdefault(lease, []).append(need[lease.unit])
        most = MAX_ASKS if not give_back else len(self._active) + len(short)
        asks = [self._ask(lease, needs) for lease, needs in list(short.items())[:most]]
        active, self._active = self._active, []
        for number, lease in enumerate(active):
            if len(asks) >= most:  # the rest goes into the next call
                self._active = active[number:] + self._active
                self._wake()
                break
            lease.active = False
            idle = give_back or now - lease.taken_at >= (IDLE_SECONDS / 10 if lease.tight else IDLE_SECONDS)
            due = lease.used != lease.reported and now - lease.reported_at >= REPORT_SECONDS
            if lease in short:
                pass
            elif idle and lease.hard and lease.left > 0:
                lease.left, lease.low, lease.asked = 0, _NEVER, False
                asks.append(self._ask(lease, []))
            elif lease.asked or due or lease.reported < 0 or give_back:
                asks.append(self._ask(lease, []))
            if not lease.gone and (not idle or lease.reserved or lease.used != lease.reported):
                self._activate(lease)
        return asks

    def _ask(self, lease: Lease, needs: list[int]) -> Ask:
        # Less than nothing is left of one that is new, or of a soft quota; or where more was billed than reserved.
        lease.left = max(0, lease.left)
        need = least = extra = 0
        if needs:
            lease.share = max(lease.share, _FIRST_SHARE * max(needs))
            need, least, extra = sum(needs) - lease.left, max(1, min(needs) - lease.left), lease.share
        elif lease.asked and lease.hard:
            extra = lease.share
        lease.asked = False
        return Ask(lease, lease.position, lease.holds, lease.used, need, least, extra)

    def answered(self, asks: Sequence[Ask], answers: Sequence[Answer] | None, now: float) -> None:
        """What the database answered, in the order of the asks; None where nobody knows what became of them: they are made again."""
        if answers is None:
            for ask in asks:
                lease = ask.lease
                if lease.reported_at == float("-inf"):
                    lease.left = _NOTHING
                lease.reported = -1
                lease.asked = lease.asked or ask.extra > 0
                self._activate(lease)
            return
        for ask, answer in zip(asks, answers, strict=True):
            lease = ask.lease
            lease.seen_used, lease.seen_granted = answer.used, answer.granted
            again = answer.behind or ask.position != lease.position  # its limit was changed meanwhile
            lease.reported, lease.reported_at = (-1 if again else ask.used), now
            lease.tight = lease.hard and (answer.limit - answer.granted) * 8 < answer.limit
            if answer.given:
                lease.left += answer.given
                lease.share = _adapted(lease.share, now - lease.granted_at, lease.limit)
                lease.granted_at = now
            if ask.need or ask.extra:
                lease.low = lease.left // 2 if answer.given else _NEVER
            if not lease.gone:
                self._activate(lease)

    # -- quotas and days come and go ------------------------------------------------------------------------------------

    def changed(self, tenant: str, quotas: Mapping[QuotaKey, Quota]) -> None:
        """The tenant's quotas are these from now on. What it has used of them so far counts, whichever were there before."""
        home = self._homes.get(tenant)
        if home is None:
            return
        home.version += 1
        for (owner, key, period), lease in list(self._leases.items()):
            if owner != tenant:
                continue
            quota = quotas.get(key)
            if quota is None:
                del self._leases[owner, key, period]
                lease.gone, lease.left, lease.reported = True, 0, -1
            elif quota.position == lease.position:
                continue
            else:
                lease.state(quota)
                lease.left, lease.low = 0, _NEVER
            self._activate(lease)
        for accounts in home.accounts.values():
            for account in accounts:
                self._bind(account)

    def prune(self, today: str) -> None:
        """Forget accounts and leases of days that no request can come for any more; `today` is the day in UTC."""
        yesterday = date.fromisoformat(today) - timedelta(days=1)
        for place, account in list(self._accounts.items()):
            if account.day < yesterday.isoformat() and not any(account.reserved):
                del self._accounts[place]
                self._forget(account)
        for home in list(self._homes.values()):
            for carried in [c for c in home.months if end_day(c[2]) <= yesterday]:
                del home.months[carried]
            if not home.accounts and not home.months:
                del self._homes[home.tenant]
        for where, lease in list(self._leases.items()):
            if end_day(lease.period) <= yesterday and lease.holds == lease.used:
                del self._leases[where]

    def _forget(self, account: Account) -> None:
        home = account.home
        place = (account.agent, account.model, account.day[:7])
        if place not in home.months and len(home.months) >= MAX_AGENTS:
            place = ("", account.model, account.day[:7])
        carried = home.months.setdefault(place, [0, 0, 0])
        for unit in (0, 1, 2):
            carried[unit] += account.used[unit]
        home.accounts[account.agent].remove(account)
        if not home.accounts[account.agent]:
            del home.accounts[account.agent]

    def leases(self) -> Iterator[Lease]:
        """Every lease."""
        return iter(self._leases.values())

    def _bind(self, account: Account) -> None:
        """Find the leases that the account draws on. One that is new counts what the process has used and reserved so far."""
        home = account.home
        account.leases = []
        account.priced = False
        for key, quota in self._resolve(home.tenant, account.agent, account.model):
            period = period_of(key.window, account.day)
            lease = self._leases.get((home.tenant, key, period))
            if lease is None:
                lease = self._leases[home.tenant, key, period] = Lease(home.tenant, key, period, quota)
                lease.used, lease.reserved = home.sums(key, period)
                self._activate(lease)
            account.leases.append(lease)
            account.priced = account.priced or (lease.hard and lease.unit == _NANO_USD)
        account.version = home.version

    def _activate(self, lease: Lease) -> None:
        if not lease.active:
            lease.active = True
            self._active.append(lease)


def _adapted(share: int, since: float, limit: int) -> int:
    """What to ask for next, seconds after the last grant: so much that a lease lasts about a second."""
    if since < _SOON:
        return min(2 * share, limit)
    return max(1, share // 2) if since > _LATE else share
