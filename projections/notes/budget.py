"""Amounts and breaches of a limit as the audit shows them, to whoever tells of money."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...events.budget import Amount, Breach, Raise, dollars


def shown(amount: Amount) -> dict[str, Any]:
    """cost: US dollars."""
    return {
        "tokens": amount.tokens,
        "cost": dollars(amount.cost),
        "requests": amount.requests,
        "tool_calls": amount.tools,
    }


def breached(breach: Breach) -> dict[str, Any]:
    """used, wanted, most: in the limit's unit; money in US dollars."""
    show: Callable[[int], Any] = dollars if "cost" in breach.limit else int
    return {
        "limit": breach.limit,
        "of": breach.of,
        "used": show(breach.used),
        "wanted": show(breach.wanted),
        "most": show(breach.most),
    }


def consented(consent: Raise) -> dict[str, Any]:
    """most, by: in the limit's unit; money in US dollars. most: what the limit was."""
    show: Callable[[int], Any] = dollars if "cost" in consent.limit else int
    return {
        "limit": consent.limit,
        "of": consent.of,
        "most": show(consent.most),
        "by": show(consent.by),
        "action": consent.action,
        "allowed_by": consent.principal,
    }
