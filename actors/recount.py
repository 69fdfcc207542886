"""What sessions used with nothing set aside for it, counted again from events alone and held against what ledgers were
told. Pure.

Once a limit was set where none stood, its ledger is told what every session of the scope used until then: no more, and
no session is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

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
from ..events.ledger import Counted, UsageCounted
from ..events.message import Erased, Recorded
from ..events.purse import AllotmentWanted, BudgetReserved
from ..events.session import JobQueued, JobStarted
from .purse import UNBILLED
from .selection import REFUSED

Sums = dict[str, Amount]
"""By principal."""


class Recount:
    """Of all streams of a log. What ledgers were told is to be seen before the sessions it is about, as `verify` reads
    a log; of a session that was seen beyond what was told, it is only found whether more was told than is there."""

    def __init__(self) -> None:
        self._claims: dict[str, list[tuple[int, int, Counted]]] = {}
        self._wholes: dict[str, list[tuple[int, int]]] = {}
        self._sessions: dict[str, Session] = {}

    def told(self, event: UsageCounted, recorded: Recorded) -> None:
        """A ledger was told."""
        scope = recorded.stream.removeprefix("ledger-")
        for entry in event.entries:
            self._claims.setdefault(entry.session_id, []).append((event.upto, recorded.position, entry))
        if event.done:
            self._wholes.setdefault(scope, []).append((event.upto, recorded.position))

    def session(self, name: str) -> Session:
        found = self._sessions.get(name)
        if found is None:
            found = self._sessions[name] = Session(self, name)
        return found

    def due(self, session: Session, before: int) -> Iterator[tuple[str, int, str]]:
        """Hold a session as it stands against what was told of it up to a position below `before`."""
        claims = self._claims.get(session.name)
        if claims:
            ready = [claim for claim in claims if claim[0] < before]
            if ready:
                self._claims[session.name] = [claim for claim in claims if claim[0] >= before]
                for upto, position, entry in ready:
                    for what in session.compare(upto, entry):
                        yield f"session-{session.name}", position, what
        for upto, position in self._wholes.get(session.scope, ()):
            if session.whole < upto < before:
                session.whole = upto
                if session.at <= upto and session.told != session.used:
                    there, told = _shown(session.used), _shown(session.told)
                    yield f"session-{session.name}", position, f"{session.name} used {there}, and {told} was counted"

    def found(self) -> Iterator[tuple[str, int, str]]:
        """What is wrong when all streams were seen: the stream, where it was told, what."""
        for session in self._sessions.values():
            if not session.lost:
                yield from self.due(session, 1 << 62)


class Session:
    """What one session used so far. at: the position of the newest event. told: what ledgers were told of it."""

    def __init__(self, recount: Recount, name: str) -> None:
        self._recount = recount
        self.name = name
        self.scope = ""
        self.at = self.whole = 0
        self.lost = False
        self.used: Sums = {}
        self.told: Sums = {}
        self._spent: Sums = {}  # by a purse, at most
        self._counts = self._works = False
        self._terms: Terms | None = None
        self._own: Terms | None = None  # what the running job brought along
        self._apart = False  # what it spends under its budget is of no allotment, and is counted as used
        self._aside: tuple[str, str, Amount] = "", "", NOTHING  # the call, its batch, what was set aside for it
        self._free = False  # that is of no allotment
        self._held = False  # the call that it is for has no end
        self._paid = False
        self._senders: dict[str, str] = {}  # for whom the jobs that wait count
        self._sender = ""  # for whom the running job counts, or the last one

    def see(self, recorded: Recorded) -> Iterator[tuple[str, int, str]]:
        """What was told wrongly of what came before this event."""
        if self.lost:
            return
        self.scope = self.scope or recorded.context.scope
        yield from self._recount.due(self, recorded.position)
        self.at = recorded.position
        match recorded.data:
            case AgentConfigured(definition=definition):
                self._terms = definition.terms
                self._counts = self._counts or (self._works and self._terms is not None)
                if self._works:
                    self._apart = self._kept_apart()
            case JobQueued(job_id=job_id) as job:
                self._senders[job_id] = job.counts_for(recorded.context.principal)
            case Erased(name="job_started"):
                self._sender = ""
            case JobStarted(job_id=job_id, overrides=overrides):
                self._works = True
                self._sender = self._senders.pop(job_id, "")
                self._own = None if overrides is None else overrides.terms
                self._counts, self._apart = bool(self._known()), self._kept_apart()
            case TurnCompleted():
                self._lost(recorded)
                self._works, self._counts, self._own = False, False, None
            case BudgetReserved(call=call, tokens=tokens, cost=cost):
                self._lost(recorded)
                self._aside, self._free, self._held = (
                    (call, recorded.head.id, Amount(tokens, cost, 1)),
                    self._apart,
                    True,
                )
                if not self._free:
                    self._spends(self._aside[2], recorded)
            case AllotmentWanted():
                self._lost(recorded)
            case ModelSelected(noted=False, reason=reason, because=because):
                if reason == "budget" or because in REFUSED:
                    self._lost(recorded)
                self._held = False
            case ModelCalled(call=call):
                self._paid = self._aside[:2] == (call, recorded.head.id)
                if not self._paid:
                    self._lost(recorded)
            case ModelAnswered(usage=usage, cost=cost):
                self._ended(usage, cost, recorded)
            case ModelFailed(usage=usage, cost=cost, failure=failure) as event:
                if event.asked:
                    away = usage is None and cost is None and not event.partial and failure.code in UNBILLED
                    self._ended(usage, cost, recorded, away=away)
                self._held = False
            case ToolStarted(attempt=1):
                if self._counts and not self._apart:
                    self._spends(Amount(tools=1), recorded)
                else:
                    self._uses(Amount(tools=1), recorded)

    def _known(self) -> list[Terms]:
        """The budgets that the running job is under."""
        return [terms for terms in (self._terms, self._own) if terms is not None]

    def _kept_apart(self) -> bool:
        return all(terms.ledger is None for terms in self._known())

    def _lost(self, recorded: Recorded) -> None:
        """Nobody hears of the end of the call under way: it used what was set aside for it."""
        if self._held and self._free:
            self._uses(self._aside[2], recorded)
        self._held = False

    def _ended(self, usage: Usage | None, cost: Cost | None, recorded: Recorded, *, away: bool = False) -> None:
        """away: it was turned away before it was read."""
        tokens = usage.input_tokens + usage.output_tokens if usage is not None else 0
        amount = Amount(tokens, nanos(cost.amount) if cost is not None and cost.amount is not None else 0, 1)
        if self._paid and self._held and self._free:
            most = self._aside[2]
            if usage is None and not away:
                amount = most
            elif cost is None or cost.amount is None:
                amount = replace(amount, cost=0 if away else most.cost)
            self._uses(amount, recorded)
            self._held = False
        elif self._paid:
            self._spends(amount - self._aside[2], recorded)
            self._held = False
        else:
            self._uses(amount, recorded)

    def _whose(self, recorded: Recorded) -> str:
        return self._sender or recorded.context.principal

    def _uses(self, amount: Amount, recorded: Recorded) -> None:
        principal = self._whose(recorded)
        self.used[principal] = self.used.get(principal, NOTHING) + amount

    def _spends(self, amount: Amount, recorded: Recorded) -> None:
        principal = self._whose(recorded)
        self._spent[principal] = self._spent.get(principal, NOTHING) + amount

    def compare(self, upto: int, entry: Counted) -> Iterator[str]:
        principal, used, spent = entry.principal_id, entry.used, entry.spent
        there = self.used.get(principal, NOTHING)
        if used != NOTHING:
            self.told[principal] = used
        if not there.covers(used):
            yield f"{_amount(used)} of {self.name} was counted for {principal}, and {_amount(there)} is there"
        elif self.at <= upto and used != there:
            yield f"{_amount(used)} of {self.name} was counted for {principal} up to {upto}, of {_amount(there)}"
        whole = sum(self._spent.values(), NOTHING)
        aside = self._spent.get(principal, NOTHING)
        if not aside.covers(spent):
            yield f"{_amount(spent)} spent by {self.name} was counted for {principal}, of {_amount(aside)}"
        if entry.whole is not None and not whole.covers(entry.whole):
            yield f"{_amount(entry.whole)} spent by {self.name} was counted, and {_amount(whole)} was set aside"


def _shown(sums: Sums) -> str:
    return ", ".join(f"{_amount(amount)} for {name}" for name, amount in sums.items()) or "nothing"


def _amount(amount: Amount) -> str:
    return f"{amount.tokens}/{amount.cost}/{amount.requests}/{amount.tools}"
