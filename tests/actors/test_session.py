"""The lane of a session: what is accepted, what runs, how it ends."""

from msgspec.structs import replace

from reenact.events.agent import (
    AgentConfigured,
    AgentRegistered,
    AgentUnregistered,
    Interrupt,
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    StopAgent,
    ToolSettled,
    TurnCompleted,
    TurnStarted,
    WakeAgent,
)
from reenact.events.errors import BadInput, Closed, Conflict, NotFound
from reenact.events.session import (
    CancelJob,
    CloseSession,
    CreateSession,
    ExpireJob,
    JobCancelled,
    JobFailed,
    JobQueued,
    JobStarted,
    JobStopping,
    JobSucceeded,
    JobTimedOut,
    SessionClosed,
    SessionCreated,
)
from tests.actors.words import CREATE, DEFINITION, asks, fails, says, send, settles, waking
from tests.given import given


def test_a_session_is_created_once() -> None:
    given().when(CREATE).then(SessionCreated).when(CREATE).then_nothing()


def test_a_session_cannot_be_created_for_two_images() -> None:
    other = CreateSession(session_id="sess_1", image_id="img_2", container_id="acme", created_at=1)
    given(CREATE).when(other).then_refused(Conflict)


def test_nothing_can_be_sent_to_a_session_that_is_not_there() -> None:
    given().when(send()).then_refused(NotFound)


def test_a_message_to_a_sleeping_image_wakes_an_agent_in_the_same_append() -> None:
    given(CREATE).when(send()).then(
        JobQueued, AgentRegistered, AgentConfigured, JobStarted, TurnStarted, ModelCalled
    ).owes("m1")


def test_a_message_to_an_awake_agent_only_starts_a_job() -> None:
    given(CREATE, send(), says("m1")).when(send("job_2")).then(JobQueued, JobStarted, TurnStarted, ModelCalled)


def test_two_wakes_make_one_agent() -> None:
    stream = given(CREATE, send())
    stream.when(WakeAgent(waking=waking("agent_2"))).then_nothing()
    stream.when(send("job_2")).then(JobQueued)
    assert stream.states[1].agent_id == "agent_of_job_1"


def test_no_image_but_its_own_sends_to_a_session_or_wakes_an_agent_in_it() -> None:
    foreign = replace(waking("agent_2"), image_id="img_2")
    for stream in (given(CREATE), given(CREATE, send(), says("m1"))):
        stream.when(send("job_2", waking=foreign)).then_refused(BadInput)
        stream.when(WakeAgent(waking=foreign)).then_refused(BadInput)


def test_nobody_wakes_in_a_session_that_is_not_there_or_closed() -> None:
    given().when(WakeAgent(waking=waking())).then_refused(NotFound)
    given(CREATE, CloseSession()).when(WakeAgent(waking=waking())).then_refused(Closed)


def test_a_message_that_comes_twice_is_one_job_as_long_as_it_lives() -> None:
    stream = given(CREATE, send(), send("job_2"))
    stream.when(send()).then_nothing().when(send("job_2")).then_nothing()
    other = DEFINITION.__class__(image_version=2, model="scripted:hello")
    stream.when(send("job_2", waking=waking("x", other))).then_nothing()


def test_a_job_taken_out_of_the_queue_leaves_nothing_behind() -> None:
    for gone in (CancelJob(job_id="job_2"), ExpireJob(job_id="job_2")):
        assert given(CREATE, send(), send("job_2"), gone).states[1].queued == ()


def test_a_second_message_waits_for_the_first() -> None:
    given(CREATE, send(), send("job_2")).when(says("m1")).then(
        ModelAnswered, TurnCompleted, JobSucceeded, JobStarted(job_id="job_2"), TurnStarted, ModelCalled
    ).owes("m2")


def test_a_higher_priority_goes_first_and_equals_keep_their_order() -> None:
    stream = given(CREATE, send(), send("a"), send("b", priority=1), send("c", priority=1))
    order = []
    for call in ("m1", "m2", "m3", "m4"):
        started = [event.job_id for event in stream.when(says(call)).events if isinstance(event, JobStarted)]
        order += started
    assert order == ["b", "c", "a"]


def test_a_failed_turn_fails_its_job_and_the_next_one_starts() -> None:
    given(CREATE, send(), send("job_2")).when(fails("m1", "auth")).then(
        ModelFailed, TurnCompleted, JobFailed, JobStarted(job_id="job_2"), TurnStarted, ModelCalled
    )


def test_a_queued_job_can_be_taken_out() -> None:
    given(CREATE, send(), send("job_2")).when(CancelJob(job_id="job_2")).then(
        JobCancelled(job_id="job_2", reason="user_cancel")
    ).when(says("m1")).then(ModelAnswered, TurnCompleted, JobSucceeded)


def test_a_queued_job_is_cancelled_whatever_the_reason_is_called() -> None:
    given(CREATE, send(), send("job_2")).when(CancelJob(job_id="job_2", reason="timeout")).then(
        JobCancelled(job_id="job_2", reason="timeout")
    )


def test_a_stop_without_a_word_of_reason_is_a_stop() -> None:
    stream = given(CREATE, send(timeout_ms=500)).when(CancelJob(job_id="job_1", reason="")).then(JobStopping)
    stream.owes("stop-m1").when(CancelJob(job_id="job_1")).then_nothing()
    stream.when(fails("m1", "cancelled")).then(ModelFailed, TurnCompleted, JobCancelled(job_id="job_1", reason=""))


def test_a_session_with_a_long_queue_can_be_closed() -> None:
    stream = given(CREATE, send(), *(send(f"queued_{n}") for n in range(1_100)))
    closed = stream.when(CloseSession()).events
    assert sum(isinstance(event, JobCancelled) for event in closed) == 1_100


def test_cancelling_the_running_job_asks_it_to_stop_and_stops_the_call() -> None:
    stream = given(CREATE, send()).when(CancelJob(job_id="job_1")).then(JobStopping).owes("stop-m1")
    stream.when(CancelJob(job_id="job_1")).then_nothing()
    stream.when(fails("m1", "cancelled", text="so f")).then(ModelFailed, TurnCompleted, JobCancelled).owes()


def test_cancelling_what_is_over_changes_nothing() -> None:
    given(CREATE, send(), says("m1")).when(CancelJob(job_id="job_1")).then_nothing()


def test_an_interrupt_ends_the_turn_as_interrupted_and_never_as_completed() -> None:
    stream = given(CREATE, send(), Interrupt())
    completed = stream.when(fails("m1", "cancelled", text="so f")).events[1]
    assert isinstance(completed, TurnCompleted) and completed.reason == "interrupted"
    assert stream.events[-1] == JobCancelled(job_id="job_1", reason="user_interrupt")


def test_an_interrupt_of_an_idle_agent_changes_nothing() -> None:
    given(CREATE, send(), says("m1")).when(Interrupt()).then_nothing()


def test_an_answer_that_comes_with_the_interrupt_is_kept_and_the_turn_still_ends_interrupted() -> None:
    stream = given(CREATE, send(), Interrupt()).when(says("m1", "whole answer"))
    stream.then(ModelAnswered, TurnCompleted, JobCancelled)
    assert stream.events[1].reason == "interrupted"


def test_the_queue_goes_on_after_an_interrupt() -> None:
    given(CREATE, send(), send("job_2"), Interrupt()).when(fails("m1", "cancelled")).then(
        ModelFailed, TurnCompleted, JobCancelled, JobStarted(job_id="job_2"), TurnStarted, ModelCalled
    )


def test_a_job_with_a_time_limit_owes_its_deadline_until_it_ends() -> None:
    stream = given(CREATE, send(timeout_ms=500)).owes("deadline-job_1", "m1")
    assert stream.owed[0].at == stream.at + 500_000
    stream.when(says("m1")).owes()


def test_of_many_deadlines_the_next_one_is_owed() -> None:
    stream = given(CREATE, send(timeout_ms=900), send("b", timeout_ms=300), send("c", timeout_ms=600))
    stream.owes("deadline-b", "m1").when(ExpireJob(job_id="b")).owes("deadline-c", "m1")
    stream.when(ExpireJob(job_id="c")).owes("deadline-job_1", "m1")


def test_a_job_whose_time_is_up_stops_and_ends_as_timed_out() -> None:
    given(CREATE, send(timeout_ms=500), ExpireJob(job_id="job_1")).when(fails("m1", "cancelled")).then(
        ModelFailed, TurnCompleted, JobTimedOut
    )


def test_time_can_run_out_while_a_job_is_queued() -> None:
    given(CREATE, send(), send("job_2", timeout_ms=5)).when(ExpireJob(job_id="job_2")).then(JobTimedOut)


def test_time_that_runs_out_after_the_end_changes_nothing() -> None:
    given(CREATE, send(timeout_ms=5), says("m1")).when(ExpireJob(job_id="job_1")).then_nothing()


def test_stopping_the_agent_interrupts_its_turn_and_what_is_queued_waits_for_the_next_agent() -> None:
    stream = given(CREATE, send(), send("job_2")).when(StopAgent()).then(JobStopping, AgentUnregistered)
    stream.when(fails("m1", "cancelled")).then(ModelFailed, TurnCompleted, JobCancelled).owes()
    stream.when(WakeAgent(waking=waking("agent_2"))).then(
        AgentRegistered, AgentConfigured, JobStarted(job_id="job_2"), TurnStarted, ModelCalled
    )


def test_what_an_agent_left_running_is_settled_by_the_session() -> None:
    stream = given(CREATE, send(), asks("m1", "read"), StopAgent()).owes("stop-t1")
    stream.when(settles("t1", "error", "interrupted")).then(ToolSettled, TurnCompleted, JobCancelled).owes()


def test_closing_a_session_ends_everything_and_accepts_nothing_more() -> None:
    stream = given(CREATE, send(), send("job_2")).when(CloseSession())
    stream.then(SessionClosed, JobCancelled, JobStopping, AgentUnregistered)
    stream.when(fails("m1", "cancelled")).then(ModelFailed, TurnCompleted, JobCancelled).owes()
    stream.when(send("job_3")).then_refused(Closed)
    stream.when(CloseSession()).then_nothing()
