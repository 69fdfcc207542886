"""An agent's turn: calls of models and tools, how they end, and what stops them."""

from typing import Any

import pytest

from reenact.events.agent import (
    AgentConfigured,
    CallModel,
    Interrupt,
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    RunTool,
    ToolAuthorised,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    TurnCompleted,
    TurnStarted,
)
from reenact.events.errors import BadInput
from reenact.events.model import ModelParams
from reenact.events.session import JobFailed, JobSucceeded, Overrides
from reenact.events.tool import CallCheck, arguments_digest
from tests.actors.words import CREATE, DEFINITION, asks, fails, says, send, settles, waking
from tests.given import given

AWAKE = (CREATE, send())


def test_a_text_ends_the_turn() -> None:
    given(*AWAKE).when(says("m1")).then(ModelAnswered, TurnCompleted, JobSucceeded).owes()


def test_a_tool_is_requested_authorised_and_started_in_the_append_of_the_answer() -> None:
    stream = given(*AWAKE).when(asks("m1", "read"))
    stream.then(ModelAnswered, ToolRequested, ToolAuthorised, ToolStarted).owes("t1")
    [run] = stream.owed
    assert isinstance(run, RunTool)
    assert (run.key, run.attempt, run.input, run.effect) == ("sess_1:t1", 1, {"n": 0}, "read")


def test_a_call_starts_with_the_digest_of_its_arguments_as_they_are_recorded() -> None:
    stream = given(*AWAKE).when(asks("m1", CallCheck(name="read", effect="read")))
    assert stream.events[-1] == ToolStarted(tool="t1", attempt=1, arguments=arguments_digest({"n": 0}))


def test_the_digest_that_a_log_has_of_arguments_before_they_were_masked_stays() -> None:
    stream = given(*AWAKE).when(asks("m1", CallCheck(name="read", effect="read", arguments="sha256:raw")))
    assert stream.events[-1] == ToolStarted(tool="t1", attempt=1, arguments="sha256:raw")


def test_the_model_is_called_again_when_every_call_is_settled_and_not_before() -> None:
    stream = given(*AWAKE, asks("m1", "read", "unsafe")).owes("t1", "t2")
    stream.when(settles("t2")).then(ToolSettled).owes("t1")
    stream.when(settles("t1")).then(ToolSettled, ModelCalled).owes("m2")


def test_a_bad_call_is_answered_with_its_problem_and_never_started() -> None:
    stream = given(*AWAKE).when(asks("m1", CallCheck(name="nope", problem="There is no tool named nope.")))
    stream.then(ModelAnswered, ToolRequested, ToolSettled, ModelCalled).owes("m2")
    assert stream.events[2].outcome == "error" and stream.events[2].output == "There is no tool named nope."


def test_a_bad_call_beside_a_good_one_does_not_hold_it_up_nor_hurry_the_model() -> None:
    stream = given(*AWAKE).when(asks("m1", CallCheck(name="nope", problem="no"), "read"))
    stream.then(ModelAnswered, ToolRequested, ToolSettled, ToolRequested, ToolAuthorised, ToolStarted).owes("t2")


def test_calls_with_one_id_are_two_calls() -> None:
    answer = asks("m1", "read", "read")
    twice = [part.__class__(id="same", name="read", input={}) for part in answer.answer.parts]
    same = answer.__class__(
        call="m1", answer=answer.answer.__class__(parts=tuple(twice), stop_reason="tool_use"), checks=answer.checks
    )
    given(*AWAKE, same).owes("t1", "t2")


def test_an_answer_that_comes_twice_counts_once() -> None:
    given(*AWAKE, says("m1")).when(says("m1")).then_nothing()


def test_a_tool_that_ends_twice_ends_once() -> None:
    given(*AWAKE, asks("m1", "read"), settles("t1")).when(settles("t1", "error")).then_nothing()


def test_what_the_model_sees_is_named_by_version_and_by_digest() -> None:
    stream = given(*AWAKE)
    first = stream.owed[0]
    assert isinstance(first, CallModel) and first.upto == 5  # created, queued, registered, configured, started
    called = stream.when(asks("m1", "read")).when(settles("t1")).events[1]
    assert isinstance(called, ModelCalled) and called.upto == 12
    assert called.context.startswith("sha256:") and len(called.context) == 39


def test_equal_pasts_have_equal_context_digests_and_other_words_have_others() -> None:
    def context(text: str) -> str:
        return given(CREATE).when(send(text=text)).events[-1].context

    assert context("a") == context("a") != context("b")


def test_turns_and_calls_are_numbered_over_the_whole_session_and_steps_within_a_turn() -> None:
    stream = given(CREATE)
    for turn in (1, 2, 3):
        started = stream.when(send(f"job_{turn}")).events
        assert [event.turn for event in started if isinstance(event, TurnStarted)] == [turn]
        stream.when(asks(f"m{2 * turn - 1}", "read")).owes(f"t{turn}")
        stream.when(settles(f"t{turn}")).owes(f"m{2 * turn}")
        ended = stream.when(says(f"m{2 * turn}")).events[1]
        assert (ended.turn, ended.steps) == (turn, 2)


def test_the_settings_of_the_definition_go_with_every_call_and_are_recorded_where_they_are_not_the_usual() -> None:
    settings = ModelParams(max_tokens=99, temperature=0.5)
    definition = DEFINITION.__class__(image_version=1, model="scripted:echo", params=settings)
    stream = given(CREATE).when(send(waking=waking("agent_1", definition)))
    assert stream.events[-1].params is None and stream.owed[0].params == settings
    overrides = Overrides(params=ModelParams(max_tokens=1))
    stream.when(says("m1")).when(send("job_2", waking=waking("agent_2", definition), overrides=overrides))
    both = ModelParams(max_tokens=1, temperature=0.5)
    assert stream.events[-1].params == both == stream.owed[0].params


def test_the_digest_of_what_the_model_sees_changes_with_everything_it_sees_and_with_nothing_else() -> None:
    def context(*commands: Any) -> str:
        stream = given(CREATE, *commands)
        return next(event.context for event in reversed(stream.events) if isinstance(event, ModelCalled))

    turn = (send(), asks("m1", "read"), settles("t1"))
    first = context(*turn)
    other = DEFINITION.__class__(image_version=2, model="scripted:echo", max_steps=3, tools="sha256:0")
    different = [
        context(send(text="bye"), *turn[1:]),
        context(send(waking=waking("agent_of_job_1", other)), *turn[1:]),
        context(send(), asks("m1", "read", "read"), settles("t1"), settles("t2")),
        context(*turn[:2], settles("t1", output="something else")),
        context(send()),
    ]
    assert len({first, *different}) == 6
    assert first == context(*turn) == context(*turn[:2], settles("t9"), turn[2])


def test_a_job_may_override_the_model_and_its_settings_and_that_is_recorded() -> None:
    overrides = Overrides(model="scripted:hello", params=ModelParams(temperature=0.5))
    stream = given(CREATE).when(send(overrides=overrides))
    called, effect = stream.events[-1], stream.owed[0]
    assert called.model == effect.model == "scripted:hello"
    assert called.params == effect.params == ModelParams(temperature=0.5)
    stream.when(says("m1")).when(send("job_2"))
    assert stream.events[-1].model == DEFINITION.model and stream.events[-1].params is None


def test_a_changed_definition_is_recorded_once_and_used_from_the_next_call() -> None:
    changed = DEFINITION.__class__(image_version=2, model="scripted:hello", tools="sha256:0")
    stream = given(*AWAKE, says("m1")).when(send("job_2", waking=waking("x", changed)))
    assert stream.events[1] == AgentConfigured(definition=changed)
    assert stream.events[-1].model == "scripted:hello" and stream.events[-1].image_version == 2
    stream.when(says("m2")).when(send("job_3", waking=waking("y", changed)))
    assert not any(isinstance(event, AgentConfigured) for event in stream.events)


# -- ends of an answer --


@pytest.mark.parametrize("stop_reason", ["end_turn", "stop_sequence", "max_tokens", "refusal", "something_new"])
def test_an_answer_without_calls_completes_the_turn_and_says_why_it_stopped(stop_reason: str) -> None:
    completed = given(*AWAKE).when(says("m1", stop_reason=stop_reason)).events[1]
    assert isinstance(completed, TurnCompleted)
    assert (completed.reason, completed.stop_reason) == ("completed", stop_reason)


def test_a_paused_turn_goes_on() -> None:
    given(*AWAKE).when(says("m1", stop_reason="pause_turn")).then(ModelAnswered, ModelCalled).owes("m2")


def test_a_conversation_too_long_to_read_fails_the_job_by_name() -> None:
    stream = given(*AWAKE).when(says("m1", stop_reason="context_exceeded"))
    assert isinstance(stream.events[-1], JobFailed) and stream.events[-1].failure.code == "context_exceeded"


def test_calls_of_a_refusal_are_not_run() -> None:
    stream = given(*AWAKE).when(asks("m1", "unsafe", stop_reason="refusal"))
    stream.then(ModelAnswered, ToolRequested, ToolSettled, TurnCompleted, JobSucceeded).owes()
    assert stream.events[2].outcome == "skipped"


def test_a_turn_is_ended_at_its_limit_of_model_calls_and_the_last_calls_are_not_run() -> None:
    stream = given(*AWAKE, asks("m1", "read"), settles("t1"), asks("m2", "read"), settles("t2"))
    stream.when(asks("m3", "read")).then(ModelAnswered, ToolRequested, ToolSettled, TurnCompleted, JobFailed).owes()
    assert stream.events[-1].failure.code == "max_steps"


# -- failures --


def test_a_failure_with_a_wait_is_tried_again_after_it() -> None:
    stream = given(*AWAKE).when(fails("m1", retry_in_ms=500)).then(ModelFailed, ModelCalled).owes("m1")
    [effect] = stream.owed
    assert isinstance(effect, CallModel) and effect.attempt == 2
    assert effect.not_before == stream.at + 500_000 and effect.upto == 5


def test_a_failure_that_is_heard_twice_fails_one_attempt() -> None:
    stream = given(*AWAKE, fails("m1", retry_in_ms=500, attempt=1))
    stream.when(fails("m1", retry_in_ms=500, attempt=1)).then_nothing()
    stream.when(fails("m1", retry_in_ms=500, attempt=2)).then(ModelFailed, ModelCalled)


def test_an_answer_with_more_calls_than_checks_is_refused_whole() -> None:
    answer = asks("m1", "read", "read")
    short = answer.__class__(call="m1", answer=answer.answer, checks=answer.checks[:1])
    given(*AWAKE).when(short).then_refused(BadInput, "2 calls").owes("m1")


def test_an_answer_with_very_many_calls_is_taken() -> None:
    given(*AWAKE).when(asks("m1", *["read"] * 400)).owes(*(f"t{n}" for n in range(1, 401)))


def test_a_failure_without_one_ends_the_job() -> None:
    stream = given(*AWAKE).when(fails("m1", "auth")).then(ModelFailed, TurnCompleted, JobFailed).owes()
    assert stream.events[-1].failure.code == "auth"


def test_an_interrupt_while_waiting_to_try_again_ends_the_turn() -> None:
    stream = given(*AWAKE, fails("m1", retry_in_ms=500), Interrupt()).owes("stop-m1")
    stream.when(fails("m1", "cancelled", retry_in_ms=9)).then(
        ModelFailed, TurnCompleted, stream_end := stream.events[-1]
    )
    assert stream_end.type == "job_cancelled"


# -- interrupts of tools --


def test_an_interrupt_stops_running_tools_and_each_is_settled_by_what_is_known_of_it() -> None:
    stream = given(*AWAKE, asks("m1", "read", "unsafe"), Interrupt()).owes("stop-t1", "stop-t2")
    stream.when(settles("t1", "error", "interrupted")).then(ToolSettled).owes("stop-t2")
    stream.when(settles("t2", "unknown", "interrupted"))
    assert [event.type for event in stream.events] == ["tool_settled", "turn_completed", "job_cancelled"]


def test_calls_of_an_answer_that_comes_after_the_interrupt_are_not_run() -> None:
    stream = given(*AWAKE, Interrupt()).when(asks("m1", "unsafe"))
    stream.then(ModelAnswered, ToolRequested, ToolSettled, TurnCompleted, stream.events[-1].__class__).owes()
    assert stream.events[2].outcome == "skipped"
