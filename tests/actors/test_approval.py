"""A call that a person must approve: asked for, launched, started or refused; and what rules and crashes make of it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from reenact.actors import consent
from reenact.events.action import (
    ActionCancelled,
    ActionExpired,
    ActionRequired,
    ActionResolved,
    CancelAction,
    ExpireAction,
    RevokeGrant,
)
from reenact.events.agent import (
    Interrupt,
    LaunchTool,
    ModelAnswered,
    ModelCalled,
    ProveTool,
    RecoverEffect,
    ResolveTool,
    RunTool,
    ToolAuthorised,
    ToolChecked,
    ToolDoubted,
    ToolRelaunched,
    ToolRequested,
    ToolSettled,
    ToolStarted,
    ToolUnproved,
    TurnCompleted,
)
from reenact.events.errors import ActionOver, BadResolution, NotAPerson
from reenact.events.policy import ApplyPolicy, ModelDenied
from reenact.events.session import JobCancelled, JobFailed, JobResumed, JobStopping, JobWaiting
from reenact.events.tool import arguments_digest
from tests.actors.approvals import APPROVED, ASK, ASK_MODEL, ASKED, DAY, NOW, PLACE, check, resolve, start, under
from tests.actors.words import CREATE, DEFINITION, asks, says, send, settles, waking
from tests.given import given

# -- asking, and going on --


def test_a_call_that_needs_approval_is_asked_for_and_the_job_waits_while_nothing_runs() -> None:
    stream = given(CREATE, send()).when(asks("m1", check()))
    stream.then(ModelAnswered, ToolRequested, ActionRequired, JobWaiting).owes("expire-a1")
    asked, waiting = stream.events[2:]
    assert (asked.kind, asked.tool, asked.job_id, asked.reason, asked.place) == (
        "approval",
        "t1",
        "job_1",
        "tool",
        PLACE,
    )
    assert asked.digest.startswith("sha256:") and len(asked.digest) == 7 + 64
    assert (waiting.tool, waiting.action, waiting.reason) == ("t1", "a1", "approval")


def test_one_question_too_many_is_denied_and_replayed_as_denied() -> None:
    stream = given(CREATE, send()).when(asks("m1", *[check()] * (consent.APPROVALS_MAX + 2)))
    assert sum(isinstance(event, ActionRequired) for event in stream.events) == consent.APPROVALS_MAX
    denied = [event for event in stream.events if isinstance(event, ToolSettled)]
    assert [(event.outcome, event.output) for event in denied] == [("denied", consent.CROWDED)] * 2


def test_the_other_calls_of_the_answer_go_on() -> None:
    stream = given(CREATE, send()).when(asks("m1", check(), "read")).owes("t2", "expire-a1")
    stream.when(settles("t2")).then(ToolSettled).owes("expire-a1")


def test_approved_it_is_authorised_looked_at_again_and_then_started() -> None:
    stream = given(*ASKED).when(resolve()).then(ActionResolved, JobResumed, ToolAuthorised).owes("launch-t1")
    assert stream.events[2].rule == "approval a1"
    [launch] = stream.owed
    assert isinstance(launch, LaunchTool) and (launch.name, launch.input, launch.attempt) == ("refund", {"n": 0}, 0)
    stream.when(start()).then(ToolChecked, ToolStarted).owes("t1")
    [run] = stream.owed
    assert isinstance(run, RunTool) and (run.input, run.attempt) == ({"n": 0}, 1)
    assert stream.events[1].arguments == arguments_digest({"n": 0})
    stream.when(start()).then_nothing()


def test_two_that_wait_are_asked_about_one_by_one() -> None:
    stream = given(CREATE, send(), asks("m1", check(), check())).owes("expire-a1")
    stream.when(resolve("a2")).then(ActionResolved, ToolAuthorised).owes("launch-t2", "expire-a1")
    stream.when(resolve("a1")).then(ActionResolved, JobResumed, ToolAuthorised).owes("launch-t1", "launch-t2")


def test_denied_it_is_settled_and_the_model_is_told_what_the_person_said() -> None:
    stream = given(*ASKED).when(resolve(approved=False, comment="not today"))
    stream.then(ActionResolved, JobResumed, ToolSettled, ModelCalled).owes("m2")
    settled = stream.events[2]
    assert (settled.outcome, settled.error_type) == ("denied", "Denied")
    assert "not allow" in settled.output and "not today" in settled.output


def test_expired_it_is_denied() -> None:
    stream = given(*ASKED).when(ExpireAction(action="a1")).then(ActionExpired, JobResumed, ToolSettled, ModelCalled)
    assert (stream.events[2].outcome, stream.events[2].error_type) == ("denied", "ApprovalExpired")


def test_so_it_is_by_an_answer_that_comes_too_late_whatever_it_says() -> None:
    stream = given(*ASKED).when(resolve(at=NOW + DAY)).then(ActionExpired, JobResumed, ToolSettled, ModelCalled)
    stream.when(resolve(at=NOW + 1)).then_refused(ActionOver)


def test_taken_back_it_is_denied_and_the_job_goes_on() -> None:
    stream = given(*ASKED).when(CancelAction(action="a1", by="ann"))
    stream.then(ActionCancelled, JobResumed, ToolSettled, ModelCalled)
    stream = given(*ASKED).when(CancelAction(action="a1", by="ann", cancel_job=True))
    assert [type(event) for event in stream.events[:3]] == [ActionCancelled, JobStopping, ToolSettled]
    assert stream.events[2].outcome == "skipped"
    stream.owes()


@pytest.mark.parametrize("past", [ASKED, APPROVED])
def test_interrupted_nothing_is_started_and_the_question_is_over(past: Any) -> None:
    stream = given(*past).when(Interrupt()).owes()
    stream.when(start()).then_nothing()
    stream.when(resolve()).then_refused(ActionOver)


def test_an_image_may_ask_before_every_call() -> None:
    strict = replace(DEFINITION, approval_required=True, approval_timeout_s=10.0)
    stream = given(CREATE, send(waking=waking("agent_1", strict))).when(asks("m1", "read"))
    stream.then(ModelAnswered, ToolRequested, ActionRequired, JobWaiting)
    assert (stream.events[2].reason, stream.events[2].timeout_ms) == ("agent", 10_000)


def test_an_agent_approves_nothing_of_its_own() -> None:
    given(*ASKED).when(resolve(by="agent:agent_of_job_1")).then_refused(NotAPerson).owes("expire-a1")


def test_flags_that_the_model_forges_change_nothing() -> None:
    answer = asks("m1", check())
    forged = [
        replace(part, input={"approved": True, "approval": "never", "always": "exact"}) for part in answer.answer.parts
    ]
    stream = given(CREATE, send(text='{"approved": true}'))
    stream.when(replace(answer, answer=replace(answer.answer, parts=tuple(forged))))
    stream.then(ModelAnswered, ToolRequested, ActionRequired, JobWaiting)


# -- other arguments --


def test_a_person_may_change_the_arguments_and_those_are_what_runs() -> None:
    stream = given(*ASKED).when(resolve(arguments={"n": 5})).then(ActionResolved, JobResumed, ToolAuthorised)
    assert stream.owed[0].input == {"n": 5}
    stream.when(start()).then(ToolChecked, ToolStarted)
    assert stream.owed[0].input == {"n": 5} and stream.events[1].arguments == arguments_digest({"n": 5})


def test_what_a_person_changed_is_a_part_of_what_the_model_sees() -> None:
    def context(*commands: Any) -> str:
        stream = given(*ASKED, *commands, start()).when(settles("t1"))
        return next(event.context for event in stream.events if isinstance(event, ModelCalled))

    assert context(resolve()) == context(resolve(comment="fine"))
    assert len({context(resolve()), context(resolve(arguments={"n": 5})), context(resolve(arguments={"n": 6}))}) == 3


def test_what_is_denied_has_no_other_arguments() -> None:
    given(*ASKED).when(resolve(approved=False, arguments={})).then_refused(BadResolution)
    given(*ASKED).when(resolve(approved=False, always="exact")).then_refused(BadResolution)


# -- what rules ask for --


def test_a_rule_may_ask_for_a_person_and_what_it_asked_is_in_the_log() -> None:
    ruled = (CREATE, send(waking=waking("agent_1", under(ASK))))
    stream = given(*ruled).when(asks("m1", check(approval="never"), "read")).owes("t2", "expire-a1")
    asked = next(event for event in stream.events if isinstance(event, ActionRequired))
    assert asked.reason == "policy production/pay" and asked.policy.startswith("sha256:")
    stream.when(resolve()).when(start()).then(ToolChecked, ToolStarted)


@pytest.mark.parametrize(
    "rules", [(), (replace(ASK, decision="deny"),), (replace(ASK, decision="allow"),), (ASK, ASK_MODEL)]
)
def test_other_rules_by_then_are_not_those_it_was_approved_under(rules: Any) -> None:
    ruled = (CREATE, send(waking=waking("agent_1", under(ASK))), asks("m1", check()), resolve())
    changed = ApplyPolicy(policy=under(*rules).policy)
    stream = given(*ruled, changed).when(start())
    assert not any(isinstance(event, ToolStarted) for event in stream.events)
    assert "the policy has changed" in stream.events[1].output


def test_what_a_rule_denies_nobody_is_asked_about() -> None:
    ruled = (CREATE, send(waking=waking("agent_1", under(replace(ASK, decision="deny")))))
    stream = given(*ruled).when(asks("m1", check()))
    assert not any(isinstance(event, ActionRequired) for event in stream.events)


def test_a_model_that_a_rule_gates_is_called_when_a_person_allows_it_for_the_rest_of_the_job() -> None:
    stream = given(CREATE).when(send(waking=waking("agent_1", under(ASK_MODEL)))).owes("expire-a1")
    asked, waiting = stream.events[-2:]
    assert (asked.kind, asked.payload, asked.tool) == ("approval", {"model": "scripted:echo"}, None)
    assert isinstance(waiting, JobWaiting) and waiting.action == "a1"
    stream.when(resolve(always="exact")).then_refused(BadResolution)
    stream.when(resolve()).then(ActionResolved, JobResumed, ModelCalled).owes("m1")
    stream.when(asks("m1", "read")).when(settles("t1")).owes("m2")
    stream.when(says("m2")).when(send("job_2", waking=None)).owes("expire-a2")


@pytest.mark.parametrize(
    "end",
    [resolve(approved=False), ExpireAction(action="a1"), resolve(at=NOW + DAY), CancelAction(action="a1", by="b")],
)
def test_and_not_where_they_do_not(end: Any) -> None:
    stream = given(CREATE, send(waking=waking("agent_1", under(ASK_MODEL)))).when(end).owes()
    assert [type(event) for event in stream.events[1:]] == [JobResumed, ModelDenied, TurnCompleted, JobFailed]


def test_interrupted_before_anybody_allowed_it_the_turn_is_over() -> None:
    stream = given(CREATE, send(waking=waking("agent_1", under(ASK_MODEL)))).when(Interrupt()).owes()
    assert any(isinstance(event, JobCancelled) for event in stream.events)
    assert sum(isinstance(event, TurnCompleted) for event in stream.events) == 1
    both = CancelAction(action="a1", by="ann", cancel_job=True)
    stream = given(CREATE, send(waking=waking("agent_1", under(ASK_MODEL)))).when(both).owes()
    assert sum(isinstance(event, TurnCompleted) for event in stream.events) == 1


# -- crashes --


def test_what_waits_and_what_is_authorised_is_so_after_a_crash() -> None:
    given(*ASKED).after_a_crash().owes("expire-a1").when(resolve()).then(ActionResolved, JobResumed, ToolAuthorised)
    given(*APPROVED).after_a_crash().owes("launch-t1").when(start()).then(ToolChecked, ToolStarted)


def test_an_approved_call_that_may_repeat_is_looked_at_again_before_it_does() -> None:
    past = (CREATE, send(), asks("m1", check("idempotent")), resolve(), start(effect="idempotent"))
    stream = given(*past).after_a_crash().when(RecoverEffect(effect="t1", attempt=1))
    stream.then(ToolRelaunched).owes("launch-t1")
    stream.when(start(effect="idempotent", attempt=0)).then_nothing()
    stream.when(start(effect="idempotent", attempt=1)).then(ToolChecked, ToolStarted).owes("t1")
    assert stream.events[1].attempt == 2


def test_one_that_is_another_tool_by_then_is_not_begun_again_and_nobody_says_that_it_never_was() -> None:
    past = (CREATE, send(), asks("m1", check("idempotent")), resolve(), start(effect="idempotent"))
    stream = given(*past, RecoverEffect(effect="t1", attempt=1))
    stream.when(start(effect="idempotent", attempt=1, version="v2")).then(ToolChecked, ToolSettled, ModelCalled)
    assert stream.events[1].outcome == "unknown" and "not begun again" in stream.events[1].output


def test_one_that_is_interrupted_before_it_begins_again_is_not_said_to_have_been_left_out() -> None:
    past = (CREATE, send(), asks("m1", check("idempotent")), resolve(), start(effect="idempotent"))
    stream = given(*past, RecoverEffect(effect="t1", attempt=1)).when(Interrupt())
    assert [event.outcome for event in stream.events if isinstance(event, ToolSettled)] == ["unknown"]


def test_so_it_is_with_one_that_ran_on_leave_unless_the_leave_was_taken_back() -> None:
    first = (CREATE, send(), asks("m1", check("idempotent")), resolve(always="exact"), start(effect="idempotent"))
    past = (*first, settles("t1"), asks("m2", check("idempotent")), RecoverEffect(effect="t2", attempt=1))
    again = start("t2", effect="idempotent", attempt=1)
    given(*past).owes("launch-t2").when(again).then(ToolChecked, ToolStarted)
    given(*past).when(start("t2", effect="idempotent", attempt=1, version="v2")).then(
        ToolChecked, ToolSettled, ModelCalled
    )
    stream = given(*past, RevokeGrant(action="a1", by="ann")).when(again).then(ToolChecked, ToolSettled, ModelCalled)
    assert stream.events[1].outcome == "unknown" and "taken back" in stream.events[1].output


def test_an_approved_call_in_doubt_is_never_begun_again_by_a_guess() -> None:
    stream = given(*APPROVED, start()).when(RecoverEffect(effect="t1", attempt=1))
    stream.then(ToolDoubted, ToolUnproved, JobWaiting).owes()
    stream.when(ResolveTool(tool="t1", outcome="retry")).then(ToolRelaunched, JobResumed).owes("launch-t1")


def test_nor_one_of_which_the_world_says_that_it_did_not_happen_before_it_was_looked_at() -> None:
    past = (CREATE, send(), asks("m1", check("probeable")), resolve(), start(effect="probeable"))
    stream = given(*past, RecoverEffect(effect="t1", attempt=1)).when(ProveTool(tool="t1", happened=False))
    stream.then(ToolRelaunched).owes("launch-t1")
