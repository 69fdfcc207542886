"""A session's purse: set aside before every call, settled by its end, asked for when it runs out."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from reenact.actors import purse as money
from reenact.actors.terms import merged
from reenact.actors.wish import tokens_in, tokens_of
from reenact.events.agent import (
    AnswerModel,
    CallModel,
    FailModel,
    Interrupt,
    ModelCalled,
    ModelFailed,
    ModelSelected,
    RecoverEffect,
    StartTool,
    ToolAuthorised,
    ToolChecked,
    ToolSettled,
    ToolStarted,
    TurnCompleted,
)
from reenact.events.budget import NOTHING, Amount, Breach, BudgetSpec, Grant, Rate, Terms
from reenact.events.content import Cost, Failure, File, Image, Text, Usage
from reenact.events.model import ModelAnswer, ModelParams
from reenact.events.policy import ApplyPolicy, Policy
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
    TakeAllotment,
)
from reenact.events.session import CloseSession, Definition, JobFailed, Overrides
from reenact.events.tool import CallCheck, Place
from tests.actors.words import CREATE, asks, fails, send, settles, waking
from tests.given import Given, given

RATE = Rate("scripted:echo", 1_000_000, 2_000_000)  # a nano-dollar a token read, two a token written
LEDGER = Terms(ledger="acme", rates=(RATE,), overhead=10)


def run_of(**limits: Any) -> Terms:
    return Terms(spec=BudgetSpec(**limits), rates=(RATE,))


def under(terms: Terms | None, *, max_tokens: int | None = 100, steps: int = 9, text: str = "hello") -> Any:
    """A message to an agent that works under these terms."""
    definition = Definition(
        image_version=1,
        model="scripted:echo",
        params=ModelParams(max_tokens=max_tokens),
        max_steps=steps,
        tools="sha256:0",
        terms=terms,
    )
    return send(text=text, waking=waking(definition=definition))


def begun(terms: Terms | None, **options: Any) -> Given:
    return given(CREATE).when(under(terms, **options))


def allotted(tokens: int = 10_000, cost: int = 10**9, requests: int = 50, tools: int = 50, **fields: Any) -> Grant:
    return Grant(amount=Amount(tokens, cost, requests, tools), **fields)


def take(ask: str = "w1", **fields: Any) -> TakeAllotment:
    return TakeAllotment(ask=ask, grant=allotted(**fields))


def says(call: str, read: int = 20, written: int = 5, cost: str | None = None, usage: bool = True) -> AnswerModel:
    counted = Usage(input_tokens=read, output_tokens=written) if usage else None
    paid = Cost(amount=cost, table="test") if cost is not None else None
    return AnswerModel(
        call=call, answer=ModelAnswer(parts=(Text(text="Hi."),), stop_reason="end_turn", usage=counted), cost=paid
    )


def wants(call: str, *tools: Any, read: int = 20, written: int = 5) -> AnswerModel:
    answer = asks(call, *tools)
    usage = Usage(input_tokens=read, output_tokens=written)
    return replace(answer, answer=replace(answer.answer, usage=usage))


def found(tool: str, effect: str, **fields: Any) -> StartTool:
    """What a look at a call finds that nobody has to be asked about."""
    same: dict[str, Any] = {"attempt": 0, "at": 2, "effect": effect, "timeout_s": 60.0, "place": Place()}
    return StartTool(tool=tool, **{**same, **fields})


def purse_of(stream: Given) -> money.Purse:
    purse = stream.states[1].purse
    assert isinstance(purse, money.Purse)
    return purse


def the(stream: Given, kind: type[Any]) -> Any:
    [found] = [event for event in stream.events if isinstance(event, kind)]
    return found


# -- without a budget --


def test_without_a_budget_nothing_is_set_aside_and_no_purse_is_kept() -> None:
    stream = begun(None)
    assert not any(isinstance(event, BudgetReserved | AllotmentWanted) for event in stream.events)
    assert stream.when(says("m1")).states[1].purse is None


# -- the limits of a run --


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
    assert purse_of(stream).spent == Amount(tokens=25, cost=123, requests=1)
    assert purse_of(stream).held is None


@pytest.mark.parametrize("how", ["no usage", "no price"])
def test_what_nobody_counted_is_counted_as_it_was_set_aside(how: str) -> None:
    stream = begun(run_of(max_cost="1"))
    reserved = the(stream, BudgetReserved)
    stream.when(says("m1", usage=how != "no usage"))
    assert purse_of(stream).spent.cost == reserved.cost


@pytest.mark.parametrize("code", ["rate_limit", "cooldown"])
def test_a_call_that_was_turned_away_costs_only_the_request(code: str) -> None:
    stream = begun(run_of(max_cost="1")).when(fails("m1", code))
    assert purse_of(stream).spent == Amount(requests=1)


@pytest.mark.parametrize("code", ["internal", "cooldown", "timeout", "cancelled"])
def test_a_call_that_failed_before_its_model_was_asked_costs_nothing_and_is_no_request(code: str) -> None:
    stream = begun(run_of(max_tokens=1000))
    assert purse_of(stream).held is not None
    stream.when(FailModel(call="m1", failure=Failure(code=code, message="No."), unasked=True))
    assert (purse_of(stream).spent, purse_of(stream).held) == (NOTHING, None)


def test_a_call_that_failed_or_was_cancelled_is_settled_with_what_was_counted() -> None:
    failed = FailModel(
        call="m1",
        failure=Failure(code="cancelled", message="stop"),
        partial=(Text(text="Hal"),),
        usage=Usage(input_tokens=9, output_tokens=1),
        cost=Cost(amount="0.000000011", table="test"),
    )
    stream = begun(run_of(max_cost="1")).when(failed)
    assert purse_of(stream).spent == Amount(tokens=10, cost=11, requests=1)


def test_a_call_that_was_cut_off_and_not_counted_is_spent_as_it_was_set_aside() -> None:
    stream = begun(run_of(max_cost="1"))
    reserved = the(stream, BudgetReserved)
    stream.when(fails("m1", "stream_cut"))
    assert purse_of(stream).spent.tokens == reserved.tokens


def test_a_call_that_had_begun_to_answer_was_not_turned_away() -> None:
    stream = begun(run_of(max_cost="1"))
    reserved = the(stream, BudgetReserved)
    stream.when(fails("m1", "overloaded", text="Hal"))
    assert purse_of(stream).spent == Amount(tokens=reserved.tokens, cost=reserved.cost, requests=1)


def test_every_attempt_is_set_aside_for_itself() -> None:
    stream = begun(run_of(max_cost="1")).when(fails("m1", retry_in_ms=5))
    stream.then(ModelFailed, BudgetReserved, ModelCalled)
    assert the(stream, ModelCalled).attempt == 2 and the(stream, ModelCalled).wait_ms == 5


def test_after_a_crash_the_call_that_was_under_way_is_spent_as_it_was_set_aside() -> None:
    stream = begun(run_of(max_cost="1"))
    first = the(stream, BudgetReserved)
    stream.after_a_crash().when(RecoverEffect(effect="m1", attempt=1)).then(BudgetReserved, ModelCalled)
    purse = purse_of(stream)
    assert purse.spent == Amount(tokens=first.tokens, cost=first.cost, requests=1) and purse.held is not None


def test_a_crash_for_which_there_is_no_more_money_ends_the_turn() -> None:
    stream = begun(run_of(max_tokens=150))
    stream.after_a_crash().when(RecoverEffect(effect="m1", attempt=1)).then(BudgetExceeded, TurnCompleted, JobFailed)
    assert purse_of(stream).spent.tokens == the(stream, BudgetExceeded).breach.used


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


def test_max_tokens_of_a_run_ends_the_turn_and_says_why() -> None:
    stream = given(CREATE, under(run_of(max_tokens=300)), wants("m1", "read", read=200, written=80))
    stream.when(settles("t1")).then(ToolSettled, BudgetExceeded, TurnCompleted, JobFailed)
    breach = the(stream, BudgetExceeded).breach
    assert (breach.limit, breach.of, breach.used, breach.most) == ("max_tokens", "run", 280, 300)
    failure = the(stream, JobFailed).failure
    assert failure.code == "budget_exceeded" and "280 used" in failure.message and "300" in failure.message
    stream.owes()


def test_max_cost_of_a_run_ends_the_turn() -> None:
    stream = begun(run_of(max_cost="0.00000001"))
    assert the(stream, BudgetExceeded).breach.limit == "max_cost"
    assert the(stream, JobFailed).failure.message.startswith("max_cost of the run is $0.00000001")


def test_max_turns_of_a_run_are_its_model_calls_and_clamp_the_image() -> None:
    stream = given(CREATE, under(run_of(max_turns=2), steps=50), wants("m1", "read")).when(settles("t1"))
    stream.then(ToolSettled, BudgetReserved, ModelCalled).when(wants("m2", "read"))
    assert the(stream, ToolSettled).outcome == "skipped"
    assert the(stream, JobFailed).failure.code == "budget_exceeded"
    assert the(stream, BudgetExceeded).breach.limit == "max_turns"


def test_max_turns_above_those_of_the_image_are_no_fault() -> None:
    stream = given(CREATE, under(run_of(max_turns=50), steps=1), wants("m1", "read"))
    assert the(
        given(CREATE, under(run_of(max_turns=50), steps=1)).when(wants("m1", "read")), JobFailed
    ).failure.code == ("max_steps")
    stream.owes()


def test_a_run_without_turns_calls_no_model() -> None:
    assert the(begun(run_of(max_turns=0)), BudgetExceeded).breach.limit == "max_turns"


def test_max_tool_calls_of_a_run_deny_the_rest_and_end_the_turn() -> None:
    stream = given(CREATE, under(run_of(max_tool_calls=2))).when(wants("m1", "read", "read", "read"))
    settled = the(stream, ToolSettled)
    assert (settled.tool, settled.outcome, settled.error_type) == ("t3", "denied", "BudgetExceeded")
    assert "max_tool_calls of the run is 2" in settled.output
    stream.owes("t1", "t2").when(settles("t1")).when(settles("t2")).then(ToolSettled, TurnCompleted, JobFailed)
    assert the(stream, JobFailed).failure.code == "budget_exceeded"


def test_given_calls_of_tools_that_were_denied_the_next_is_told_what_was_used_and_not_what_was_wanted() -> None:
    for most in (0, 2):
        terms = replace(run_of(max_tool_calls=most), rules=1)
        stream = given(CREATE, under(terms)).when(wants("m1", "read", "read", "read", "read"))
        assert {each.breach.used for each in stream.events if isinstance(each, BudgetExceeded)} == {most}


def test_max_runtime_is_a_deadline_from_when_the_job_starts() -> None:
    stream = begun(run_of(max_runtime_seconds=2.5)).owes("runtime-job_1", "m1")
    assert stream.owed[0].at == stream.at + 2_500_000  # type: ignore[attr-defined]
    stream.when(says("m1")).owes()


def test_a_model_without_a_price_is_not_called_where_money_is_limited() -> None:
    unpriced = replace(run_of(max_cost="1"), rates=())
    failure = the(begun(unpriced), JobFailed).failure
    assert failure.code == "unpriced" and "name another model" in failure.message
    allowed = Terms(spec=BudgetSpec(max_cost="1", unpriced="allow"))
    assert the(begun(allowed), BudgetReserved).cost == 0
    assert the(begun(replace(run_of(max_tokens=1000), rates=())), BudgetReserved).cost == 0


def test_a_call_may_write_what_is_left_and_is_told_so() -> None:
    stream = begun(run_of(max_tokens=300), max_tokens=1000)
    reserved = the(stream, BudgetReserved)
    assert reserved.tokens == 300 and reserved.max_tokens < 300
    assert the(stream, ModelCalled).params.max_tokens == reserved.max_tokens
    [call] = stream.owed
    assert isinstance(call, CallModel) and call.params.max_tokens == reserved.max_tokens


def test_the_limit_itself_may_be_used_up() -> None:
    stream = begun(run_of(max_tokens=164), max_tokens=64, text="x" * 320)
    assert the(stream, BudgetReserved).tokens == 164
    assert the(begun(run_of(max_tokens=163), max_tokens=64, text="x" * 320), BudgetExceeded).breach.wanted == 164


def test_a_run_counts_for_itself_and_not_what_was_before() -> None:
    stream = given(CREATE, under(run_of(max_tokens=300)), says("m1", 150, 100))
    stream.when(send("job_2", "and now?", waking=None))
    exceeded = the(stream, BudgetExceeded).breach
    assert exceeded.used == 0 and exceeded.wanted > 250, "the conversation alone has 250 tokens by now"


def test_a_job_may_be_held_to_less_than_its_image() -> None:
    own = Overrides(terms=Terms(spec=BudgetSpec(max_tokens=200)))
    stream = given(CREATE).when(replace(under(run_of(max_tokens=1000), max_tokens=500), overrides=own))
    assert the(stream, BudgetReserved).tokens == 200
    more = Overrides(terms=Terms(spec=BudgetSpec(max_tokens=2000)))
    stream = given(CREATE).when(replace(under(run_of(max_tokens=300), max_tokens=500), overrides=more))
    assert the(stream, BudgetReserved).tokens == 300
    alone = replace(under(None, max_tokens=500), overrides=own)
    assert the(given(CREATE).when(alone), BudgetReserved).tokens == 200


@pytest.mark.parametrize(
    ("name", "narrow", "wide"),
    [
        ("max_tokens", 900, 1000),
        ("max_cost", "9.5", "10"),
        ("max_tool_calls", 0, 1),
        ("max_turns", 9, 10),
        ("max_runtime_seconds", 9.5, 10.0),
        ("unpriced", "deny", "allow"),
        ("on_breach", "deny", "ask"),
    ],
)
def test_of_each_limit_of_an_image_and_of_its_job_the_narrower_one_holds(name: str, narrow: Any, wide: Any) -> None:
    low, high, none = run_of(**{name: narrow}), run_of(**{name: wide}), run_of()
    pairs = [(low, high), (high, low)]
    if none.spec is not None and getattr(none.spec, name) is None:
        pairs += [(low, none), (none, low), (low, None), (None, low)]
    for image, job in pairs:
        held = merged(image, job)
        assert held is not None and held.spec is not None and getattr(held.spec, name) == narrow


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
    assert purse_of(stream).spent.tools == 1


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


# -- what a call may cost --


def test_an_estimate_is_more_rather_than_less() -> None:
    assert tokens_of("") == 0
    assert tokens_of("a" * 400) == 120
    assert tokens_of("語" * 100) == 150
    assert tokens_of("\ud800") == 2
    assert tokens_in((Image(url="x"), File(url="x"), Text(text="abcd"))) == 2_400 + 24_000 + 6


def test_after_an_answer_only_what_is_new_is_estimated() -> None:
    first = the(begun(replace(LEDGER, overhead=5000)), AllotmentWanted)
    assert first.least.tokens > 5000
    stream = given(CREATE, under(replace(LEDGER, overhead=5000)), take(), wants("m1", "read", read=40, written=10))
    stream.when(settles("t1", output="y" * 100))
    assert the(stream, BudgetReserved).tokens == 50 + 8 + 30 + 100


def again(terms: Terms, model: str = "scripted:echo") -> Given:
    """A session under a ledger whose first answer, of 1,000 tokens, was counted; then a message under other terms."""
    first = replace(LEDGER, overhead=500, rules=terms.rules)
    stream = given(CREATE, under(first), take(), wants("m1", read=900, written=100))
    later = replace(under(terms), job_id="job_2", overrides=Overrides(model=model))
    return stream.when(later)


PNG = "iVBORw0KGgoAAAANSUhEUgAABAAAAAQACAIAAADwf7zU"
"""The head of a picture of 1,024 by 1,024 pixels."""


@pytest.mark.parametrize(("rules", "one", "two"), [(2, 25_501, 48_169), (1, 2_400, 2_400)])
def test_pictures_are_set_aside_as_the_model_counts_them_that_sees_them(rules: int, one: int, two: int) -> None:
    """Also those that another model counted. Older logs are decided again as they were."""
    terms = replace(LEDGER, rules=rules)
    stream = given(CREATE, under(terms), take(tokens=500_000), wants("m1", "look", read=40, written=10))
    stream.when(settles("t1", output=(Image(data=PNG), Image(url="https://example.com/cat.png"))))
    assert the(stream, BudgetReserved).tokens == 50 + 8 + one + two + 100
    stream.when(says("m2", read=900, written=100))
    stream.when(replace(under(terms), job_id="job_2", overrides=Overrides(model="openai:gpt-4o-mini")))
    seen = one + two if rules > 1 else 0
    assert the(stream, BudgetReserved).tokens == 1_500 + seen + 6 + 100


def test_a_limit_of_tokens_that_a_provider_does_not_take_is_set_aside_as_what_is_asked_for() -> None:
    for model, rules, written in (("openai:gpt-4o", 2, 16), ("openai:gpt-4o", 1, 1), ("scripted:echo", 2, 1)):
        message = replace(under(replace(LEDGER, rules=rules), max_tokens=1), overrides=Overrides(model=model))
        stream = given(CREATE, message).when(take())
        assert the(stream, BudgetReserved).max_tokens == written, (model, rules)


def test_given_instructions_that_grew_since_what_was_counted_their_growth_is_set_aside() -> None:
    for rules, read in ((1, 1000 + 4500), (0, 1000)):
        stream = again(replace(LEDGER, overhead=5000, rules=rules))
        assert the(stream, BudgetReserved).tokens == read + 6 + 100, "older logs are decided again as they were"
    assert the(again(replace(LEDGER, overhead=20, rules=1)), BudgetReserved).tokens == 1000 + 6 + 100


def test_what_another_model_counted_is_taken_for_half_as_much_again() -> None:
    terms = replace(LEDGER, overhead=500, rates=(RATE, Rate("scripted:hello", 1, 1)), rules=1)
    assert the(again(terms, "scripted:hello"), BudgetReserved).tokens == 1500 + 6 + 100


def test_given_an_answer_that_nothing_was_set_aside_for_the_instructions_of_now_are_set_aside_after_it() -> None:
    later = replace(under(replace(run_of(max_tokens=10**6), overhead=500, rules=1)), job_id="job_2")
    unlimited = given(CREATE, under(None), wants("m1", read=900, written=100))
    assert the(unlimited.when(later), BudgetReserved).tokens == 1000 + 500 + 6 + 100
    for rules, read in ((1, 1000 + 500), (0, 1000)):
        limited = ApplyPolicy(policy=(), terms=replace(LEDGER, rules=rules))  # while the call is under way
        stream = given(CREATE, under(None), limited, wants("m1", read=900, written=100))
        grown = replace(under(replace(LEDGER, overhead=500, rules=rules)), job_id="job_2")
        assert the(stream.when(grown).when(take()), BudgetReserved).tokens == read + 6 + 100


def test_who_thinks_first_is_given_room_to_think() -> None:
    thinking = replace(under(LEDGER), overrides=Overrides(params=ModelParams(thinking="high", max_tokens=9000)))
    wanted = the(given(CREATE).when(thinking), AllotmentWanted)
    assert wanted.want.tokens - wanted.least.tokens == 9000 - 2048
