"""What sessions hold and do not need, called back: limits were changed, or another waits for it.

When a limit is set or lifted, the ledger owes that everybody lets go of what was allotted under the limits before:
those at rest at once, those at work before their next call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

from ..actors.book import Account, State
from ..actors.clock import Clock
from ..actors.purse import Purse
from ..events.budget import NOTHING, Amount
from ..events.errors import Busy, Closed, Conflict, Corrupt, DiskFull, NewerFormat
from ..events.failpoint import failpoint
from ..events.ledger import RecallAllotments, ReturnAllotment
from ..events.message import Command
from ..events.purse import AllotmentReleased, ReleaseAllotment
from ..flow.ends import retell_s
from ..flow.kernel import Kernel, Who

if TYPE_CHECKING:
    from ..actors.system import Reply

RECALLS_MAX = 64
"""Sessions that are asked at once to let go of what they do not need."""

_log = logging.getLogger("reenact")


class Asker:
    """For whom others are asked. lost: those who cannot be asked for what they hold. calling: those who call a model
    with it, and their ask."""

    __slots__ = ("calling", "lost", "session_id")

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.lost: set[str] = set()
        self.calling: dict[str, str] = {}


class Recalls:
    """Of one scope. outside: who holds something for a program, and no session; see `budgets.Ledger.reserve`."""

    def __init__(self, kernel: Kernel, clock: Clock, scope: str) -> None:
        self._kernel = kernel
        self._ask = partial(kernel.ask, by=Who(scope, kernel.who.principal))
        self._peek = partial(kernel.peek, scope=scope)
        self._clock = clock
        self._stream = f"ledger-{scope}"
        self.outside: set[str] = set()

    # -- limits that were changed --

    async def recall(self, effect: RecallAllotments) -> Command:
        """Have every session that holds something let go of what was allotted under other limits, and tell the ledger.
        One that is in the middle of something lets go before its next call of a model."""
        due = sorted((f"session-{session_id}", ask) for session_id, ask in effect.due.items())
        self._kernel.called_back.update(due)
        failpoint("ledger.recall")
        for at in range(0, len(due), RECALLS_MAX):
            await asyncio.gather(*(self._recall(*each) for each in due[at : at + RECALLS_MAX]))
        return NOT_BACK

    async def _recall(self, stream: str, ask: str) -> None:
        try:
            back = await self._called_back(stream, ask)
            failpoint("ledger.recalled")
            if back is not None:
                await patiently(lambda: self._ask(self._stream, back))
        except Closed:
            raise
        except Exception:
            _log.exception("what %s holds under other limits could not be called back", stream)

    async def heeded(self, stream: str) -> None:
        """Before a session calls a model: it lets go of what is called back, but for this call."""
        ask = self._kernel.called_back.get(stream)
        if ask is not None:
            back = await self._called_back(stream, ask)
            if back is not None:
                await patiently(lambda: self._ask(self._stream, back))

    async def _called_back(self, stream: str, ask: str) -> ReturnAllotment | None:
        session_id = stream.removeprefix("session-")
        state: State = (await self._peek(self._stream))[0]
        account = state.accounts.get(session_id)
        gone = account is None or account.ask != ask
        try:
            back = None if account is None or gone else await self._let_go(session_id, account)
        except _LeftAlone:
            back = None
        if (gone or back is not None) and self._kernel.called_back.get(stream) == ask:
            del self._kernel.called_back[stream]
        return back

    # -- another waits --

    async def all_but(self, ledger: str, asker: Asker, whom: Collection[str] | None) -> None:
        """Have every other session that holds something of this ledger let go of what it does not need; or those of
        `whom`."""
        state: State = (await self._peek(ledger))[0]
        holding = [
            (session_id, account)
            for session_id, account in sorted(state.accounts.items())
            if account.held != NOTHING and session_id != asker.session_id and (whom is None or session_id in whom)
        ]

        async def one(session_id: str, account: Account) -> None:
            try:
                back = await self._let_go(session_id, account)
            except (_LeftAlone, Corrupt, NewerFormat):
                asker.lost.add(session_id)
            else:
                if back is not None:
                    if back.kept.requests:
                        asker.calling[session_id] = back.ask
                    await patiently(lambda: self._ask(ledger, back))

        for at in range(0, len(holding), RECALLS_MAX):
            await asyncio.gather(*(one(*each) for each in holding[at : at + RECALLS_MAX]))

    # -- letting go --

    async def _let_go(self, session_id: str, account: Account) -> ReturnAllotment | None:
        """Have a session let go of what it does not need. Gives what its ledger is told; None where it is about to take
        it, and lets go later. Raises _LeftAlone."""
        if session_id in self.outside:
            return None
        stream = f"session-{session_id}"
        ours = self._kernel.dispatch.is_at(stream)  # what it owed a moment ago may have its end by now
        states = await self._peek(stream)
        purse: Purse | None = states[1].purse
        if purse is None:
            return self.back(session_id, account.ask, account.told, NOTHING)
        if purse.asking is not None and purse.asking.ask == account.ask:
            return None
        if purse.source != account.ask:
            spent, kept = purse.spent, NOTHING  # nobody took it
        else:
            if purse.ceiling - purse.spent != purse.aside:
                if not ours and not self._kernel.may_touch(stream, states):
                    raise _LeftAlone
                reply = await self._ask(stream, ReleaseAllotment(ask=account.ask))
                purse = reply.states[1].purse
                assert purse is not None
            if purse.source != account.ask:
                return None  # it has asked for more meanwhile, and told all
            spent, kept = purse.spent, purse.ceiling - purse.spent
        return self.back(session_id, account.ask, spent, kept, purse.made)

    def back(self, session_id: str, ask: str, spent: Amount, kept: Amount, made: int = 0) -> ReturnAllotment:
        at = self._clock.now()
        return ReturnAllotment(session_id=session_id, ask=ask, spent=spent, kept=kept, at=at, made=made)

    async def settle(self, session_id: str, released: AllotmentReleased, scope: str) -> None:
        """A session has let go of something: let the ledger know. Were this cut short, the next recall tells it."""
        purse: Purse | None = (await self._peek(f"session-{session_id}"))[1].purse
        made = 0 if purse is None else purse.made  # which may tell of a later call: that counts longer, never shorter
        back = self.back(session_id, released.ask, released.spent, released.kept, made)
        await self._ask(f"ledger-{scope}", back)


async def patiently(ask: Callable[[], Awaitable[Reply]]) -> Reply:
    """Ask again where nothing was written and there may be room soon."""
    tries = 0
    while True:
        try:
            return await ask()
        except (DiskFull, Busy, Conflict) as error:
            _log.log(logging.DEBUG if tries else logging.ERROR, "the ledger could not be written: %s", error)
            await asyncio.sleep(retell_s(tries))
            tries += 1


NOT_BACK = ReturnAllotment(session_id="", ask="", spent=NOTHING, at=0)
"""What its ledger is told at the end: nothing. What did not come back stays owed, for the next owner to see to."""


class _LeftAlone(Exception):
    """An earlier owner left it in the middle of something, and nobody has taken that up."""
