"""A ledger with a past, and what sessions ask of it at noon of a day."""

from __future__ import annotations

from typing import Any

from reenact.actors.ledger import LEDGER
from reenact.events.budget import NOTHING, Amount, Breach, Budget, Grant
from reenact.events.ledger import Allot, AllotmentDenied, Allotted, ReturnAllotment, SetBudget
from tests.given import Given, given

DAY_US = 86_400_000_000
NOON = 20_000 * DAY_US + DAY_US // 2


def ledger(*past: Any) -> Given:
    return given(*past, noun=LEDGER)


def limit(**fields: Any) -> SetBudget:
    return SetBudget(budget=Budget(**fields), at=NOON)


def allot(
    session: str = "s",
    ask: str = "w1",
    *,
    tokens: int = 0,
    cost: int = 0,
    requests: int = 0,
    tools: int = 0,
    spent: Amount = NOTHING,
    at: int = NOON,
    principal: str = "ann",
    **fields: Any,
) -> Allot:
    want = Amount(tokens, cost, requests, tools)
    fields.setdefault("last", True)
    return Allot(
        session_id=session, principal_id=principal, ask=ask, spent=spent, want=want, least=want, at=at, **fields
    )


def back(
    session: str = "s",
    ask: str = "w1",
    *,
    spent: Amount = NOTHING,
    kept: Amount = NOTHING,
    at: int = NOON,
    made: int = 0,
) -> Any:
    return ReturnAllotment(session_id=session, ask=ask, spent=spent, kept=kept, at=at, made=made)


def granted(stream: Given) -> Grant:
    [event] = stream.events
    assert isinstance(event, Allotted)
    return event.grant


def denied(stream: Given) -> Breach:
    [event] = stream.events
    assert isinstance(event, AllotmentDenied)
    return event.breach
