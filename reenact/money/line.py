"""The line of those who wait for money: what a session asks its ledger for, fetched, or waited for in turn.

Where too little is left, every other session that holds something is asked to let go of what it does not need; and
while calls are under way that may cost less than was set aside for them, it waits before the ledger may deny. All wait
while it is counted what was used before the first limit was set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from ..actors import judge
from ..actors.book import Account, State
from ..actors.clock import Clock
from ..events.agent import ModelAnswered, ModelFailed, TurnCompleted
from ..events.budget import UNCOUNTED, Breach
from ..events.failpoint import failpoint
from ..events.ledger import (
    Allot,
    AllotmentDenied,
    AllotmentReturned,
    Allotted,
    BudgetRaised,
    BudgetRemoved,
    BudgetSet,
    RaiseBudget,
    UsageCounted,
)
from ..events.message import Command, Recorded
from ..events.purse import AllotmentTaken, RefuseAllotment, RequestAllotment, TakeAllotment
from ..flow.kernel import Kernel, Who
from .recalls import Asker, Recalls, patiently

WAIT_MAX_S = 300.0
"""The longest that a session waits for what others may give back, before the ledger may deny."""


class Line:
    """Of one scope."""

    def __init__(self, kernel: Kernel, clock: Clock, scope: str, recalls: Recalls) -> None:
        self._kernel = kernel
        self._ask = partial(kernel.ask, by=Who(scope, kernel.who.principal))
        self._peek = partial(kernel.peek, scope=scope)
        self._clock = clock
        self._recalls = recalls
        self._waiting: list[_Waiter] = []
        self._hears: Any = None

    async def fetch(self, stream: str, effect: RequestAllotment) -> Command:
        """Ask the ledger, and give the session's command: it takes the allotment, or hears why there is none."""
        session = await self._kernel.telling.session(stream)
        newest = session.newest
        cause = None if newest is None else newest.id
        correlation = None if newest is None else newest.head.correlation
        ledger = f"ledger-{effect.ledger}"

        def asking(last: bool, seen: int | None = None) -> Allot:
            return Allot(
                session_id=effect.session_id,
                principal_id=effect.principal_id,
                ask=effect.id,
                spent=effect.spent,
                want=effect.want,
                least=effect.least,
                at=max(self._clock.now(), effect.at),
                made=effect.made,
                priced=effect.priced,
                last=last,
                seen=seen,
            )

        async def ask(last: bool, seen: int | None = None) -> Account | None:
            command = asking(last, seen)
            failpoint("ledger.ask")
            reply = await patiently(lambda: self._ask(ledger, command, cause=cause, correlation=correlation))
            failpoint("ledger.asked")
            return _answered(reply.states[0], effect)

        if effect.raises is not None:
            consent = RaiseBudget(
                session_id=effect.session_id,
                principal_id=effect.principal_id,
                consent=effect.raises,
                at=max(self._clock.now(), effect.at),
            )
            failpoint("ledger.raise")
            await patiently(lambda: self._ask(ledger, consent, cause=cause, correlation=correlation))
            failpoint("ledger.raised")
        waiter = _Waiter(effect.session_id, effect.principal_id)
        if self._is_behind(waiter):  # who is before it may wait for what it was allotted already, and did not take
            account = _answered((await self._peek(ledger))[0], effect)
        else:
            account = await ask(last=False)
        if account is None:
            account = await self._in_line(ledger, waiter, asking, ask)
        if account is not None and account.grant is not None:
            return TakeAllotment(ask=effect.id, grant=account.grant)
        assert account is not None and account.breach is not None, "the ledger answers what it is asked"
        return RefuseAllotment(ask=effect.id, breach=account.breach)

    async def _in_line(
        self,
        ledger: str,
        waiter: _Waiter,
        asking: Callable[[bool], Allot],
        ask: Callable[[bool, int | None], Awaitable[Account | None]],
    ) -> Account | None:
        """Ask again whenever something was given back, behind those who wait for the same; then for the last time."""
        until = asyncio.get_running_loop().time() + WAIT_MAX_S
        state: State = (await self._peek(ledger))[0]
        breach = judge.in_the_way(state, asking(False))
        waiter.waits_for = _whose(breach)
        self._tell(waiter.session_id)  # what it held it gives back with what it asks for: its ledger has not heard
        self._waiting.append(waiter)
        if self._hears is None:
            self._hears = self._kernel.bus.on(_NEWS, self._news)
            self._hears.named = True
        try:
            everybody = True
            while True:
                if self._is_behind(waiter):
                    everybody = True  # it is told nothing meanwhile
                else:
                    if _is_counted(breach):
                        self._kernel.wake(ledger)  # where nobody has taken up the count that it owes
                    else:
                        whom, waiter.heard_of = (None if everybody else waiter.heard_of), set()
                        everybody = False
                        await self._recalls.all_but(ledger, waiter, whom)
                    account = await ask(False, None)
                    if account is not None:
                        return account
                    state = (await self._peek(ledger))[0]
                    counting, breach = _is_counted(breach), judge.in_the_way(state, asking(False))
                    if breach is None:
                        continue  # something came back just now
                    before, waiter.waits_for = waiter.waits_for, _whose(breach)
                    if waiter.waits_for != before:
                        self._wake()  # others may be the first of theirs now
                    if counting and not _is_counted(breach):
                        continue  # nobody was asked yet to let go of anything
                    if not judge.may_come_back(state, asking(False), breach, waiter.lost, waiter.calling):
                        account = await ask(True, state.version)
                        if account is not None:
                            return account
                        continue  # something has changed meanwhile
                left = until - asyncio.get_running_loop().time()
                if left <= 0:
                    return await ask(True, None)
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await waiter.news.wait()
                waiter.news.clear()
        finally:
            self._waiting.remove(waiter)
            self._wake()
            if not self._waiting:
                hears, self._hears = self._hears, None
                hears.unsubscribe()

    def _is_behind(self, waiter: _Waiter) -> bool:
        """Whether somebody waits before it for a limit that it falls under as well."""
        for other in self._waiting:
            if other is waiter:
                return False
            if other.waits_for == "scope" or (other.waits_for and other.principal == waiter.principal):
                return True
        return False

    def _first(self) -> Iterator[_Waiter]:
        """Those who wait behind nobody. All others would look and wait on."""
        served: set[str] = set()
        for waiter in self._waiting:
            if waiter.principal not in served:
                yield waiter
            if waiter.waits_for == "scope":
                return
            if waiter.waits_for:
                served.add(waiter.principal)

    def _wake(self) -> None:
        for waiter in self._first():
            waiter.news.set()

    def _tell(self, session_id: str) -> None:
        for waiter in self._waiting:
            waiter.heard_of.add(session_id)
        self._wake()

    def _news(self, recorded: Recorded) -> None:
        """Something happened that may leave more than there was."""
        data = recorded.data
        self._tell(data.session_id if isinstance(data, Allotted) else recorded.stream.removeprefix("session-"))


def _answered(state: State, effect: RequestAllotment) -> Account | None:
    account = state.accounts.get(effect.session_id)
    return account if account is not None and account.ask == effect.id else None


def _is_counted(breach: Breach | None) -> bool:
    """Whether nothing is in the way but that it is still being counted what was used before."""
    return breach is not None and breach.code == UNCOUNTED


def _whose(breach: Breach | None) -> str | None:
    """Of whose limits others may wait for the same. What a session itself used is counted for it alone."""
    return None if breach is None or (breach.code == UNCOUNTED and breach.of == "session") else breach.of


def not_asked(effect: RequestAllotment, code: str) -> RefuseAllotment:
    """What a session is told that asked for money, where its ledger could not be asked. code: why."""
    return RefuseAllotment(ask=effect.id, breach=Breach(code=code, limit="ledger", of="scope"))


class _Waiter(Asker):
    """A session that waits for money. waits_for: whose limit is in the way, as far as it is known. heard_of: sessions
    of which something was heard since it asked last."""

    __slots__ = ("heard_of", "news", "principal", "waits_for")

    def __init__(self, session_id: str, principal: str) -> None:
        super().__init__(session_id)
        self.principal = principal
        self.news = asyncio.Event()
        self.waits_for: str | None = None
        self.heard_of: set[str] = set()


_NEWS = tuple(
    kind.type
    for kind in (
        AllotmentReturned,
        Allotted,
        AllotmentDenied,
        BudgetSet,
        BudgetRaised,
        BudgetRemoved,
        UsageCounted,
        AllotmentTaken,
        ModelAnswered,
        ModelFailed,
        TurnCompleted,
    )
)
"""After these somebody may hold less, or let go of something."""
