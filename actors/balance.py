"""Whether money was kept to, told by the events alone: no ledger or purse has a say in what is right here. Pure.

Of a ledger: nothing was allotted that would pass a limit that denies, nor before what was used without any was counted.
Of a session: under a budget no model was called without money set aside for it in the same append, nor with money that
it had let go of, nor after the day it was allotted for, nor for one principal with what was allotted for another. Of
both: once a limit was set or lifted, a session makes one more call at most with what was allotted to it before; and
what was counted is what was used (recount.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import date

from msgspec import Struct
from msgspec.structs import replace

from ..events.agent import AgentConfigured, ModelCalled
from ..events.budget import LIMITS, Amount, Budget, Limit, Terms, dollars, most_of, nanos
from ..events.ledger import (
    AllotmentDenied,
    AllotmentReturned,
    Allotted,
    BudgetRaised,
    BudgetRemoved,
    BudgetSet,
    UsageAwaited,
    UsageCounted,
    UsageRecorded,
    falls_to,
    is_reserved,
)
from ..events.message import Recorded
from ..events.purse import AllotmentReleased, AllotmentTaken, AllotmentWanted, BudgetReserved
from ..events.session import JobQueued, JobStarted
from .recount import Recount, Session

_DAY_US = 86_400_000_000
_MINUTE_US = 60_000_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()


Allotment = tuple[str, str, str]
"""The scope of its ledger, its session, its name in the session."""


class Changes:
    """Of all streams of a log: what was called back since which position, and what was still spent of it."""

    def __init__(self) -> None:
        self._since: dict[Allotment, int] = {}
        self._last: dict[Allotment, int] = {}
        self._for: dict[Allotment, str] = {}
        self.recount = Recount()

    def allotted(self, allotment: Allotment, principal: str) -> None:
        self._for[allotment] = principal

    def principal_of(self, allotment: Allotment) -> str | None:
        """For whom it was allotted, None where that is not known."""
        return self._for.get(allotment)

    def changed(self, allotment: Allotment, position: int) -> None:
        """Limits are others than those it was allotted under."""
        self._since.setdefault(allotment, position)

    def called(self, allotment: Allotment, position: int) -> None:
        """Its session made a call with it there, and then another."""
        self._last[allotment] = position

    def found(self) -> Iterator[tuple[str, int, str]]:
        """What is wrong when all streams were seen: the stream, the position of the change, what."""
        for allotment, since in self._since.items():
            scope, session, ask = allotment
            if self._last.get(allotment, 0) > since:
                what = f"{session} went on with {ask}, which was called back when limits of {scope} were changed"
                yield f"session-{session}", since, what
        yield from self.recount.found()


class Balance:
    """One stream. `see` takes its events in order. changes: of the whole log."""

    def __init__(self, changes: Changes | None = None) -> None:
        self._changes = Changes() if changes is None else changes
        self._ledger = ""
        self._ask = ""
        self._call: tuple[str, int] | None = None  # the newest one made with it, and where
        self._kept: str | None = None  # after letting go: the one call that it still has money for
        self._released = False
        self._until = 0  # when the time of what it was allotted is over
        self._budgets: dict[tuple[str | None, str | None], Budget] = {}
        self._held: dict[str, tuple[str, str, Amount, Amount, int]] = {}  # session: principal, ask, told, held, since
        self._spent: dict[tuple[str, str | None], list[_Spent]] = defaultdict(list)
        self._counting = 0  # the version of the limit for which is counted what was used without any
        self._told: dict[tuple[str, str], Amount] = {}  # used with nothing set aside, by session and principal
        self._shares: dict[tuple[str, str], Amount] = defaultdict(Amount)  # what of `told` in `_held` is of whom
        self._session: Session | None = None
        self._now = 0
        self._terms: Terms | None = None
        self._own: Terms | None = None  # what the running job brought along
        self._reserved: tuple[str, str] | None = None
        self._senders: dict[str, str] = {}  # for whom the jobs that wait count
        self._sender: str | None = None  # for whom the running job counts

    def lose(self) -> None:
        """What follows in its stream cannot be read, or not be understood."""
        if self._session is not None:
            self._session.lost = True

    def see(self, recorded: Recorded) -> Iterator[str]:
        """What is wrong with this event, after those before it."""
        if recorded.stream.startswith("session-"):
            if self._session is None:
                self._session = self._changes.recount.session(recorded.stream.removeprefix("session-"))
            for _, _, what in self._session.see(recorded):
                yield what
        match recorded.data:
            case AgentConfigured(definition=definition):
                self._terms = definition.terms
            case JobQueued(job_id=job_id) as job:
                self._senders[job_id] = job.counts_for(recorded.context.principal)
            case JobStarted(job_id=job_id, overrides=overrides):
                self._sender = self._senders.pop(job_id, None)
                self._own = None if overrides is None else overrides.terms
            case BudgetReserved(call=call):
                self._reserved = call, recorded.head.id
                yield from self._spends(recorded, call)
            case AllotmentWanted(ledger=ledger):
                self._ledger, self._ask, self._call, self._released = ledger, "", None, False
            case AllotmentTaken(ask=ask, grant=grant):
                self._ask, self._call, self._released, self._until = ask, None, False, grant.until
            case AllotmentReleased(kept=kept):
                self._released = True
                self._kept = self._call[0] if self._call is not None and kept.requests else None
            case ModelCalled(call=call):
                if (self._terms is not None or self._own is not None) and self._reserved != (call, recorded.head.id):
                    yield f"{call} is called under a budget, and nothing is set aside for it"
            case Allotted() | AllotmentDenied() | AllotmentReturned() as event:
                allotment = recorded.stream.removeprefix("ledger-"), event.session_id, event.ask
                if isinstance(event, Allotted):
                    self._changes.allotted(allotment, event.principal_id)
                yield from self._moved(event)
            case BudgetSet(budget=budget, at=at, counts=counts):
                self._budgets[budget.principal_id, budget.session_id] = budget
                self._counting = recorded.version if counts else self._counting
                self._now = max(self._now, at)
                self._called_back(recorded, budget.session_id)
            case BudgetRaised() as more:
                self._raised(more)
                self._now = max(self._now, more.at)
            case BudgetRemoved(principal_id=principal, session_id=session, at=at):
                self._budgets.pop((principal, session), None)
                self._counting = self._counting if self._budgets else 0
                self._now = max(self._now, at)
                self._called_back(recorded, session)
            case UsageRecorded() as usage:
                self._outside(usage)
            case UsageAwaited(at=at):
                self._now = max(self._now, at)
            case UsageCounted() as told:
                self._changes.recount.told(told, recorded)
                yield from self._counted(told)

    def _spends(self, recorded: Recorded, call: str) -> Iterator[str]:
        known = [terms for terms in (self._terms, self._own) if terms is not None]
        if known and all(terms.ledger is None for terms in known):
            return  # it keeps to a limit of its own, with money of no ledger
        if known and 0 < self._until <= recorded.head.at:
            yield f"{call} is called with what was allotted for a time that is over"
        if self._released and call != self._kept:
            yield f"{call} is called with money that was let go of"
        allotment = self._ledger, recorded.stream.removeprefix("session-"), self._ask
        whose = self._changes.principal_of(allotment)
        if whose is not None and self._sender not in (None, whose):
            yield f"{call}, which {self._sender} asked for, is paid with what was allotted for {whose}"
        if self._call is not None and self._call[0] != call:
            self._changes.called(allotment, self._call[1])
        self._call = call, recorded.position

    def _raised(self, event: BudgetRaised) -> None:
        of, limit = event.consent.of, event.consent.limit
        key = (event.asked_for if of == "principal" else None, event.session_id if of == "session" else None)
        if key in self._budgets:
            value: str | int = dollars(event.most) if limit.startswith("max_cost") else event.most
            self._budgets[key] = replace(self._budgets[key], **{limit: value})

    def _called_back(self, recorded: Recorded, session: str | None) -> None:
        scope = recorded.stream.removeprefix("ledger-")
        for name, (_, ask, _, held, _) in self._held.items():
            if held != Amount() and session in (None, name):
                self._changes.changed((scope, name, ask), recorded.position)

    def _moved(self, event: Allotted | AllotmentDenied | AllotmentReturned) -> Iterator[str]:
        self._now = max(self._now, event.at)
        principal, ask, told, held, since = self._held.get(event.session_id, ("", "", Amount(), Amount(), 0))
        if isinstance(event, AllotmentReturned) and event.ask != ask:
            yield f"{event.session_id} gives back {event.ask}, and holds {ask}"
        made = self._now - max(0, event.at - event.made) if event.made else self._now
        self._settle(principal, event.session_id, event.spent - told, since or self._now, made)
        if not is_reserved(event.session_id):
            whose = event.principal_id if not principal and not isinstance(event, AllotmentReturned) else principal
            self._shares[event.session_id, whose] += event.spent - told
        kept = event.kept if isinstance(event, AllotmentReturned) else Amount()
        if not held.covers(kept):
            yield f"{event.session_id} keeps more than it held"
        self._held[event.session_id] = principal, ask, told + (event.spent - told), kept, since
        if isinstance(event, AllotmentReturned):
            if is_reserved(event.session_id) and kept == Amount():
                del self._held[event.session_id]  # one of this name would be another
            return
        if isinstance(event, Allotted):
            yield from self._granted(event)
        amount = event.grant.amount if isinstance(event, Allotted) else Amount()
        told = self._held[event.session_id][2]
        since = self._now if isinstance(event, Allotted) else since  # a denial begins no allotment
        self._held[event.session_id] = event.principal_id, event.ask, told, amount, since

    def _counted(self, event: UsageCounted) -> Iterator[str]:
        if event.count not in (0, self._counting):
            yield f"it is counted for {event.count}, and owed for {self._counting}"
        self._now = max(self._now, event.at)
        for entry in event.entries:
            principal, session = entry.principal_id, entry.session_id
            known = self._told.get((session, principal), Amount())
            used = entry.used - known
            self._told[session, principal] = known + used
            whose, ask, told, held, since = self._held.get(session, (principal, "", Amount(), Amount(), 0))
            spent = Amount()
            if entry.whole is not None and held == Amount():
                spent = (entry.spent - self._shares[session, principal]).least(entry.whole - told)
            if spent != Amount():
                self._held[session] = whose, ask, told + spent, held, since
                self._shares[session, principal] += spent
            for new, month, day in (
                (used, entry.used_monthly, entry.used_daily),
                (spent, entry.spent_monthly, entry.spent_daily),
            ):
                this_month = month.least(new)
                today = day.least(this_month)
                self._spend(principal, session, _Spent(None, None, None, new - this_month))
                self._spend(principal, session, _Spent(None, _window(event.at, "month"), None, this_month - today))
                self._spend(
                    principal, session, _Spent(_window(event.at, "day"), _window(event.at, "month"), None, today)
                )
        if event.done:
            self._counting = 0

    def _granted(self, event: Allotted) -> Iterator[str]:
        if self._counting:
            yield f"{event.session_id} is allotted something, and what was used before is not counted"
        for (principal, session), budget in self._budgets.items():
            if principal not in (None, event.principal_id) or session not in (None, falls_to(event.session_id)):
                continue
            if budget.exceed_strategy != "deny":
                continue
            for limit in LIMITS:
                most, wanted = most_of(budget, limit), getattr(event.grant.amount, limit.of)
                if most is None or limit.window == "request" or not wanted:
                    continue
                there = self._there(limit, principal, session)
                if there + wanted > most:
                    yield f"{limit.name} is {most}: {wanted} is allotted to {event.session_id}, and {there} is used"

    def _settle(self, principal: str, session: str, spent: Amount, since: int, told: int | None = None) -> None:
        told = self._now if told is None else told
        self._spend(principal, session, _Spent(_window(since, "day"), _window(since, "month"), told, spent))

    def _spend(self, principal: str, session: str, spent: _Spent) -> None:
        if spent.amount != Amount():
            for key in (("", ""), ("principal", principal), ("session", falls_to(session))):
                self._spent[key].append(spent)

    def _outside(self, usage: UsageRecorded) -> None:
        self._now = max(self._now, usage.heard)
        used_at = min(usage.at, self._now)
        if usage.kind not in ("model_usage", "tool_usage", "connector_usage"):
            return
        spent = Amount(
            tokens=usage.total_tokens or usage.input_tokens + usage.output_tokens,
            cost=nanos(usage.cost) if usage.cost is not None else 0,
            requests=usage.kind == "model_usage",
            tools=usage.kind == "tool_usage",
        )
        whose, session, rest = usage.principal_id or "", usage.session_id or "", spent
        if usage.holder is not None and usage.holder in self._held and is_reserved(usage.holder):
            principal, ask, known, held, since = self._held[usage.holder]
            self._held[usage.holder] = principal, ask, known, held - spent, since
            rest = spent - held
            self._settle(whose, session, spent - rest, since, used_at)
        self._settle(whose, session, rest, used_at, used_at)

    def _there(self, limit: Limit, principal: str | None, session: str | None) -> int:
        """What is settled and set aside of a limit, in its window, as of now."""
        key = ("session", session) if session else ("principal", principal) if principal else ("", "")
        window, now = limit.window, self._now

        def counts(day: tuple[int, ...] | None, month: tuple[int, ...] | None, told: int | None) -> bool:
            match window:
                case "minute":
                    return told is not None and told > now - _MINUTE_US
                case "day":
                    return day == _window(now, window)
                case "month":
                    return month == _window(now, window)
            return True

        spent: int = sum(
            getattr(each.amount, limit.of) for each in self._spent[key] if counts(each.day, each.month, each.told)
        )
        for name, (whose, _, _, held, since) in self._held.items():
            mine = session in (None, falls_to(name)) and principal in (None, whose)
            if mine and (window in ("minute", "total") or _window(since, window) == _window(now, window)):
                spent += getattr(held, limit.of)
        return spent


class _Spent(Struct, frozen=True):
    """Something used, with its windows; None: of an earlier one. told: when it was heard of, which says in which minute
    it counts; None: in none."""

    day: tuple[int, ...] | None
    month: tuple[int, ...] | None
    told: int | None
    amount: Amount


def _window(at: int, window: str) -> tuple[int, ...]:
    day = at // _DAY_US + _EPOCH_DAY
    if window == "day" or not 1 <= day <= date.max.toordinal():
        return (day,)
    then = date.fromordinal(day)
    return then.year, then.month
