"""A session's purse: money set aside before every call of a model, spent at its end, asked for when it runs out. Pure.

It is a part of the agent's state, so setting aside, settling and the call itself are one append, and a crash finds all
three or none. What nobody counted is counted as it was set aside: an answer without a count, a call that was cut off,
one that was under way when its process died.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from ..events.agent import ModelSelected
from ..events.budget import (
    NOTHING,
    Amount,
    Breach,
    Grant,
    Raise,
    Terms,
    nanos,
)
from ..events.content import Cost, Failure, OutputPart, Usage
from ..events.purse import (
    AllotmentReleased,
    AllotmentTaken,
    AllotmentWanted,
    BudgetExceeded,
    BudgetReserved,
    RunRaised,
)
from .raising import Raising, proposed
from .selection import REFUSED

UNBILLED = frozenset(
    (
        "auth",
        "bad_input",
        "billing",
        "context_exceeded",
        "cooldown",
        "invalid_request",
        "model_not_found",
        "not_found",
        "overloaded",
        "permission",
        "rate_limit",
        "server_error",
        "too_large",
    )
)
"""Failures by which a provider turned a call away before it read it. All others may have cost something."""

PER_REQUEST = "max_tool_calls_per_request"
"""The limit that is told to the model and does not end the turn: it may ask again, for less at once."""


class Held(Struct, frozen=True, gc=False):
    """Set aside for the model call under way. max_tokens: what it may write. overhead: of instructions and tools that
    it reads, as they were estimated. free: of no allotment."""

    call: str
    amount: Amount
    max_tokens: int
    overhead: int = 0
    free: bool = False


class Asking(Struct, frozen=True, gc=False):
    """What the ledger is being asked for: see `AllotmentWanted`. at: microseconds UTC."""

    ask: str
    want: Amount
    least: Amount
    priced: bool
    tools: tuple[str, ...]
    wait_ms: int
    at: int
    ledger: str
    raises: Raise | None = None


class Purse(Struct, frozen=True, gc=False):
    """spent: all that the session ever spent of what ledgers allotted. free: all that it spent under a budget with
    nothing allotted for it, which is no ledger's until it is counted. apart: what
    it spends from here on is free. ceiling: what it may have spent by the allotment `source`.

    asks: how often it asked. began, began_at: what was spent, and the time, when the running job began. now: the
    latest recorded time. made: no call that it has spent was made later. counts: the running job is under a budget.
    breach: the limit that ends the turn. warned: the limits it was last warned of. raising: what a person is asked;
    refused: the limit that they may be asked about. raised: by what people raised limits of the running job. counted:
    the model that counted the conversation last, and the overhead that it read; None where that is not known. wait_ms:
    how long the call that was asked for last waits.
    """

    spent: Amount = NOTHING
    held: Held | None = None
    ceiling: Amount = NOTHING
    source: str | None = None
    grant: Grant | None = None
    asking: Asking | None = None
    asks: int = 0
    began: Amount = NOTHING
    began_at: int = 0
    now: int = 0
    made: int = 0
    counts: bool = False
    closing: bool = False
    breach: Breach | None = None
    warned: tuple[str, ...] = ()
    refused: Breach | None = None
    raising: Raising | None = None
    raised: tuple[tuple[str, int], ...] = ()
    counted: tuple[str, int] | None = None
    wait_ms: int = 0
    free: Amount = NOTHING
    apart: bool = False

    @property
    def run(self) -> Amount:
        """What the running job spent."""
        return self.spent + self.free - self.began

    @property
    def aside(self) -> Amount:
        """What of the allotment is set aside for the call under way."""
        return NOTHING if self.held is None or self.held.free else self.held.amount

    @property
    def at_most(self) -> Amount:
        """What it has spent if what is under way costs all that was set aside."""
        return self.spent if self.held is None or self.held.free else self.spent + self.held.amount

    @property
    def left(self) -> Amount:
        """Of the allotment; nothing where there is none, or its time is over."""
        if self.grant is None or (self.grant.until and self.now >= self.grant.until):
            return NOTHING
        return self.ceiling - self.at_most

    @property
    def untouched(self) -> bool:
        """Nothing was spent of the allotment: asking again would bring no more."""
        return self.grant is not None and self.left == self.grant.amount


EMPTY = Purse()


def began(purse: Purse | None, at: int, principal: str, terms: Terms | None) -> Purse | None:
    """A job of a principal begins, who may not spend what was allotted for another; and what degrades does so for the
    rest of a job. terms: the budget that it is under."""
    if purse is None:
        if terms is None:
            return None
        purse = EMPTY
    purse = replace(
        purse,
        began=purse.spent + purse.free,
        began_at=at,
        now=max(purse.now, at),
        counts=terms is not None,
        apart=_is_apart(terms),
        breach=None,
        asking=None,
        refused=None,
        raising=None,
        raised=(),
    )
    grant = purse.grant
    if grant is not None and (grant.per_job or grant.degrade or grant.principal != principal):
        return replace(purse, grant=None, ceiling=purse.spent)
    return purse


def configured(purse: Purse | None, terms: Terms | None) -> Purse | None:
    """The running job is under other terms than before."""
    return None if purse is None else replace(purse, apart=_is_apart(terms))


def _is_apart(terms: Terms | None) -> bool:
    return terms is None or terms.ledger is None


def _and(purse: Purse, amount: Amount, free: bool) -> tuple[Amount, Amount]:
    """What is spent, and what of no allotment, with so much more."""
    return (purse.spent, purse.free + amount) if free else (purse.spent + amount, purse.free)


def lost(purse: Purse) -> Purse:
    """What is under way is spent as it was set aside."""
    held = purse.held
    if held is None:
        return purse
    spent, free = _and(purse, held.amount, held.free)
    return replace(purse, spent=spent, free=free, held=None)


def reserved(purse: Purse | None, event: BudgetReserved, at: int, overhead: int = 0) -> Purse:
    purse = purse or EMPTY
    amount = Amount(tokens=event.tokens, cost=event.cost, requests=1)
    held = Held(event.call, amount, event.max_tokens, overhead, purse.apart)
    now = max(purse.now, at)
    made = now if purse.held is not None else purse.made
    return replace(lost(purse), held=held, now=now, made=made)


def called(purse: Purse | None, terms: Terms | None, at: int) -> Purse | None:
    """A model is called. Where nothing had to be set aside for it, what is, is for an attempt whose process died."""
    if purse is None or purse.held is None or terms is not None:
        return purse
    now = max(purse.now, at)
    return replace(lost(purse), now=now, made=now)


def settled(
    purse: Purse | None, call: str, usage: Usage | None, cost: Cost | None, at: int, model: str | None = None
) -> Purse | None:
    """The call has an end that was counted, or of which nobody knows what it cost. model: whose whole answer it is."""
    if purse is None:
        return None
    now, counted = max(purse.now, at), purse.counted
    if purse.held is None or purse.held.call != call:
        return replace(purse, now=now, counted=counted if model is None or usage is None else None)
    amount = purse.held.amount
    if model is not None and usage is not None:
        counted = model, purse.held.overhead
    if usage is not None:
        paid = nanos(cost.amount) if cost is not None and cost.amount is not None else amount.cost
        amount = Amount(tokens=max(0, usage.input_tokens + usage.output_tokens), cost=max(0, paid), requests=1)
    spent, free = _and(purse, amount, purse.held.free)
    return replace(purse, spent=spent, free=free, held=None, now=now, made=now, counted=counted)


def turned(purse: Purse, event: ModelSelected) -> Purse:
    """Another model is asked in the place of the one that something is set aside for: one that was chosen before it was
    asked cost nothing; one that a budget chose, or that is asked as rules or limits are in the way of the other, takes
    the place of a call in doubt, which is spent as it was set aside.
    """
    if purse.refused is not None:  # nobody is asked about a limit in the way of the model that is left
        purse = replace(purse, refused=None)
    if purse.held is None:
        return purse
    if event.reason == "budget" or event.because in REFUSED:
        return replace(lost(purse), made=purse.now)
    return replace(purse, held=None)


def failed(
    purse: Purse,
    call: str,
    failure: Failure,
    partial: tuple[OutputPart, ...],
    usage: Usage | None,
    cost: Cost | None,
    at: int,
) -> Purse:
    """The call failed: what was counted is spent; what was turned away is free again, but for the request itself. One
    that has a cost, if an unknown one, was not turned away: an answer had begun."""
    held, away = purse.held, usage is None and cost is None and not partial and failure.code in UNBILLED
    if away and held is not None and held.call == call:
        now, (spent, free) = max(purse.now, at), _and(purse, Amount(requests=1), held.free)
        return replace(purse, spent=spent, free=free, held=None, now=now, made=now)
    return settled(purse, call, usage, cost, at) or purse


def ticked(purse: Purse | None, at: int) -> Purse | None:
    """Time goes on."""
    return purse if purse is None or purse.now >= at else replace(purse, now=at)


def tool_begun(purse: Purse | None, at: int) -> Purse | None:
    if purse is None or not purse.counts:
        return purse
    spent, free = _and(purse, Amount(tools=1), purse.apart)
    return replace(purse, spent=spent, free=free, now=max(purse.now, at))


def asked(purse: Purse | None, event: AllotmentWanted, at: int) -> Purse:
    purse = purse or EMPTY
    now = max(purse.now, at)
    want, least = event.want, event.least
    return replace(
        purse,
        spent=event.spent,
        free=lost(purse).free,
        held=None,
        ceiling=event.spent,
        source=None,
        grant=None,
        asking=Asking(
            event.ask, want, least, event.priced, event.tools, event.wait_ms, now, event.ledger, event.raises
        ),
        asks=purse.asks + 1,
        now=now,
        made=now if purse.held is not None else purse.made,
        refused=None,
        raising=None,
    )


def taken(purse: Purse | None, event: AllotmentTaken, at: int) -> Purse:
    purse = purse or EMPTY
    return replace(
        purse,
        ceiling=purse.spent + event.grant.amount,
        source=event.ask,
        grant=event.grant,
        asking=None,
        now=max(purse.now, at),
        warned=event.grant.warned,
        wait_ms=0 if purse.asking is None else purse.asking.wait_ms,
    )


def exceeded(purse: Purse | None, event: BudgetExceeded) -> Purse:
    purse = purse or EMPTY
    ends = bool(event.tools) and event.breach.limit != PER_REQUEST
    asking = None if event.ask is not None else purse.asking
    refused = event.breach if event.breach.asks else None
    return replace(purse, asking=asking, breach=event.breach if ends else purse.breach, refused=refused)


def asked_to_raise(purse: Purse | None, action: str) -> Purse | None:
    """A person is asked, in `action`, to raise the limit that was in the way."""
    if purse is None or purse.refused is None:
        return purse
    return replace(purse, refused=None, raising=Raising(action, purse.refused, proposed(purse.refused)))


def raised(purse: Purse | None, event: RunRaised) -> Purse:
    purse = purse or EMPTY
    return replace(purse, raising=None, raised=(*purse.raised, (event.consent.limit, event.consent.by)))


def released(purse: Purse | None, event: AllotmentReleased) -> Purse:
    """The limits of every call that came with the allotment may be others by now: the ledger is asked again."""
    purse = purse or EMPTY
    grant = purse.grant
    if grant is not None:
        grant = replace(
            grant, tokens_per_request=None, cost_per_request=None, tools_per_request=None, calls=(), ahead=()
        )
    return replace(purse, ceiling=event.spent + event.kept, grant=grant)


def ended(purse: Purse | None, at: int) -> Purse | None:
    """The turn is over: what was under way without an end is spent as it was set aside; nothing is asked for."""
    if purse is None:
        return None
    return replace(
        lost(purse),
        asking=None,
        breach=None,
        counts=False,
        now=max(purse.now, at),
        made=max(purse.now, at) if purse.held is not None else purse.made,
        refused=None,
        raising=None,
    )


def release(purse: Purse | None, ask: str | None = None) -> AllotmentReleased | None:
    """Let go of what is not set aside, of the allotment `ask` or the newest; None where there is nothing to let go."""
    if purse is None or purse.source is None or (ask is not None and ask != purse.source):
        return None
    kept = purse.aside
    if purse.ceiling - purse.spent == kept:
        return None
    return AllotmentReleased(ask=purse.source, spent=purse.spent, kept=kept)
