"""Questions to people: asked, answered once, expired by recorded time, taken back; and what waits for them."""

from __future__ import annotations

import random
from typing import Any
from unittest.mock import patch

import pytest

from reenact.actors import action
from reenact.actors.action import JOB_ACTIONS_MAX, PENDING_MAX, TIMEOUT_MAX_MS
from reenact.events.action import (
    ActionCancelled,
    ActionExpired,
    ActionRequired,
    ActionResolved,
    ActionTokenIssued,
    CancelAction,
    ExpireAction,
    ExpireActionAt,
    IssueToken,
    RequireAction,
    ResolveAction,
)
from reenact.events.agent import Interrupt
from reenact.events.errors import (
    ActionChanged,
    ActionOver,
    BadInput,
    BadResolution,
    ClockBehind,
    Closed,
    Full,
    NotAPerson,
    NotFound,
    ReenactError,
)
from reenact.events.session import (
    CloseSession,
    JobCancelled,
    JobResumed,
    JobStopping,
    JobSucceeded,
    JobWaiting,
    SessionClosed,
)
from tests.actors.words import CREATE, asks, says, send, settles
from tests.given import Given, given

NOW = 1_000_000
"""When everything in `given` happens, microseconds."""

RUNNING = (CREATE, send(), asks("m1", "read"))
YES = {"approved": True}


def require(kind: str = "confirm", **fields: Any) -> RequireAction:
    fields.setdefault("timeout_ms", 300_000)
    fields.setdefault("job_id", "job_1")
    return RequireAction(kind=kind, **fields)  # type: ignore[arg-type]


def resolve(action: str = "a1", resolution: dict[str, Any] = YES, **fields: Any) -> ResolveAction:
    fields.setdefault("at", NOW + 1)
    fields.setdefault("by", "ann")
    return ResolveAction(action=action, resolution=resolution, **fields)


# -- asking --


def test_a_job_that_asks_a_person_waits_and_its_question_has_an_end_in_time() -> None:
    stream = given(*RUNNING).when(require()).then(ActionRequired, JobWaiting).owes("t1", "expire-a1")
    [_, waiting] = stream.events
    assert (waiting.action, waiting.reason, waiting.tool) == ("a1", "confirm", "")
    expires = stream.owed[1]
    assert isinstance(expires, ExpireActionAt) and (expires.at, expires.asked_at) == (NOW + 300_000_000, NOW)


def test_the_same_question_asked_again_by_the_same_call_is_one_question() -> None:
    stream = given(*RUNNING, require(key="k1")).when(require(key="k1")).then_nothing()
    stream.when(resolve()).when(require(key="k1")).then_nothing()
    stream.when(require(key="k2")).then(ActionRequired, JobWaiting)


def test_a_question_for_a_job_that_does_not_run_is_refused() -> None:
    given(*RUNNING).when(require(job_id="job_9")).then_refused(BadInput, "does not run")
    given(*RUNNING, Interrupt()).when(require()).then_refused(BadInput, "does not run")
    given().when(require()).then_refused(NotFound)


@pytest.mark.parametrize("timeout_ms", [0, -1, TIMEOUT_MAX_MS + 1])
def test_a_question_without_a_sensible_end_in_time_is_refused(timeout_ms: int) -> None:
    given(*RUNNING).when(require(timeout_ms=timeout_ms)).then_refused(BadInput, "milliseconds")


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("choose", {}),
        ("choose", {"options": []}),
        ("choose", {"options": ["a", "a"]}),
        ("choose", {"options": ["a", 1]}),
        ("choose", {"options": "ab"}),
        ("input", {"max_length": -1}),
        ("input", {"min_length": 9, "max_length": 3}),
        ("input", {"max_length": True}),
        ("input", {"max_length": 10**9}),
        ("upload", {"max_files": 0}),
        ("apply_changes", {"changes": "all"}),
        ("riddle", {}),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(kind: str, payload: dict[str, Any]) -> None:
    given(*RUNNING).when(require(kind, payload=payload)).then_refused(BadInput)


def test_what_waits_is_bounded() -> None:
    stream = given(*RUNNING)
    for _ in range(PENDING_MAX):
        stream.when(require())
    stream.when(require()).then_refused(Full, str(PENDING_MAX))
    stream.when(resolve("a7")).when(require()).then(ActionRequired)


def test_so_is_what_one_job_asks() -> None:
    stream = given(*RUNNING)
    for number in range(JOB_ACTIONS_MAX):
        stream.when(require()).when(resolve(f"a{number + 1}"))
    stream.when(require()).then_refused(Full)


# -- answering --


def test_the_job_goes_on_when_the_last_question_is_answered_and_not_before() -> None:
    stream = given(*RUNNING, require(), require())
    stream.when(resolve("a1")).then(ActionResolved, JobWaiting).owes("t1", "expire-a2")
    assert stream.events[1].action == "a2"
    stream.when(resolve("a2")).then(ActionResolved, JobResumed).owes("t1")


def test_a_question_that_is_not_the_one_it_was_said_to_wait_for_does_not_let_it_go_on() -> None:
    given(*RUNNING, require(), require()).when(resolve("a2")).then(ActionResolved)


def test_a_doubt_and_a_question_are_both_waited_for() -> None:
    past = (CREATE, send(), asks("m1", "unsafe", "read"), require(), settles("t1", "unknown"))
    stream = given(*past).when(resolve("a1"))
    stream.then(ActionResolved, JobWaiting)
    assert stream.events[1].tool == "t1" and stream.events[1].action is None


def test_a_question_is_answered_once() -> None:
    given(*RUNNING, require(), resolve()).when(resolve(by="bob")).then_refused(ActionOver, "resolved, by ann")
    given(*RUNNING, require(), ExpireAction(action="a1")).when(resolve()).then_refused(ActionOver, "expired")
    given(*RUNNING, require(), CancelAction(action="a1", by="bob")).when(resolve()).then_refused(ActionOver, "by bob")


def test_a_question_that_never_was_cannot_be_answered() -> None:
    for never in ("a2", "a0", "", "a", "t1", "a99999999999999999999999", "a²"):
        given(*RUNNING, require()).when(resolve(never)).then_refused(NotFound)


def test_one_of_an_earlier_job_is_over() -> None:
    past = (*RUNNING, require(), settles("t1"), says("m2"))
    stream = given(*past)
    assert next(event for event in stream.events if isinstance(event, ActionCancelled)).reason == "the job is over"
    stream.when(resolve()).then_refused(ActionOver)


def test_an_answer_that_comes_too_late_is_recorded_as_expired_and_decides_nothing() -> None:
    stream = given(*RUNNING, require()).when(resolve(at=NOW + 300_000_000))
    stream.then(ActionExpired, JobResumed)
    assert (stream.events[0].at, stream.events[0].by) == (NOW + 300_000_000, "ann")
    given(*RUNNING, require()).when(resolve(at=NOW + 299_999_999)).then(ActionResolved, JobResumed)


def test_an_answer_from_before_the_question_is_refused_and_the_question_stays() -> None:
    stream = given(*RUNNING, require()).when(resolve(at=NOW - 1)).then_refused(ClockBehind)
    stream.when(resolve(at=NOW)).then(ActionResolved, JobResumed)


@pytest.mark.parametrize("by", ["agent:agent_1", "tool:refund", "agent:", "agent:ann"])
def test_agents_and_tools_decide_nothing(by: str) -> None:
    given(*RUNNING, require()).when(resolve(by=by)).then_refused(NotAPerson)
    given(*RUNNING, require()).when(resolve(resolution={"approved": False}, by=by)).then_refused(NotAPerson)


GOOD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("confirm", {}, {"approved": True}),
    ("confirm", {}, {"approved": False, "comment": "LGTM"}),
    ("choose", {"options": ["a", "b"]}, {"choice": "b"}),
    ("choose", {"options": ["a", "b"], "multiple": True}, {"choices": ["b", "a"]}),
    ("input", {}, {"text": ""}),
    ("input", {"min_length": 2, "max_length": 3}, {"text": "abc"}),
    ("upload", {}, {"files": [{"name": "a.txt", "data": "aGk="}]}),
    ("reauth", {}, {"authenticated": True}),
    ("apply_changes", {"changes": ["x", "y"]}, {"approved": True, "changes": [1]}),
    ("apply_changes", {}, {"approved": False}),
    ("approval", {}, {"approved": True}),
    ("custom", {"any": "thing"}, {"what": ["ever", 1]}),
]

BAD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("confirm", {}, {}),
    ("confirm", {}, {"approved": "yes"}),
    ("confirm", {}, {"approved": 1}),
    ("confirm", {}, {"approved": True, "extra": 1}),
    ("confirm", {}, {"approved": True, "comment": 3}),
    ("confirm", {}, {"approved": True, "comment": "x" * 10_001}),
    ("confirm", {}, {"approved": True, "always": "exact"}),
    ("approval", {}, {"approved": True, "arguments": {}}),
    ("choose", {"options": ["a", "b"]}, {"choice": "c"}),
    ("choose", {"options": ["a", "b"]}, {"choice": ["a"]}),
    ("choose", {"options": ["a", "b"]}, {"choices": ["a"]}),
    ("choose", {"options": ["a", "b"]}, {"choice": "a", "choices": ["b"]}),
    ("choose", {"options": ["a", "b"], "multiple": True}, {"choices": ["a", "a"]}),
    ("choose", {"options": ["a", "b"], "multiple": True}, {"choices": ["a", "c"]}),
    ("choose", {"options": ["a", "b"], "multiple": True}, {"choice": "a"}),
    ("choose", {"options": ["a", "b"], "multiple": True}, {"choices": []}),
    ("input", {"min_length": 2}, {"text": "a"}),
    ("input", {"max_length": 2}, {"text": "abc"}),
    ("input", {}, {"text": None}),
    ("upload", {}, {"files": []}),
    ("upload", {}, {"files": [{"name": "a.txt"}]}),
    ("upload", {}, {"files": [{"data": "aGk="}]}),
    ("upload", {"max_files": 1}, {"files": [{"name": "a", "url": "u"}] * 2}),
    ("reauth", {}, {"authenticated": True, "password": "hunter2"}),
    ("reauth", {"secret": "db"}, {"authenticated": True, "secret": "other"}),
    ("reauth", {"secret": "db"}, {"authenticated": False, "secret": "db"}),
    ("apply_changes", {"changes": ["x"]}, {"approved": True, "changes": [1]}),
    ("apply_changes", {"changes": ["x"]}, {"approved": True, "changes": [0, 0]}),
    ("apply_changes", {"changes": ["x"]}, {"approved": False, "changes": [0]}),
    ("apply_changes", {"changes": ["x"]}, {"approved": True, "changes": [False]}),
    ("custom", {}, {"half of a character": "\ud800"}),
]


@pytest.mark.parametrize(("kind", "payload", "resolution"), GOOD)
def test_an_answer_that_fits_is_taken(kind: str, payload: dict[str, Any], resolution: dict[str, Any]) -> None:
    stream = given(*RUNNING, require(kind, payload=payload)).when(resolve(resolution=resolution))
    stream.then(ActionResolved, JobResumed)


@pytest.mark.parametrize(("kind", "payload", "resolution"), BAD)
def test_one_that_does_not_is_refused_by_name(kind: str, payload: dict[str, Any], resolution: dict[str, Any]) -> None:
    stream = given(*RUNNING, require(kind, payload=payload)).when(resolve(resolution=resolution))
    stream.then_refused(BadResolution).owes("t1", "expire-a1")


def test_whoever_answers_with_a_digest_was_shown_one() -> None:
    stream = given(*RUNNING, require())
    stream.when(resolve(digest="sha256:0")).then_refused(ActionChanged)
    stream.when(resolve()).then(ActionResolved, JobResumed)


# -- tokens --


def test_a_token_resolves_its_action_once_and_the_newest_is_the_only_one() -> None:
    stream = given(*RUNNING, require(token="sha256:1"))
    stream.when(resolve(token="sha256:2")).then_refused(NotFound, "for this token")
    stream.when(IssueToken(action="a1", token="sha256:2")).then(ActionTokenIssued)
    stream.when(resolve(token="sha256:1")).then_refused(NotFound, "for this token")
    stream.when(resolve(token="sha256:2")).then(ActionResolved, JobResumed)
    stream.when(resolve(token="sha256:2")).then_refused(NotFound, "for this token")


def test_a_token_of_another_action_or_of_none_opens_nothing() -> None:
    stream = given(*RUNNING, require(token="sha256:1"), require())
    stream.when(resolve("a2", token="sha256:1")).then_refused(NotFound, "for this token")
    stream.when(resolve("a9", token="sha256:1")).then_refused(NotFound, "for this token")
    stream.when(resolve("a2", token="")).then_refused(NotFound, "for this token")


# -- the ends of jobs and sessions --


def test_interrupting_the_job_takes_its_questions_back() -> None:
    stream = given(*RUNNING, require(), require()).when(Interrupt()).then(JobStopping, ActionCancelled, ActionCancelled)
    stream.owes("stop-t1").when(resolve()).then_refused(ActionOver)


def test_cancelling_a_question_cancels_the_job_only_where_that_is_asked_for() -> None:
    given(*RUNNING, require()).when(CancelAction(action="a1", by="ann")).then(ActionCancelled, JobResumed)
    stream = given(*RUNNING, require()).when(CancelAction(action="a1", by="ann", cancel_job=True))
    stream.then(ActionCancelled, JobStopping).owes("stop-t1")
    stream.when(settles("t1", "error"))
    assert isinstance(stream.events[-1], JobCancelled)


def test_cancelling_twice_is_already_so() -> None:
    cancel = CancelAction(action="a1", by="ann")
    given(*RUNNING, require(), cancel).when(cancel).then_nothing()
    given(*RUNNING, require(), resolve()).when(cancel).then_nothing()


def test_a_question_of_the_session_outlives_jobs_and_ends_with_the_session() -> None:
    stream = given(*RUNNING, require(job_id=None), settles("t1"), says("m2"))
    assert isinstance(stream.events[-1], JobSucceeded)
    stream.owes("expire-a1").when(CloseSession())
    assert [type(event) for event in stream.events[:1]] == [SessionClosed]
    assert any(isinstance(event, ActionCancelled) for event in stream.events)
    stream.owes()


def test_of_a_closed_session_nobody_is_asked_anything() -> None:
    given(CREATE, CloseSession()).when(require(job_id=None)).then_refused(Closed)


def test_the_job_of_a_question_of_the_session_cannot_be_cancelled_with_it() -> None:
    cancel = CancelAction(action="a1", by="ann", cancel_job=True)
    given(*RUNNING, require(job_id=None)).when(cancel).then_refused(BadInput)


# -- races --


def races(count: int, seed: int) -> list[int]:
    """How many commands won in each of `count` races of answers, expiry, taking back and the end of the job."""
    chance, wins = random.Random(seed), []
    for _ in range(count):
        stream = given(*RUNNING, require())
        runners = [
            *(resolve(resolution={"approved": chance.random() < 0.5}, by=f"p{n}") for n in range(chance.randint(2, 5))),
            *(resolve(at=NOW + 300_000_000, by="late") for _ in range(chance.randint(0, 2))),
            *(ExpireAction(action="a1") for _ in range(chance.randint(0, 1))),
            *(CancelAction(action="a1", by="c") for _ in range(chance.randint(0, 1))),
            *(Interrupt() for _ in range(chance.randint(0, 1))),
        ]
        chance.shuffle(runners)
        wins.append(sum(ends(stream, runner) for runner in runners))
    return wins


def ends(stream: Given, command: Any) -> int:
    stream.when(command)
    assert stream.error is None or isinstance(stream.error, ReenactError)
    return sum(isinstance(event, ActionResolved | ActionExpired | ActionCancelled) for event in stream.events)


def test_of_all_who_end_a_question_exactly_one_does() -> None:
    assert set(races(500, seed=1)) == {1}


def test_a_build_that_forgets_who_was_first_is_found() -> None:
    with patch.object(action, "_end", lambda state, *args, **how: state):
        assert set(races(50, seed=1)) != {1}


@pytest.mark.long
def test_so_it_is_in_ten_thousand_races() -> None:
    assert set(races(10_000, seed=2)) == {1}
