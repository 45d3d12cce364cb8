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

from domain.calendar import end_day, period_of
from domain.events import EmbeddingFailed, EmbeddingGenerated, EventData
from domain.quota_lease import Answer, Ask, Lease
from domain.quotas import UNITS, Quota, QuotaKey

MAX_ASKS = 200
"""Leases that one call is about: some ten milliseconds of the database's time."""
MAX_AGENTS = 20_000
"""Agents of a tenant that are told apart: who has no quota of its own beyond that counts as one, so that names cost no memory."""
_TOKENS, _NANO_USD = UNITS.index("tokens"), UNITS.index("nano_usd")

Resolve = Callable[[str, str, str], Iterable[tuple[QuotaKey, Quota]]]
"""The quotas that (tenant, agent, model) draws on: `Quotas.binding`."""
Amounts = tuple[int, int, int]
"""Tokens, requests, nano-dollars: in the order of `UNITS`."""


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

    __slots__ = ("accounts", "crowded", "leases", "months", "tenant", "version")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.version = 0
        self.accounts: dict[str, list[Account]] = {}
        self.leases: dict[tuple[QuotaKey, str], Lease] = {}
        """Those of the ledger that are the tenant's: what it changes takes no longer for what the others have."""
        self.months: dict[tuple[str, str, str], list[int]] = {}
        """(agent, model, month) -> what was used by accounts that are forgotten."""
        self.crowded = False
        """Whether there were more agents than are told apart: those beyond that have been counted as ''."""

    def sums(self, key: QuotaKey, period: str) -> tuple[int, int]:
        """What was used and is reserved of a window by this process; of an agent, all that of those who are not told apart, too."""
        unit, used, reserved = UNITS.index(key.unit), 0, 0
        agents = {key.subject, ""} if self.crowded else {key.subject}
        whole = key.scope in ("tenant", "model")
        for accounts in self.accounts.values() if whole else [self.accounts.get(agent, []) for agent in agents]:
            for account in accounts:
                if account.day.startswith(period) and (key.scope != "model" or account.model == key.subject):
                    used += account.used[unit]
                    reserved += account.reserved[unit]
        for (agent, model, month), amounts in self.months.items():
            if month == period and (
                key.scope == "tenant" or (model == key.subject if key.scope == "model" else agent in agents)
            ):
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

    @property
    def remaining(self) -> int | None:
        """The tokens that the tightest hard quota of them has left besides; None where there is none."""
        least = None
        for lease in self.account.leases:
            if lease.hard and lease.unit == _TOKENS and (least is None or lease.remaining < least):
                least = lease.remaining
        return least

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
                home.crowded = True
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
            if lease.hard and lease.left < need[lease.unit] > 0:
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
        return next((lease for lease in account.leases if lease.hard and lease.left < need[lease.unit] > 0), None)

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
                if lease.hard and lease.left < need[lease.unit] > 0:
                    short.setdefault(lease, []).append(need[lease.unit])
        most = MAX_ASKS if not give_back else len(self._active) + len(short)
        asks = [lease.ask(needs) for lease, needs in list(short.items())[:most]]
        active, self._active = self._active, []
        for number, lease in enumerate(active):
            if len(asks) >= most:  # the rest goes into the next call
                self._active = active[number:] + self._active
                self._wake()
                break
            lease.active = False
            if self._leases.get((lease.tenant, lease.key, lease.period), lease) is not lease:
                continue  # removed and set again: what it would say is less than what its successor holds
            idle = give_back or lease.idle(now)
            if lease in short:
                pass
            elif (idle and lease.give_back()) or lease.due(now) or give_back:
                asks.append(lease.ask())
            if not lease.gone and (not idle or lease.reserved or lease.used != lease.reported):
                self._activate(lease)
        return asks

    def answered(self, asks: Sequence[Ask], answers: Sequence[Answer] | None, now: float) -> None:
        """What the database answered, in the order of the asks; None where nobody knows what became of them: they are made again."""
        for number, ask in enumerate(asks):
            lease = ask.lease
            if answers is None:
                lease.unanswered(ask)
            else:
                lease.answered(ask, answers[number], now)
            if answers is None or not lease.gone:
                self._activate(lease)

    # -- quotas and days come and go ------------------------------------------------------------------------------------

    def changed(self, tenant: str, quotas: Mapping[QuotaKey, Quota]) -> None:
        """The tenant's quotas are these from now on. What it has used of them so far counts, whichever were there before."""
        home = self._homes.get(tenant)
        if home is None:
            return
        home.version += 1
        for (key, period), lease in list(home.leases.items()):
            quota = quotas.get(key)
            if quota is None:
                del self._leases[tenant, key, period], home.leases[key, period]
                lease.leave()
            elif quota.position == lease.position:
                continue
            else:
                lease.change(quota)
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
            if not home.accounts and not home.months and not home.leases:
                del self._homes[home.tenant]
        for where, lease in list(self._leases.items()):
            if end_day(lease.period) <= yesterday and lease.holds == lease.used:
                del self._leases[where], self._homes[lease.tenant].leases[where[1:]]

    def _forget(self, account: Account) -> None:
        home = account.home
        place = (account.agent, account.model, account.day[:7])
        if place not in home.months and len(home.months) >= MAX_AGENTS:
            place, home.crowded = ("", account.model, account.day[:7]), True
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
                lease = Lease(home.tenant, key, period, quota)
                self._leases[home.tenant, key, period] = home.leases[key, period] = lease
                lease.used, lease.reserved = home.sums(key, period)
                self._activate(lease)
            account.leases.append(lease)
            account.priced = account.priced or (lease.hard and lease.unit == _NANO_USD)
        account.version = home.version

    def _activate(self, lease: Lease) -> None:
        if not lease.active:
            lease.active = True
            self._active.append(lease)
