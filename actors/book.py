"""The book of a ledger: what was used in which window, by whom, and what is set aside for them. Pure.

Time is what the commands say, and never runs backwards: a clock that was set back gives no money back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from rpds import HashTrieMap

from ..events.budget import LIMITS, NOTHING, Amount, Breach, Budget, Grant, Limit, most_of, nanos
from ..events.ledger import Allotted, UsageRecorded, falls_to, is_reserved
from .calendar import DAY_US, MINUTE_US, month_of

_SECOND_US = 1_000_000

Key = tuple[str, str]
"""Whose: ("scope", ""), ("principal", id) or ("session", id)."""

SCOPE: Key = ("scope", "")


Recent = tuple[tuple[int, int], ...]
"""Requests, as (microseconds UTC, how many), those of one second together."""


class Sums(Struct, frozen=True, gc=False):
    """What one of them used. out: set aside and not settled. The three of a window are those of `day` and `month`.

    recent: requests of the last minute, as far as they were heard of.
    """

    total: Amount = NOTHING
    out: Amount = NOTHING
    day: int = 0
    daily: Amount = NOTHING
    out_daily: Amount = NOTHING
    month: int = 0
    monthly: Amount = NOTHING
    out_monthly: Amount = NOTHING
    recent: Recent = ()


# A map that never changes and gives another one, of which one more entry costs no more when there are many: a scope may
# have had a hundred thousand sessions. In no order.
_NONE: HashTrieMap[Any, Any] = HashTrieMap()


class Account(Struct, frozen=True, gc=False):
    """One session. told: all that it ever spent, as last heard. held: set aside for it since `at`.

    ask: the newest thing it asked for, answered by `grant` or `breach`. others: what of `told` is of other principals.
    """

    principal: str
    ask: str = ""
    told: Amount = NOTHING
    held: Amount = NOTHING
    at: int = 0
    grant: Grant | None = None
    breach: Breach | None = None
    others: HashTrieMap[str, Amount] = _NONE

    def told_of(self, principal: str) -> Amount:
        if principal != self.principal:
            return self.others.get(principal, NOTHING)
        return self.told - sum(self.others.values(), NOTHING) if self.others else self.told

    def with_told(self, principal: str, more: Amount) -> Account:
        told = self.told + more
        if principal == self.principal:
            return replace(self, told=told)
        return replace(self, told=told, others=self.others.insert(principal, self.told_of(principal) + more))

    def handed_to(self, principal: str) -> Account:
        if principal == self.principal:
            return self
        others = self.others.discard(principal).insert(self.principal, self.told_of(self.principal))
        return replace(self, principal=principal, others=others)


class Standing(Struct, frozen=True):
    """A budget that is in force. limits: what it limits, and to how much in the limit's unit."""

    budget: Budget
    key: Key
    limits: tuple[tuple[Limit, int], ...]

    @property
    def costs(self) -> str | None:
        """The first limit of money, None where it has none."""
        return next((limit.name for limit, _ in self.limits if limit.of == "cost"), None)


class State(Struct, frozen=True):
    """now: the highest recorded time. overrun: what calls cost beyond what was set aside for them.

    due: sessions that hold what was allotted under other limits, with its ask: it is called back, since the limit that
    was set at the version `recalling`. raised: the newest question in each session by which a limit was raised.
    version: of its stream. opened: what programs opened with last, by principal and session.

    counting: it is owed to count what was used while nothing was limited, for the limit that was set at this version.
    upto: the position in the log up to which that was counted before. counted: what was, by session and principal.
    open: sessions of which it is owed to count the rest.
    """

    budgets: tuple[Standing, ...] = ()
    accounts: HashTrieMap[str, Account] = _NONE
    sums: HashTrieMap[Key, Sums] = _NONE
    now: int = 0
    overrun: Amount = NOTHING
    due: HashTrieMap[str, str] = _NONE
    recalling: int = 0
    raised: Mapping[str, int] = {}
    version: int = 0
    opened: Mapping[tuple[str | None, str | None], Budget] = {}
    counting: int = 0
    upto: int = 0
    counted: HashTrieMap[tuple[str, str], Amount] = _NONE
    open: Mapping[str, None] = {}


def standing_of(budget: Budget) -> Standing:
    key = SCOPE
    if budget.session_id is not None:
        key = ("session", budget.session_id)
    elif budget.principal_id is not None:
        key = ("principal", budget.principal_id)
    limits = tuple((limit, most) for limit in LIMITS if (most := most_of(budget, limit)) is not None)
    return Standing(budget, key, limits)


def whose(budget: Budget) -> tuple[str | None, str | None]:
    return budget.principal_id, budget.session_id


def falls_under(state: State, principal: str, session: str) -> Iterator[Standing]:
    """The budgets that a session of a principal falls under: all of them count."""
    keys = (SCOPE, ("principal", principal), ("session", falls_to(session)))
    return (standing for standing in state.budgets if standing.key in keys)


# -- what is used --


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


def used_of(state: State, standing: Standing, limit: Limit, at: int) -> tuple[int, int]:
    """Of a limit in force, as of a time: what is settled in its window, and what is set aside in it."""
    now = max(state.now, at)
    return used(rolled(state.sums.get(standing.key, NO_SUMS), now), limit, now)


# -- what happens to it --


def settled(state: State, session: str, principal: str, spent: Amount, kept: Amount, at: int, made: int = 0) -> State:
    """What the session spent since it was last heard is settled in the window it was allotted in; it keeps `kept`.
    made: no call of it was made later, see `AllotmentReturned`; it says in which minute they count."""
    now = max(state.now, at)
    made = made_at(made, at, now)
    account = state.accounts.get(session) or Account(principal)
    used_now, freed = spent - account.told, account.held - kept
    sums = state.sums
    for key in keys_of(account.principal, session):
        one = rolled(sums.get(key, NO_SUMS), now)
        sums = sums.insert(key, _free(_spend(one, used_now, account.at or now, now, made=made), freed, account.at))
    now_held = replace(account, told=account.told + used_now, held=account.held - freed).handed_to(principal)
    accounts = state.accounts.insert(session, now_held)
    overrun = state.overrun + ((used_now + kept) - account.held)
    return replace(state, accounts=accounts, sums=sums, now=now, overrun=overrun)


def made_at(made: int, at: int, now: int) -> int:
    """When something was made that is told at `at`, by the ledger's time `now`: so long ago as it was for who tells it.
    So what a clock tells that is behind the ledger's is not older than it is."""
    return now - max(0, at - made) if made else now


def allotted(state: State, event: Allotted) -> State:
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
    sums = state.sums
    for key in keys_of(event.principal_id, event.session_id):
        one = rolled(sums.get(key, NO_SUMS), now)
        more = replace(
            one, out=one.out + amount, out_daily=one.out_daily + amount, out_monthly=one.out_monthly + amount
        )
        sums = sums.insert(key, more)
    return replace(state, accounts=state.accounts.insert(event.session_id, account), sums=sums)


def used_outside(state: State, event: UsageRecorded) -> State:
    """What a program used. As far as it was set aside, it counts in the windows in which it was, as what sessions spend
    does: so it passes no limit of a later day. The time of its use moves no clock, that at which it was told does."""
    now = max(state.now, event.heard)
    used_at = min(event.at, now)
    spent = usage_of(event)
    if spent is None:
        return replace(state, now=now)
    account = state.accounts.get(event.holder) if event.holder is not None and is_reserved(event.holder) else None
    covered = NOTHING if account is None else account.held.least(spent)
    of = used_at if account is None else account.at
    sums = state.sums
    for key in keys_of(event.principal_id, event.session_id):
        one = _spend(rolled(sums.get(key, NO_SUMS), now), covered, of, now, made=used_at)
        sums = sums.insert(key, _spend(one, spent - covered, used_at, now, made=used_at))
    after = replace(state, sums=sums, now=now)
    return after if event.holder is None or covered == NOTHING else _paid(after, event.holder, covered)


def _paid(state: State, holder: str, covered: Amount) -> State:
    """What was recorded in a reservation is set aside no more."""
    account, sums = state.accounts[holder], state.sums
    for key in keys_of(account.principal, holder):
        sums = sums.insert(key, _free(rolled(sums.get(key, NO_SUMS), state.now), covered, account.at))
    accounts = state.accounts.insert(holder, replace(account, held=account.held - covered))
    return replace(state, accounts=accounts, sums=sums)


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


def keys_of(principal: str | None, session: str | None) -> Iterator[Key]:
    yield SCOPE
    if principal is not None:
        yield "principal", principal
    if session is not None and (named := falls_to(session)) is not None:
        yield "session", named


NO_SUMS = Sums()


def rolled(sums: Sums, now: int) -> Sums:
    """As of now: a new day or month begins with nothing, settled or set aside."""
    day, month = now // DAY_US, month_of(now)
    if day > sums.day:
        sums = replace(sums, day=day, daily=NOTHING, out_daily=NOTHING)
    if month > sums.month:
        sums = replace(sums, month=month, monthly=NOTHING, out_monthly=NOTHING)
    return sums


def _spend(sums: Sums, spent: Amount, of: int, now: int, made: int | None = None) -> Sums:
    """Spent out of what was allotted at `of`, heard of now. made: when, where it is known."""
    if spent == NOTHING:
        return sums
    recent = sums.recent
    if spent.requests:
        recent = _made(recent, now if made is None else made, spent.requests, now)
    return replace(
        sums,
        total=sums.total + spent,
        daily=sums.daily + spent if of // DAY_US == sums.day else sums.daily,
        monthly=sums.monthly + spent if month_of(of) == sums.month else sums.monthly,
        recent=recent,
    )


def _made(recent: Recent, at: int, count: int, now: int) -> Recent:
    """With so many requests more. Those of one second are told by the latest of them: so a minute has few entries,
    however many requests, and the others of that second count up to a second longer."""
    second = at // _SECOND_US
    if recent and recent[-1][0] // _SECOND_US == second:
        latest, before = recent[-1]
        return (*recent[:-1], (max(latest, at), before + count))
    kept = {each[0] // _SECOND_US: each for each in recent if each[0] > now - MINUTE_US}
    if at > now - MINUTE_US:
        latest, before = kept.get(second, (at, 0))
        kept[second] = max(latest, at), before + count
    return tuple(kept.values())


def _free(sums: Sums, freed: Amount, of: int) -> Sums:
    if freed == NOTHING:
        return sums
    return replace(
        sums,
        out=sums.out - freed,
        out_daily=sums.out_daily - freed if of // DAY_US == sums.day else sums.out_daily,
        out_monthly=sums.out_monthly - freed if month_of(of) == sums.month else sums.out_monthly,
    )
