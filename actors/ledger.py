"""A ledger: the limits of a scope, and what of them is set aside for its sessions. Pure.

The law, at every position: what is settled and what is set aside together pass no limit that denies. So sessions spend
what they were allotted without asking, however many of them at once, and no check can be outrun by another's call.
What a call cost beyond what was set aside for it (its provider counted more than could be foreseen) is settled too, and
is the only way past a limit.

Time is what the commands say, and never runs backwards: a clock that was set back gives no money back.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..events.budget import (
    COUNT_MAX,
    DOLLARS_MAX,
    LIMITS,
    NANO,
    NOTHING,
    Amount,
    Breach,
    Budget,
    Grant,
    Limit,
    dollars,
    most_of,
    nanos,
)
from ..events.errors import BadInput
from ..events.ledger import (
    AHEAD_MAX_S,
    Allot,
    AllotmentDenied,
    AllotmentReturned,
    Allotted,
    BudgetRaised,
    BudgetRemoved,
    BudgetSet,
    RaiseBudget,
    RecallAllotment,
    RecordUsage,
    RemoveBudget,
    ReturnAllotment,
    SetBudget,
    UsageRecorded,
)
from ..events.message import Command, Context, Effect, Event, Stamp
from .decider import Decider, Noun

GENEROUS = 64
"""How many times what it wants a session is allotted where no limit is near: so many calls cost no further asking."""

SHARE = 16
"""Beyond what it wants, a session is allotted at most this part of what a limit leaves."""

DAY_US = 86_400_000_000
MINUTE_US = 60_000_000
_AHEAD_US = AHEAD_MAX_S * 1_000_000

Key = tuple[str, str]
"""Whose: ("scope", ""), ("principal", id) or ("session", id)."""

SCOPE: Key = ("scope", "")


class Sums(Struct, frozen=True, gc=False):
    """What one of them used. out: set aside and not settled. The three of a window are those of `day` and `month`.

    recent: (microseconds UTC, how many) of requests that were settled in the last minute.
    """

    total: Amount = NOTHING
    out: Amount = NOTHING
    day: int = 0
    daily: Amount = NOTHING
    out_daily: Amount = NOTHING
    month: int = 0
    monthly: Amount = NOTHING
    out_monthly: Amount = NOTHING
    recent: tuple[tuple[int, int], ...] = ()


class Account(Struct, frozen=True, gc=False):
    """One session. told: all that it ever spent, as last heard. held: set aside for it since `at`.

    ask: the newest thing it asked for, answered by `grant` or `breach`.
    """

    principal: str
    ask: str = ""
    told: Amount = NOTHING
    held: Amount = NOTHING
    at: int = 0
    grant: Grant | None = None
    breach: Breach | None = None


class Standing(Struct, frozen=True):
    """A budget that is in force. limits: what it limits, and to how much in the limit's unit. given: as it was set,
    before people raised it."""

    budget: Budget
    key: Key
    limits: tuple[tuple[Limit, int], ...]
    given: Budget

    @property
    def costs(self) -> str | None:
        """The first limit of money, None where it has none."""
        return next((limit.name for limit, _ in self.limits if limit.of == "cost"), None)


class State(Struct, frozen=True):
    """now: the highest recorded time. overrun: what calls cost beyond what was set aside for them.

    due: sessions that hold what was allotted under other limits, with its ask: it is called back. raised: the
    newest question in each session by which a limit was raised. version: of its stream.
    """

    budgets: tuple[Standing, ...] = ()
    accounts: Mapping[str, Account] = {}
    sums: Mapping[Key, Sums] = {}
    now: int = 0
    overrun: Amount = NOTHING
    due: Mapping[str, str] = {}
    raised: Mapping[str, int] = {}
    version: int = 0


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
            if not any(named == _named(standing.budget) for standing in state.budgets):
                return ()
            principal, session = named
            gone = BudgetRemoved(principal_id=principal, session_id=session, at=message.at, recalls=message.recalls)
            return [gone]
        case RecordUsage():
            if message.heard and message.at > message.heard + _AHEAD_US:
                raise BadInput(
                    "This was used later than it is told: its time is not in microseconds, or a clock is wrong."
                )
            fields = {name: getattr(message, name) for name in message.__struct_fields__}
            return [UsageRecorded(**fields)]
    return ()


def _set(state: State, message: SetBudget) -> Sequence[Event]:
    budget = message.budget
    if not _standing(budget).limits:
        raise BadInput("A budget without a limit limits nothing. To lift one, remove it.")
    if budget.principal_id is not None and budget.session_id is not None:
        raise BadInput("A budget is of a scope, of one principal or of one session; not of both.")
    if any(standing.budget == budget for standing in state.budgets):
        return ()
    return [BudgetSet(budget=budget, at=message.at, recalls=message.recalls)]


def _raise(state: State, message: RaiseBudget) -> Sequence[Event]:
    consent = message.consent
    if _number(consent.action) <= state.raised.get(message.session_id, 0):
        return ()
    whose = {"principal": message.principal_id, "session": message.session_id}.get(consent.of, "")
    standing = next((each for each in state.budgets if each.key == (consent.of, whose)), None)
    limit = next((limit for limit in LIMITS if limit.name == consent.limit), None)
    now = most_of(standing.budget, limit) if standing is not None and limit is not None else None
    if now is None or limit is None or now < consent.most or (message.as_shown and now != consent.most):
        return ()
    most = min(now + consent.by, DOLLARS_MAX * NANO if limit.of == "cost" else COUNT_MAX)
    return [
        BudgetRaised(
            session_id=message.session_id,
            asked_for=message.principal_id,
            consent=consent,
            most=most,
            at=message.at,
            as_shown=message.as_shown,
        )
    ]


def _number(action: str) -> int:
    """Questions of a session are numbered: a1, a2, ... Of what is none: 0, before all of them."""
    return int(action[1:]) if len(action) < 20 and action[1:].isascii() and action[1:].isdigit() else 0


RAISABLE = ("day", "month", "total")
"""Windows of the limits that a person may be asked to raise. A minute passes by itself, and what one call may cost is a
rule, not a purse."""


def asks(budget: Budget, limit: Limit) -> bool:
    """Whether a person is asked to raise a limit of a budget; about calls of tools nobody is."""
    return budget.on_breach == "ask" and limit.window in RAISABLE and limit.of != "tools"


def _allot(state: State, message: Allot) -> Sequence[Event]:
    account = state.accounts.get(message.session_id)
    if account is not None and not _newer(message.ask, account.ask):
        return ()
    free = settled(state, message.session_id, message.principal_id, message.spent, NOTHING, message.at)
    judged = judge(free, message.principal_id, message.session_id, message.want, message.least, priced=message.priced)
    asked: dict[str, Any] = {name: getattr(message, name) for name in _ASKED}
    if judged.breach is None:
        return [Allotted(**asked, grant=_grant(free, message, judged))]
    last = message.last and message.seen in (None, state.version)
    if not last and not judged.for_sure:
        return ()
    return [AllotmentDenied(**asked, breach=judged.breach)]


_ASKED = ("session_id", "principal_id", "ask", "spent", "want", "least", "at", "priced")


def in_the_way(state: State, message: Allot) -> Breach | None:
    """The limit that forbids what is asked for now, None where there is none."""
    free = settled(state, message.session_id, message.principal_id, message.spent, NOTHING, message.at)
    asker = message.principal_id, message.session_id
    return judge(free, *asker, message.want, message.least, priced=message.priced).breach


def may_come_back(
    state: State, message: Allot, breach: Breach, lost: Container[str], calling: Mapping[str, str]
) -> bool:
    """Whether what other sessions hold of the limit in the way may still be given back. lost: those who cannot be
    asked. calling: those that have a call under way, with the ask that pays for it. It may cost less than was set aside
    for it, but it is a request.
    """
    of = next(limit.of for limit in LIMITS if limit.name == breach.limit)
    for name, account in state.accounts.items():
        mine = breach.of == "scope" or account.principal == message.principal_id
        if name == message.session_id or name in lost or not mine:
            continue
        if getattr(account.held, of) > (of == "requests" and calling.get(name) == account.ask):
            return True
    return False


def _newer(ask: str, known: str) -> bool:
    """Whether an ask is another than the newest one, and not one that comes too late. They are numbered: w1, w2, ..."""
    if ask == known:
        return False
    if _is_numbered(ask) and _is_numbered(known):
        return int(ask[1:]) > int(known[1:])
    return True


def _is_numbered(ask: str) -> bool:
    return len(ask) < 20 and ask[:1] == "w" and ask[1:].isascii() and ask[1:].isdigit()


class Judged(Struct):
    """What limits say. breach: what forbids it. for_sure: no matter what others give back. most: of each, at most.

    spare: of each, what may be allotted on top. degrade: a limit was passed that degrades; passed: which one.
    """

    breach: Breach | None = None
    for_sure: bool = False
    most: dict[str, int] = {}
    spare: dict[str, int] = {}
    degrade: Budget | None = None
    passed: Breach | None = None
    warned: tuple[str, ...] = ()


def judge(state: State, principal: str, session: str, want: Amount, least: Amount, *, priced: bool = True) -> Judged:
    """Hold what is wanted against every limit there is; the worst of what they say counts."""
    judged = Judged()
    for standing in _for(state, principal, session):
        budget, of = standing.budget, standing.key[0]
        sums = _rolled(state.sums.get(standing.key, _NONE), state.now)
        costs = standing.costs
        if not priced and costs is not None and budget.unpriced == "deny":
            _deny(judged, Breach(code="unpriced", limit=costs, of=of), for_sure=True)
        for limit, most in standing.limits:
            wanted, needed = getattr(want, limit.of), getattr(least, limit.of)
            settled, out = used(sums, limit, state.now)
            before = settled + out
            if needed and before + needed > most:
                asked = budget.on_breach == "ask" and limit.window in RAISABLE
                breach = Breach(limit=limit.name, of=of, used=before, wanted=needed, most=most, asks=asked)
                if budget.exceed_strategy == "deny":
                    _deny(judged, breach, for_sure=settled + needed > most)
                elif budget.exceed_strategy == "degrade":
                    judged.degrade, judged.passed = judged.degrade or budget, judged.passed or breach
                judged.warned += (f"{limit.name} of the {of}",)
                judged.spare[limit.of] = 0
                continue
            if budget.exceed_strategy == "deny":
                judged.most[limit.of] = min(judged.most.get(limit.of, wanted), max(0, most - before))
            if limit.window == "request":
                continue
            near = most * round(budget.warning_threshold * 10_000) // 10_000 - before - wanted
            if near < 0:
                judged.warned += (f"{limit.name} of the {of}",)
            judged.spare[limit.of] = min(judged.spare.get(limit.of, near // SHARE), max(0, near) // SHARE)
    return judged


def _deny(judged: Judged, breach: Breach, *, for_sure: bool) -> None:
    """The first denial is told; one that nothing can lift is told before one that something might."""
    if judged.breach is None or (for_sure and not judged.for_sure):
        judged.breach, judged.for_sure = breach, for_sure


def _grant(state: State, message: Allot, judged: Judged) -> Grant:
    amounts = {}
    for of in Amount.__struct_fields__:
        want = getattr(message.want, of)
        spare = want * (GENEROUS - 1)
        amounts[of] = judged.most.get(of, want) + max(0, min(spare, judged.spare.get(of, spare)))
    caps: dict[str, int] = {}
    # An allotment is of its day: what is spent of it is settled in that day, whatever limits are set meanwhile.
    until = (state.now // DAY_US + 1) * DAY_US
    needs_price, per_job, degrade_to = False, False, None
    for standing in _for(state, message.principal_id, message.session_id):
        budget = standing.budget
        needs_price = needs_price or (standing.costs is not None and budget.unpriced == "deny")
        per_job = per_job or standing.key[0] == "principal"
        degrade_to = degrade_to or budget.degrade_to
        for limit, most in standing.limits:
            if limit.window == "request" and budget.exceed_strategy == "deny":
                caps[limit.of] = min(caps.get(limit.of, most), most)
                if limit.of != "tools":
                    # So much at once is never used, and the rest would lie idle: but for the calls that follow.
                    amounts[limit.of] = min(amounts[limit.of], most * GENEROUS)
            elif limit.window == "minute":
                until = min(until, state.now + MINUTE_US)
    return Grant(
        amount=Amount(**amounts),
        until=until,
        tokens_per_request=caps.get("tokens"),
        cost_per_request=caps.get("cost"),
        tools_per_request=caps.get("tools"),
        needs_price=needs_price,
        per_job=per_job,
        degrade=judged.degrade is not None,
        degrade_to=(judged.degrade.degrade_to if judged.degrade else None) or degrade_to,
        warned=judged.warned,
        passed=judged.passed,
    )


def _give_back(state: State, message: ReturnAllotment) -> Sequence[Event]:
    account = state.accounts.get(message.session_id)
    if account is None or account.ask != message.ask or not message.spent.covers(account.told):
        return ()
    kept = _least(message.kept, account.held)
    if message.spent == account.told and kept == account.held and message.session_id not in state.due:
        return ()
    return [
        AllotmentReturned(session_id=message.session_id, ask=message.ask, spent=message.spent, kept=kept, at=message.at)
    ]


def _least(one: Amount, other: Amount) -> Amount:
    return Amount(
        min(one.tokens, other.tokens),
        min(one.cost, other.cost),
        min(one.requests, other.requests),
        min(one.tools, other.tools),
    )


def _for(state: State, principal: str, session: str) -> Iterator[Standing]:
    """The budgets that a session of a principal falls under: all of them count."""
    keys = (SCOPE, ("principal", principal), ("session", session))
    return (standing for standing in state.budgets if standing.key in keys)


def used(sums: Sums, limit: Limit, now: int) -> tuple[int, int]:
    """Of a limit: what is settled in its window, and what is set aside in it. Of one request: nothing yet."""
    of = limit.of
    match limit.window:
        case "day":
            return getattr(sums.daily, of), getattr(sums.out_daily, of)
        case "month":
            return getattr(sums.monthly, of), getattr(sums.out_monthly, of)
        case "total":
            return getattr(sums.total, of), getattr(sums.out, of)
        case "minute":
            return sum(count for at, count in sums.recent if at > now - MINUTE_US), getattr(sums.out, of)
    return 0, 0


# -- evolve --


def evolve(state: State, event: Event, stamp: Stamp) -> State:
    after = _used_outside(state, event, stamp.at) if isinstance(event, UsageRecorded) else _evolve(state, event)
    return after if after is state else replace(after, version=stamp.version)


def _evolve(state: State, event: Event) -> State:
    match event:
        case Allotted():
            free = settled(state, event.session_id, event.principal_id, event.spent, NOTHING, event.at)
            return _came_back(_held(free, event), event.session_id)
        case AllotmentDenied():
            free = settled(state, event.session_id, event.principal_id, event.spent, NOTHING, event.at)
            account = free.accounts[event.session_id]
            account = replace(account, ask=event.ask, grant=None, breach=event.breach)
            denied = replace(free, accounts={**free.accounts, event.session_id: account})
            return _came_back(denied, event.session_id)
        case AllotmentReturned():
            account = state.accounts.get(event.session_id) or Account("")
            free = settled(state, event.session_id, account.principal, event.spent, event.kept, event.at)
            return _came_back(free, event.session_id)
        case BudgetSet():
            named = _named(event.budget)
            others = tuple(standing for standing in state.budgets if _named(standing.budget) != named)
            budgets = sorted((*others, _standing(event.budget)), key=lambda standing: _ORDER[standing.key[0]])
            changed = replace(state, budgets=tuple(budgets), now=max(state.now, event.at))
            return _called_back(changed, event.budget.session_id) if event.recalls else changed
        case BudgetRaised():
            return _raised(state, event)
        case BudgetRemoved():
            named = (event.principal_id, event.session_id)
            others = tuple(standing for standing in state.budgets if _named(standing.budget) != named)
            changed = replace(state, budgets=others, now=max(state.now, event.at))
            return _called_back(changed, event.session_id) if event.recalls else changed
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
        replace(_standing(replace(each.budget, **{name: most})), given=each.given)
        if each.key == (event.consent.of, whose)
        else each
        for each in state.budgets
    )
    raised = {**state.raised, event.session_id: _number(event.consent.action)}
    return replace(state, budgets=budgets, raised=raised, now=max(state.now, event.at))


def _called_back(state: State, session: str | None) -> State:
    """What was allotted under other limits is called back: that of one session, or all of it. A limit of a principal
    is news to all too: that it ends with their jobs was not said to those who hold something."""
    due = {
        name: account.ask
        for name, account in state.accounts.items()
        if account.held != NOTHING and session in (None, name)
    }
    return replace(state, due={**state.due, **due}) if due else state


def _came_back(state: State, session: str) -> State:
    if session not in state.due:
        return state
    return replace(state, due={name: ask for name, ask in state.due.items() if name != session})


_ORDER = {"scope": 0, "principal": 1, "session": 2}


def _named(budget: Budget) -> tuple[str | None, str | None]:
    return budget.principal_id, budget.session_id


def _standing(budget: Budget) -> Standing:
    key = SCOPE
    if budget.session_id is not None:
        key = ("session", budget.session_id)
    elif budget.principal_id is not None:
        key = ("principal", budget.principal_id)
    limits = tuple((limit, most) for limit in LIMITS if (most := most_of(budget, limit)) is not None)
    return Standing(budget, key, limits, budget)


def settled(state: State, session: str, principal: str, spent: Amount, kept: Amount, at: int) -> State:
    """What the session spent since it was last heard is settled in the window it was allotted in; it keeps `kept`."""
    now = max(state.now, at)
    account = state.accounts.get(session) or Account(principal)
    used_now, freed = spent - account.told, account.held - kept
    sums = dict(state.sums)
    for key in _keys(account.principal, session):
        one = _rolled(sums.get(key, _NONE), now)
        sums[key] = _free(_used(one, used_now, account.at or now, now), freed, account.at)
    told = account.told + used_now
    accounts = {**state.accounts, session: replace(account, principal=principal, told=told, held=account.held - freed)}
    overrun = state.overrun + ((used_now + kept) - account.held)
    return replace(state, accounts=accounts, sums=sums, now=now, overrun=overrun)


def _held(state: State, event: Allotted) -> State:
    amount, now = event.grant.amount, state.now
    account = replace(
        state.accounts[event.session_id],
        principal=event.principal_id,
        ask=event.ask,
        held=amount,
        at=now,
        grant=event.grant,
        breach=None,
    )
    sums = dict(state.sums)
    for key in _keys(event.principal_id, event.session_id):
        one = _rolled(sums.get(key, _NONE), now)
        sums[key] = replace(
            one, out=one.out + amount, out_daily=one.out_daily + amount, out_monthly=one.out_monthly + amount
        )
    return replace(state, accounts={**state.accounts, event.session_id: account}, sums=sums)


def usage_times(event: UsageRecorded, now: int, stored_at: int) -> tuple[int, int]:
    """(now, the time of the use) after a usage. What is reported moves no clock: the time at which it was told does.

    An older release knew one time for both, and took any; one that is ahead of when it was stored is not believed.
    """
    if not event.heard:
        now = max(now, min(event.at, stored_at + _AHEAD_US))
        return now, now
    now = max(now, event.heard)
    return now, min(event.at, now)


def _used_outside(state: State, event: UsageRecorded, stored_at: int) -> State:
    now, used_at = usage_times(event, state.now, stored_at)
    spent = usage_of(event)
    if spent is None:
        return replace(state, now=now)
    sums = dict(state.sums)
    for key in _keys(event.principal_id, event.session_id):
        sums[key] = _used(_rolled(sums.get(key, _NONE), now), spent, used_at, now, made=used_at)
    return replace(state, sums=sums, now=now)


def usage_of(event: UsageRecorded) -> Amount | None:
    """What was used outside of any session; None where it is about something else."""
    if event.kind not in ("model_usage", "tool_usage", "connector_usage"):
        return None
    return Amount(
        tokens=max(0, event.total_tokens or event.input_tokens + event.output_tokens),
        cost=_nanos(event.cost),
        requests=1 if event.kind == "model_usage" else 0,
        tools=1 if event.kind == "tool_usage" else 0,
    )


def _nanos(cost: str | None) -> int:
    try:
        return max(0, nanos(cost)) if cost is not None else 0
    except (ArithmeticError, ValueError):  # what a program wrote into the log itself
        return 0


def used_of(state: State, standing: Standing, limit: Limit, at: int) -> tuple[int, int]:
    """Of a limit in force, as of a time: what is settled in its window, and what is set aside in it."""
    now = max(state.now, at)
    return used(_rolled(state.sums.get(standing.key, _NONE), now), limit, now)


def _keys(principal: str | None, session: str | None) -> Iterator[Key]:
    yield SCOPE
    if principal is not None:
        yield "principal", principal
    if session is not None:
        yield "session", session


_NONE = Sums()


def _rolled(sums: Sums, now: int) -> Sums:
    """As of now: a new day or month begins with nothing, settled or set aside."""
    day, month = now // DAY_US, _month(now)
    if day > sums.day:
        sums = replace(sums, day=day, daily=NOTHING, out_daily=NOTHING)
    if month > sums.month:
        sums = replace(sums, month=month, monthly=NOTHING, out_monthly=NOTHING)
    return sums


def _used(sums: Sums, spent: Amount, of: int, now: int, made: int | None = None) -> Sums:
    """Spent out of what was allotted at `of`, heard of now. made: when, where it is known."""
    if spent == NOTHING:
        return sums
    recent = sums.recent
    if spent.requests:
        made = now if made is None else made
        recent = (*(each for each in (*recent, (made, spent.requests)) if each[0] > now - MINUTE_US),)
    return replace(
        sums,
        total=sums.total + spent,
        daily=sums.daily + spent if of // DAY_US == sums.day else sums.daily,
        monthly=sums.monthly + spent if _month(of) == sums.month else sums.monthly,
        recent=recent,
    )


def _free(sums: Sums, freed: Amount, of: int) -> Sums:
    if freed == NOTHING:
        return sums
    return replace(
        sums,
        out=sums.out - freed,
        out_daily=sums.out_daily - freed if of // DAY_US == sums.day else sums.out_daily,
        out_monthly=sums.out_monthly - freed if _month(of) == sums.month else sums.out_monthly,
    )


def _month(at: int) -> int:
    """Months since the year 0 of a time in microseconds UTC; by arithmetic alone, for any time there is."""
    days = at // DAY_US + 719_468
    era, of_era = divmod(days, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153  # March is 0
    return (year + era * 400) * 12 + month + 2


def owed(state: State) -> Sequence[Effect]:
    return [RecallAllotment(id=f"{name}:{ask}", session_id=name, ask=ask) for name, ask in state.due.items()]


def recall(asked: str, events: Sequence[Event]) -> Command | None:
    match asked, events[0]:
        case "set_budget", BudgetSet() as made:
            return SetBudget(budget=made.budget, at=made.at, recalls=made.recalls)
        case "remove_budget", BudgetRemoved() as gone:
            return RemoveBudget(
                principal_id=gone.principal_id, session_id=gone.session_id, at=gone.at, recalls=gone.recalls
            )
        case "raise_budget", BudgetRaised() as more:
            return RaiseBudget(
                session_id=more.session_id,
                principal_id=more.asked_for,
                consent=more.consent,
                at=more.at,
                as_shown=more.as_shown,
            )
        case "allot", (Allotted() | AllotmentDenied()) as answered:
            return Allot(**{name: getattr(answered, name) for name in _ASKED}, last=True)
        case "return_allotment", AllotmentReturned() as back:
            return ReturnAllotment(
                session_id=back.session_id, ask=back.ask, spent=back.spent, kept=back.kept, at=back.at
            )
        case "record_usage", UsageRecorded() as entry:
            return RecordUsage(**{name: getattr(entry, name) for name in entry.__struct_fields__})
    return None


def _context(states: tuple[State], context: Context) -> Context:
    return context


LEDGER = Noun("ledger-", (Decider("ledger", State(), decide, evolve, owed, recall),), _context, lambda states: None)
