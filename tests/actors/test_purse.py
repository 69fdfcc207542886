"""The purse of a session: money is set aside before a call, and settled with what was counted and paid."""

from __future__ import annotations

import pytest

from reenact.events.agent import (
    CallModel,
    FailModel,
    ModelCalled,
    ModelFailed,
    RecoverEffect,
    TurnCompleted,
)
from reenact.events.budget import NOTHING, Amount, Breach
from reenact.events.content import Cost, Failure, Text, Usage
from reenact.events.purse import (
    AllotmentWanted,
    BudgetExceeded,
    BudgetReserved,
    RefuseAllotment,
)
from reenact.events.session import JobFailed
from tests.actors.purses import LEDGER, begun, purse_of, run_of, says, take, the
from tests.actors.words import fails

# -- without a budget --


def test_without_a_budget_nothing_is_set_aside_and_no_purse_is_kept() -> None:
    stream = begun(None)
    assert not any(isinstance(event, BudgetReserved | AllotmentWanted) for event in stream.events)
    assert stream.when(says("m1")).states[1].purse is None


# -- set aside, and settled --


def test_before_a_model_is_called_money_is_set_aside_in_the_same_append() -> None:
    stream = begun(run_of(max_cost="1"))
    kinds = [type(event) for event in stream.events]
    assert kinds.index(BudgetReserved) == kinds.index(ModelCalled) - 1
    reserved = the(stream, BudgetReserved)
    read = reserved.tokens - 100
    assert read >= 2 and reserved.cost == read + 200 and reserved.max_tokens == 100
    [call] = stream.owed
    assert isinstance(call, CallModel) and call.params.max_tokens == 100


def test_an_answer_is_settled_with_what_was_counted_and_paid() -> None:
    stream = begun(run_of(max_cost="1")).when(says("m1", 20, 5, "0.000000123"))
    assert purse_of(stream).run == Amount(tokens=25, cost=123, requests=1)
    assert purse_of(stream).held is None


@pytest.mark.parametrize("how", ["no usage", "no price"])
def test_what_nobody_counted_is_counted_as_it_was_set_aside(how: str) -> None:
    stream = begun(run_of(max_cost="1"))
    reserved = the(stream, BudgetReserved)
    stream.when(says("m1", usage=how != "no usage"))
    assert purse_of(stream).run.cost == reserved.cost


@pytest.mark.parametrize("code", ["rate_limit", "cooldown"])
def test_a_call_that_was_turned_away_costs_only_the_request(code: str) -> None:
    stream = begun(run_of(max_cost="1")).when(fails("m1", code))
    assert purse_of(stream).run == Amount(requests=1)


@pytest.mark.parametrize("code", ["internal", "cooldown", "timeout", "cancelled"])
def test_a_call_that_failed_before_its_model_was_asked_costs_nothing_and_is_no_request(code: str) -> None:
    stream = begun(run_of(max_tokens=1000))
    assert purse_of(stream).held is not None
    stream.when(FailModel(call="m1", failure=Failure(code=code, message="No."), unasked=True))
    assert (purse_of(stream).run, purse_of(stream).held) == (NOTHING, None)


def test_a_call_that_failed_or_was_cancelled_is_settled_with_what_was_counted() -> None:
    failed = FailModel(
        call="m1",
        failure=Failure(code="cancelled", message="stop"),
        partial=(Text(text="Hal"),),
        usage=Usage(input_tokens=9, output_tokens=1),
        cost=Cost(amount="0.000000011", table="test"),
    )
    stream = begun(run_of(max_cost="1")).when(failed)
    assert purse_of(stream).run == Amount(tokens=10, cost=11, requests=1)


def test_a_call_that_was_cut_off_and_not_counted_is_spent_as_it_was_set_aside() -> None:
    stream = begun(run_of(max_cost="1"))
    reserved = the(stream, BudgetReserved)
    stream.when(fails("m1", "stream_cut"))
    assert purse_of(stream).run.tokens == reserved.tokens


def test_a_call_that_had_begun_to_answer_was_not_turned_away() -> None:
    stream = begun(run_of(max_cost="1"))
    reserved = the(stream, BudgetReserved)
    stream.when(fails("m1", "overloaded", text="Hal"))
    assert purse_of(stream).run == Amount(tokens=reserved.tokens, cost=reserved.cost, requests=1)


def test_every_attempt_is_set_aside_for_itself() -> None:
    stream = begun(run_of(max_cost="1")).when(fails("m1", retry_in_ms=5))
    stream.then(ModelFailed, BudgetReserved, ModelCalled)
    assert the(stream, ModelCalled).attempt == 2 and the(stream, ModelCalled).wait_ms == 5


def test_after_a_crash_the_call_that_was_under_way_is_spent_as_it_was_set_aside() -> None:
    stream = begun(run_of(max_cost="1"))
    first = the(stream, BudgetReserved)
    stream.after_a_crash().when(RecoverEffect(effect="m1", attempt=1)).then(BudgetReserved, ModelCalled)
    purse = purse_of(stream)
    assert purse.run == Amount(tokens=first.tokens, cost=first.cost, requests=1) and purse.held is not None


def test_a_crash_for_which_there_is_no_more_money_ends_the_turn() -> None:
    stream = begun(run_of(max_tokens=150))
    stream.after_a_crash().when(RecoverEffect(effect="m1", attempt=1)).then(BudgetExceeded, TurnCompleted, JobFailed)
    assert purse_of(stream).run.tokens == the(stream, BudgetExceeded).breach.used


@pytest.mark.parametrize("of", ["run", "scope"])
def test_nobody_is_asked_to_raise_a_limit_between_two_attempts_at_a_call(of: str) -> None:
    stream = begun(run_of(max_tokens=150, on_breach="ask")) if of == "run" else begun(LEDGER).when(take(tokens=150))
    stream.after_a_crash().when(RecoverEffect(effect="m1", attempt=1))
    if of == "scope":
        stream.then(AllotmentWanted).when(
            RefuseAllotment(ask="w2", breach=Breach(limit="max_tokens_total", of="scope", asks=True))
        )
    stream.then(BudgetExceeded, TurnCompleted, JobFailed).owes()
    assert the(stream, BudgetExceeded).breach.asks and the(stream, JobFailed).failure.code == "budget_exceeded"
