"""A session's purse: money set aside before every call of a model, spent at its end, asked for when it runs out. Pure.

It is a part of the agent's state, so setting aside, settling and the call itself are one append, and a crash finds all
three or none. What nobody counted is counted as it was set aside: an answer without a count, a call that was cut off,
one that was under way when its process died.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..events.budget import (
    COUNT_MAX,
    DOLLARS_MAX,
    NANO,
    NOTHING,
    Amount,
    Breach,
    BudgetSpec,
    CallLimit,
    Grant,
    Raise,
    Terms,
    dollars,
    nanos,
    shown_count,
    shown_dollars,
)
from ..events.content import Cost, Failure, OutputPart, Usage
from ..events.purse import (
    AllotmentReleased,
    AllotmentTaken,
    AllotmentWanted,
    BudgetDegraded,
    BudgetExceeded,
    BudgetReserved,
    BudgetWarned,
    RunRaised,
)
from .wish import Wish

TOOLS_AHEAD = 8
"""Calls of tools that are asked for beside a model call, which may want them."""


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


class Raising(Struct, frozen=True, gc=False):
    """What a person is asked to raise, in which question, and by how much in the limit's unit."""

    action: str
    breach: Breach
    by: int


class Purse(Struct, frozen=True, gc=False):
    """spent: all that the session ever spent of what ledgers allotted. free: all that it spent under a budget with
    nothing allotted for it, which is no ledger's until it is counted; by older rules that was in `spent`. apart: what
    it spends from here on is free. ceiling: what it may have spent by the allotment `source`.

    asks: how often it asked. began, began_at: what was spent, and the time, when the running job began. now: the
    latest recorded time. made: no call that it has spent was made later. counts: the running job is under a budget.
    breach: the limit that ends the turn. warned: the limits it was last warned of. raising: what a person is asked;
    refused: the limit that they may be asked about. raised: by what people raised limits of the running job. counted:
    the model that counted the conversation last, and the overhead that it read; None where that is not known. wait_ms:
    how long the call that was asked for last waits. gone: the allotment that it let go of for good, and what it had
    spent then.
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
    gone: tuple[str, Amount] | None = None
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

    def spent_of(self, ask: str) -> Amount:
        """What a ledger whose newest allotment to it is `ask` is told that it has spent: what came after that is spent
        of no allotment."""
        if self.gone is not None and self.gone[0] == ask:
            return self.gone[1]
        return self.spent if self.source == ask else self.ceiling.least(self.spent)

    @property
    def untouched(self) -> bool:
        """Nothing was spent of the allotment: asking again would bring no more."""
        return self.grant is not None and self.left == self.grant.amount


EMPTY = Purse()


class Gate(Struct, frozen=True):
    """What the purse says to a model call. events: what comes before it. max_tokens: what it may write.

    breach: it is not made. asks: it is not made now, the ledger is asked first, and its answer leads here again.
    degrades: it is made with another model, which is to be selected first.
    """

    events: tuple[BudgetReserved | BudgetDegraded | BudgetWarned | AllotmentWanted, ...] = ()
    max_tokens: int = 0
    breach: Breach | None = None
    asks: bool = False
    degrades: str | None = None


# -- what the next call may cost --


def gate(purse: Purse, terms: Terms, wish: Wish, other: Wish | None = None, *, degraded: bool = False) -> Gate:
    """Whether a model may be called now. other: the same call of the cheaper model, None where there is none. degraded:
    it is one that a budget chose already.

    In order: a limit that degrades, the limits of the run, those that the ledger set for every call, then what is left
    of the allotment.
    """
    if purse.held is not None:
        purse = lost(purse)  # its process died
    left = purse.left
    grant = purse.grant if left.requests else None  # else other limits may be in force than it was made under
    passes = () if grant is None else tuple(_passed(grant, wish))
    if grant is not None and not degraded:
        passed = grant.passed if grant.degrade else next((breach for each, breach in passes if each.degrades), None)
        if grant.degrade or passed is not None:
            why = _no_cheaper(other, wish, grant)
            if other is not None and why is None:
                event = BudgetDegraded(call=wish.call, model=wish.model, degraded_to=other.model)
                return Gate(events=(event,), degrades=other.model)
            if passed is not None:
                return Gate(breach=replace(passed, why=f"It should go on with a cheaper model: {why}."))
    breach = _run_breach(terms, wish)
    if breach is not None:
        return Gate(breach=breach)
    if terms.ledger is not None and grant is not None and grant.needs_price and wish.rate is None:
        return Gate(breach=Breach(code="unpriced", limit="max_cost", of="scope"))
    written = wish.fits(wish.written, room(purse, terms, grant))
    if written < wish.least:
        return Gate(breach=_broken(purse, terms, grant, wish.amount(wish.least)))
    if terms.ledger is not None:
        within = wish.fits(written, left)
        if within < wish.least or (within < written and not purse.untouched):
            want, least = wish.amount(written) + Amount(tools=TOOLS_AHEAD), wish.amount(wish.least)
            priced = wish.rate is not None
            ask = wanted(purse, terms.ledger, want, least, priced=priced)
            ask = replace(ask, call=wish.call, attempt=wish.attempt, wait_ms=wish.wait_ms)
            return Gate(events=(ask,), asks=True)
        written = within
    amount = wish.amount(written)
    reserved = BudgetReserved(call=wish.call, tokens=amount.tokens, cost=amount.cost, max_tokens=written)
    warned = tuple(
        each.text for each, _ in passes if each.of != "tools"
    )  # of tools it was said when they were asked for
    return Gate(events=(BudgetWarned(limits=warned), reserved) if warned else (reserved,), max_tokens=written)


def _passed(grant: Grant, wish: Wish) -> Iterator[tuple[CallLimit, Breach]]:
    """The limits of every call that do not deny, and that this one may pass; of tools, that the last answer did."""
    if not grant.calls:
        return
    amount = replace(wish.amount(wish.written), tools=wish.tools)
    for each in grant.calls:
        takes: int = getattr(amount, each.of)
        if takes > each.most:
            yield each, Breach(limit=each.limit, of=each.whose, wanted=takes, most=each.most)


def wanted(
    purse: Purse,
    ledger: str,
    want: Amount,
    least: Amount,
    *,
    priced: bool = True,
    tools: tuple[str, ...] = (),
) -> AllotmentWanted:
    """Ask for so much, and give back what is left."""
    ask = f"w{purse.asks + 1}"
    return AllotmentWanted(
        ask=ask, ledger=ledger, spent=purse.at_most, want=want, least=least, priced=priced, tools=tools
    )


def _no_cheaper(other: Wish | None, wish: Wish, grant: Grant) -> str | None:
    """Why there is no cheaper model to take; None where there is. Models without a price are told apart by name."""
    if other is None:
        return "none is named"
    if other.model == wish.model:
        return f"{other.model} is the one that was to be called"
    if other.rate is None:
        return f"no price is known for {other.model}" if grant.needs_price else None
    if wish.rate is not None and other.amount(wish.written).cost >= wish.amount(wish.written).cost:
        return f"{other.model} costs no less than {wish.model}"
    return None


def _run_breach(terms: Terms, wish: Wish) -> Breach | None:
    spec = terms.spec
    if spec is None:
        return None
    if spec.needs_price and wish.rate is None:
        return Breach(code="unpriced", limit="max_cost", of="run")
    if spec.max_turns is not None and wish.steps >= spec.max_turns:
        asks = terms.asks("max_turns")
        return Breach(limit="max_turns", of="run", used=wish.steps, wanted=1, most=spec.max_turns, asks=asks)
    return None


UNBOUNDED = 1 << 62


def room(purse: Purse, terms: Terms, grant: Grant | None) -> Amount:
    """What one call may use, by the limits of the run and those of every call."""
    spec, run, tokens, cost = terms.spec, purse.run, UNBOUNDED, UNBOUNDED
    if spec is not None and spec.max_tokens is not None:
        tokens = max(0, spec.max_tokens - run.tokens)
    if spec is not None and spec.max_cost is not None:
        cost = max(0, nanos(spec.max_cost) - run.cost)
    if terms.ledger is not None and grant is not None:
        if grant.tokens_per_request is not None:
            tokens = min(tokens, grant.tokens_per_request)
        if grant.cost_per_request is not None:
            cost = min(cost, grant.cost_per_request)
    return Amount(tokens, cost, 1)


def _broken(purse: Purse, terms: Terms, grant: Grant | None, needs: Amount) -> Breach:
    """Which of them is in the way of what a call needs."""
    for of, limit in _limits(purse, terms, grant):
        need: int = getattr(needs, of)
        if limit.used + need > limit.most:
            return replace(limit, wanted=need)
    raise AssertionError("a call that does not fit has a limit that it does not fit")


def _limits(purse: Purse, terms: Terms, grant: Grant | None) -> Iterator[tuple[str, Breach]]:
    """Of what, and the breach that it would be."""
    spec, run = terms.spec, purse.run
    if spec is not None and spec.max_tokens is not None:
        asks = terms.asks("max_tokens")
        yield "tokens", Breach(limit="max_tokens", of="run", used=run.tokens, most=spec.max_tokens, asks=asks)
    if spec is not None and spec.max_cost is not None:
        asks = terms.asks("max_cost")
        yield "cost", Breach(limit="max_cost", of="run", used=run.cost, most=nanos(spec.max_cost), asks=asks)
    if terms.ledger is not None and grant is not None:
        for of, most in (("tokens", grant.tokens_per_request), ("cost", grant.cost_per_request)):
            if most is not None:
                yield of, Breach(limit=f"max_{of}_per_request", of=grant.of(of), most=most)


def tool_breach(purse: Purse, terms: Terms, ordinal: int, begun: int = 0) -> Breach | None:
    """The limit that forbids a call of a tool, the `ordinal`th that is looked at of one answer, of which `begun` have
    begun before. None: it may begin, or the ledger knows."""
    spec, grant = terms.spec, purse.grant
    if spec is not None and spec.max_tool_calls is not None and purse.run.tools + ordinal > spec.max_tool_calls:
        begun, most = purse.run.tools, spec.max_tool_calls
        used = begun + ordinal - 1
        if terms.rules:
            used = min(used, max(begun, most))  # those that were denied before it used nothing
        return Breach(limit="max_tool_calls", of="run", used=used, wanted=1, most=most)
    most_at_once = grant.tools_per_request if grant is not None else None
    ordinal += begun
    if terms.ledger is not None and grant is not None and most_at_once is not None and ordinal > most_at_once:
        used = min(ordinal - 1, most_at_once) if terms.rules else ordinal - 1
        return Breach(limit=PER_REQUEST, of=grant.of("tools"), used=used, wanted=1, most=most_at_once)
    return None


def tool_warning(purse: Purse, terms: Terms, ordinal: int) -> BudgetWarned | None:
    """What is said where an answer asks for more calls of tools than a limit that does not deny, or for those from
    which on a limit is warned of: once, at the first."""
    grant = purse.grant
    if terms.ledger is None or grant is None:
        return None
    passed = tuple(each.text for each in grant.calls if each.of == "tools" and ordinal == each.most + 1)
    if grant.ahead:
        begun = grant.amount.tools - (purse.ceiling.tools - purse.spent.tools)
        passed += tuple(text for text, most in grant.ahead if begun + ordinal == most + 1)
    return BudgetWarned(limits=passed) if passed else None


PER_REQUEST = "max_tool_calls_per_request"
"""The limit that is told to the model and does not end the turn: it may ask again, for less at once."""


# -- limits that a person may raise --


def proposed(breach: Breach) -> int:
    """By how much they are asked to raise it: as much again, or what is missing where that is more."""
    return max(breach.most, breach.used + breach.wanted - breach.most)


def raise_payload(breach: Breach, by: int) -> dict[str, Any]:
    """What a person is shown: money in US dollars, the rest in whole numbers."""
    money = "cost" in breach.limit
    show = shown_dollars if money else shown_count
    amount: Any = dollars if money else int
    return {
        "question": f"{breach.text} Raise it by {show(by)}, to {show(breach.most + by)}?",
        "limit": breach.limit,
        "of": breach.of,
        "most": amount(breach.most),
        "used": amount(breach.used),
        "wanted": amount(breach.wanted),
        "raise_by": amount(by),
    }


def raised_spec(spec: BudgetSpec, raised: tuple[tuple[str, int], ...]) -> BudgetSpec:
    """The limits of a run with what people raised them by."""
    for limit, by in raised:
        by = max(0, by)
        if limit == "max_cost":
            spec = replace(spec, max_cost=dollars(min(DOLLARS_MAX * NANO, nanos(spec.max_cost or "0") + by)))
        elif limit in ("max_tokens", "max_turns"):
            spec = replace(spec, **{limit: min(COUNT_MAX, (getattr(spec, limit) or 0) + by)})
    return spec


def consented(purse: Purse, action: str, by: str) -> Raise | None:
    """What a person's yes in `action` stands for; None where nothing was asked there."""
    raising = purse.raising
    if raising is None or raising.action != action:
        return None
    breach = raising.breach
    return Raise(action=action, limit=breach.limit, of=breach.of, most=breach.most, by=raising.by, principal=by)


# -- what becomes of it --


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
    if grant is not None and (grant.per_job or (grant.principal and (grant.degrade or grant.principal != principal))):
        return replace(purse, grant=None, ceiling=purse.spent)
    return purse


def configured(purse: Purse | None, terms: Terms | None, before: Terms | None) -> Purse | None:
    """The running job is under other terms than before."""
    if purse is None:
        return None
    if terms is None:  # what says by which rules it was is gone with it
        return replace(purse, apart=purse.apart or (before is not None and before.rules > 7))
    return replace(purse, apart=_is_apart(terms))


def _is_apart(terms: Terms | None) -> bool:
    return terms is not None and terms.ledger is None and terms.rules > 7


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
    if purse is None or purse.held is None or terms is not None or not purse.apart:
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


def turned(purse: Purse, reason: str) -> Purse:
    """Another model is asked in the place of the one that something is set aside for: one that was chosen before it was
    asked cost nothing; one that a budget chose takes the place of a call in doubt, which is spent as it was set aside.
    """
    if purse.refused is not None:  # nobody is asked about a limit in the way of the model that is left
        purse = replace(purse, refused=None)
    if purse.held is None:
        return purse
    if reason == "budget":
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
    if event.over:
        held = None if purse.held is None else replace(purse.held, free=purse.apart)  # of that nothing is left
        return replace(purse, ceiling=event.spent, source=None, grant=None, gone=(event.ask, event.spent), held=held)
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


def leave(purse: Purse | None, terms: Terms | None) -> AllotmentReleased | None:
    """What a job that no ledger limits spends is spent of nothing that one allotted: that is let go of for good."""
    if purse is None or purse.source is None or terms is None or terms.ledger is not None or terms.rules < 7:
        return None
    return AllotmentReleased(ask=purse.source, spent=purse.spent, over=True)
