"""A call of a tool begins when it is paid for, whoever allowed it: a person, or a leave that one gave before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example
from hypothesis import given as draw
from hypothesis import strategies as st

from reenact.events.action import GrantUsed
from reenact.events.agent import RecoverEffect, ToolChecked, ToolRelaunched, ToolSettled, ToolStarted
from reenact.events.budget import Amount, Breach, Terms
from reenact.events.policy import ApplyPolicy
from reenact.events.purse import (
    AllotmentTaken,
    AllotmentWanted,
    BudgetExceeded,
    BudgetReserved,
    RefuseAllotment,
    ReleaseAllotment,
)
from reenact.events.session import JobFailed
from tests.actors.approvals import check, resolve, start
from tests.actors.purses import LEDGER, begun, purse_of, run_of, take, the, wants
from tests.actors.words import settles
from tests.given import Given


def asked_for(number: int, terms: Terms = LEDGER, tools: int = 0) -> Given:
    """So many calls wait for a person, in a session that was allotted so many."""
    stream = begun(terms)
    if terms.ledger is not None:
        stream.when(take(tools=tools))
    return stream.when(wants("m1", *(check() for _ in range(number))))


def test_given_nothing_left_a_call_that_a_person_allowed_waits_for_the_ledger_and_is_looked_at_anew() -> None:
    stream = asked_for(1).when(resolve()).when(start()).then(ToolChecked, AllotmentWanted).owes("w2")
    assert the(stream, AllotmentWanted).tools == ("t1",) and the(stream, AllotmentWanted).least == Amount(tools=1)
    stream.when(take("w2", tools=1)).then(AllotmentTaken).owes("launch-t1")
    stream.when(start()).then(ToolChecked, ToolStarted).owes("t1")
    assert purse_of(stream).left.tools == 0


def test_so_does_the_next_while_the_ledger_is_being_asked() -> None:
    stream = asked_for(2).when(resolve("a1")).when(resolve("a2")).owes("launch-t1", "launch-t2")
    stream.when(start("t1")).then(ToolChecked, AllotmentWanted).owes("w2", "launch-t2")
    stream.when(start("t2")).then(ToolChecked).owes("w2")
    stream.when(take("w2", tools=1)).owes("launch-t1", "launch-t2")
    stream.when(start("t2")).then(ToolChecked, ToolStarted).owes("launch-t1", "t2")
    stream.when(start("t1")).then(ToolChecked, AllotmentWanted).owes("w3", "t2")
    breach = Breach(limit="max_tool_calls_daily", of="scope", used=1, wanted=1, most=1)
    stream.when(RefuseAllotment(ask="w3", breach=breach)).then(BudgetExceeded, ToolSettled).owes("t2")


def test_all_that_wait_are_told_when_the_ledger_has_no_more() -> None:
    stream = asked_for(2).when(resolve("a1")).when(resolve("a2")).when(start("t1")).when(start("t2"))
    breach = Breach(limit="max_tool_calls_daily", of="scope", used=2, wanted=1, most=2)
    stream.when(RefuseAllotment(ask="w2", breach=breach))
    assert the(stream, BudgetExceeded).tools == ("t1", "t2")
    assert [event.outcome for event in stream.events if isinstance(event, ToolSettled)] == ["denied", "denied"]
    assert the(stream, JobFailed)


def test_given_a_limit_of_the_run_that_is_lower_by_the_yes_the_call_is_denied() -> None:
    stream = asked_for(1, run_of(max_tool_calls=1)).when(resolve())
    stream.when(ApplyPolicy(policy=(), terms=run_of(max_tool_calls=0))).when(start())
    assert [type(event) for event in stream.events[:3]] == [ToolChecked, BudgetExceeded, ToolSettled]
    assert the(stream, ToolSettled).outcome == "denied"


def test_given_a_leave_for_calls_to_come_the_next_is_paid_for_as_any_other() -> None:
    stream = asked_for(1, tools=1).when(resolve(always="exact")).when(start()).when(settles("t1"))
    stream.when(wants("m2", check()))
    assert the(stream, GrantUsed).tool == "t2" and the(stream, AllotmentWanted).tools == ("t2",)
    assert not any(isinstance(event, ToolStarted) for event in stream.events)
    stream.when(take(the(stream, AllotmentWanted).ask, tools=1)).owes("launch-t2")
    stream.when(start("t2")).then(ToolChecked, ToolStarted).owes("t2")


def test_a_call_on_leave_that_waits_to_be_paid_does_not_begin_once_every_call_is_asked_about() -> None:
    stream = asked_for(1, tools=1).when(resolve(always="exact", switched=True)).when(start()).when(settles("t1"))
    stream.when(wants("m2", check()))
    assert the(stream, GrantUsed).tool == "t2"
    wanted = the(stream, AllotmentWanted).ask
    stream.when(ApplyPolicy(policy=(), terms=LEDGER, approval_required=True))
    stream.when(take(wanted, tools=1)).when(start("t2"))
    assert "switched" in the(stream, ToolSettled).output and not any(isinstance(e, ToolStarted) for e in stream.events)


def test_what_waits_for_the_ledger_when_its_owner_dies_waits_on() -> None:
    stream = asked_for(2).when(resolve("a1")).when(resolve("a2")).when(start("t1")).when(start("t2"))
    stream.after_a_crash().owes("w2").when(take("w2", tools=2)).owes("launch-t1", "launch-t2")


@example([("yes", 1), ("yes", 2), ("look", 1), ("look", 2), ("take", 1), ("look", 2), ("look", 1)])
@draw(st.lists(st.tuples(st.sampled_from(["yes", "look", "take", "release", "end"]), st.integers(1, 4)), max_size=40))
def test_no_more_calls_begin_than_were_allotted_whoever_allowed_them_and_in_whatever_order(steps: Any) -> None:
    stream, left = asked_for(4), 0
    for kind, number in steps:
        before, asks = purse_of(stream).spent.tools, [each.id for each in stream.owed if each.id.startswith("w")]
        if kind == "yes":
            stream.when(resolve(f"a{number}"))
            _ = stream.error
        elif kind == "look":
            stream.when(start(f"t{number}"))
        elif kind == "take" and asks:
            stream.when(take(asks[0], tools=number - 1))
            left = number - 1 if stream.events else left
        elif kind == "release":
            stream.when(ReleaseAllotment(ask="w1"))
        elif kind == "end":
            stream.when(settles(f"t{number}"))
        began = purse_of(stream).spent.tools - before
        assert began <= left
        left -= began


@pytest.mark.parametrize("known", [LEDGER, None])
def test_given_a_limit_of_an_answer_s_calls_that_came_while_they_waited_no_more_of_them_begin(known: Any) -> None:
    stream = begun(known and LEDGER)
    if known:
        stream.when(take(tools=9))
    stream.when(wants("m1", *(check() for _ in range(3)))).when(resolve("a1")).when(start("t1"))
    stream.when(settles("t1")).when(resolve("a2")).when(resolve("a3"))
    stream.when(ReleaseAllotment(ask="w1") if known else ApplyPolicy(policy=(), terms=LEDGER))
    stream.when(start("t2")).when(take(the(stream, AllotmentWanted).ask, tools_per_request=2)).when(start("t2"))
    stream.then(ToolChecked, ToolStarted).when(start("t3")).then(ToolChecked, BudgetExceeded, ToolSettled)
    breach = the(stream, BudgetExceeded).breach
    assert (breach.limit, breach.used, breach.wanted, breach.most) == ("max_tool_calls_per_request", 2, 1, 2)
    stream.when(settles("t2"))
    assert the(stream, BudgetReserved), "the model may ask for fewer"


@pytest.mark.parametrize("most", [0, 1])
@pytest.mark.parametrize("again", ["allowed", "free"])
def test_a_call_that_was_cut_off_is_begun_again_only_if_its_run_may_have_so_many_by_now(again: str, most: int) -> None:
    idempotent = check("idempotent", approval="ask" if again == "allowed" else "never")
    stream = begun(run_of(max_tool_calls=2)).when(wants("m1", idempotent))
    if again == "allowed":
        stream.when(resolve()).when(start(effect="idempotent"))
    stream.after_a_crash().when(RecoverEffect(effect="t1", attempt=1)).then(ToolRelaunched)
    stream.when(ApplyPolicy(policy=(), terms=run_of(max_tool_calls=most))).when(start(effect="idempotent", attempt=1))
    if most:
        stream.then(ToolChecked, ToolStarted)
        return
    settled = the(stream, ToolSettled)
    assert settled.outcome == "unknown" and "not begun again" in settled.output


def test_a_call_that_was_cut_off_is_counted_once_and_asks_no_ledger_again() -> None:
    stream = begun(LEDGER).when(take(tools=1)).when(wants("m1", check("idempotent", approval="never")))
    stream.after_a_crash().when(RecoverEffect(effect="t1", attempt=1)).when(ReleaseAllotment(ask="w1"))
    stream.when(start(effect="idempotent", attempt=1)).then(ToolChecked, ToolStarted)
    assert purse_of(stream).spent.tools == 1
