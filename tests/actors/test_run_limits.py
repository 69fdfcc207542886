"""The limits of a run: tokens, money, turns, calls of tools and time, of an image and of a job."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from reenact.actors.terms import merged
from reenact.events.action import ActionRequired
from reenact.events.agent import (
    CallModel,
    ModelCalled,
    ToolSettled,
    TurnCompleted,
)
from reenact.events.budget import BudgetSpec, Terms
from reenact.events.purse import (
    BudgetExceeded,
    BudgetReserved,
    RunRaised,
)
from reenact.events.session import JobFailed, JobWaiting, Overrides
from tests.actors.approvals import resolve
from tests.actors.purses import begun, run_of, says, the, under, wants
from tests.actors.words import CREATE, send, settles
from tests.given import given


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


@pytest.mark.parametrize("steps", [1, 50])
def test_given_turns_that_a_person_may_raise_what_the_last_answer_asks_for_runs_before_they_are_asked(
    steps: int,
) -> None:
    stream = (
        given(CREATE, under(run_of(max_turns=1, on_breach="ask"), steps=steps)).when(wants("m1", "read")).owes("t1")
    )
    stream.when(settles("t1")).then(ToolSettled, BudgetExceeded, ActionRequired, JobWaiting).owes("expire-a1")
    stream.when(resolve("a1"))
    assert the(stream, RunRaised).consent.limit == "max_turns" and the(stream, ModelCalled)


def test_given_turns_that_nobody_may_raise_nothing_runs_after_the_last() -> None:
    stream = given(CREATE, under(run_of(max_turns=1, on_breach="deny"))).when(wants("m1", "read"))
    assert the(stream, ToolSettled).outcome == "skipped" and the(stream, BudgetExceeded).breach.limit == "max_turns"


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
        stream = given(CREATE, under(run_of(max_tool_calls=most))).when(wants("m1", "read", "read", "read", "read"))
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


def test_of_two_who_limit_money_one_that_takes_no_model_without_a_price_is_enough() -> None:
    strict, loose = (run_of(max_cost="1", unpriced=said) for said in ("deny", "allow"))
    for image, job in ((strict, loose), (loose, strict)):
        held = merged(image, job)
        assert held is not None and held.spec is not None and held.spec.unpriced == "deny"
