"""Builds with one thing wrong each. A world of spending that passes one of them proves nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from reenact.actors import agent, allotment, book, count, judge, ledger
from reenact.actors import gate as gates
from reenact.actors import purse as money
from reenact.actors.tally import Tally
from reenact.events.ledger import AllotmentReturned
from reenact.money.counting import Counting
from reenact.money.recalls import Recalls

Build = Callable[[], contextlib.AbstractContextManager[Any]]

BROKEN: dict[str, Build] = {
    "it is checked, and then acted": lambda: patch.object(judge, "used", _checks_and_acts),
    "a reservation dies with its process": lambda: patch.object(gates, "gate", _forgets),
    "a late message is believed": lambda: patch.object(ledger, "_give_back", _believes),
    "only success is counted": lambda: patch.object(money, "failed", _only_success),
    "an allotment is taken back unasked": lambda: patch.object(Recalls, "_let_go", _takes_all),
    "nobody waits for who is at work": lambda: patch.object(judge, "may_come_back", lambda *_: False),
    "nobody is asked for what lies idle": lambda: patch.object(Recalls, "all_but", _asks_nobody),
    "a limit binds what is allotted later": lambda: patch.object(ledger, "_called_back", lambda state, *_: state),
    "who is at work does not hear of it": lambda: patch.object(Recalls, "heeded", _is_deaf),
}
"""Where something is limited from the beginning."""

MISCOUNTED: dict[str, Build] = {
    "nobody waits for the count": lambda: patch.multiple(ledger, judge=_does_not_wait),
    "what is counted twice counts twice": lambda: patch.object(count, "_new", _counts_again),
    "a count dies with its process": lambda: patch.object(count, "owed", lambda state: []),
    "what is under way is forgotten": lambda: patch.object(Tally, "open", False),
    "who has not heard is forgotten": lambda: patch.object(Counting, "late", _is_late),
    "a limit that is lifted forgets who works": lambda: patch.object(count, "lifted", _for_good),
    "calls without money set aside are not counted": lambda: patch.object(Tally, "_begin", _pays),
}
"""Where a limit is set in the middle."""

SHARED: dict[str, Build] = {
    "an allotment outlives its principal": lambda: patch.object(money, "began", _for_whomever),
    "a call counts before it was made": lambda: patch.object(book, "made_at", _long_ago),
    "it is asked for whoever was heard last": lambda: patch.object(agent, "owed_for", _of_the_newest),
}
"""Where principals share the sessions."""


def _checks_and_acts(sums: book.Sums, limit: Any, now: int) -> tuple[int, int]:
    """What others are about to spend is not looked at."""
    return _USED(sums, limit, now)[0], 0


_USED = book.used


def _forgets(purse: money.Purse, *asked: Any, **more: Any) -> gates.Gate:
    """A call whose process died is forgotten, though it may have been billed."""
    return _GATE(replace(purse, held=None), *asked, **more)


_GATE = gates.gate


def _believes(state: book.State, message: Any) -> Any:
    """What a session gave back of an earlier allotment is taken off its newest."""
    account = state.accounts.get(message.session_id)
    if account is None:
        return ()
    fields = {"session_id": message.session_id, "ask": account.ask, "at": message.at}
    return [AllotmentReturned(spent=message.spent, kept=message.kept, **fields)]


def _only_success(purse: Any, call: str, failure: Any, partial: Any, usage: Any, cost: Any, at: int) -> Any:
    """Only what succeeded is counted."""
    return replace(purse, held=None)


async def _takes_all(self: Recalls, session_id: str, account: Any) -> Any:
    """What a session holds is taken back without asking it."""
    return self.back(session_id, account.ask, account.told, money.NOTHING)


async def _asks_nobody(self: Recalls, *_: Any) -> None:
    """What others hold and do not need is left with them."""


async def _is_deaf(self: Recalls, stream: str) -> None:
    """A session at work does not hear that limits were changed."""


def _does_not_wait(state: book.State, *asked: Any, **more: Any) -> judge.Judged:
    """It is allotted from a limit before what was used without any is counted."""
    return _JUDGE(replace(state, counting=0), *asked, **more)


_JUDGE = judge.judge


def _counts_again(entry: Any, counted: Any, accounts: Any) -> Any:
    """What was told once is taken for news."""
    return entry.used, entry.spent


async def _is_late(self: Counting, session_id: str) -> None:
    """Nobody tells that a call is begun with nothing set aside for it."""


def _for_good(state: book.State) -> book.State:
    """A limit that is lifted takes what is awaited of sessions with it."""
    return state if state.budgets else replace(state, counting=0, open={})


def _pays(self: Tally, call: str, recorded: Any) -> None:
    """Every call is taken for one that something was set aside for."""
    self._call, self._paid = call, True


def _for_whomever(purse: Any, at: int, principal: str, terms: Any) -> Any:
    """What was allotted for one principal pays for the jobs of the next."""
    return _BEGAN(purse, at, "" if purse is None or purse.grant is None else purse.grant.principal, terms)


_BEGAN = money.began


def _of_the_newest(state: Any, purse: Any) -> Any:
    """It is asked for on behalf of whoever sent something last, though another's job runs."""
    last = state.queued[-1].principal if state.queued else state.principal
    return _OWED_FOR(replace(state, principal=last), purse)


_OWED_FOR = allotment.owed_for


def _long_ago(made: int, at: int, now: int) -> int:
    """A call is told as one of half a minute before it was made."""
    return _MADE_AT(made, at, now) - 30_000_000


_MADE_AT = book.made_at
