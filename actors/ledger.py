"""A ledger: the limits of a scope, and what of them is set aside for its sessions. Pure.

The law, at every position: what is settled and what is set aside together pass no limit that denies. So sessions spend
what they were allotted without asking, however many of them at once, and no check can be outrun by another's call.
What a call cost beyond what was set aside for it (its provider counted more than could be foreseen) is settled too.
That is one way past a limit; the other is what was used before it was set, which is counted first (count.py).

Time is what the commands say, and never runs backwards: a clock that was set back gives no money back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from ..events.budget import (
    COUNT_MAX,
    DOLLARS_MAX,
    LIMITS,
    NANO,
    NOTHING,
    dollars,
    most_of,
)
from ..events.errors import BadInput
from ..events.ledger import (
    AHEAD_MAX_S,
    Allot,
    AllotmentDenied,
    AllotmentReturned,
    Allotted,
    AwaitUsage,
    BudgetRaised,
    BudgetRemoved,
    BudgetSet,
    RaiseBudget,
    RecallAllotments,
    RecordCount,
    RecordUsage,
    RemoveBudget,
    ReturnAllotment,
    SetBudget,
    UsageAwaited,
    UsageCounted,
    UsageRecorded,
    is_reserved,
)
from ..events.message import Command, Context, Effect, Event, Stamp
from . import count
from .book import (
    Account,
    State,
    allotted,
    settled,
    standing_of,
    used_outside,
    whose,
)
from .decider import Decider, Noun
from .judge import granted, judge

_AHEAD_US = AHEAD_MAX_S * 1_000_000


# -- decide --


def decide(state: State, message: Command | Event) -> Sequence[Event]:
    match message:
        case Allot():
            return _allot(state, message)
        case ReturnAllotment():
            return _give_back(state, message)
        case SetBudget():
            return _set(state, message)
        case RaiseBudget():
            return _raise(state, message)
        case RemoveBudget():
            named = (message.principal_id, message.session_id)
            if not any(named == whose(standing.budget) for standing in state.budgets):
                return ()
            principal, session = named
            return [BudgetRemoved(principal_id=principal, session_id=session, at=message.at)]
        case RecordUsage():
            if message.at > message.heard + _AHEAD_US:
                raise BadInput(
                    "This was used later than it is told: its time is not in microseconds, or a clock is wrong."
                )
            fields = {name: getattr(message, name) for name in message.__struct_fields__}
            return [UsageRecorded(**fields)]
        case RecordCount():
            return count.record(state, message)
        case AwaitUsage():
            return count.wait(state, message)
    return ()


def _set(state: State, message: SetBudget) -> Sequence[Event]:
    budget = message.budget
    if not standing_of(budget).limits:
        raise BadInput("A budget without a limit limits nothing. To lift one, remove it.")
    if budget.principal_id is not None and budget.session_id is not None:
        raise BadInput("A budget is of a scope, of one principal or of one session; not of both.")
    if message.opening:
        known = state.opened.get(whose(budget)) == budget
    else:
        known = any(standing.budget == budget for standing in state.budgets)
    if known:
        return ()
    counts = message.counts and count.is_due(state)
    return [BudgetSet(budget=budget, at=message.at, counts=counts, opening=message.opening)]


def _raise(state: State, message: RaiseBudget) -> Sequence[Event]:
    consent = message.consent
    if _number(consent.action) <= state.raised.get(message.session_id, 0):
        return ()
    whose = {"principal": message.principal_id, "session": message.session_id}.get(consent.of, "")
    standing = next((each for each in state.budgets if each.key == (consent.of, whose)), None)
    limit = next((limit for limit in LIMITS if limit.name == consent.limit), None)
    now = most_of(standing.budget, limit) if standing is not None and limit is not None else None
    if now is None or limit is None or now != consent.most:
        return ()
    most = min(now + consent.by, DOLLARS_MAX * NANO if limit.of == "cost" else COUNT_MAX)
    return [
        BudgetRaised(
            session_id=message.session_id,
            asked_for=message.principal_id,
            consent=consent,
            most=most,
            at=message.at,
        )
    ]


def _number(action: str) -> int:
    """Questions of a session are numbered: a1, a2, ... Of what is none: 0, before all of them."""
    return int(action[1:]) if len(action) < 20 and action[1:].isascii() and action[1:].isdigit() else 0


def _allot(state: State, message: Allot) -> Sequence[Event]:
    account = state.accounts.get(message.session_id)
    if account is not None and not _newer(message.ask, account.ask):
        return ()
    free = settled(state, message.session_id, message.principal_id, message.spent, NOTHING, message.at, message.made)
    asker = message.principal_id, message.session_id
    judged = judge(free, *asker, message.want, message.least, priced=message.priced)
    asked: dict[str, Any] = {name: getattr(message, name) for name in _ASKED}
    if judged.breach is None:
        return [Allotted(**asked, grant=granted(free, message, judged))]
    last = message.last and message.seen in (None, state.version)
    if not last and not judged.for_sure:
        return ()
    return [AllotmentDenied(**asked, breach=judged.breach)]


_ASKED = ("session_id", "principal_id", "ask", "spent", "want", "least", "at", "priced", "made")


def _newer(ask: str, known: str) -> bool:
    """Whether an ask is another than the newest one, and not one that comes too late. They are numbered: w1, w2, ..."""
    if ask == known:
        return False
    if _is_numbered(ask) and _is_numbered(known):
        return int(ask[1:]) > int(known[1:])
    return True


def _is_numbered(ask: str) -> bool:
    return len(ask) < 20 and ask[:1] == "w" and ask[1:].isascii() and ask[1:].isdigit()


def _give_back(state: State, message: ReturnAllotment) -> Sequence[Event]:
    account = state.accounts.get(message.session_id)
    if account is None or account.ask != message.ask or not message.spent.covers(account.told):
        return ()
    kept = message.kept.least(account.held)
    over = is_reserved(message.session_id) and kept == NOTHING  # and forgotten, also where all of it was used
    if message.spent == account.told and kept == account.held and message.session_id not in state.due and not over:
        return ()
    return [
        AllotmentReturned(
            session_id=message.session_id,
            ask=message.ask,
            spent=message.spent,
            kept=kept,
            at=message.at,
            made=message.made,
        )
    ]


# -- evolve --


def evolve(state: State, event: Event, stamp: Stamp) -> State:
    after = _evolve(state, event, stamp.version)
    return after if after is state else replace(after, version=stamp.version)


def _evolve(state: State, event: Event, version: int) -> State:
    match event:
        case Allotted():
            free = settled(state, event.session_id, event.principal_id, event.spent, NOTHING, event.at, event.made)
            return _came_back(allotted(free, event), event.session_id)
        case AllotmentDenied():
            free = settled(state, event.session_id, event.principal_id, event.spent, NOTHING, event.at, event.made)
            account = free.accounts[event.session_id]
            account = replace(account, ask=event.ask, grant=None, breach=event.breach)
            denied = replace(free, accounts=free.accounts.insert(event.session_id, account))
            back = _came_back(denied, event.session_id)
            return _over(back, event.session_id) if account.told == NOTHING else back
        case AllotmentReturned():
            account = state.accounts.get(event.session_id) or Account("")
            free = settled(state, event.session_id, account.principal, event.spent, event.kept, event.at, event.made)
            return _over(_came_back(free, event.session_id), event.session_id)
        case BudgetSet():
            named = whose(event.budget)
            others = tuple(standing for standing in state.budgets if whose(standing.budget) != named)
            budgets = sorted((*others, standing_of(event.budget)), key=lambda standing: _ORDER[standing.key[0]])
            opened = {**state.opened, named: event.budget} if event.opening else state.opened
            changed = replace(state, budgets=tuple(budgets), opened=opened, now=max(state.now, event.at))
            changed = _called_back(changed, event.budget.session_id, version)
            return count.begun(changed, version) if event.counts else changed
        case BudgetRaised():
            return _raised(state, event)
        case BudgetRemoved():
            named = (event.principal_id, event.session_id)
            others = tuple(standing for standing in state.budgets if whose(standing.budget) != named)
            changed = count.lifted(replace(state, budgets=others, now=max(state.now, event.at)))
            return _called_back(changed, event.session_id, version)
        case UsageRecorded():
            return used_outside(state, event)
        case UsageCounted():
            return count.counted(state, event)
        case UsageAwaited():
            return count.awaited(state, event)
    return state


def _raised(state: State, event: BudgetRaised) -> State:
    name = event.consent.limit
    money = name.startswith("max_cost")
    most: str | int = dollars(event.most) if money else event.most
    whose = {"principal": event.asked_for, "session": event.session_id}.get(event.consent.of, "")
    if all(limit.name != name for limit in LIMITS) or not 0 <= event.most <= (
        DOLLARS_MAX * NANO if money else COUNT_MAX
    ):
        return state  # what a program wrote into the log itself
    budgets = tuple(
        standing_of(replace(each.budget, **{name: most})) if each.key == (event.consent.of, whose) else each
        for each in state.budgets
    )
    raised = {**state.raised, event.session_id: _number(event.consent.action)}
    return replace(state, budgets=budgets, raised=raised, now=max(state.now, event.at))


def _called_back(state: State, session: str | None, version: int) -> State:
    """What was allotted under other limits is called back: that of one session, or all of it. A limit of a principal
    is news to all too: that it ends with their jobs was not said to those who hold something."""
    due = {
        name: account.ask
        for name, account in state.accounts.items()
        if account.held != NOTHING and session in (None, name)
    }
    return replace(state, due=state.due.update(due), recalling=version) if due else state


def _over(state: State, holder: str) -> State:
    """A program's reservation that was given back or denied is never heard of again: it has no account."""
    if not is_reserved(holder) or state.accounts[holder].held != NOTHING:
        return state
    return replace(state, accounts=state.accounts.remove(holder))


def _came_back(state: State, session: str) -> State:
    if session not in state.due:
        return state
    return replace(state, due=state.due.remove(session))


_ORDER = {"scope": 0, "principal": 1, "session": 2}


def owed(state: State) -> Sequence[Effect]:
    # One effect for all who hold something: what is owed stands in every batch, as long as one of them is missing.
    recalls = [RecallAllotments(id=f"recall:{state.recalling}", due=state.due)] if state.due else []
    return [*recalls, *count.owed(state)] if state.counting or state.open else recalls


def recall(asked: str, events: Sequence[Event]) -> Command | None:
    match asked, events[0]:
        case "set_budget", BudgetSet() as made:
            return SetBudget(budget=made.budget, at=made.at, counts=made.counts, opening=made.opening)
        case "remove_budget", BudgetRemoved() as gone:
            return RemoveBudget(principal_id=gone.principal_id, session_id=gone.session_id, at=gone.at)
        case "raise_budget", BudgetRaised() as more:
            return RaiseBudget(
                session_id=more.session_id, principal_id=more.asked_for, consent=more.consent, at=more.at
            )
        case "allot", (Allotted() | AllotmentDenied()) as answered:
            return Allot(**{name: getattr(answered, name) for name in _ASKED}, last=True)
        case "return_allotment", AllotmentReturned() as back:
            return ReturnAllotment(
                session_id=back.session_id, ask=back.ask, spent=back.spent, kept=back.kept, at=back.at, made=back.made
            )
        case "record_usage", UsageRecorded() as entry:
            return RecordUsage(**{name: getattr(entry, name) for name in entry.__struct_fields__})
        case "record_count", UsageCounted() as told:
            return RecordCount(**{name: getattr(told, name) for name in told.__struct_fields__})
        case "await_usage", UsageAwaited() as awaited:
            return AwaitUsage(session_id=awaited.session_id, at=awaited.at)
    return None


def _context(states: tuple[State], context: Context) -> Context:
    return context


LEDGER = Noun("ledger-", (Decider("ledger", State(), decide, evolve, owed, recall),), _context, lambda states: None)
