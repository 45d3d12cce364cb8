"""The keeper of a process's leases: asks Postgres for more, gives back what is idle, follows the quotas as they change.

One call is under way at a time; what is needed meanwhile goes into the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import structlog

from domain.calendar import utc_day
from domain.errors import GatewayError
from domain.ports.event_log import InstanceFenced, LogUnavailable
from domain.quota_lease import IDLE_SECONDS, Answer, Ask, Lease
from domain.quota_ledger import Account, Amounts, Hold, Ledger
from domain.quotas import Quotas
from gateway.quota import refusals
from gateway.service.refusals import log_error

_log = structlog.get_logger("emberlog.quota")
TICK_SECONDS = 0.25
"""How often quotas, idle leases and reports are looked after where nothing is needed."""
RETRY_SECONDS = 0.1
"""Until the next call where Postgres did not answer, has yet to count what was used before a quota was set, or may get something back."""
PATIENCE_SECONDS = 5.0
"""How long a request waits for what is yet to be counted."""
RETURN_SECONDS = IDLE_SECONDS + 2 * TICK_SECONDS
"""How long a request waits for what others hold and do not use: they give it back within that time."""
PRUNE_SECONDS = 600.0

Refuse = Callable[[Lease, int], GatewayError]
AskAll = Callable[[str, int, Sequence[Ask]], Awaitable[list[Answer]]]
"""`adapters.postgres.quota_leases.lease` of a pool: instance, serial and asks to the answers, in their order."""


class _Waiter:
    """A request that its leases have too little left for."""

    __slots__ = ("account", "done", "need", "not_before", "refuse", "since")

    def __init__(
        self, account: Account, need: Amounts, refuse: Refuse, done: asyncio.Future[Hold], since: float
    ) -> None:
        self.account = account
        self.need = need
        self.refuse = refuse
        self.done = done
        self.since = self.not_before = since


class Keeper:
    """Run `run` beside the gateway. `lease` asks Postgres; `instance` is the text of the log instance's id."""

    def __init__(self, quotas: Quotas, lease: AskAll, instance: str) -> None:
        self._quotas = quotas
        self._lease = lease
        self._instance = instance
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._waiting: list[_Waiter] = []
        self._serial = 0
        self._away = False
        self._version = quotas.version
        self._soft: dict[str, set[Lease]] = {}
        self._pruned_at = self._loop.time()
        self._born = time.time() - self._pruned_at
        self.ledger = Ledger(quotas.binding, self._woken.set)

    # -- what the gate asks ---------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Take over what has changed of the quotas. Costs next to nothing where nothing has."""
        if self._quotas.version == self._version:
            return
        seen, self._version = self._version, self._quotas.version
        for tenant, version in self._quotas.changes.items():
            if version > seen:
                self.ledger.changed(tenant, self._quotas.of(tenant))
        self._woken.set()

    def obtain(self, account: Account, need: Amounts, refuse: Refuse) -> asyncio.Future[Hold]:
        """What the request needs, once Postgres has granted it; ends in what `refuse` says, or `unavailable`."""
        done: asyncio.Future[Hold] = self._loop.create_future()
        self._waiting.append(_Waiter(account, need, refuse, done, self._loop.time()))
        self._woken.set()
        return done

    def has_soft_budget(self, tenant: str) -> bool:
        """Whether a soft budget of the tenant has been counted here."""
        return tenant in self._soft

    def over_soft_budget(self, tenant: str, period: Mapping[str, str]) -> bool:
        """Whether a soft budget of the tenant is used up, as of about a second ago; `period` names today's day and month."""
        return any(
            lease.seen_used >= lease.limit and not lease.hard and not lease.gone
            for lease in self._soft.get(tenant, ())
            if lease.period == period[lease.key.window]
        )

    # -- the life of it -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS if self._waiting else TICK_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            self.follow()
            try:
                answered = await self.once()
            except Exception as error:  # whatever it is, leases must be kept
                _log.error("quota_keeper_failed", exc_info=error)
                answered = False
            if not answered:
                await asyncio.sleep(RETRY_SECONDS)
            self._prune()

    async def once(self, *, give_back: bool = False) -> bool:
        """One call, if anything is to be told or asked; whether Postgres answered."""
        ledger, now = self.ledger, self._loop.time()
        wanting = [w for w in self._waiting if not w.done.done()]
        waiting = [w for w in wanting if w.not_before <= now]
        self._waiting = [w for w in wanting if w.not_before > now]
        for waiter in waiting:
            _refresh(waiter, ledger)
        asks = ledger.asks(now, [(w.account, w.need) for w in waiting], give_back=give_back)
        if not asks and not waiting:
            return True
        self._serial += 1
        try:
            answers = await self._lease(self._instance, self._serial, asks) if asks else []
        except (LogUnavailable, InstanceFenced) as error:
            ledger.answered(asks, None, self._loop.time())
            fenced = isinstance(error, InstanceFenced)
            _fail(waiting, log_error(error) if fenced else refusals.unreachable())
            if not fenced and not self._away:
                self._away = True
                _log.warning("quotas_out_of_reach", reason=str(error))
            return False
        except BaseException:
            ledger.answered(asks, None, self._loop.time())
            _fail(waiting, refusals.unreachable())
            raise
        self._away = False
        ledger.answered(asks, answers, self._loop.time())
        if ledger is not self.ledger:
            _fail(waiting, log_error(InstanceFenced()))
            return True
        behind: set[Lease] = set()
        short: set[Lease] = set()
        for ask, answer in zip(asks, answers, strict=True):
            if answer.behind or answer.given < ask.need:
                if answer.behind:
                    behind.add(ask.lease)
                elif ask.position == ask.lease.position:  # else the limit was changed meanwhile: ask again
                    short.add(ask.lease)
            if not ask.lease.hard and ask.lease.key.unit == "nano_usd":
                self._soft.setdefault(ask.lease.tenant, set()).add(ask.lease)
        self._serve(waiting, short, behind)
        return True

    def _serve(self, waiting: list[_Waiter], short: set[Lease], behind: set[Lease]) -> None:
        """Give out what was granted, first come first served. Who lacks what was refused is refused, unless others may give it back."""
        now, ledger = self._loop.time(), self.ledger
        for waiter in waiting:
            if waiter.done.done():
                continue
            _refresh(waiter, ledger)
            hold = ledger.take(waiter.account, waiter.need, now)
            if hold is not None:
                waiter.done.set_result(hold)
                continue
            lease = ledger.lacking(waiter.account, waiter.need)
            assert lease is not None
            need, waited = waiter.need[lease.unit], now - waiter.since
            if lease in behind and waited > PATIENCE_SECONDS:
                waiter.done.set_exception(refusals.unreachable())
            elif lease in short and (waited > RETURN_SECONDS or lease.elsewhere < need - lease.left):
                lease.refused(need, now, waited)
                waiter.done.set_exception(waiter.refuse(lease, need))
            else:
                waiter.not_before = now + RETRY_SECONDS if lease in short or lease in behind else now
                self._waiting.append(waiter)
        if any(waiter.not_before <= now for waiter in self._waiting):
            self._woken.set()

    def rebind(self, instance: str) -> None:
        """Go on as another instance of the log, which holds nothing yet. What the old one held is counted from the log."""
        self._instance, self._serial = instance, 0
        self.ledger = Ledger(self._quotas.binding, self._woken.set)
        self._version = self._quotas.version
        self._soft.clear()
        waiting, self._waiting = self._waiting, []
        _fail(waiting, log_error(InstanceFenced()))

    async def close(self) -> None:
        """Give back what is left, if Postgres can be told; else it is counted from the log once this instance is fenced."""
        with suppress(LogUnavailable, InstanceFenced):
            await self.once(give_back=True)

    def _prune(self) -> None:
        if self._loop.time() - self._pruned_at > PRUNE_SECONDS:
            self._pruned_at = self._loop.time()
            # A clock that is put forward by mistake and back again must not make it forget the day that it is.
            self.ledger.prune(utc_day(int(min(time.time(), self._born + self._pruned_at) * 1e6)))
            for tenant, leases in list(self._soft.items()):
                if not (kept := leases & set(self.ledger.leases())):
                    del self._soft[tenant]
                else:
                    self._soft[tenant] = kept


def _refresh(waiter: _Waiter, ledger: Ledger) -> None:
    account = waiter.account
    waiter.account = ledger.account(account.home.tenant, account.agent, account.model, account.day)


def _fail(waiting: list[_Waiter], error: GatewayError) -> None:
    for waiter in waiting:
        if not waiter.done.done():
            waiter.done.set_exception(error)
