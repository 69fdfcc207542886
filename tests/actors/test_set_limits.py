"""Setting limits: what counts under them, how money is written, and what is no limit."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from reenact.events.budget import Amount, Budget, BudgetSpec, budget_of, nanos, spec_of
from reenact.events.errors import BadInput
from reenact.events.ledger import Allotted, BudgetRemoved, BudgetSet, RecordUsage, RemoveBudget, SetBudget
from tests.actors.ledgers import NOON, allot, back, denied, ledger, limit


def test_a_limit_set_again_is_no_news_and_another_one_takes_its_place() -> None:
    stream = ledger(limit(max_tokens_total=10))
    stream.when(limit(max_tokens_total=10)).then_nothing()
    stream.when(limit(max_tokens_total=20)).then(BudgetSet)
    assert len(stream.states[0].budgets) == 1
    stream.when(RemoveBudget(at=NOON)).then(BudgetRemoved)
    stream.when(RemoveBudget(at=NOON)).then_nothing()
    stream.when(allot(tokens=10**6)).then(Allotted)


def opening(**fields: Any) -> SetBudget:
    return SetBudget(budget=Budget(**fields), at=NOON, opening=True)


@pytest.mark.parametrize("since", [limit(max_tokens_total=0), limit(max_tokens_total=30), RemoveBudget(at=NOON)])
def test_given_a_limit_that_somebody_set_or_lifted_since_a_program_that_opens_with_its_own_again_changes_nothing(
    since: Any,
) -> None:
    stream = ledger(opening(max_tokens_total=10), opening(principal_id="ann", max_tokens_total=5), since)
    stood = stream.states[0].budgets
    stream.when(opening(max_tokens_total=10)).then_nothing()
    stream.when(opening(max_tokens_total=20)).then(BudgetSet)
    stream.when(since)
    assert stream.states[0].budgets == stood
    stream.when(opening(max_tokens_total=20)).then_nothing()


def test_given_a_limit_that_somebody_else_had_set_alike_it_is_known_that_a_program_opened_with_it() -> None:
    stream = ledger(limit(max_tokens_total=10))
    stream.when(opening(max_tokens_total=10)).then(BudgetSet)
    stream.when(limit(max_tokens_total=0)).then(BudgetSet)
    stream.when(opening(max_tokens_total=10)).then_nothing()


def test_what_was_used_before_a_limit_was_set_counts() -> None:
    stream = ledger(allot(tokens=60), back(spent=Amount(tokens=60)), limit(max_tokens_daily=100))
    assert denied(stream.when(allot("t", tokens=60))).used == 60


def test_what_was_used_outside_counts_however_much_there_is_of_it() -> None:
    stream = ledger(limit(max_tokens_total=10**12))
    for n in range(3):
        usage = RecordUsage(
            entry=f"e{n}", kind="model_usage", at=NOON, heard=NOON, input_tokens=10**11, output_tokens=1, cost="0.5"
        )
        stream.when(usage)
    sums = stream.states[0].sums[("scope", "")]
    assert sums.total == Amount(3 * 10**11 + 3, 3 * nanos("0.5"), 3, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens_daily": -1},
        {"max_tokens_daily": True},
        {"max_tokens_daily": 1.5},
        {"max_tokens_daily": "many"},
        {"max_tokens_daily": 10**30},
        {"max_cost_daily": -1},
        {"max_cost_daily": float("nan")},
        {"max_cost_daily": float("inf")},
        {"max_cost_daily": Decimal("NaN")},
        {"max_cost_daily": "sNaN"},
        {"max_cost_daily": "1e400"},
        {"max_cost_daily": True},
        {"max_cost_daily": "0.0000000001"},
        {"max_cost_daily": [1]},
        {"warning_threshold": 0},
        {"warning_threshold": float("nan")},
        {"warning_threshold": 1.1},
        {"warning_threshold": True},
        {"exceed_strategy": "explode"},
        {"exceed_strategy": ["deny"]},
        {"unpriced": "maybe"},
        {"principal_id": ""},
        {"principal_id": "a\nb"},
        {"max_tokens_hourly": 3},
        {"maxTokensDaily": 1, "max_tokens_daily": 1},
        7j,
        None,
        [],
        "ten dollars",
        True,
        float("nan"),
    ],
    ids=repr,
)
def test_a_limit_that_is_none_is_refused_by_one_name(fields: Any) -> None:
    with pytest.raises(BadInput):
        budget_of(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": -1},
        {"max_cost": float("inf")},
        {"max_turns": 1.5},
        {"max_tool_calls": True},
        {"max_runtime_seconds": 0},
        {"max_runtime_seconds": float("nan")},
        {"max_runtime_seconds": 10**12},
        {"max_money": 1},
        "a lot",
        -1,
    ],
    ids=repr,
)
def test_a_limit_of_a_run_that_is_none_is_refused_by_one_name(fields: Any) -> None:
    with pytest.raises(BadInput):
        spec_of(fields)


def test_money_is_kept_exactly_as_it_was_written() -> None:
    assert Budget(max_cost_daily=Decimal("100.00")).max_cost_daily == "100"
    assert Budget(max_cost_daily=0.1).max_cost_daily == "0.1"
    assert budget_of("$2.50").max_cost_total == "2.5"
    assert spec_of("0.50") == BudgetSpec(max_cost="0.5")
    assert budget_of({"maxCostDaily": 1, "warning_threshold": 0.5}) == Budget(max_cost_daily=1, warning_threshold=0.5)


def test_a_budget_that_limits_nothing_is_refused() -> None:
    ledger().when(SetBudget(budget=Budget(), at=NOON)).then_refused(BadInput, "limits nothing")
    both = Budget(principal_id="a", session_id="s", max_tokens_total=1)
    ledger().when(SetBudget(budget=both, at=NOON)).then_refused(BadInput, "not of both")
