"""Limits that a person may raise: by how much, what they are shown, and what their yes stands for. Pure."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..events.budget import (
    COUNT_MAX,
    DOLLARS_MAX,
    NANO,
    Breach,
    BudgetSpec,
    Raise,
    dollars,
    nanos,
    shown_count,
    shown_dollars,
)


class Raising(Struct, frozen=True, gc=False):
    """What a person is asked to raise, in which question, and by how much in the limit's unit."""

    action: str
    breach: Breach
    by: int


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


def consented(raising: Raising | None, action: str, by: str) -> Raise | None:
    """What a person's yes in `action` stands for; None where nothing was asked there."""
    if raising is None or raising.action != action:
        return None
    breach = raising.breach
    return Raise(action=action, limit=breach.limit, of=breach.of, most=breach.most, by=raising.by, principal=by)
