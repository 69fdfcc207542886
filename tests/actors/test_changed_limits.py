"""Limits that are changed while sessions hold what was allotted, and those that people raise."""

from __future__ import annotations

from typing import Any

import pytest

from reenact.events.budget import Amount, Breach, Budget, BudgetSpec, Raise, budget_of, spec_of
from reenact.events.errors import BadInput
from reenact.events.ledger import (
    AllotmentDenied,
    AllotmentReturned,
    Allotted,
    BudgetRaised,
    RaiseBudget,
    RemoveBudget,
)
from tests.actors.ledgers import NOON, allot, back, denied, ledger, limit


def test_what_was_allotted_under_other_limits_is_called_back() -> None:
    stream = ledger(limit(max_tokens_total=10**6), allot("a", tokens=60), allot("b", tokens=60)).owes()
    stream.when(limit(max_tokens_total=0)).owes(called := f"recall:{stream.version}")
    assert dict(stream.states[0].due) == {"a": "w1", "b": "w1"}
    stream.when(back("a", spent=Amount(tokens=30), kept=Amount(tokens=20))).then(AllotmentReturned).owes(called)
    stream.when(allot("b", "w2", tokens=60, spent=Amount(tokens=50))).then(AllotmentDenied).owes()


def test_one_that_has_spent_nothing_of_it_and_keeps_it_all_has_heard_of_it_too() -> None:
    stream = ledger(limit(max_tokens_total=100), allot("a", tokens=90), limit(max_tokens_total=0))
    held = stream.states[0].accounts["a"].held
    stream.when(back("a", kept=held)).then(AllotmentReturned).owes()
    stream.when(back("a", kept=held)).then_nothing()


def test_a_limit_of_a_session_calls_back_what_that_one_holds_and_one_of_a_principal_all_there_is() -> None:
    stream = ledger(allot("a", tokens=60), allot("b", tokens=60, principal="bob"))
    stream.when(limit(session_id="a", max_tokens_total=10)).owes(f"recall:{stream.version}")
    assert dict(stream.states[0].due) == {"a": "w1"}
    stream.when(limit(principal_id="bob", max_tokens_total=10)).owes(f"recall:{stream.version}")
    assert dict(stream.states[0].due) == {"a": "w1", "b": "w1"}


def test_what_is_lifted_or_raised_is_called_back_as_well() -> None:
    """The limits of a single call came with it, and that it needs a price."""
    stream = ledger(limit(max_tokens_per_request=10), allot("a", tokens=6))
    stream.when(limit(max_tokens_per_request=100)).owes(f"recall:{stream.version}")
    stream.when(back("a")).then(AllotmentReturned)
    stream.when(allot("a", "w2", tokens=60)).then(Allotted).owes()
    stream.when(RemoveBudget(at=NOON)).owes(f"recall:{stream.version}")
    assert dict(stream.states[0].due) == {"a": "w2"}


def test_a_limit_set_again_calls_nothing_back() -> None:
    stream = ledger(limit(max_tokens_total=100), allot("a", tokens=60))
    stream.when(limit(max_tokens_total=100)).then_nothing().owes()


# -- raised by people --


def raises(session: str = "s", action: str = "a1", *, most: int = 100, by: int = 50, **fields: Any) -> RaiseBudget:
    of = {"limit": "max_tokens_total", "of": "scope", "principal": "boss", **fields}
    consent = Raise(action=action, most=most, by=by, **of)
    return RaiseBudget(session_id=session, principal_id="ann", consent=consent, at=NOON)


def test_a_consent_raises_a_limit_once_and_by_what_was_shown() -> None:
    stream = ledger(limit(max_tokens_total=100, on_breach="ask"), allot(tokens=100))
    assert denied(stream.when(allot("t", tokens=20))).asks
    stream.when(raises("t")).then(BudgetRaised)
    assert stream.events[0].most == 150  # type: ignore[attr-defined]
    stream.when(raises("t")).then_nothing()
    stream.when(raises("t", "a2", by=7)).then_nothing()
    stream.when(raises("u")).then_nothing()
    stream.when(raises("u", most=150, by=7)).then(BudgetRaised)
    assert stream.states[0].budgets[0].budget.max_tokens_total == 100 + 50 + 7
    stream.when(allot("t", "w2", tokens=20)).then(Allotted)


def test_a_consent_that_comes_again_raises_nothing_whatever_became_of_the_limit_since() -> None:
    stream = ledger(limit(max_tokens_total=100, on_breach="ask"), raises("t"))
    stream.when(limit(max_tokens_total=100, on_breach="ask"))
    stream.when(raises("t")).then_nothing()
    stream.when(limit(max_tokens_total=99, on_breach="ask"))
    stream.when(raises("u")).then_nothing()


def test_a_consent_to_a_limit_that_was_lowered_or_lifted_since_is_void() -> None:
    stream = ledger(limit(max_tokens_total=100, on_breach="ask"), limit(max_tokens_total=0, on_breach="ask"))
    stream.when(raises()).then_nothing()
    stream.when(RemoveBudget(at=NOON))
    stream.when(raises()).then_nothing()
    stream.when(raises(limit="max_nonsense")).then_nothing()


def test_a_consent_raises_the_limit_it_is_of_and_no_other() -> None:
    stream = ledger(limit(max_tokens_total=100), limit(principal_id="ann", max_tokens_total=100, on_breach="ask"))
    stream.when(raises(of="principal")).then(BudgetRaised)
    assert [each.budget.max_tokens_total for each in stream.states[0].budgets] == [100, 150]


def test_nobody_is_asked_about_a_minute_or_a_single_call() -> None:
    fields: dict[str, Any] = {"max_requests_per_minute": 0, "max_tokens_per_request": 1, "on_breach": "ask"}
    stream = ledger(limit(**fields))
    assert not denied(stream.when(allot(requests=1))).asks
    assert not denied(stream.when(allot(ask="w2", tokens=2))).asks


def test_asking_is_for_limits_that_deny() -> None:
    with pytest.raises(BadInput, match="limits that deny"):
        budget_of({"max_tokens_total": 1, "exceed_strategy": "warn", "on_breach": "ask"})
    with pytest.raises(BadInput, match="on_breach"):
        budget_of({"max_tokens_total": 1, "on_breach": "perhaps"})


def test_nobody_is_asked_about_calls_of_tools() -> None:
    pair: dict[str, Any] = {"max_tool_calls_daily": 1, "max_tokens_total": 1, "on_breach": "ask"}
    for each in (pair, Budget(**pair)):
        with pytest.raises(BadInput, match="Nobody is asked about calls of tools"):
            budget_of(each)
    run: dict[str, Any] = {"max_tool_calls": 1, "on_breach": "ask"}
    for spec in (run, BudgetSpec(**run)):
        with pytest.raises(BadInput, match="Nobody is asked about calls of tools"):
            spec_of(spec)


def test_a_session_that_knows_only_of_some_limit_of_money_names_none() -> None:
    assert "and there is a limit of money:" in Breach(code="unpriced", limit="max_cost", of="scope").text
    assert "max_cost of the run is a limit" in Breach(code="unpriced", limit="max_cost", of="run").text
    assert "max_cost_daily of the scope is" in Breach(code="unpriced", limit="max_cost_daily", of="scope").text
