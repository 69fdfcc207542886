"""A call whose runner died: begun again, put to the world, or to a person; and what the person may say."""

from typing import Any

import pytest
from msgspec.structs import replace

from reenact.events.agent import (
    CallModel,
    Interrupt,
    ModelCalled,
    ProveTool,
    RecoverEffect,
    ResolveTool,
    RunTool,
    StartTool,
    ToolChecked,
    ToolDoubted,
    ToolRelaunched,
    ToolSettled,
    ToolStarted,
    ToolUnproved,
)
from reenact.events.errors import BadInput, NotFound, PolicyDenied
from reenact.events.policy import ApplyPolicy, ConstraintPolicy, Policy, ToolDenied
from reenact.events.session import JobResumed, JobWaiting
from tests.actors.words import CREATE, DEFINITION, asks, send, settles, waking
from tests.given import Given, given

AWAKE = (CREATE, send())


# -- the morning after a crash --


def found(effect: str, **fields: Any) -> StartTool:
    """What the edge finds of a call that began before."""
    same: dict[str, Any] = {"tool": "t1", "attempt": 1, "at": 2_000_000, "effect": effect, "timeout_s": 60.0}
    return StartTool(**{**same, **fields})


def started(effect: str) -> Given:
    return given(*AWAKE, asks("m1", effect)).after_a_crash()


def test_what_is_owed_is_the_same_after_a_crash() -> None:
    stream = given(*AWAKE, asks("m1", "read", "unsafe"))
    before = stream.owed
    assert stream.after_a_crash().owed == before


@pytest.mark.parametrize("effect", ["read", "idempotent"])
def test_a_repeatable_call_in_doubt_runs_again_with_the_same_key(effect: str) -> None:
    stream = started(effect).when(RecoverEffect(effect="t1", attempt=1)).then(ToolRelaunched).owes("launch-t1")
    stream.when(found(effect)).then(ToolChecked, ToolStarted)
    [run] = stream.owed
    assert isinstance(run, RunTool) and (run.key, run.attempt, run.epoch) == ("sess_1:t1", 2, 2)


def test_an_unsafe_call_in_doubt_is_never_started_again_by_itself_and_waits_for_a_person() -> None:
    stream = started("unsafe").when(RecoverEffect(effect="t1", attempt=1))
    stream.then(ToolDoubted, ToolUnproved, JobWaiting).owes()
    stream.when(RecoverEffect(effect="t1", attempt=1)).then_nothing()


@pytest.mark.parametrize("effect", ["read", "idempotent", "probeable", "unsafe"])
def test_what_was_in_doubt_before_the_call_began_again_or_was_to_stop_is_so_no_more(effect: str) -> None:
    stream = started(effect).when(RecoverEffect(effect="t1", attempt=2)).then_nothing()
    stream.when(Interrupt()).when(RecoverEffect(effect="t1", attempt=1)).then_nothing()
    again = started("idempotent").when(RecoverEffect(effect="t1", attempt=1)).then(ToolRelaunched)
    again.when(RecoverEffect(effect="t1", attempt=1)).then_nothing()


def test_a_probeable_call_in_doubt_is_put_to_the_world() -> None:
    started("probeable").when(RecoverEffect(effect="t1", attempt=1)).then(ToolDoubted).owes("probe-t1")


def test_a_call_that_the_world_proves_is_settled_with_the_proof() -> None:
    stream = started("probeable").when(RecoverEffect(effect="t1", attempt=1))
    stream.when(ProveTool(tool="t1", happened=True, output="booked")).then(
        ToolSettled(tool="t1", outcome="ok", output="booked", proof="probe"), ModelCalled
    )


def test_a_call_that_the_world_denies_is_run() -> None:
    stream = started("probeable").when(RecoverEffect(effect="t1", attempt=1))
    stream.when(ProveTool(tool="t1", happened=False)).then(ToolRelaunched).owes("launch-t1")
    stream.when(found("probeable")).then(ToolChecked, ToolStarted).owes("t1")


@pytest.mark.parametrize("first", [True, False, None])
@pytest.mark.parametrize("second", [True, False, None])
def test_the_world_is_believed_once(first: bool | None, second: bool | None) -> None:
    stream = started("probeable").when(RecoverEffect(effect="t1", attempt=1))
    stream.when(ProveTool(tool="t1", happened=first)).when(ProveTool(tool="t1", happened=second)).then_nothing()


def test_a_call_that_the_world_cannot_tell_of_waits_for_a_person() -> None:
    stream = started("probeable").when(RecoverEffect(effect="t1", attempt=1))
    stream.when(ProveTool(tool="t1", happened=None)).then(ToolUnproved, JobWaiting).owes()


def test_no_model_is_called_again_for_a_turn_that_is_to_stop() -> None:
    stream = given(*AWAKE, Interrupt()).after_a_crash()
    stream.when(RecoverEffect(effect="m1", attempt=1)).then_nothing().owes("stop-m1")


def test_a_model_call_in_doubt_is_made_again_as_another_attempt() -> None:
    stream = given(*AWAKE).after_a_crash().when(RecoverEffect(effect="m1", attempt=1)).then(ModelCalled)
    [effect] = stream.owed
    assert isinstance(effect, CallModel) and (effect.attempt, effect.epoch, effect.upto) == (2, 2, 5)
    stream.when(RecoverEffect(effect="m1", attempt=1)).then_nothing()


def test_a_crash_in_the_middle_of_an_interrupt_still_owes_the_stop() -> None:
    given(*AWAKE, asks("m1", "unsafe"), Interrupt()).after_a_crash().owes("stop-t1")


def test_a_run_cut_off_while_its_runner_lives_is_not_probed_too_early_but_asked_of_a_person() -> None:
    for effect in ("unsafe", "probeable"):
        stream = given(*AWAKE, asks("m1", effect)).when(settles("t1", "unknown", "timed out"))
        stream.then(ToolDoubted, ToolUnproved, JobWaiting).owes()


# -- what holds by the time it begins again --

BY_NOW = {
    "a person must allow it": (ApplyPolicy(policy=(), approval_required=True), {}, "a person must allow it by now"),
    "its tool asks a person": (None, {"approval": "ask"}, "a person must allow it by now"),
    "its tool is gone": (None, {"problem": "there is no tool named 'x' here any more"}, "no tool named 'x'"),
    "its tool is unsafe": (None, {"effect": "unsafe"}, "declared otherwise"),
}


@pytest.mark.parametrize("effect", ["read", "idempotent"])
@pytest.mark.parametrize("now", BY_NOW)
def test_a_call_that_could_not_begin_now_is_not_begun_again(now: str, effect: str) -> None:
    """Given a call that began without a person, when it could not by now, then it ends as one that a rule stops."""
    change, fields, words = BY_NOW[now]
    stream = started(effect)
    if change is not None:
        stream.when(change)
    stream.when(RecoverEffect(effect="t1", attempt=1)).then(ToolRelaunched)
    stream.when(found(**{"effect": effect, **fields})).then(ToolChecked, ToolSettled, ModelCalled)
    settled = stream.events[1]
    assert isinstance(settled, ToolSettled) and "not begun again" in settled.output and words in settled.output
    assert settled.outcome == ("error" if effect == "read" else "unknown")


def test_nor_is_one_for_which_the_limit_of_its_turn_leaves_no_call() -> None:
    few = Policy(name="house", version="3", rules=(ConstraintPolicy(max_tool_calls_per_turn=1, name="few"),))
    stream = given(*AWAKE, asks("m1", "idempotent", "idempotent"), ApplyPolicy(policy=(few,))).after_a_crash()
    stream.when(RecoverEffect(effect="t2", attempt=1)).then(ToolDenied, ToolSettled)
    assert (stream.events[0].attempt, stream.events[1].outcome) == (2, "unknown")
    stream.when(RecoverEffect(effect="t1", attempt=1)).then(ToolRelaunched)
    none = replace(few, rules=(ConstraintPolicy(max_tool_calls_per_turn=0, name="none"),))
    stream.when(ApplyPolicy(policy=(none,))).when(found("idempotent")).then(
        ToolChecked, ToolDenied, ToolSettled, ModelCalled
    )


def test_a_person_who_says_retry_is_told_what_stands_in_its_way() -> None:
    asked = doubted().when(ApplyPolicy(policy=(), approval_required=True))
    asked.when(ResolveTool(tool="t1", outcome="retry")).then_refused(PolicyDenied, "needs an approval")
    definition = replace(DEFINITION, approval_required=False)
    none = Policy(name="house", version="3", max_tool_calls_per_turn=0)
    stream = given(CREATE, send(waking=waking("agent_1", definition)), asks("m1", "unsafe")).after_a_crash()
    stream.when(RecoverEffect(effect="t1", attempt=1)).when(ApplyPolicy(policy=(none,)))
    stream.when(ResolveTool(tool="t1", outcome="retry")).then_refused(PolicyDenied, "at most 0 calls")


def test_one_that_is_stopped_while_it_is_looked_at_is_not_said_never_to_have_begun() -> None:
    stream = started("idempotent").when(RecoverEffect(effect="t1", attempt=1)).when(Interrupt())
    assert [event.outcome for event in stream.events if isinstance(event, ToolSettled)] == ["unknown"]


# -- what a person says --


def doubted() -> Given:
    return started("unsafe").when(RecoverEffect(effect="t1", attempt=1))


@pytest.mark.parametrize("outcome", ["ok", "error"])
def test_a_person_settles_a_call_in_doubt_and_the_job_goes_on(outcome: str) -> None:
    doubted().when(ResolveTool(tool="t1", outcome=outcome, output="I looked.")).then(
        ToolSettled(tool="t1", outcome=outcome, output="I looked.", proof="person"), JobResumed, ModelCalled
    )


def test_a_person_may_have_it_tried_again() -> None:
    stream = doubted().when(ResolveTool(tool="t1", outcome="retry")).then(ToolRelaunched, JobResumed).owes("launch-t1")
    stream.when(found("unsafe")).then(ToolChecked, ToolStarted).owes("t1")


def test_a_person_is_told_when_there_is_nothing_to_settle() -> None:
    doubted().when(ResolveTool(tool="t1", outcome="perhaps")).then_refused(BadInput, "not as 'perhaps'")
    doubted().when(ResolveTool(tool="t7", outcome="ok")).then_refused(NotFound, "t7")
    given(*AWAKE, asks("m1", "read")).when(ResolveTool(tool="t1", outcome="ok")).then_refused(BadInput, "started")
    done = given(*AWAKE, asks("m1", "read"), settles("t1"))
    done.when(ResolveTool(tool="t1", outcome="ok")).then_nothing()


def test_two_doubts_make_the_job_wait_once_and_resume_when_both_are_settled() -> None:
    stream = given(*AWAKE, asks("m1", "unsafe", "unsafe")).after_a_crash()
    stream.when(RecoverEffect(effect="t1", attempt=1)).then(ToolDoubted, ToolUnproved, JobWaiting)
    stream.when(RecoverEffect(effect="t2", attempt=1)).then(ToolDoubted, ToolUnproved)
    stream.when(ResolveTool(tool="t2", outcome="ok")).then(ToolSettled)
    stream.when(ResolveTool(tool="t1", outcome="ok")).then(ToolSettled, JobResumed, ModelCalled)


def test_a_job_says_which_doubt_it_waits_for_next() -> None:
    stream = given(*AWAKE, asks("m1", "unsafe", "unsafe")).after_a_crash()
    stream.when(RecoverEffect(effect="t1", attempt=1)).when(RecoverEffect(effect="t2", attempt=1))
    stream.when(ResolveTool(tool="t1", outcome="ok")).then(ToolSettled, JobWaiting)
    assert stream.events[-1].tool == "t2"
    stream.when(ResolveTool(tool="t2", outcome="ok")).then(ToolSettled, JobResumed, ModelCalled)


def test_interrupting_a_job_that_waits_for_a_person_ends_it_with_the_doubt_recorded() -> None:
    stream = doubted().when(Interrupt())
    assert [event.type for event in stream.events] == [
        "job_stopping",
        "tool_settled",
        "turn_completed",
        "job_cancelled",
    ]
    assert stream.events[1].outcome == "unknown"
