"""What a ledger allots to a session: asked for when it runs out, spent call after call, given back, and warned of."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from reenact.events.agent import (
    CallModel,
    Interrupt,
    ModelCalled,
    ModelFailed,
    ModelSelected,
    RecoverEffect,
    Selection,
    SelectModel,
    ToolChecked,
    ToolSettled,
    ToolStarted,
    TurnCompleted,
    TurnStarted,
)
from reenact.events.budget import NOTHING, Amount, Breach, BudgetSpec, Rate, Terms
from reenact.events.content import Failure
from reenact.events.purse import (
    AllotmentReleased,
    AllotmentTaken,
    AllotmentWanted,
    BudgetDegraded,
    BudgetExceeded,
    BudgetReserved,
    BudgetWarned,
    RefuseAllotment,
    ReleaseAllotment,
    RequestAllotment,
)
from reenact.events.session import CloseSession, JobFailed
from tests.actors.approvals import check, resolve, start
from tests.actors.purses import LEDGER, RATE, begun, purse_of, says, take, the, under, wants
from tests.actors.words import CREATE, fails, send, settles
from tests.given import Given, given

# -- the ledger --


def test_a_session_without_an_allotment_asks_its_ledger_first() -> None:
    stream = begun(LEDGER).owes("w1")
    wanted = the(stream, AllotmentWanted)
    assert (wanted.ledger, wanted.spent, wanted.call) == ("acme", NOTHING, "m1")
    assert wanted.want.tokens == wanted.least.tokens - 64 + 100
    [ask] = stream.owed
    assert isinstance(ask, RequestAllotment) and ask.want == wanted.want and ask.session_id == "sess_1"


def test_what_is_allotted_pays_call_after_call_without_asking_again() -> None:
    stream = begun(LEDGER).when(take()).then(AllotmentTaken, BudgetReserved, ModelCalled).owes("m1")
    stream.when(wants("m1", "read")).when(settles("t1")).then(ToolSettled, BudgetReserved, ModelCalled)
    stream.when(says("m2")).when(send("job_2", waking=None)).owes("m3")
    assert not any(isinstance(event, AllotmentWanted) for event in stream.events)


def test_when_it_runs_out_it_asks_again_and_tells_what_it_spent() -> None:
    stream = begun(LEDGER).when(take(tokens=150)).when(wants("m1", "read", read=20, written=60))
    stream.when(settles("t1")).then(ToolSettled, AllotmentWanted).owes("w2")
    wanted = the(stream, AllotmentWanted)
    assert wanted.spent == Amount(tokens=80, cost=the_cost(stream), requests=1, tools=1)
    assert purse_of(stream).left == NOTHING, "what it still had is given back with the asking"


def the_cost(stream: Given) -> int:
    return purse_of(stream).spent.cost


def test_a_small_allotment_is_made_do_with_when_there_is_no_more() -> None:
    stream = begun(LEDGER, max_tokens=1000).when(take(tokens=200))
    assert the(stream, BudgetReserved).tokens == 200


def test_with_less_than_a_call_needs_it_is_not_made() -> None:
    least = the(begun(LEDGER), AllotmentWanted).least
    begun(LEDGER).when(take(tokens=least.tokens)).then(AllotmentTaken, BudgetReserved, ModelCalled)
    begun(LEDGER).when(take(tokens=least.tokens - 1)).then(AllotmentTaken, AllotmentWanted).owes("w2")


def test_an_allotment_that_comes_twice_or_too_late_is_passed_over() -> None:
    stream = begun(LEDGER).when(take())
    stream.when(take()).then_nothing()
    stream.when(take("w0")).then_nothing()
    begun(LEDGER).when(Interrupt()).when(take()).then_nothing()


def test_so_is_an_answer_to_what_it_had_asked_for_before_it_asked_again() -> None:
    stream = begun(LEDGER).when(take(tokens=1)).then(AllotmentTaken, AllotmentWanted).owes("w2")
    stream.when(take()).then_nothing()
    refused = Breach(limit="max_tokens_total", of="scope")
    stream.when(RefuseAllotment(ask="w1", breach=refused)).then_nothing().owes("w2")
    stream.when(take("w2")).then(AllotmentTaken, BudgetReserved, ModelCalled)


MIDNIGHT = 5_000_000
"""When what is allotted here ends."""


def at(stream: Given, time: int) -> Given:
    stream.at = time
    return stream


@pytest.mark.parametrize("late", [False, True])
def test_given_a_person_s_answer_after_the_day_what_they_allow_is_paid_with_an_allotment_of_today(late: bool) -> None:
    tool = at(begun(LEDGER).when(take(until=MIDNIGHT)).when(wants("m1", check())), MIDNIGHT - 1 + late)
    tool.when(resolve()).when(start(at=tool.at)).then(ToolChecked, AllotmentWanted if late else ToolStarted)
    terms = replace(LEDGER, spec=BudgetSpec(max_turns=1, on_breach="ask"))
    more = begun(terms).when(take(until=MIDNIGHT)).when(wants("m1", "read")).when(settles("t1"))
    at(more, MIDNIGHT - 1 + late).when(resolve())
    assert any(isinstance(event, AllotmentWanted) for event in more.events) is late
    assert any(isinstance(event, BudgetReserved) for event in more.events) is not late


@pytest.mark.parametrize("late", [False, True])
def test_given_an_allotment_that_comes_after_its_day_another_is_asked_for(late: bool) -> None:
    stream = at(begun(LEDGER), MIDNIGHT - 1 + late).when(take(until=MIDNIGHT))
    stream.then(AllotmentTaken, *((AllotmentWanted,) if late else (BudgetReserved, ModelCalled)))
    if late:
        assert stream.owed[0].at == MIDNIGHT  # type: ignore[attr-defined]
        stream.when(take("w2")).then(AllotmentTaken, BudgetReserved, ModelCalled)


def test_given_another_model_after_the_day_its_call_is_paid_with_an_allotment_of_today() -> None:
    select = SelectModel(call="m1", attempt=1, select=Selection(model="scripted:echo", reason="primary"))
    stream = at(begun(LEDGER).when(take(until=MIDNIGHT)), MIDNIGHT).when(select)
    stream.then(ModelSelected, AllotmentWanted)


def test_what_a_new_process_begins_again_is_asked_for_anew_whatever_day_it_is() -> None:
    stream = begun(LEDGER).when(take(until=MIDNIGHT))
    held = the(stream, BudgetReserved)
    at(stream, MIDNIGHT).after_a_crash().when(RecoverEffect(effect="m1", attempt=1)).then(AllotmentWanted).owes("w2")
    wanted = the(stream, AllotmentWanted)
    assert wanted.spent == Amount(tokens=held.tokens, cost=held.cost, requests=1)
    assert stream.owed[0].at == MIDNIGHT  # type: ignore[attr-defined]
    stream.when(take("w2")).then(AllotmentTaken, BudgetReserved, ModelCalled)
    assert the(stream, ModelCalled).attempt == 2


def test_a_denial_ends_the_turn_and_says_why() -> None:
    breach = Breach(limit="max_cost_daily", of="scope", used=10**9, wanted=5 * 10**7, most=10**9)
    stream = begun(LEDGER).when(RefuseAllotment(ask="w1", breach=breach)).then(BudgetExceeded, TurnCompleted, JobFailed)
    assert the(stream, JobFailed).failure == Failure(
        code="budget_exceeded",
        message="max_cost_daily of the scope is $1: $1 used or set aside, $0.05 more wanted.",
    )
    stream.owes().when(RefuseAllotment(ask="w1", breach=breach)).then_nothing()


def test_a_call_that_waits_for_money_can_be_interrupted() -> None:
    stream = begun(LEDGER).when(Interrupt())
    assert the(stream, TurnCompleted).reason == "interrupted"
    stream.owes()


def test_another_attempt_that_waits_for_money_can_be_interrupted_and_keeps_its_wait() -> None:
    stream = begun(LEDGER).when(take(tokens=120)).when(fails("m1", "stream_cut", retry_in_ms=700, attempt=1))
    stream.then(ModelFailed, AllotmentWanted).owes("w2")
    stream.when(RecoverEffect(effect="m1", attempt=1)).then_nothing()
    again = given(*_past(stream)).when(take("w2"))
    assert the(again, ModelCalled).wait_ms == 700 and the(again, ModelCalled).attempt == 2
    stream.when(Interrupt())
    assert the(stream, TurnCompleted).reason == "interrupted"
    stream.owes()


def _past(stream: Given) -> list[Any]:
    """The same once more, from its commands."""
    return [
        CREATE,
        under(LEDGER),
        take(tokens=120),
        fails("m1", "stream_cut", retry_in_ms=700, attempt=1),
    ]


def test_an_allotment_whose_time_is_over_is_not_spent() -> None:
    stream = begun(LEDGER).when(take(until=1)).then(AllotmentTaken, AllotmentWanted).owes("w2")
    stream.when(take("w2", until=stream.at + 1)).then(AllotmentTaken, BudgetReserved, ModelCalled)
    stream.when(wants("m1", "read"))
    stream.at += 2
    stream.when(settles("t1")).then(ToolSettled, AllotmentWanted)


def test_a_clock_that_is_set_back_does_not_bring_an_allotment_back() -> None:
    stream = begun(LEDGER).when(take(until=2_000_000)).when(wants("m1", "read", "read"))
    stream.at = 3_000_000
    stream.when(settles("t1"))
    stream.at = 1_000_000
    stream.when(settles("t2")).then(ToolSettled, AllotmentWanted)


def test_what_nobody_uses_is_let_go_and_what_is_under_way_is_kept() -> None:
    stream = begun(LEDGER).when(take())
    held = the(stream, BudgetReserved)
    stream.when(ReleaseAllotment(ask="w1")).then(AllotmentReleased)
    assert the(stream, AllotmentReleased).kept == Amount(held.tokens, held.cost, 1, 0)
    stream.when(ReleaseAllotment(ask="w1")).then_nothing()
    stream.when(says("m1")).when(ReleaseAllotment(ask="w1")).then(AllotmentReleased)
    assert the(stream, AllotmentReleased).kept == NOTHING
    stream.when(ReleaseAllotment(ask="w0")).then_nothing()
    stream.when(send("job_2", waking=None)).owes("w2")


def test_a_session_that_is_closed_gives_back_what_it_has() -> None:
    stream = begun(LEDGER).when(take()).when(says("m1")).when(CloseSession())
    assert the(stream, AllotmentReleased).kept == NOTHING
    running = begun(LEDGER).when(take()).when(CloseSession())
    assert the(running, AllotmentReleased).kept.tokens > 0
    assert the(running.when(fails("m1", "overloaded")), AllotmentReleased).kept == NOTHING


def test_limits_of_a_call_that_the_ledger_told_are_kept() -> None:
    stream = begun(LEDGER, max_tokens=1000).when(take(tokens_per_request=200))
    assert the(stream, BudgetReserved).tokens == 200
    stream = begun(LEDGER).when(take(tokens_per_request=20))
    assert the(stream, BudgetExceeded).breach.limit == "max_tokens_per_request"
    stream = begun(LEDGER).when(take(cost_per_request=20))
    assert the(stream, BudgetExceeded).breach.limit == "max_cost_per_request"


def test_a_model_without_a_price_is_asked_for_as_such() -> None:
    stream = begun(replace(LEDGER, rates=()))
    assert the(stream, AllotmentWanted).priced is False
    stream.when(take(needs_price=True))
    assert the(stream, JobFailed).failure.code == "unpriced"


# -- warned and degraded --


def test_a_warning_is_an_event_and_is_told_once() -> None:
    near = ("max_cost_daily of the scope",)
    stream = begun(LEDGER).when(take(tokens=130, warned=near))
    stream.then(AllotmentTaken, BudgetWarned, BudgetReserved, ModelCalled)
    stream.when(wants("m1", "read")).when(settles("t1")).when(take("w2", warned=near))
    stream.then(AllotmentTaken, BudgetReserved, ModelCalled)


def test_a_limit_that_degrades_calls_the_cheaper_model_and_says_so() -> None:
    cheap = Rate("scripted:cheap", 1, 1)
    terms = replace(LEDGER, rates=(RATE, cheap), degrade_to="scripted:cheap")
    stream = begun(terms).when(take(degrade=True))
    stream.then(AllotmentTaken, BudgetDegraded, ModelSelected, BudgetReserved, ModelCalled)
    assert the(stream, ModelSelected).reason == "budget"
    assert the(stream, ModelCalled).model == "scripted:cheap"
    [call] = stream.owed
    assert isinstance(call, CallModel) and call.model == "scripted:cheap"
    assert the(stream, BudgetReserved).cost == 1
    named = begun(LEDGER).when(take(degrade=True, degrade_to="scripted:other"))
    assert the(named, ModelCalled).model == "scripted:other"


def test_degrading_without_a_cheaper_model_goes_on_as_it_was() -> None:
    stream = begun(LEDGER).when(take(degrade=True)).then(AllotmentTaken, BudgetReserved, ModelCalled)
    assert the(stream, ModelCalled).model == "scripted:echo"
    stream = begun(LEDGER).when(take(degrade=True, degrade_to="scripted:other", needs_price=True))
    assert the(stream, ModelCalled).model == "scripted:echo"


def test_an_allotment_of_a_principal_ends_with_the_job() -> None:
    stream = begun(LEDGER).when(take(per_job=True)).when(says("m1")).when(send("job_2", waking=None)).owes("w2")
    assert the(stream, AllotmentWanted).spent.tokens == 25


# -- a job that no ledger limits --

ALONE = Terms(spec=BudgetSpec(max_tokens=10**6), rates=(RATE,), overhead=10)
"""Of a run with a limit of its own, in a scope in which none is in force."""


def test_given_a_job_under_no_ledger_what_it_spends_is_spent_of_nothing_that_one_allotted() -> None:
    stream = begun(LEDGER).when(take()).when(says("m1"))
    held = purse_of(stream)
    stream.when(under(ALONE, job="job_2"))
    assert [type(event) for event in stream.events][-3:] == [TurnStarted, BudgetReserved, ModelCalled]
    purse = purse_of(stream.when(wants("m2", "read")))
    assert (purse.spent, purse.left, purse.grant) == (held.spent, held.left, held.grant)
    assert (purse.free.requests, purse.free.tools) == (1, 1)
    stream.when(ReleaseAllotment(ask="w1")).then(AllotmentReleased)
    assert the(stream, AllotmentReleased) == AllotmentReleased(ask="w1", spent=held.spent)


def test_given_a_job_that_is_under_no_ledger_any_more_what_it_holds_and_what_comes_late_is_left_alone_too() -> None:
    """Another message comes while it runs, and knows of no limits: the definition is the session's. A call that is
    under way then was paid with what was allotted."""
    held = begun(LEDGER).when(take())
    reserved = the(held, BudgetReserved)
    held.when(under(ALONE, job="job_2")).when(says("m1", usage=False))
    assert purse_of(held).spent.tokens == reserved.tokens and purse_of(held).free == NOTHING
    late = begun(LEDGER).when(under(ALONE, job="job_2")).when(take())
    late.then(AllotmentTaken, BudgetReserved, ModelCalled).when(says("m1"))
    assert purse_of(late).spent == NOTHING and purse_of(late).free.requests == 1


def test_given_a_limit_of_every_call_that_came_with_an_allotment_a_job_under_no_ledger_is_not_held_to_it() -> None:
    stream = begun(LEDGER).when(take(tokens_per_request=1, needs_price=True, degrade=True, degrade_to="scripted:hello"))
    stream.when(under(replace(ALONE, rates=()), job="job_2"))
    assert the(stream, ModelCalled).model == "scripted:echo"
