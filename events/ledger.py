"""The words of a ledger: limits of a scope, and what of them is set aside for its sessions. Stream `ledger-<scope>`.

An allotment is a part of every limit that one session may spend by itself, call after call, without asking again. What
a session has spent it tells as one sum over its whole life, so nothing is lost or counted twice when a message is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from msgspec import Struct

from .budget import NOTHING, Amount, Breach, Budget, Grant, Raise
from .message import Command, Effect, Event

AHEAD_MAX_S = 300
"""Seconds that the time of a usage may be ahead of the time at which it is told."""

RESERVED = "reserved:"
"""How the name of a reservation of a program begins: `reserved:<id>:<session>`, its end empty where it is for none."""

ENTRIES_MAX = 1_000
"""Sessions that one `UsageCounted` tells of: some 300 KB."""


def falls_to(holder: str) -> str | None:
    """The session that what one holds is for: its own name, or the session of a reservation; None for one of none."""
    if not is_reserved(holder):
        return holder
    return holder.removeprefix(RESERVED).partition(":")[2] or None


def is_reserved(holder: str | None) -> bool:
    """Whether it is a reservation, which holds what was asked for and no more, and what is recorded in it is taken from
    that."""
    return holder is not None and holder.startswith(RESERVED)


def model_named(provider: str | None, model: str | None) -> tuple[str, str]:
    """Provider and model as a program told them, who may have named the provider with the model too."""
    return provider or "", (model or "").removeprefix(f"{provider}:" if provider else "")


class Counted(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """What a session used for one principal, over its whole life, as its stream says.

    used: with nothing set aside for it. spent: out of its purse, with that of days on which no ledger was asked. whole:
    all that its purse ever spent, for whomever; None where it spent nothing for this one. daily, monthly: what is of
    that day and that month. open: more may come of it: a call that nothing was set aside for is under way.
    """

    session_id: str
    principal_id: str
    used: Amount = NOTHING
    used_daily: Amount = NOTHING
    used_monthly: Amount = NOTHING
    spent: Amount = NOTHING
    spent_daily: Amount = NOTHING
    spent_monthly: Amount = NOTHING
    open: bool = False
    whole: Amount | None = None


# -- asked of a ledger. at: microseconds UTC, as the asker's clock said --


class SetBudget(Command, frozen=True, kw_only=True):
    """Limit a scope, or one principal or session of it. The same limits again: nothing happens.

    counts: where nothing was limited until now, see `BudgetSet`. opening: it is a program's own, which opens with it;
    the same as what one opened with last: nothing happens, whatever was set or lifted since.
    """

    type: ClassVar[str] = "set_budget"
    budget: Budget
    at: int
    counts: bool = False
    opening: bool = False


class RemoveBudget(Command, frozen=True, kw_only=True):
    """Lift the limits of a scope, or those of one principal or session. There are none: nothing happens."""

    type: ClassVar[str] = "remove_budget"
    principal_id: str | None = None
    session_id: str | None = None
    at: int


class RaiseBudget(Command, frozen=True, kw_only=True):
    """A person consented to a higher limit, asked by a session of a principal. The same consent again, or a limit that
    is another by now: nothing happens."""

    type: ClassVar[str] = "raise_budget"
    session_id: str
    principal_id: str
    consent: Raise
    at: int


class Allot(Command, frozen=True, kw_only=True):
    """Set money aside for a session. The same `ask` again: nothing happens, it has its answer.

    ask: the session's own name for it. spent: all that the session ever spent; what it had been allotted before is
    given back with this. want: what it would like, least: what it cannot do without. priced: the model has a price.
    last: deny where there is too little; else nothing happens as long as others hold something to be asked for first.
    seen: only as long as the ledger is at this version, in which it was found that nobody has anything to give back.
    made: see `AllotmentReturned`.
    """

    type: ClassVar[str] = "allot"
    session_id: str
    principal_id: str
    ask: str
    spent: Amount
    want: Amount
    least: Amount
    at: int
    priced: bool = True
    last: bool = False
    seen: int | None = None
    made: int = 0


class ReturnAllotment(Command, frozen=True, kw_only=True):
    """A session gives back what it does not need of the allotment `ask`. kept: what it still holds on to.

    Of an allotment that is not its newest, or older than what is known: nothing happens. made: see `AllotmentReturned`.
    """

    type: ClassVar[str] = "return_allotment"
    session_id: str
    ask: str
    spent: Amount
    kept: Amount = NOTHING
    at: int
    made: int = 0


class RecordUsage(Command, frozen=True, kw_only=True):
    """Something was used outside of any session. The same `entry` again: nothing happens.

    at: when it was used, which says in which window it counts. heard: when it was told, microseconds UTC. holder: for
    whom it had been set aside, see `UsageRecorded`.
    """

    type: ClassVar[str] = "record_usage"
    entry: str
    kind: str
    at: int
    principal_id: str | None = None
    session_id: str | None = None
    run_id: str | None = None
    job_id: str | None = None
    provider: str | None = None
    model: str | None = None
    tool: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost: str | None = None
    duration_ms: float | None = None
    metadata: dict[str, str] | None = None
    heard: int
    holder: str | None = None


class RecordCount(Command, frozen=True, kw_only=True):
    """What sessions used with nothing set aside for it. Told again, or of an older count: nothing happens.

    count, upto, done: see `UsageCounted`. at: of which day and month the sums of windows are.
    """

    type: ClassVar[str] = "record_count"
    count: int = 0
    upto: int = 0
    at: int
    entries: tuple[Counted, ...] = ()
    done: bool = False


class AwaitUsage(Command, frozen=True, kw_only=True):
    """A session is about to call a model, under a limit, with nothing set aside for it: it had not heard of any."""

    type: ClassVar[str] = "await_usage"
    session_id: str
    at: int


# -- true of a ledger. These names and fields are the storage format: add, never change --


class BudgetSet(Event, frozen=True, kw_only=True):
    """What sessions hold that fall under it was allotted under other limits, and is called back: from here on it is
    owed that they let go of what is not set aside for a call under way.

    counts: nothing was limited until now: from here on it is owed that what was used meanwhile is counted, and nothing
    is allotted before it is. opening: a program opened with it."""

    type: ClassVar[str] = "budget_set"
    source: ClassVar[str] = "ledger"
    budget: Budget
    at: int
    counts: bool = False
    opening: bool = False


class BudgetRemoved(Event, frozen=True, kw_only=True):
    """What was allotted under it is called back, as where one is set."""

    type: ClassVar[str] = "budget_removed"
    source: ClassVar[str] = "ledger"
    principal_id: str | None = None
    session_id: str | None = None
    at: int


class BudgetRaised(Event, frozen=True, kw_only=True):
    """A person raised one limit of a budget, by `consent`. most: what it is now, in the limit's unit.

    session_id, asked_for: the session in which they were asked, and its principal.
    """

    type: ClassVar[str] = "budget_raised"
    source: ClassVar[str] = "ledger"
    session_id: str
    asked_for: str
    consent: Raise
    most: int
    at: int


class Allotted(Event, frozen=True, kw_only=True):
    """So much is set aside for a session, from when it had spent `spent`. What it held before is over. made: see
    `AllotmentReturned`."""

    type: ClassVar[str] = "allotted"
    source: ClassVar[str] = "ledger"
    session_id: str
    principal_id: str
    ask: str
    spent: Amount
    want: Amount
    least: Amount
    at: int
    priced: bool
    grant: Grant
    made: int = 0


class AllotmentDenied(Event, frozen=True, kw_only=True):
    """There was not enough left. What the session held before is over. made: see `AllotmentReturned`."""

    type: ClassVar[str] = "allotment_denied"
    source: ClassVar[str] = "ledger"
    category: ClassVar[str] = "error"
    session_id: str
    principal_id: str
    ask: str
    spent: Amount
    want: Amount
    least: Amount
    at: int
    priced: bool
    breach: Breach
    made: int = 0


class AllotmentReturned(Event, frozen=True, kw_only=True):
    """What was spent of it so far is settled; what is not kept is free again.

    made: no call that it has spent was made later, microseconds UTC, which says in which minute they count. 0: that is
    not known, and they were made when it was told.
    """

    type: ClassVar[str] = "allotment_returned"
    source: ClassVar[str] = "ledger"
    session_id: str
    ask: str
    spent: Amount
    kept: Amount
    at: int
    made: int = 0


class UsageRecorded(Event, frozen=True, kw_only=True):
    """kind: model_usage, tool_usage, connector_usage, budget_check, quota_check or audit. cost: US dollars.

    heard: when it was told, which moves the ledger's clock; `at` does not. holder: the reservation in which it was
    told, if it was.
    """

    type: ClassVar[str] = "usage_recorded"
    source: ClassVar[str] = "ledger"
    entry: str
    kind: str
    at: int
    principal_id: str | None = None
    session_id: str | None = None
    run_id: str | None = None
    job_id: str | None = None
    provider: str | None = None
    model: str | None = None
    tool: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost: str | None = None
    duration_ms: float | None = None
    metadata: dict[str, str] | None = None
    heard: int = 0
    holder: str | None = None


def tokens_used(told: RecordUsage | UsageRecorded) -> tuple[int, int]:
    """Tokens read and written, as many as limits count. What is in the total alone was written, which is dearer, and
    what a model thought is: but for what is missing of it where only what was written is told, which was read."""
    total = told.total_tokens or told.input_tokens + told.output_tokens
    read = min(total, told.input_tokens or max(0, total - (told.output_tokens or total)))
    return read, total - read


class UsageCounted(Event, frozen=True, kw_only=True):
    """What sessions used with nothing set aside for it: sums over their lives, so nothing is counted twice.

    count: the version of the limit for which it is counted, 0 for the rest of a session whose call was under way then.
    upto: the position in the log up to which everything is in it. done: there are no more entries of this count.
    """

    type: ClassVar[str] = "usage_counted"
    source: ClassVar[str] = "ledger"
    count: int
    upto: int
    at: int
    entries: tuple[Counted, ...]
    done: bool


class UsageAwaited(Event, frozen=True, kw_only=True):
    """A session calls a model with nothing set aside for it: what that uses is owed to be counted when it ends."""

    type: ClassVar[str] = "usage_awaited"
    source: ClassVar[str] = "ledger"
    session_id: str
    at: int


# -- owed to the world --


class CountUsage(Effect, frozen=True, kw_only=True):
    """Have what was used with nothing set aside for it counted, in the log behind `after`. May be done again.

    count: see `UsageCounted`. session_id: only of this session, as soon as no such call of it is under way.
    """

    type: ClassVar[str] = "count_usage"
    count: int = 0
    after: int = 0
    session_id: str = ""


class RecallAllotments(Effect, frozen=True, kw_only=True):
    """Have every session of `due` let go of what it holds of its newest allotment, which was made under other limits.

    May be done again: the ledger knows what came back.
    """

    type: ClassVar[str] = "recall_allotments"
    due: Mapping[str, str]


COMMANDS = (SetBudget, RemoveBudget, RaiseBudget, Allot, ReturnAllotment, RecordUsage, RecordCount, AwaitUsage)
EVENTS = (
    BudgetSet,
    BudgetRemoved,
    BudgetRaised,
    Allotted,
    AllotmentDenied,
    AllotmentReturned,
    UsageRecorded,
    UsageCounted,
    UsageAwaited,
)
