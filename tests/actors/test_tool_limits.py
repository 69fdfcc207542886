"""Calls of tools that the budget has a word on: too many at once, those that wait for the ledger, those it denies."""

from __future__ import annotations

from typing import Any

import pytest

from reenact.events.agent import (
    Interrupt,
    ModelCalled,
    ToolAuthorised,
    ToolChecked,
    ToolSettled,
    ToolStarted,
    TurnCompleted,
)
from reenact.events.budget import Amount, Breach
from reenact.events.policy import ApplyPolicy, Policy
from reenact.events.purse import (
    AllotmentTaken,
    AllotmentWanted,
    BudgetExceeded,
    BudgetReserved,
    BudgetWarned,
    RefuseAllotment,
    ReleaseAllotment,
)
from reenact.events.session import JobFailed
from reenact.events.tool import CallCheck
from tests.actors.purses import LEDGER, begun, found, purse_of, run_of, take, the, wants
from tests.actors.words import settles


def test_calls_of_tools_that_come_near_a_limit_are_warned_of_when_they_are_asked_for() -> None:
    stream = begun(LEDGER).when(take(tools=7, ahead=(("max_tool_calls_daily of the scope", 2),)))
    stream.when(wants("m1", "read", "read"))
    assert not [event for event in stream.events if isinstance(event, BudgetWarned)]
    stream.when(settles("t1")).when(settles("t2")).when(wants("m2", "read", "read"))
    assert the(stream, BudgetWarned).limits == ("max_tool_calls_daily of the scope",)


def test_a_limit_of_every_call_is_told_as_whose_it_is() -> None:
    for whose in ("principal", "session"):
        told = (("tokens", whose), ("tools", whose))
        stream = begun(LEDGER).when(take(tokens_per_request=20, whose=told))
        assert the(stream, BudgetExceeded).breach.of == whose
        stream = begun(LEDGER).when(take(tools_per_request=1, whose=told)).when(wants("m1", "read", "read"))
        assert the(stream, BudgetExceeded).breach.of == whose


def test_too_many_calls_of_tools_in_one_answer_are_denied_and_the_model_may_ask_for_fewer() -> None:
    stream = begun(LEDGER).when(take(tools_per_request=1)).when(wants("m1", "read", "read"))
    assert the(stream, ToolSettled).outcome == "denied"
    stream.when(settles("t1")).then(ToolSettled, BudgetReserved, ModelCalled)


def test_calls_of_tools_that_the_allotment_does_not_cover_wait_for_the_ledger() -> None:
    stream = begun(LEDGER).when(take(tools=1)).when(wants("m1", "read", "unsafe", "read")).owes("w2", "t1")
    assert the(stream, AllotmentWanted).tools == ("t2", "t3")
    assert the(stream, AllotmentWanted).spent == Amount(25, purse_of(stream).spent.cost, 1, 1)
    stream.when(take("w2")).then(AllotmentTaken).owes("t1", "launch-t2", "launch-t3")
    stream.when(found("t2", "unsafe")).then(ToolChecked, ToolAuthorised, ToolStarted)
    stream.when(found("t3", "read")).then(ToolChecked, ToolAuthorised, ToolStarted).owes("t1", "t2", "t3")
    assert purse_of(stream).spent.tools == 3


def test_given_an_answer_s_calls_that_wait_as_many_begin_as_are_allotted_and_the_next_asks_by_itself() -> None:
    stream = begun(LEDGER).when(take(tools=1)).when(wants("m1", "read", "read", "read", "read"))
    assert the(stream, AllotmentWanted).least == Amount(tools=1) and the(stream, AllotmentWanted).want.tools == 11
    stream.when(take("w2", tools=1)).owes("t1", "launch-t2", "launch-t3", "launch-t4")
    stream.when(found("t2", "read")).then(ToolChecked, ToolAuthorised, ToolStarted)
    stream.when(found("t3", "read")).then(ToolChecked, AllotmentWanted).when(found("t4", "read")).then(ToolChecked)
    breach = Breach(limit="max_tool_calls_daily", of="scope", used=2, wanted=1, most=2)
    stream.when(RefuseAllotment(ask="w3", breach=breach)).then(BudgetExceeded, ToolSettled, ToolSettled)
    stream.when(settles("t1")).when(settles("t2"))
    assert the(stream, JobFailed).failure.code == "budget_exceeded"


def test_given_an_allotment_that_was_called_back_while_a_model_answered_so_many_calls_begin_as_one_answer_may() -> None:
    stream = begun(LEDGER).when(take(tools_per_request=2)).when(ReleaseAllotment(ask="w1"))
    stream.when(wants("m1", "read", "read", "read", "read")).when(take("w2", tools=9, tools_per_request=2))
    for tool, begins in (("t1", True), ("t2", True), ("t3", False), ("t4", False)):
        stream.when(found(tool, "read"))
        assert isinstance(stream.events[-1], ToolStarted if begins else ToolSettled)
    stream.when(settles("t1")).when(settles("t2")).then(ToolSettled, BudgetReserved, ModelCalled)


def test_given_calls_that_wait_a_limit_that_they_come_near_is_warned_of_as_they_are_allotted() -> None:
    near = (("max_tool_calls_daily of the scope", 2),)
    for asked, warned in ((2, False), (3, True)):
        stream = begun(LEDGER).when(take(tools=0)).when(wants("m1", *["read"] * asked))
        stream.when(take("w2", tools=9, ahead=near))
        assert [type(event) for event in stream.events] == [AllotmentTaken, *([BudgetWarned] if warned else [])]


RULE = Policy(name="house", deny=("unsafe",))
ONE_A_TURN = Policy(name="house", max_tool_calls_per_turn=1)


@pytest.mark.parametrize(
    ("rules", "now", "why"),
    [
        (ApplyPolicy(policy=(RULE,)), {}, "house"),
        (ApplyPolicy(policy=(ONE_A_TURN,)), {}, "at most 1 calls of tools"),
        (ApplyPolicy(policy=(), approval_required=True), {}, "a person must allow it by now"),
        (None, {"approval": "ask"}, "a person must allow it by now"),
        (None, {"problem": "there is no tool named 'unsafe' here any more"}, "there is no tool named"),
    ],
)
def test_one_that_waited_and_could_not_begin_by_the_time_it_is_paid_is_not_run(rules: Any, now: Any, why: str) -> None:
    stream = begun(LEDGER).when(take(tools=1)).when(wants("m1", "read", "unsafe")).owes("w2", "t1")
    if rules is not None:
        stream.when(rules)
    stream.when(take("w2")).when(found("t2", "unsafe", **now))
    settled = the(stream, ToolSettled)
    assert settled.tool == "t2" and settled.outcome == "denied" and why in settled.output
    assert not any(isinstance(event, ToolStarted) for event in stream.events)


def test_calls_of_tools_that_the_ledger_denies_are_not_run_and_end_the_turn() -> None:
    breach = Breach(limit="max_tool_calls_daily", of="scope", used=5, wanted=2, most=5)
    stream = begun(LEDGER).when(take(tools=1)).when(wants("m1", "read", "unsafe", "read"))
    stream.when(RefuseAllotment(ask="w2", breach=breach)).then(BudgetExceeded, ToolSettled, ToolSettled)
    stream.owes("t1").when(settles("t1")).then(ToolSettled, TurnCompleted, JobFailed)
    assert "max_tool_calls_daily" in the(stream, JobFailed).failure.message


def test_calls_of_tools_that_wait_can_be_interrupted() -> None:
    stream = begun(LEDGER).when(take(tools=1)).when(wants("m1", "read", "unsafe")).when(Interrupt())
    assert the(stream, ToolSettled).tool == "t2"
    stream.owes("stop-t1").when(settles("t1")).then(ToolSettled, TurnCompleted, type(stream.events[-1]))
    stream.owes()


def test_a_bad_call_is_not_counted() -> None:
    bad = CallCheck(name="nope", problem="There is no tool named nope.")
    stream = begun(run_of(max_tool_calls=1)).when(wants("m1", bad, "read")).owes("t2")
    assert purse_of(stream).run.tools == 1
