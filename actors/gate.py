"""The gate before a call of a model or of a tool: what the purse, its allotment and the limits say to it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from ..events.budget import Amount, Breach, CallLimit, Grant, Terms, nanos
from ..events.purse import AllotmentWanted, BudgetDegraded, BudgetReserved, BudgetWarned
from .purse import PER_REQUEST, Purse, lost
from .wish import Wish

TOOLS_AHEAD = 8
"""Calls of tools that are asked for beside a model call, which may want them."""

UNBOUNDED = 1 << 62


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


def gate(
    purse: Purse,
    terms: Terms,
    wish: Wish,
    other: Wish | None = None,
    *,
    barred: bool = False,
    degraded: bool = False,
    fallback: bool = False,
) -> Gate:
    """Whether a model may be called now. other: the same call of the cheaper model, None where there is none. barred:
    rules are in the way of that. degraded: it is one that a budget chose already. fallback: it is in the place of the
    first of its chain, and where it costs no more than the other it is as good a choice of a budget.

    In order: a limit that degrades, the limits of the run, those that the ledger set for every call, then what is left
    of the allotment.
    """
    if purse.held is not None:
        purse = lost(purse)  # its process died
    left = purse.left
    # Without a ledger it pays for nothing; and spent, other limits may be in force than it was made under.
    grant = purse.grant if terms.ledger is not None and left.requests else None
    passes = () if grant is None else tuple(_passed(grant, wish))
    if grant is not None and not degraded:
        passed = grant.passed if grant.degrade else next((breach for each, breach in passes if each.degrades), None)
        if grant.degrade or passed is not None:
            why = _no_cheaper(other, wish, grant, barred=barred)
            to = other if why is None else wish if fallback and _costs_no_more(wish, other) else None
            if to is not None:
                event = BudgetDegraded(call=wish.call, model=wish.model, degraded_to=to.model)
                return Gate(events=(event,), degrades=to.model)
            if passed is not None:
                return Gate(breach=replace(passed, why=f"It should go on with a cheaper model: {why}."))
    breach = _run_breach(terms, wish)
    if breach is not None:
        return Gate(breach=breach)
    if grant is not None and grant.needs_price and wish.rate is None:
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


def _no_cheaper(other: Wish | None, wish: Wish, grant: Grant, *, barred: bool) -> str | None:
    """Why there is no cheaper model to take; None where there is. Models without a price are told apart by name.
    barred: rules are in its way.
    """
    if other is None:
        return "none is named"
    if other.model == wish.model:
        return f"{other.model} is the one that was to be called"
    if barred:
        return f"rules are in the way of {other.model}"
    if other.rate is None:
        return f"no price is known for {other.model}" if grant.needs_price else None
    if wish.rate is not None and other.amount(wish.written).cost >= wish.amount(wish.written).cost:
        return f"{other.model} costs no less than {wish.model}"
    return None


def _costs_no_more(wish: Wish, other: Wish | None) -> bool:
    if other is None or other.model == wish.model or wish.rate is None or other.rate is None:
        return other is not None and other.model == wish.model
    return wish.amount(wish.written).cost <= other.amount(wish.written).cost


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
        used = min(begun + ordinal - 1, max(begun, most))  # those that were denied before it used nothing
        return Breach(limit="max_tool_calls", of="run", used=used, wanted=1, most=most)
    most_at_once = grant.tools_per_request if grant is not None else None
    ordinal += begun
    if terms.ledger is not None and grant is not None and most_at_once is not None and ordinal > most_at_once:
        used = min(ordinal - 1, most_at_once)
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
