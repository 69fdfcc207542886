"""The terms of a job: those of its agent and those that it brings along, and what models charge. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from ..events.budget import BudgetSpec, Price, Rate, Terms, nanos


def merged(terms: Terms | None, own: Terms | None) -> Terms | None:
    """The terms of an agent and those of a job together: of every limit the lower one."""
    if terms is None or own is None:
        return terms or own
    return Terms(
        spec=narrower(terms.spec, own.spec),
        ledger=own.ledger or terms.ledger,
        rates=(*own.rates, *terms.rates),
        overhead=max(terms.overhead, own.overhead),
        degrade_to=own.degrade_to or terms.degrade_to,
        denies=_denies(terms.spec, own.spec),
    )


def renewed(terms: Terms | None, wanted: Terms | None) -> Terms | None:
    """The terms of an agent once others are wanted for it. A ledger that it knows it keeps, to settle with; what binds
    alike stays as it is. Instructions that were longer may still be read, and a price that was higher may still hold.
    """
    if terms is None:
        return wanted
    if wanted is None:
        return None if terms.ledger is None else replace(terms, spec=None)
    wanted = replace(
        wanted,
        ledger=wanted.ledger or terms.ledger,
        rates=_dearest_of(terms.rates, wanted.rates),
        overhead=max(terms.overhead, wanted.overhead),
    )
    names = ("spec", "ledger", "degrade_to", "overhead", "rates")
    return terms if all(getattr(terms, name) == getattr(wanted, name) for name in names) else wanted


ASKED_ABOUT = ("max_tokens", "max_cost", "max_turns")
"""The limits of a run that a person may be asked to raise."""


def _denies(*specs: BudgetSpec | None) -> tuple[str, ...]:
    """The limits that one of those who set them does not let anybody raise."""
    strict = [spec for spec in specs if spec is not None and spec.on_breach == "deny"]
    return tuple(name for name in ASKED_ABOUT if any(getattr(spec, name) is not None for spec in strict))


def narrower(one: BudgetSpec | None, other: BudgetSpec | None) -> BudgetSpec | None:
    """Of every limit the lower one. The word about models without a price is of whoever limits the money."""
    if one is None or other is None:
        return one or other
    costs = [spec.max_cost for spec in (one, other) if spec.max_cost is not None]
    unpriced = [spec.unpriced for spec in (one, other) if spec.max_cost is not None]
    seconds = [spec.max_runtime_seconds for spec in (one, other) if spec.max_runtime_seconds is not None]
    return BudgetSpec(
        max_tokens=_lower(one.max_tokens, other.max_tokens),
        max_cost=min(costs, key=nanos) if costs else None,
        max_tool_calls=_lower(one.max_tool_calls, other.max_tool_calls),
        max_turns=_lower(one.max_turns, other.max_turns),
        max_runtime_seconds=min(seconds) if seconds else None,
        unpriced="deny" if "deny" in unpriced else "allow",
        on_breach="ask" if "ask" in (one.on_breach, other.on_breach) else "deny",
    )


def _lower(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def rate_of(terms: Terms, model: str, now: int) -> Rate | None:
    """The most that a model charges now, by whatever is known of it; None where no price is."""
    found = None
    for rate in terms.rates:
        if rate.model == model:
            if rate.later:
                rate = rate.on(now)
            found = rate if found is None else dearest(found, rate)
    return found


def of_any_day(terms: Terms) -> Terms:
    """The same with the highest price of each model, for where nobody knows what day it is."""
    if not any(rate.later for rate in terms.rates):
        return terms
    return replace(terms, rates=tuple(_highest(rate) for rate in terms.rates))


def _highest(rate: Rate) -> Rate:
    every: tuple[Rate | Price, ...] = (rate, *rate.later)
    return Rate(rate.model, max(each.input for each in every), max(each.output for each in every))


def _dearest_of(known: tuple[Rate, ...], wanted: tuple[Rate, ...]) -> tuple[Rate, ...]:
    """The highest prices of every model that is in one of them."""
    rates: dict[str, Rate] = {}
    for rate in (*known, *wanted):
        before = rates.get(rate.model)
        rates[rate.model] = rate if before is None else dearest(before, rate)
    return tuple(rates.values())


def dearest(one: Rate, other: Rate) -> Rate:
    """At every time the higher of two prices of a model."""
    if one == other:
        return one
    first = Rate(one.model, max(one.input, other.input), max(one.output, other.output))
    last: Rate | Price = first
    later = []
    for since in sorted({each.since for each in (*one.later, *other.later)}):
        mine, its = one.on(since), other.on(since)
        price = Price(since, max(mine.input, its.input), max(mine.output, its.output))
        if (price.input, price.output) != (last.input, last.output):
            later.append(price)
            last = price
    return replace(first, later=tuple(later)) if later else first
