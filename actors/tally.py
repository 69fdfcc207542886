"""What one session used, as its stream says: with nothing set aside for it, and out of its purse. A pure fold.

A session that no ledger knows of spends without a word to any. When its scope is limited later, this is what is told:
the ends of its calls, as `reenact cost` counts them, and the calls of tools that were begun. Sums are over its whole
life, so who hears them twice counts them once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace

from ..events.agent import (
    AgentConfigured,
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ModelSelected,
    ToolStarted,
    TurnCompleted,
)
from ..events.budget import NOTHING, Amount, Terms, nanos
from ..events.content import Cost, Usage
from ..events.ledger import Counted
from ..events.message import Erased, Event, Recorded
from ..events.purse import AllotmentReleased, AllotmentTaken, AllotmentWanted, BudgetReserved
from ..events.session import JobQueued, JobStarted
from . import purse as money
from .calendar import DAY_US, month_of
from .purse import Purse
from .terms import merged


class Sum:
    """An amount, and what of it is of the day and of the month that are asked about."""

    __slots__ = ("all", "daily", "monthly")

    def __init__(self) -> None:
        self.all = self.daily = self.monthly = NOTHING


class Tally:
    """One session. `see` takes its events in order, each once, and never raises. at: of the day and the month of whose
    windows it gives sums, microseconds UTC."""

    __slots__ = (
        "_call",
        "_day",
        "_month",
        "_own",
        "_paid",
        "_purse",
        "_sealed",
        "_sender",
        "_senders",
        "_spent",
        "_terms",
        "_used",
        "_works",
    )

    def __init__(self, at: int) -> None:
        self._day, self._month = at // DAY_US, month_of(at)
        self._terms: Terms | None = None
        self._works = False
        self._own: Terms | None = None  # what the running job brought along
        self._purse: Purse | None = None
        self._call: str | None = None  # under way, and whether it was set aside for
        self._paid = False
        self._senders: dict[str, str] = {}  # for whom the jobs that wait count
        self._sender = ""  # for whom the running job counts, or the last one
        self._sealed = ""  # the batch in which something was set aside that can no longer be read
        self._used: dict[str, Sum] = {}
        self._spent: dict[str, Sum] = {}

    def see(self, recorded: Recorded) -> None:
        become = READ.get(type(recorded.data))
        if become is None:
            return
        spent, free = (NOTHING, NOTHING) if self._purse is None else (self._purse.spent, self._purse.free)
        become(self, recorded.data, recorded)
        purse = self._purse
        if purse is not None and purse.spent != spent:
            self._add(self._spent, purse.spent - spent, recorded)
        if purse is not None and purse.free != free:
            self._add(self._used, purse.free - free, recorded)

    @property
    def open(self) -> bool:
        """Whether more may come of it that no ledger hears of: a call under way that nothing was set aside for, or of
        no allotment, a job that knows of no ledger, or one that has not asked its own for what it spends."""
        if self._call is not None and not self._paid:
            return True
        if self._purse is not None and self._purse.held is not None and self._purse.held.free:
            return True
        if not self._works:
            return False
        if not any(terms is not None and terms.ledger for terms in (self._terms, self._own)):
            return True
        purse = self._purse
        return purse is not None and purse.asking is None and not purse.ceiling.covers(purse.at_most)

    def entries(self, session_id: str) -> Iterator[Counted]:
        """What is told to a ledger: an entry for each principal."""
        still = self.open
        names = dict.fromkeys((*self._used, *self._spent))
        if not names and still:
            names = {"": None}
        last = next(reversed(names), None)
        whole = sum((own.all for own in self._spent.values()), NOTHING)
        for principal in names:
            used, own = self._used.get(principal, _NONE), self._spent.get(principal, _NONE)
            yield Counted(
                session_id=session_id,
                principal_id=principal,
                used=used.all,
                used_daily=used.daily,
                used_monthly=used.monthly,
                spent=own.all,
                spent_daily=own.daily,
                spent_monthly=own.monthly,
                open=still and principal == last,
                whole=whole if own.all != NOTHING else None,
            )

    def _add(self, sums: dict[str, Sum], amount: Amount, recorded: Recorded) -> None:
        into, at = sums.setdefault(self._whose(recorded), Sum()), recorded.head.at
        into.all += amount
        if at // DAY_US >= self._day:  # what is ahead of its time, as a clock told it, is of now
            into.daily += amount
        if month_of(at) >= self._month:
            into.monthly += amount

    def _whose(self, recorded: Recorded) -> str:
        """For whom the running job counts. What drives it may have come of the end of another's before it."""
        return self._sender or recorded.context.principal

    # -- what its events make of it --

    def _on_configured(self, event: AgentConfigured, recorded: Recorded) -> None:
        self._terms = event.definition.terms
        purse = self._purse
        if self._terms is not None and self._works and (purse is None or not purse.counts):
            self._purse = replace(purse or money.EMPTY, counts=True)
        if self._works:
            self._purse = money.configured(self._purse, merged(self._terms, self._own))

    def _on_queued(self, event: JobQueued, recorded: Recorded) -> None:
        self._senders[event.job_id] = event.counts_for(recorded.context.principal)

    def _on_job(self, event: JobStarted, recorded: Recorded) -> None:
        self._works = True
        self._own = None if event.overrides is None else event.overrides.terms
        self._sender = self._senders.pop(event.job_id, "")
        self._purse = money.began(self._purse, recorded.head.at, self._sender, merged(self._terms, self._own))

    def _on_completed(self, event: TurnCompleted, recorded: Recorded) -> None:
        self._finish(recorded)

    def _finish(self, recorded: Recorded) -> None:
        self._works, self._own, self._call = False, None, None
        self._purse = money.ended(self._purse, recorded.head.at)

    def _on_selected(self, event: ModelSelected, recorded: Recorded) -> None:
        if self._purse is not None and not event.noted:
            self._purse = money.turned(self._purse, event)

    def _on_reserved(self, event: BudgetReserved, recorded: Recorded) -> None:
        self._purse = money.reserved(self._purse, event, recorded.head.at)

    def _on_called(self, event: ModelCalled, recorded: Recorded) -> None:
        self._begin(event.call, recorded)

    def _begin(self, call: str, recorded: Recorded) -> None:
        if call and self._purse is not None and self._purse.held is not None:
            self._purse = money.called(self._purse, merged(self._terms, self._own), recorded.head.at)
        held = None if self._purse is None else self._purse.held
        self._call = call
        self._paid = self._sealed == recorded.head.id or (held is not None and held.call == call)

    def _on_answered(self, event: ModelAnswered, recorded: Recorded) -> None:
        self._end(event.usage, event.cost, recorded)
        self._purse = money.settled(self._purse, event.call, event.usage, event.cost, recorded.head.at)

    def _on_failed(self, event: ModelFailed, recorded: Recorded) -> None:
        if not event.asked:
            self._call = None
            self._purse = None if self._purse is None else replace(self._purse, held=None)
            return
        self._end(event.usage, event.cost, recorded)
        if self._purse is not None:
            self._purse = money.failed(
                self._purse, event.call, event.failure, event.partial, event.usage, event.cost, recorded.head.at
            )

    def _end(self, usage: Usage | None, cost: Cost | None, recorded: Recorded) -> None:
        if not self._paid:
            self._add(self._used, _amount(usage, cost), recorded)
        self._call, self._paid = None, False

    def _on_started(self, event: ToolStarted, recorded: Recorded) -> None:
        if event.attempt > 1:
            return
        if self._purse is not None and self._purse.counts:
            self._purse = money.tool_begun(self._purse, recorded.head.at)
        else:
            self._add(self._used, Amount(tools=1), recorded)

    def _on_wanted(self, event: AllotmentWanted, recorded: Recorded) -> None:
        self._call = None  # who asks has none under way: one that was, without an end, its process took with it
        self._purse = money.asked(self._purse, event, recorded.head.at)

    def _on_taken(self, event: AllotmentTaken, recorded: Recorded) -> None:
        self._purse = money.taken(self._purse, event, recorded.head.at)

    def _on_released(self, event: AllotmentReleased, recorded: Recorded) -> None:
        self._purse = money.released(self._purse, event)

    def _on_erased(self, event: Erased, recorded: Recorded) -> None:
        """That it happened is known, what it said is not: a call that was erased was one."""
        match event.name:
            case "job_started":
                self._works, self._sender = True, ""
            case "turn_completed":
                self._finish(recorded)
            case "budget_reserved":
                self._sealed = recorded.head.id
            case "model_called":
                self._begin("", recorded)
            case "model_answered" | "model_failed":
                self._end(None, None, recorded)


def _amount(usage: Usage | None, cost: Cost | None) -> Amount:
    tokens = 0 if usage is None else max(0, usage.input_tokens + usage.output_tokens)
    return Amount(tokens=tokens, cost=_nanos(cost), requests=1)


def _nanos(cost: Cost | None) -> int:
    if cost is None or cost.amount is None:
        return 0
    try:
        return max(0, nanos(cost.amount))
    except (ArithmeticError, ValueError):  # what a program wrote into the log itself
        return 0


_NONE = Sum()

READ: dict[type[Event], Callable[[Tally, Any, Recorded], None]] = {
    AgentConfigured: Tally._on_configured,
    JobQueued: Tally._on_queued,
    JobStarted: Tally._on_job,
    TurnCompleted: Tally._on_completed,
    ModelSelected: Tally._on_selected,
    BudgetReserved: Tally._on_reserved,
    ModelCalled: Tally._on_called,
    ModelAnswered: Tally._on_answered,
    ModelFailed: Tally._on_failed,
    ToolStarted: Tally._on_started,
    AllotmentWanted: Tally._on_wanted,
    AllotmentTaken: Tally._on_taken,
    AllotmentReleased: Tally._on_released,
    Erased: Tally._on_erased,
}
"""The events that say something of it."""
