"""A ledger's counting of what sessions used while nothing limited them: from their own sums, once. Pure.

A session that no ledger knows of spends without a word to any. Where a limit is set and none stood before, it is owed
that the log is read, and nothing is allotted until it was:

    budget_set(counts) --> usage_counted ... usage_counted(done)
                                '--> usage_counted, of each session whose call was under way then, when that has ended

What is told are the sums of a session over its whole life. What is more than was told before is new, so what is told
twice is counted once. What a purse spent with nothing allotted for it is among them. All are told and known by
principal: a session may have worked for several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from ..events.budget import NOTHING, Amount
from ..events.ledger import AwaitUsage, Counted, CountUsage, RecordCount, UsageAwaited, UsageCounted
from ..events.message import Effect, Event
from .book import NO_SUMS, Account, State, Sums, keys_of, rolled
from .calendar import DAY_US, month_of


def is_due(state: State) -> bool:
    """Whether a limit that is set now leads to a count: nothing is limited, or those who set limits asked for none."""
    return not state.budgets or not (state.upto or state.counting)


def record(state: State, message: RecordCount) -> Sequence[Event]:
    if message.count not in (0, state.counting) or (message.done and not message.count):
        return ()
    told = _of_one_mind(message.entries)
    entries = tuple(entry for entry in told if _is_news(state, entry, whole=message.count > 0))
    if not entries and not message.done:
        return ()
    return [
        UsageCounted(count=message.count, upto=message.upto, at=message.at, entries=entries, done=message.done),
    ]


def _of_one_mind(entries: tuple[Counted, ...]) -> tuple[Counted, ...]:
    """A call is under way in a session where one of its entries says so: what they say must not hang on their order."""
    names = {entry.session_id for entry in entries if entry.open}
    return tuple(replace(entry, open=entry.session_id in names) for entry in entries)


def _is_news(state: State, entry: Counted, *, whole: bool) -> bool:
    waited = entry.session_id in state.open
    if whole:
        if entry.open and not waited:
            return True
    elif not waited or not entry.open:
        return waited
    used, spent = _new(entry, state.counted, state.accounts)
    return used != NOTHING or spent != NOTHING


def _new(
    entry: Counted, counted: Mapping[tuple[str, str], Amount], accounts: Mapping[str, Account]
) -> tuple[Amount, Amount]:
    """What an entry tells that was not known: used with nothing set aside for it, and spent by a purse. What a purse
    spent of an allotment that it holds is told by the session."""
    used = entry.used - counted.get((entry.session_id, entry.principal_id), NOTHING)
    account = accounts.get(entry.session_id) or Account(entry.principal_id)
    if entry.whole is None or account.held != NOTHING:
        return used, NOTHING
    # For whom a job was may be erased since, and is then told of another: no more is new than is of all of them.
    return used, (entry.spent - account.told_of(entry.principal_id)).least(entry.whole - account.told)


def wait(state: State, message: AwaitUsage) -> Sequence[Event]:
    if not state.budgets or message.session_id in state.open:
        return ()
    return [UsageAwaited(session_id=message.session_id, at=message.at)]


def owed(state: State) -> Sequence[Effect]:
    effects = [CountUsage(id=f"{name}:count", session_id=name) for name in state.open]
    if state.counting:
        effects.append(CountUsage(id=f"count:{state.counting}", count=state.counting, after=state.upto))
    return effects


# -- evolve --


def begun(state: State, version: int) -> State:
    """A limit was set, for which everything is to be counted."""
    return replace(state, counting=version)


def lifted(state: State) -> State:
    """Where nothing is limited any more, what is not counted yet is counted for the next limit. What is awaited of a
    session still is: nothing else may happen in it until that limit, and then it would not be looked at."""
    return state if state.budgets else replace(state, counting=0)


def awaited(state: State, event: UsageAwaited) -> State:
    return replace(state, now=max(state.now, event.at), open={**state.open, event.session_id: None})


def counted(state: State, event: UsageCounted) -> State:
    now = max(state.now, event.at)
    sums, told, accounts = state.sums, state.counted, state.accounts
    still = dict(state.open)
    for entry in event.entries:
        session, principal = entry.session_id, entry.principal_id
        used, spent = _new(entry, told, accounts)
        if used != NOTHING:
            key = session, principal
            told = told.insert(key, told.get(key, NOTHING) + used)
        if spent != NOTHING:
            account = accounts.get(session) or Account(principal)
            accounts = accounts.insert(session, account.with_told(principal, spent))
        if used != NOTHING or spent != NOTHING:
            daily = entry.used_daily.least(used) + entry.spent_daily.least(spent)
            monthly = entry.used_monthly.least(used) + entry.spent_monthly.least(spent)
            for whose in keys_of(principal, session):
                one = _with(sums.get(whose, NO_SUMS), used + spent, daily, monthly, event.at, now)
                sums = sums.insert(whose, one)
        if entry.open:
            still[session] = None
        elif not event.count:  # what a whole count read may be older than what is awaited since
            still.pop(session, None)
    changed = replace(state, now=now, sums=sums, counted=told, accounts=accounts, open=still)
    return replace(changed, counting=0, upto=event.upto) if event.done else changed


def _with(sums: Sums, more: Amount, daily: Amount, monthly: Amount, at: int, now: int) -> Sums:
    """daily, monthly: what of it is of the day and the month of `at`."""
    one = rolled(sums, now)
    return replace(
        one,
        total=one.total + more,
        daily=one.daily + daily if at // DAY_US == one.day else one.daily,
        monthly=one.monthly + monthly if month_of(at) == one.month else one.monthly,
    )
